-- One record as {fields, last lines, number of lines, output}. ARGV: prefix, ttl, id, lines wanted.
local record = call('HGETALL', P .. 'task:' .. ID)
if #record == 0 then return {} end
local key, wanted = P .. 'logs:' .. ID, tonumber(ARGV[4])
local lines = call('LRANGE', key, -wanted, -1)
local total = #lines < wanted and #lines or call('LLEN', key)
return {record, lines, total, call('GET', P .. 'output:' .. ID)}

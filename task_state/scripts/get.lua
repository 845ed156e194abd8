-- One record as {fields, last lines, number of lines, output}. ARGV: prefix, ttl, id, lines wanted.
local record = call('HGETALL', P .. 'task:' .. ID)
if #record == 0 then return {} end
local logs = P .. 'logs:' .. ID
return {record, call('LRANGE', logs, -tonumber(ARGV[4]), -1), call('LLEN', logs),
  call('GET', P .. 'output:' .. ID)}

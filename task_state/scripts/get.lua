-- One record as {its line, last lines, number of lines, end of the output}. ARGV: prefix, ttl, id, lines
-- wanted, bytes of output wanted.
local record = lines_of({ID})[1]
if not record then return {} end
local key, wanted = P .. 'logs:' .. ID, tonumber(ARGV[4])
local lines = call('LRANGE', key, -wanted, -1)
local total = #lines < wanted and #lines or call('LLEN', key)
local size, written = tonumber(ARGV[5]), P .. 'output:' .. ID
local text = call('GETRANGE', written, -size, -1)
if #text == size and call('STRLEN', written) > size then
  text = '[earlier output is left out here]\n' .. text
end
return {record, lines, total, text}

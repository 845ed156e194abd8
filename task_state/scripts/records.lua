-- Records by id, without log lines: {id, line, number of log lines} each. Read-only. ARGV: prefix, ttl, ids...
local found, ids = {}, {unpack(ARGV, 3)}
if #ids == 0 then return found end
for i, line in ipairs(lines_of(ids)) do
  if line then found[#found + 1] = {ids[i], line, call('LLEN', P .. 'logs:' .. ids[i])} end
end
return found

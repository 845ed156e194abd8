-- Records by id, without log lines. Read-only. ARGV: prefix, ttl, ids...
local found = {}
for i = 3, #ARGV do
  local record = call('HGETALL', P .. 'task:' .. ARGV[i])
  if #record > 0 then found[#found + 1] = {ARGV[i], record, call('LLEN', P .. 'logs:' .. ARGV[i])} end
end
return found

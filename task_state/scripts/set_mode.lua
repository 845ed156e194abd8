-- Pauses, drains or resumes a service, or '*': all. What was admitted to a service that is paused now, and
-- has not begun, waits in its lane again. ARGV: prefix, ttl, service, mode, reason.
local modes, mode = P .. 'modes', ARGV[4]
if mode == 'ACTIVE' then
  call('HDEL', modes, ID)
  return 1
end
local before, since = string.match(call('HGET', modes, ID) or '', '^(%S+) (%d+)')
call('HSET', modes, ID, mode .. ' ' .. (before == mode and since or US) .. ' ' .. ARGV[5])
if mode ~= 'PAUSED' then return 1 end
for _, id in ipairs(call('ZRANGE', P .. 'queued', 0, -1)) do
  local r = load(id)
  if r and (ID == '*' or r.service == ID) then
    dequeue(r)
    line_up(r, 0)
  end
end
return 1

-- Starts slots that waited for tasks that have ended. ARGV: prefix, ttl, '', how many schedules to look at.
-- Answers the fires.
local fires = {}
for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'schedule-waiting', '-inf', MS, 'LIMIT', 0, ARGV[4])) do
  local s = load_schedule(name)
  if s and s.waits > 0 then
    release_buffered(s)
    for _, fire in ipairs(s.fires) do fires[#fires + 1] = fire end
  else
    call('ZREM', P .. 'schedule-waiting', name)
  end
end
return fires

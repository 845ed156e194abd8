-- Pauses or resumes a schedule. ARGV: prefix, ttl, name, '1' to pause, reason, its revision ('' = whichever).
-- A resumed one begins anew: its slots count from now on, failures too. What waits may start then.
local s = load_schedule(ID)
if not s then return {'!', 'MISSING'} end
if ARGV[6] ~= '' and s.revision ~= tonumber(ARGV[6]) then return {'!', 'CONFLICT'} end
if ARGV[4] == '1' then
  if not s.paused or (ARGV[5] ~= '' and call('HGET', s.key, 'reason') ~= ARGV[5]) then
    pause_schedule(ID, ARGV[5])
    if s.paused then call('HSET', s.key, 'paused_at', s.paused) end
  end
elseif s.paused then
  call('HDEL', s.key, 'paused_at', 'reason', 'failures')
  call('HSET', s.key, 'cursor', clock[1])
  call('ZADD', P .. 'schedule-waiting', 'XX', 0, ID)
  revise_schedule(ID)
end
return show_schedule(ID)

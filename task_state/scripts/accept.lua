-- The scheduler takes a task: from now on the rescuer watches over its queue entry.
-- ARGV: prefix, ttl, id, ms until its first check. Answers {state, epoch}.
local r = load(ID)
if not r then return {'!', 'MISSING'} end
if not r.managed then return {'!', 'UNMANAGED'} end
if r.status == 'PENDING' or r.status == 'DISPATCHING' then
  call('ZADD', P .. 'queued', MS + tonumber(ARGV[4]), ID)
end
return {r.status, r.epoch}

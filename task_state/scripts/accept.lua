-- The scheduler takes a task: from now on it waits for a slot in its user's lane, unless it was admitted
-- or put off before. ARGV: prefix, ttl, id. Answers {state, epoch}.
local r = load(ID)
if not r then return {'!', 'MISSING'} end
if not r.managed then return {'!', 'UNMANAGED'} end
if r.status == 'PENDING' or r.status == 'DISPATCHING' then
  call('SREM', P .. 'arriving:' .. r.service, ID)
  if not (call('ZSCORE', P .. 'queued', ID) or call('ZSCORE', P .. 'delayed', ID)) then enlane(r) end
end
return {r.status, r.epoch}

-- Starts attempt `epoch`, if it is the record's next and the record waits. ARGV: prefix, ttl, id, epoch,
-- worker, lease ms, '1' if it must have been admitted, number of lines, lines..., field, value, ...
-- Answers the record, or nothing.
local epoch, n = tonumber(ARGV[4]), tonumber(ARGV[8])
local r = load(ID)
if not r or not r.managed then return {} end
if r.epoch == epoch and leased(r) and r.worker == ARGV[5] then
  return call('HGETALL', r.key) -- the same worker again: the first answer was lost on its way
end
if r.epoch + 1 ~= epoch then return {} end
if r.status ~= 'PENDING' and r.status ~= 'DISPATCHING' then return {} end
-- A call from before a pause may still come; its task waits in its lane again.
if ARGV[7] == '1' and not call('ZSCORE', P .. 'queued', ID) then return {} end
r.epoch, r.lease, r.worker = epoch, MS + tonumber(ARGV[6]), ARGV[5]
fields(r, 9 + n)
call('HSET', r.key, 'epoch', epoch, 'lease', r.lease, 'worker', ARGV[5])
call('HINCRBY', r.key, 'attempts', 1)
call('HDEL', r.key, 'progress', 'error')
call('ZADD', P .. 'leases', r.lease, ID)
call('HSET', P .. 'busy:' .. r.service, ID, r.user)
tally('held', r.worker, 1)
append(r, 9, 8 + n)
move(r, 'RUNNING')
return call('HGETALL', r.key)

-- Starts attempt `epoch`, if it is the record's next and the record waits. ARGV: prefix, ttl, id, epoch,
-- worker, lease ms, number of lines, lines..., field, value, ... Answers the record, or nothing.
local epoch, n = tonumber(ARGV[4]), tonumber(ARGV[7])
local r = load(ID)
if not r or not r.managed then return {} end
if r.epoch == epoch and leased(r) and call('HGET', r.key, 'worker') == ARGV[5] then
  return call('HGETALL', r.key) -- the same worker again: the first answer was lost on its way
end
if r.epoch + 1 ~= epoch then return {} end
if r.status ~= 'PENDING' and r.status ~= 'DISPATCHING' then return {} end
r.epoch, r.lease = epoch, MS + tonumber(ARGV[6])
fields(r, 8 + n)
call('HSET', r.key, 'epoch', epoch, 'lease', r.lease, 'worker', ARGV[5])
call('HINCRBY', r.key, 'attempts', 1)
call('HDEL', r.key, 'progress', 'error')
call('ZADD', P .. 'leases', r.lease, ID)
call('ZREM', P .. 'queued', ID)
append(r, 8, 7 + n)
move(r, 'RUNNING')
return call('HGETALL', r.key)

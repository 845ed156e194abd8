-- Starts attempt `epoch`, if it is the record's next and the record waits. ARGV: prefix, ttl, id, epoch,
-- worker, lease ms, µs of the latest change that the caller saw if the task must have been admitted (''
-- = it need not), number of lines, lines..., field, value, ...
-- Answers the record's line, or nothing.
local epoch, n = tonumber(ARGV[4]), tonumber(ARGV[8])
local r = load(ID)
if not r or not r.managed then return '' end
if r.epoch == epoch and leased(r) and r.worker == ARGV[5] then
  return lines_of({ID})[1] -- the same worker again: the first answer was lost on its way
end
if r.epoch + 1 ~= epoch then return '' end
if r.status ~= 'PENDING' and r.status ~= 'DISPATCHING' then return '' end
-- A call from before a pause may still come, its task waits in its lane again; or one from a backup.
if ARGV[7] ~= '' then
  compare_with(tonumber(ARGV[7]))
  if not call('ZSCORE', P .. 'queued', ID) then return '' end
end
r.epoch, r.lease, r.worker = epoch, MS + tonumber(ARGV[6]), ARGV[5]
fields(r, 9 + n)
call('HSET', r.key, 'epoch', epoch, 'lease', r.lease, 'worker', ARGV[5])
call('HINCRBY', r.key, 'attempts', 1)
call('HDEL', r.key, 'progress', 'error')
call('ZADD', P .. 'leases', r.lease, ID)
tally('held', r.worker, 1)
append(r, 9, 8 + n)
move(r, 'RUNNING')
return lines_of({ID})[1]

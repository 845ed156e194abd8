-- Keeps an attempt's lease, and may note its progress. ARGV: prefix, ttl, id, epoch, lease ms, progress
-- ('' = none), '1' if work was done since the last one, checkpoint ('' = none), series ('' = none). Answers the
-- state, which carries the cancel flag, and what was adjusted ('' = nothing).
local r = load(ID)
if not r then return {'!', 'FENCED', 'MISSING'} end
if r.epoch ~= tonumber(ARGV[4]) then return fenced(r) end
if r.lease == 0 then return fenced(r) end -- rescued, given back or ended
local lease = MS + tonumber(ARGV[5])
call('ZADD', P .. 'leases', lease, ID)
call('HSET', r.key, 'lease', lease)
if ARGV[6] ~= '' then
  set_cut(r.key, 'progress', ARGV[6])
  change(r, 'progress')
end
if ARGV[8] ~= '' then call('HSET', r.key, 'checkpoint', ARGV[8]) end
if ARGV[7] == '1' or ARGV[8] ~= '' then call('HDEL', r.key, 'deaths') end
if ARGV[9] ~= '' then call('SET', P .. 'series:' .. ID, ARGV[9]) end
return {r.status, call('HGET', r.key, 'adjust') or ''}

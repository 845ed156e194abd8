-- Waiting tasks whose queue entry is due for a look; each one's next look is put off.
-- ARGV: prefix, ttl, '', limit, ms to put off. Answers {id, epoch} pairs.
local waiting = {}
local ids = call('ZRANGEBYSCORE', P .. 'queued', '-inf', MS, 'LIMIT', 0, tonumber(ARGV[4]))
for _, id in ipairs(ids) do
  local r = load(id)
  if r and (r.status == 'PENDING' or r.status == 'DISPATCHING') then
    call('ZADD', P .. 'queued', MS + tonumber(ARGV[5]), id)
    waiting[#waiting + 1] = {id, r.epoch}
  else
    call('ZREM', P .. 'queued', id)
  end
end
return waiting

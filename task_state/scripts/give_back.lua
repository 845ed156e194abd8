-- An attempt gives its task back: 'retry' counts it, 'release' does not. ARGV: prefix, ttl, id, epoch,
-- mode, ms to wait, number of lines, lines..., field, value, ... Repeating it changes nothing.
local n = tonumber(ARGV[7])
local r = load(ID)
if not r then return {'!', 'FENCED', 'MISSING'} end
if r.epoch ~= tonumber(ARGV[4]) then return fenced(r) end
if r.lease == 0 then return r.status end -- given back, rescued or ended before
append(r, 8, 7 + n)
fields(r, 8 + n)
if ARGV[5] == 'release' then call('HINCRBY', r.key, 'attempts', -1) end
drop_lease(r)
if r.status == 'CANCEL_REQUESTED' then
  move(r, 'CANCELLED')
else
  call('ZADD', P .. 'queued', MS + tonumber(ARGV[6]), ID)
  move(r, 'PENDING')
end
return r.status

-- An attempt gives its task back: 'retry' counts it, 'release' does not; with ms to wait, a release is of
-- a task that waits for something, and will be of the same one again. ARGV: prefix, ttl, id, epoch,
-- mode, ms to wait, number of lines, lines..., ('note', outcome, reason,) field, value, ... Repeating it
-- changes nothing.
local n = tonumber(ARGV[7])
local fields_at = 8 + n
local r = load(ID)
if not r then return {'!', 'FENCED', 'MISSING'} end
if r.epoch ~= tonumber(ARGV[4]) then return fenced(r) end
if r.lease == 0 then return r.status end -- given back, rescued or ended before
append(r, 8, 7 + n)
if ARGV[fields_at] == 'note' then
  local again = ARGV[5] == 'release' and tonumber(ARGV[6]) > 0
  remember(r, ARGV[fields_at + 1], ARGV[fields_at + 2], again)
  fields_at = fields_at + 3
end
fields(r, fields_at)
if ARGV[5] == 'release' then call('HINCRBY', r.key, 'attempts', -1) end
drop_lease(r)
if r.status == 'CANCEL_REQUESTED' then
  move(r, 'CANCELLED')
else
  move(r, 'PENDING')
  line_up(r, tonumber(ARGV[6]))
end
return r.status

-- Moves a task to a state. ARGV: prefix, ttl, id, state, epoch ('' = none), output, number of lines,
-- lines..., ('note', outcome, reason,) field, value, ... Repeating an attempt's final write changes
-- nothing.
local to, epoch, n = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[7])
local fields_at = 8 + n
local r = load(ID)
if not r then return {'!', 'MISSING'} end
if epoch then
  if r.epoch ~= epoch then return fenced(r) end
  if r.status == to and terminal(to) then return {r.status, r.revision} end
end
if r.status ~= to then
  if not epoch and leased(r) and to ~= 'CANCEL_REQUESTED' then return {'!', 'LEASED'} end
  if not allowed(r.status, to) then return {'!', 'TRANSITION', r.status} end
end
append(r, 8, 7 + n)
output(r, ARGV[6])
if ARGV[fields_at] == 'note' then
  remember(r, ARGV[fields_at + 1], ARGV[fields_at + 2])
  fields_at = fields_at + 3
end
fields(r, fields_at)
if r.status ~= to then
  move(r, to)
else
  keep(r)
  if n > 0 then change(r, 'log') end
end
return {r.status, r.revision}

-- Adds log lines and nothing else: `write` can do it too, but this is what happens most, so it is short.
-- ARGV: prefix, ttl, id, lines...
local r = load(ID)
if not r then return {'!', 'MISSING'} end
append(r, 4, #ARGV)
keep(r)
change(r, 'log')
return 1

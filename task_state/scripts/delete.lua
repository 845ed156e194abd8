-- Removes a record from everywhere, whatever its state. ARGV: prefix, ttl, id.
local r = load(ID)
if not r then return 0 end
purge(r)
return 1

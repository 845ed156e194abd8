-- The state and the epoch of records, {'', 0} for one that is not there. Read-only. ARGV: prefix, ttl, ids...
local found = {}
for i = 3, #ARGV do
  local r = load(ARGV[i])
  found[i - 2] = r and {r.status, r.epoch} or {'', 0}
end
return found

-- Notes how far an unleased task is; like a log line it leaves the revision alone.
-- ARGV: prefix, ttl, id, progress.
local r = load(ID)
if not r then return {'!', 'MISSING'} end
if leased(r) then return {'!', 'LEASED'} end
thaw(r)
set_cut(r.key, 'progress', ARGV[4])
keep(r)
change(r, 'progress')
return 1

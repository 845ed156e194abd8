-- Events of the due set that are due; they hide for a while, so that a crash loses none.
-- ARGV: prefix, ttl, group, limit, ms to hide.
local key = P .. 'due:' .. ID
local members = call('ZRANGEBYSCORE', key, '-inf', MS, 'LIMIT', 0, tonumber(ARGV[4]))
for _, member in ipairs(members) do call('ZADD', key, MS + tonumber(ARGV[5]), member) end
return members

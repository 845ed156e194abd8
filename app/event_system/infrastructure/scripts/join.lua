-- Become, or go on being, a member. ARGV: 2 queue id, 3 its route as JSON, 4 consumer, 5 lease in ms,
-- 6 '1' when the queue ends with its member. Returns 1 when the queue was there already.
local q, route, consumer, lease = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local known = call('HGET', P .. 'routes', q)
if known ~= route then
  call('HSET', P .. 'routes', q, route)
  routes_changed()
end
local made = redis.pcall('XGROUP', 'CREATE', queue_key(q), GROUP, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
call('ZADD', members_key(q), MS + lease, consumer)
if ARGV[6] == '1' then call('ZADD', P .. 'mortal', MS + lease, q) end
return known and made.err and 1 or 0

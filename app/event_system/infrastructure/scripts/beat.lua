-- Say that a member lives, and forget members that are dead and left nothing. ARGV: 2 queue id,
-- 3 consumer, 4 lease in ms, 5 '1' when the queue ends with its member. Returns 0 when there is no such
-- queue (any more): join it again; 2 when the lease was over, so that others may have taken what it held.
local q, consumer, lease = ARGV[2], ARGV[3], tonumber(ARGV[4])
drop_ended()
if call('HEXISTS', P .. 'routes', q) == 0 or call('EXISTS', queue_key(q)) == 0 then return 0 end
local believed = tonumber(call('ZSCORE', members_key(q), consumer) or '0')
call('ZADD', members_key(q), MS + lease, consumer)
if ARGV[5] == '1' then call('ZADD', P .. 'mortal', MS + lease, q) end
for _, dead in ipairs(call('ZRANGEBYSCORE', members_key(q), '-inf', MS, 'LIMIT', 0, 20)) do
  if #call('XPENDING', queue_key(q), GROUP, '-', '+', 1, dead) == 0 then
    call('XGROUP', 'DELCONSUMER', queue_key(q), GROUP, dead)
    call('ZREM', members_key(q), dead)
  end
end
return believed < MS and 2 or 1

-- A member goes. ARGV: 2 queue id, 3 consumer, 4 '1' when the queue ends with it, then the ids of entries
-- that it read and gave to nobody. What it held is for the others, who are told by an entry of its own.
local q, consumer = ARGV[2], ARGV[3]
local key = queue_key(q)
if ARGV[4] == '1' then return drop_queue(q) end
if call('EXISTS', key) == 0 then return 0 end
for i = 5, #ARGV do
  if #call('XPENDING', key, GROUP, ARGV[i], ARGV[i], 1, consumer) == 1 then
    call('XCLAIM', key, GROUP, consumer, 0, ARGV[i], 'RETRYCOUNT', 0, 'JUSTID')
  end
end
if #call('XPENDING', key, GROUP, '-', '+', 1, consumer) == 0 then
  call('XGROUP', 'DELCONSUMER', key, GROUP, consumer)
  call('ZREM', members_key(q), consumer)
  return 1
end
call('ZADD', members_key(q), 0, consumer)
if call('ZCOUNT', members_key(q), MS, '+inf') > 0 then call('XADD', key, '*', 'w', '1') end
return 1

-- A member goes. ARGV: 2 queue id, 3 consumer, 4 '1' when the queue ends with it, then the ids of entries
-- that it handed out and that were not settled. What else it read counts as never delivered. The others,
-- if there are any, are told by an entry of its own that something was left.
local q, consumer = ARGV[2], ARGV[3]
local key = queue_key(q)
if ARGV[4] == '1' then return drop_queue(q) end
if call('EXISTS', key) == 0 then return 0 end
local handed = {}
for i = 5, #ARGV do handed[ARGV[i]] = true end
local left = call('XPENDING', key, GROUP, '-', '+', 10000, consumer)
for _, held in ipairs(left) do
  if not handed[held[1]] then
    call('XCLAIM', key, GROUP, consumer, 0, held[1], 'RETRYCOUNT', math.max(0, held[4] - 1), 'JUSTID')
  end
end
if #left == 0 then
  call('XGROUP', 'DELCONSUMER', key, GROUP, consumer)
  call('ZREM', members_key(q), consumer)
  return 1
end
call('ZADD', members_key(q), 0, consumer)
if call('ZCOUNT', members_key(q), MS, '+inf') > 0 then call('XADD', key, '*', 'w', '1') end
return 1

-- What the queues in ARGV[2] and on are like: for each {members, length, pending, dropped, dead}, or an
-- empty list when it is gone.
local answer = {}
for i = 2, #ARGV do
  local q = ARGV[i]
  local line = {}
  if call('EXISTS', queue_key(q)) == 1 then
    local counts = call('HMGET', counts_key(q), 'dropped', 'dead')
    line = {call('ZCOUNT', members_key(q), MS, '+inf'), call('XLEN', queue_key(q)),
      call('XPENDING', queue_key(q), GROUP)[1], tonumber(counts[1] or '0'), tonumber(counts[2] or '0')}
  end
  answer[#answer + 1] = line
end
return answer

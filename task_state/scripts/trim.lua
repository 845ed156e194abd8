-- Drops the outbox entries that every group is done with, and forgets consumers that left nothing and were
-- not heard of for a while. ARGV: prefix, ttl, ms of that while. Answers how many entries went.
local key = P .. 'outbox'
if call('EXISTS', key) == 0 then return 0 end
local lowest_ms, lowest_n

local function forget_idle(group)
  for _, flat in ipairs(call('XINFO', 'CONSUMERS', key, group)) do
    local consumer = {}
    for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
    if consumer.pending == 0 and consumer.idle >= tonumber(ID) then
      call('XGROUP', 'DELCONSUMER', key, group, consumer.name)
    end
  end
end

for _, flat in ipairs(call('XINFO', 'GROUPS', key)) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  forget_idle(group.name)
  local pending = call('XPENDING', key, group.name)
  local oldest = pending[1] > 0 and pending[2] or group['last-delivered-id']
  local ms, n = string.match(oldest, '^(%d+)-(%d+)$')
  ms, n = tonumber(ms), tonumber(n) + (pending[1] > 0 and 0 or 1)
  if not lowest_ms or ms < lowest_ms or (ms == lowest_ms and n < lowest_n) then
    lowest_ms, lowest_n = ms, n
  end
end
if not lowest_ms then return 0 end
return call('XTRIM', key, 'MINID', string.format('%.0f-%.0f', lowest_ms, lowest_n))

-- The place of a waiting task among those of its service, 1 for the next; 0 for one that does not wait or
-- is put off. Read-only. ARGV: prefix, ttl, id.
local MOST_USERS = 1000
local r = load(ID)
if not r or call('ZSCORE', P .. 'delayed', ID) then return 0 end
if call('ZSCORE', P .. 'queued', ID) then return 1 end
local key, ring = lane(r), P .. 'ring:' .. r.service
local rank = call('ZRANK', key, ID)
if not rank then -- not accepted yet: behind what is, and what came before it
  local before = 0
  for _, status in ipairs({'PENDING', 'DISPATCHING'}) do
    before = before + call('ZCOUNT', P .. 'c:' .. status .. ':' .. r.service, '-inf', '(' .. r.created)
  end
  return math.max(before, tonumber(call('HGET', P .. 'waiting', r.service) or 0)) + 1
end

-- Each other user has as many turns before mine as I have, and one more where theirs comes first.
local place, mine = rank + 1, call('ZRANK', ring, r.user)
if rank == 0 then return mine + 1 end
for i, user in ipairs(call('ZRANGE', ring, 0, MOST_USERS - 1)) do
  if user ~= r.user then
    local waiting = call('ZCARD', lane({service = r.service, user = user}))
    place = place + math.min(waiting, i <= mine and rank + 1 or rank)
  end
end
local users = call('ZCARD', ring)
if users > MOST_USERS then place = math.floor(place * users / MOST_USERS) end
return place

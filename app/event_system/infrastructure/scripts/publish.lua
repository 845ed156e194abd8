-- Publish events. ARGV: 2 the version of the routes that the publisher knows, 3 how many queues follow;
-- for each its id, limit and policy; then for each event its type, its JSON, how many queues get it,
-- and their numbers. Returns {'STALE'} when the routes have changed, and nothing is stored; else what
-- became of each event: 0 stored, or the number of the queue that is full and refuses. Then the ids of
-- queues that dropped something, each followed by how much.
local M = call('ZRANGEBYSCORE', P .. 'mortal', '-inf', MS, 'LIMIT', 0, 1)
if M[1] then drop_ended() end
if (call('GET', P .. 'version') or '0') ~= ARGV[2] then return {'STALE'} end

local keys, ids, limits, policies, room, lost = {}, {}, {}, {}, {}, {}
local queues = tonumber(ARGV[3])
local at = 4
for i = 1, queues do
  ids[i], limits[i], policies[i] = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  keys[i] = queue_key(ids[i])
  room[i] = limits[i] - call('XLEN', keys[i])
  lost[i] = 0
  at = at + 3
end

local function refusing(first, last)
  for i = first, last do
    local q = tonumber(ARGV[i])
    if room[q] <= 0 and policies[q] == 'error' then return q end
  end
  return 0
end

local results = {}
while ARGV[at] do
  local kind, json, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local first, last = at + 3, at + 2 + count
  local refused = refusing(first, last)
  if refused == 0 then
    for i = first, last do
      local q = tonumber(ARGV[i])
      if room[q] <= 0 and policies[q] == 'drop_newest' then
        lost[q] = lost[q] + 1
      else
        call('XADD', keys[q], '*', 't', kind, 'e', json)
        room[q] = room[q] - 1
      end
    end
  end
  results[#results + 1] = refused
  at = last + 1
end

local drops = {}
for q = 1, queues do
  if room[q] < 0 and policies[q] == 'drop_oldest' then
    lost[q] = call('XTRIM', keys[q], 'MAXLEN', '=', limits[q])
  end
  if lost[q] > 0 then
    drops[#drops + 1] = ids[q]
    drops[#drops + 1] = call('HINCRBY', counts_key(ids[q]), 'dropped', lost[q])
  end
end
return {'DONE', results, drops}

-- Publish events. ARGV: 2 the version of the routes that the publisher knows; 3 an id under which this is
-- done once within 4 ms, or '' for as often as it is called; 5 how many queues follow, for each its id,
-- limit and policy; how many kinds of events follow, for each its type, how many queues get it, and their
-- numbers; then for each event the number of its kind, and its JSON. Returns {'STALE'} when the routes
-- have changed, {'BEFORE'} when it was done under that id, and nothing is stored; else what became of each
-- event: 0 stored, or the number of the queue that is full and refuses. Then the ids of queues that
-- dropped something, each with how much that makes.
local ended = call('ZRANGEBYSCORE', P .. 'mortal', '-inf', MS, 'LIMIT', 0, 1)
if ended[1] then drop_ended() end
if (call('GET', P .. 'version') or '0') ~= ARGV[2] then return {'STALE'} end
if ARGV[3] ~= '' and call('EXISTS', P .. 'once:' .. ARGV[3]) == 1 then return {'BEFORE'} end

local keys, ids, limits, policies, room, lost = {}, {}, {}, {}, {}, {}
local queues = tonumber(ARGV[5])
local at = 6
for q = 1, queues do
  ids[q], limits[q], policies[q] = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  keys[q] = queue_key(ids[q])
  room[q] = limits[q] - call('XLEN', keys[q])
  lost[q] = 0
  at = at + 3
end

local types, targets = {}, {}
local kinds = tonumber(ARGV[at])
at = at + 1
for kind = 1, kinds do
  types[kind], targets[kind] = ARGV[at], {}
  local count = tonumber(ARGV[at + 1])
  for i = 1, count do targets[kind][i] = tonumber(ARGV[at + 1 + i]) end
  at = at + 2 + count
end

local function refusing(kind)
  for _, q in ipairs(targets[kind]) do
    if room[q] <= 0 and policies[q] == 'error' then return q end
  end
  return 0
end

local function store(kind, json)
  for _, q in ipairs(targets[kind]) do
    if room[q] <= 0 and policies[q] == 'drop_newest' then
      lost[q] = lost[q] + 1
    else
      call('XADD', keys[q], '*', 't', types[kind], 'e', json)
      room[q] = room[q] - 1
    end
  end
end

local results, stored = {}, true
for i = at, #ARGV, 2 do
  local kind = tonumber(ARGV[i])
  local refused = refusing(kind)
  if refused == 0 then store(kind, ARGV[i + 1]) end
  stored = stored and refused == 0
  results[#results + 1] = refused
end
if ARGV[3] ~= '' and stored then call('SET', P .. 'once:' .. ARGV[3], '', 'PX', ARGV[4]) end

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

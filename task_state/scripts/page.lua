-- One page of a listing, merged from one sorted set a state. Read-only: it runs on a replica too.
-- ARGV: prefix, ttl, scope ('', ':service' or ':service:user'), index ('c' or 'u'), 'asc' or 'desc', min,
-- max, cursor score ('' = from the start), cursor id, limit, budget, count ('1' = yes), filters as JSON,
-- states...  Filters that no index serves are checked record by record, `budget` records at most a call.
local scope, idx, desc = ARGV[3], ARGV[4], ARGV[5] == 'desc'
local min, max, cursor, after = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local limit, budget = tonumber(ARGV[10]), tonumber(ARGV[11])
local filter = cjson.decode(ARGV[13])
local filtered = next(filter) ~= nil
local BATCH = 25

-- Byte order, as sorted sets have it: Lua's own < follows the locale that the server was started in.
local function less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function before(score_a, id_a, score_b, id_b)
  if score_a ~= score_b then return (score_a < score_b) ~= desc end
  if id_a == id_b then return false end
  return less(id_a, id_b) ~= desc
end

local at = tonumber(cursor)
local from = cursor ~= '' and cursor or (desc and max or min)
local command, far = desc and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE', desc and min or max

local function fill(source)
  while source.more and source.at > #source.items do
    local got = call(command, source.key, from, far, 'WITHSCORES', 'LIMIT', source.offset, BATCH)
    source.offset, source.more = source.offset + BATCH, #got == 2 * BATCH
    source.items, source.at = {}, 1
    for i = 1, #got, 2 do
      local score = tonumber(got[i + 1])
      if cursor == '' or before(at, after, score, got[i]) then
        source.items[#source.items + 1] = {score, got[i]}
      end
    end
  end
  return source.items[source.at]
end

local function matches(key)
  local v = call('HMGET', key, 'user_id', filter.field or 'updated_at', 'parameters')
  if not v[1] or (filter.user and v[1] ~= filter.user) then return false end
  local stamp = tonumber(v[2])
  if filter.min and stamp < filter.min or filter.max and stamp >= filter.max then return false end
  if not filter.q then return true end
  local text = string.match(key, '[^:]*$') .. '\n' .. v[1] .. '\n' .. (v[3] or '')
  return string.find(string.lower(text), filter.q, 1, true) ~= nil
end

local sources, total = {}, 0
for i = 14, #ARGV do
  local key = P .. idx .. ':' .. ARGV[i] .. scope
  sources[#sources + 1] = {key = key, items = {}, at = 1, offset = 0, more = true}
  if ARGV[12] == '1' then total = total + call('ZCOUNT', key, min, max) end
end

local tasks, seen, last_score, last_id = {}, 0, '', ''
while #tasks < limit and seen < budget do
  local best, item
  for _, source in ipairs(sources) do
    local candidate = fill(source)
    if candidate and (not item or before(candidate[1], candidate[2], item[1], item[2])) then
      best, item = source, candidate
    end
  end
  if not item then
    last_id = ''
    break
  end
  best.at = best.at + 1
  seen = seen + 1
  last_score, last_id = string.format('%.0f', item[1]), item[2]
  local key = P .. 'task:' .. item[2]
  if not filtered or matches(key) then
    local record = call('HGETALL', key)
    if #record > 0 then tasks[#tasks + 1] = {item[2], record, call('LLEN', P .. 'logs:' .. item[2])} end
  end
end
if last_id ~= '' then
  local more = false
  for _, source in ipairs(sources) do more = more or fill(source) ~= nil end
  if not more then last_id = '' end
end
return {tasks, last_score, last_id, total}

-- One page of a search, merged from one sorted set a state. Read-only: it runs on a replica too.
-- ARGV: prefix, ttl, what is asked as JSON (SearchRequest in _listing.py), text in lower case ('' = none).
-- Ranges are half-open, in µs. Answers {{id, line, id, line, ...}, score and id of the last one if there may
-- be more, records left to skip, total or -1}.
local asked, text = cjson.decode(ID), ARGV[4]
local task, service, user = asked.task, asked.service or '', asked.user or ''
local sort, desc = asked.sort, asked.desc
local range = {c = asked.created or {'', ''}, u = asked.updated or {'', ''}}
local cursor, after, skip = tonumber(asked.score), asked.after, asked.skip
local limit, budget, most = asked.limit, asked.budget, asked.most
local states = asked.states or STATUSES

-- Byte order, as sorted sets have it: Lua's own < follows the locale that the server was started in.
local function less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- ------------------------------------------------------------------------------------------- sources
-- A source is the part of a sorted set that lies in a range: `size` members from rank `low` on.
local function source(key, min, max)
  local low = min == '' and 0 or call('ZCOUNT', key, '-inf', '(' .. min)
  local size
  if min == '' and max == '' then size = call('ZCARD', key)
  else size = call('ZCOUNT', key, min == '' and '-inf' or min, max == '' and '+inf' or '(' .. max) end
  return {key = key, low = low, size = size, at = 0}
end

local function scopes(kind)
  if kind == 'u' or user == '' then return {service == '' and '' or ':' .. service} end
  if service ~= '' then return {':' .. service .. ':' .. user} end
  local found = {}
  for _, name in ipairs(call('HKEYS', P .. 'services')) do
    if call('HEXISTS', P .. 'users:' .. name, user) == 1 then found[#found + 1] = ':' .. name .. ':' .. user end
  end
  return found
end

local known = {}

-- The sources of that kind (c, u: one a state; i: all ids) that hold something, and how many members they have in all.
local function sources(kind)
  if known[kind] then return known[kind] end
  local found = {size = 0}
  if kind == 'i' then
    found[1] = source(P .. 'ids', '', '')
    found.size = found[1].size
  else
    for _, scope in ipairs(scopes(kind)) do
      for _, state in ipairs(states) do
        local one = source(P .. kind .. ':' .. state .. scope, range[kind][1], range[kind][2])
        if one.size > 0 then
          found[#found + 1] = one
          found.size = found.size + one.size
        end
      end
    end
  end
  known[kind] = found
  return found
end

-- What an index does not know and the records must be asked for.
local function unknown(kind)
  local by_c, by_u = range.c[1] .. range.c[2] ~= '', range.u[1] .. range.u[2] ~= ''
  if kind == 'c' then return by_u or text ~= '' end
  if kind == 'u' then return by_c or text ~= '' or user ~= '' end
  return true
end

-- --------------------------------------------------------------------------------------------- order
-- Rank in the whole set of the first member that does not come before (score, id), going up.
local function rank_of(key, score, id)
  local mine = call('ZSCORE', key, id)
  if mine and tonumber(mine) == score then return call('ZRANK', key, id), 1 end
  local exact = string.format('%.0f', score)
  local low = call('ZCOUNT', key, '-inf', '(' .. exact)
  local high = low + call('ZCOUNT', key, exact, exact)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if less(call('ZRANGE', key, middle, middle)[1], id) then low = middle + 1 else high = middle end
  end
  return low, 0
end

-- How many members of the source come before (score, id) in the order of the page.
local function before(one, score, id)
  local rank, there = rank_of(one.key, score, id)
  local place = desc and one.low + one.size - rank - there or rank - one.low
  return math.max(0, math.min(one.size, place)), there
end

local function seek_cursor(all)
  for _, one in ipairs(all) do
    local place, there = before(one, cursor, after)
    one.at = math.min(one.size, place + there)
  end
end

-- Members `from` to `from + n - 1` of the source in the order of the page, as id, score, id, score, ...
local function members(one, from, n)
  local first = desc and one.low + one.size - from - n or one.low + from
  return call('ZRANGE', one.key, math.max(first, one.low), first + n - 1, 'WITHSCORES')
end

-- Passes over the first `n` members of all sources together, without reading them: a pivot of the widest
-- source says of each source how much of it comes before; the windows [at, to) shrink around the answer.
local function leap(all, n)
  local left, turn = n, 0
  for _, one in ipairs(all) do one.to = math.min(one.size, one.at + n) end
  while true do
    local widest, width, rest = nil, 0, 0
    for _, one in ipairs(all) do
      local size = one.to - one.at
      rest = rest + size
      if size > width then widest, width = one, size end
    end
    if left == 0 or width == 0 then return end
    if #all == 1 then
      widest.at = widest.at + math.min(left, width)
      return
    end
    -- In turns the middle, which halves a window, and a guess that takes the members as evenly spread.
    turn = turn + 1
    local share = turn % 2 == 0 and 0.5 or left / rest
    local pivot = widest.at + math.min(width - 1, math.floor(width * share))
    local found = members(widest, pivot, 1)
    local score, sum, places = tonumber(found[2]), 0, {}
    for i, one in ipairs(all) do
      places[i] = one == widest and pivot or math.max(one.at, math.min(one.to, (before(one, score, found[1]))))
      sum = sum + places[i] - one.at
    end
    for i, one in ipairs(all) do
      if sum >= left then one.to = places[i]
      else one.at = places[i] + (one == widest and 1 or 0) end
    end
    if sum < left then left = left - sum - 1 end
  end
end

-- Reads on: twice as many members as the last time, the first time as many as its share of the page.
local function fetch(one)
  one.batch = math.min(one.batch * 2, 1000, one.size - one.at)
  one.items, one.next = members(one, one.at, one.batch), desc and one.batch * 2 - 1 or 1
  one.score = tonumber(one.items[one.next + 1])
end

local function open(all)
  local ready, rest = {}, 0
  for _, one in ipairs(all) do
    if one.at < one.size then
      ready[#ready + 1] = one
      rest = rest + one.size - one.at
    end
  end
  for _, one in ipairs(ready) do
    one.batch = math.ceil((limit + 1) * (one.size - one.at) / rest / 2) + 1
    fetch(one)
  end
  return ready
end

local best, rival -- the source whose turn it is, and the score of the next one after it

local function choose(ready)
  best, rival = ready[1], desc and -math.huge or math.huge
  for i = 2, #ready do
    local one = ready[i]
    local closer = (one.score < best.score) ~= desc
    if one.score == best.score then closer = less(one.items[one.next], best.items[best.next]) ~= desc end
    local behind = closer and best.score or one.score
    if closer then best = one end
    if (behind < rival) ~= desc then rival = behind end
  end
end

local function leave(ready)
  for i, one in ipairs(ready) do
    if one == best then table.remove(ready, i) break end
  end
  best = nil
end

-- Takes the next member of all sources: its id and score.
local function take(ready)
  if not best or best.score == rival or (best.score < rival) == desc then choose(ready) end
  local one = best
  local items, at, score = one.items, one.next, one.score
  local following = at + (desc and -2 or 2)
  one.at, one.next = one.at + 1, following
  if items[following] then one.score = tonumber(items[following + 1])
  elseif one.at < one.size then fetch(one)
  else leave(ready) end
  return items[at], score
end

-- ------------------------------------------------------------------------------------------- records
local wanted_state = {}
for _, state in ipairs(states) do wanted_state[state] = true end

local function within(value, bounds)
  return (bounds[1] == '' or value >= tonumber(bounds[1])) and (bounds[2] == '' or value < tonumber(bounds[2]))
end

local function has(part) return string.find(string.lower(part), text, 1, true) end

local function says(r)
  if has(r.id) or has(r.user) then return true end
  if not r.line and call('HSTRLEN', r.key, 'parameters') > SEARCHED_BYTES then return false end
  local parameters = values(r, 'parameters')[1] or ''
  return has(r.line and parameters or uncut(r.key, 'parameters', parameters))
end

-- Whether the record fits all that was asked, and the score that orders it. One that is gone does not.
-- A text is looked for in the whole line before anything else: to part it is more work.
local function fits(id, line)
  if line and text ~= '' and not (has(line) or has(id)) then return false end
  local key = P .. 'task:' .. id
  local r = line and from_line(id, key, line) or not line and from_hash(id, key)
  if not r or not wanted_state[r.status] then return false end
  if service ~= '' and r.service ~= service or user ~= '' and r.user ~= user then return false end
  local created, updated = tonumber(r.created), tonumber(r.updated)
  if not (within(created, range.c) and within(updated, range.u)) then return false end
  if text ~= '' and not says(r) then return false end
  return true, sort == 'c' and created or sort == 'u' and updated or 0
end

local answer, got, last_score, last_id = {}, 0, '', ''
-- Records of an older layout do not say how many lines they have.
local older = call('EXISTS', P .. 'older') == 1

local function shown(key, id)
  local flat = listed(key)
  if older and #flat > 0 then
    flat[#flat + 1], flat[#flat + 2] = 'log_lines', tostring(call('LLEN', P .. 'logs:' .. id))
  end
  return flat
end

local function add(ids)
  if #ids == 0 then return end
  for i, line in ipairs(lines_of(ids, shown)) do
    if line then answer[got * 2 + 1], answer[got * 2 + 2], got = ids[i], line, got + 1 end
  end
end

-- The records in order, checked one by one if the index does not know all; `budget` of them at most.
local function walk(all, check)
  if after then seek_cursor(all) end
  if skip > 0 and not check then
    leap(all, skip)
    skip = 0
  end
  local ready, seen, ids = open(all), 0, {}
  while ready[1] and got + #ids < limit and seen < budget do
    local id, score = take(ready)
    seen, last_score, last_id = seen + 1, score, id
    if not check or fits(id, call('MGET', P .. 'task:' .. id)[1]) then
      if skip > 0 then skip = skip - 1 else ids[#ids + 1] = id end
    end
    if got + #ids == limit then -- some may be gone
      add(ids)
      ids = {}
    end
  end
  add(ids)
  if not ready[1] then last_id = '' end
end

-- All that may fit, sorted here: only for few.
local function gather(ids)
  local found, names, lines = {}, {}, {}
  for i, id in ipairs(ids) do names[i] = P .. 'task:' .. id end
  if ids[1] then lines = call('MGET', unpack(names)) end
  for i, id in ipairs(ids) do
    local good, score = fits(id, lines[i])
    if good then found[#found + 1] = {score, id} end
  end
  local function comes_before(a, b)
    if a[1] ~= b[1] then return (a[1] < b[1]) ~= desc end
    if a[2] == b[2] then return false end
    return less(a[2], b[2]) ~= desc
  end
  table.sort(found, comes_before)
  local at, mark = 1, {cursor, after}
  if after then
    while found[at] and not comes_before(mark, found[at]) do at = at + 1 end
  end
  local taken = skip + limit
  local page = {}
  for i = at + skip, math.min(#found, at + taken - 1) do
    last_score, last_id = found[i][1], found[i][2]
    page[#page + 1] = last_id
  end
  add(page)
  skip = 0
  if at + taken > #found then last_id = '' end
  return #found
end

local function ids_of(all)
  local ids = {}
  for _, one in ipairs(all) do
    for _, id in ipairs(call('ZRANGE', one.key, one.low, one.low + one.size - 1)) do ids[#ids + 1] = id end
  end
  return ids
end

local function few()
  local c, u = sources('c'), sources('u')
  local fewer = c.size <= u.size and c or u
  if fewer.size <= most then return ids_of(fewer) end
end

local total = -1
if task then
  total = gather({task})
elseif not unknown(sort) then
  total = sources(sort).size
  walk(sources(sort), false)
else
  if not unknown('c') then total = sources('c').size
  elseif not unknown('u') then total = sources('u').size end
  local ids = few()
  if ids then
    total = gather(ids)
  elseif sort == 'i' and older then
    return {'!', 'OLDER'}
  else
    walk(sources(sort), true)
  end
end
return {answer, last_id == '' and '' or string.format('%.0f', last_score), last_id, skip, total}

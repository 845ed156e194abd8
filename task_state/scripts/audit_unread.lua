-- Which submissions a group is done with: {id...}. Read-only. ARGV: prefix, ttl, group, ids and the µs of
-- their creation, two by two. The event was written in the step that created the record, so it stands in
-- the stream at about that time, unless it was trimmed because all groups were done with it.
local key, found = P .. 'outbox', {}
local delivered_ms, delivered_n
for _, flat in ipairs(call('EXISTS', key) == 1 and call('XINFO', 'GROUPS', key) or {}) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  if group.name == ID then
    local ms, n = string.match(group['last-delivered-id'], '^(%d+)-(%d+)$')
    delivered_ms, delivered_n = tonumber(ms), tonumber(n)
  end
end

local function event(id, created)
  local from, to = string.format('%.0f', created - 1), string.format('%.0f', created + 1000)
  for _, item in ipairs(call('XRANGE', key, from, to, 'COUNT', 2000)) do
    if string.find(item[2][2], 'submitted ' .. id .. ' ', 1, true) == 1 then return item[1] end
  end
end

local function done(id, created)
  if created - 1 > delivered_ms then return false end
  local place = event(id, created)
  if not place then return true end
  local ms, n = string.match(place, '^(%d+)-(%d+)$')
  ms, n = tonumber(ms), tonumber(n)
  if ms > delivered_ms or ms == delivered_ms and n > delivered_n then return false end
  return #call('XPENDING', key, ID, place, place, 1) == 0
end

for i = 4, #ARGV, 2 do
  local created = math.floor(tonumber(ARGV[i + 1]) / 1000)
  if delivered_ms and done(ARGV[i], created) then found[#found + 1] = ARGV[i] end
end
return found

-- How far the groups of the outbox are behind: for each {name, not read, read and not done, put off, ms since
-- the oldest that it is not done with (put off ones left out)}. Read-only. ARGV: prefix, ttl, a group's name
-- ('' = all groups), how many unread ones to count at most.
local key, found = P .. 'outbox', {}
if call('EXISTS', key) == 0 then return found end
for _, flat in ipairs(call('XINFO', 'GROUPS', key)) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  if ID == '' or group.name == ID then
    local unread = call('XRANGE', key, '(' .. group['last-delivered-id'], '+', 'COUNT', ARGV[4])
    local oldest = group.pending > 0 and call('XPENDING', key, group.name)[2] or unread[1] and unread[1][1]
    local age = oldest and math.max(0, MS - tonumber(string.match(oldest, '^%d+'))) or 0
    found[#found + 1] = {group.name, #unread, group.pending, call('ZCARD', P .. 'due:' .. group.name), age}
  end
end
return found

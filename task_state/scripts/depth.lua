-- How far a group is behind in the outbox, as {not read, read and not done, put off}; nothing if there is
-- no such group. Read-only. ARGV: prefix, ttl, group, how many unread ones to count at most.
local key = P .. 'outbox'
if call('EXISTS', key) == 0 then return {} end
for _, flat in ipairs(call('XINFO', 'GROUPS', key)) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  if group.name == ID then
    local unread = call('XRANGE', key, '(' .. group['last-delivered-id'], '+', 'COUNT', ARGV[4])
    return {#unread, group.pending, call('ZCARD', P .. 'due:' .. ID)}
  end
end
return {}

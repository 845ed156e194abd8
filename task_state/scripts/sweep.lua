-- Purges the ids that are due. ARGV: prefix, ttl, '', limit, ms of one turn. One caller a turn does it.
-- A record that Redis expired first is found by its member, which carries the service and the user.
if not call('SET', P .. 'sweep:turn', 1, 'PX', ARGV[5], 'NX') then return -1 end
local members = call('ZRANGEBYSCORE', P .. 'expiry', '-inf', MS, 'LIMIT', 0, tonumber(ARGV[4]))
for _, member in ipairs(members) do
  local id, service, user = string.match(member, '^([^:]*):([^:]*):([^:]*)$')
  local r = load(id)
  if r and expiry_member(r) == member then
    purge(r)
  elseif r then
    call('ZREM', P .. 'expiry', member)
  else
    for _, status in ipairs(STATUSES) do
      forget({id = id, key = P .. 'task:' .. id, status = status, service = service, user = user})
    end
  end
end
return #members

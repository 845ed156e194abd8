-- Creates a managed task. ARGV: prefix, ttl, service, user, idempotency key ('' = none), fingerprint,
-- its life in ms, number of lines, lines..., field, value, ...
local service, user, n = ARGV[3], ARGV[4], tonumber(ARGV[8])
local known = P .. 'idempotency:' .. service .. ':' .. user .. ':' .. ARGV[5]
if ARGV[5] ~= '' then
  local first = call('GET', known)
  if first then
    local id, print = string.match(first, '^([^ ]*) (.*)$')
    if print ~= ARGV[6] then return {'!', 'MISMATCH'} end
    return {id, call('HGET', P .. 'task:' .. id, 'status') or 'PENDING', 0}
  end
end
for _, mode in ipairs(call('HMGET', P .. 'modes', service, '*')) do
  if mode and string.find(mode, '^DRAINING') then return {'!', 'DRAINING', service} end
end
local id = next_id()
local r = {id = id, key = P .. 'task:' .. id, service = service, user = user, status = 'PENDING',
  created = US, updated = US, revision = 1, epoch = 0, lease = 0, managed = true}
if call('EXISTS', r.key) == 1 then return {'!', 'CONFLICT', 'ACTIVE'} end
create(r, 9, 8 + n, 9 + n)
publish(r, 'submitted')
if ARGV[5] ~= '' then call('SET', known, id .. ' ' .. ARGV[6], 'PX', ARGV[7]) end
return {id, 'PENDING', 1}

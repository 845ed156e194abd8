-- Creates a managed task. ARGV: prefix, ttl, service, user, idempotency key ('' = none), fingerprint,
-- its life in ms, number of lines, lines..., field, value, ...
local service, user, n = ARGV[3], ARGV[4], tonumber(ARGV[8])
local known = P .. 'idempotency:' .. service .. ':' .. user .. ':' .. ARGV[5]
if ARGV[5] ~= '' then
  local first = call('GET', known)
  if first then
    local id, print = string.match(first, '^([^ ]*) (.*)$')
    if print ~= ARGV[6] then return {'!', 'MISMATCH'} end
    local known = load(id)
    return {id, known and known.status or 'PENDING', 0}
  end
end
if is_draining(service) then return {'!', 'DRAINING', service} end
local id = next_id()
if not new_task(id, service, user, 9, 8 + n, 9 + n) then return {'!', 'CONFLICT', 'ACTIVE'} end
if ARGV[5] ~= '' then call('SET', known, id .. ' ' .. ARGV[6], 'PX', ARGV[7]) end
return {id, 'PENDING', 1}

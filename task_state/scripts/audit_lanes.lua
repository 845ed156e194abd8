-- Compares what admission has counted with what it counts. ARGV: prefix, ttl, '1' to mend what differs,
-- service ('' = what is counted across services), how many to count at most, users: their turns (none: how
-- many tasks wait in the service)...
-- Answers {check, '', service, user, what differs, '1' if mended} for each difference; the check `uncounted`
-- is none: there was too much to count in one step.
local mending, service, most, found = ID == '1', ARGV[4], tonumber(ARGV[5]), {}

local function differs(user, what, mend)
  if mending then mend() end
  found[#found + 1] = {'waiting', '', service, user, what, mending and '1' or ''}
end

local function compare(name, field, real)
  local noted = tonumber(call('HGET', P .. name, field) or 0)
  if noted == real then return end
  differs('', name .. ' counts ' .. noted .. ' for ' .. field .. ', and there are ' .. real, function()
    if real > 0 then call('HSET', P .. name, field, real)
    else call('HDEL', P .. name, field) end
  end)
end

local function all_counted(name, field, keys)
  local real = {}
  for _, id in ipairs(keys) do
    local r = load(id)
    local owner = r and r[field]
    if owner then real[owner] = (real[owner] or 0) + 1 end
  end
  local noted = call('HKEYS', P .. name)
  for _, owner in ipairs(noted) do real[owner] = real[owner] or 0 end
  for owner, number in pairs(real) do compare(name, owner, number) end
end

local function check_ring(user)
  local key, ring = lane({service = service, user = user}), P .. 'ring:' .. service
  local waits, known = call('EXISTS', key) == 1, call('ZSCORE', ring, user)
  if waits and not known then
    differs(user, 'has a lane, and no turn', function()
      call('ZADD', ring, call('ZSCORE', P .. 'turns', user) or string.format('%.0f', US - 2 ^ 53), user)
    end)
  elseif known and not waits then
    differs(user, 'has a turn, and no lane', function() call('ZREM', ring, user) end)
  end
end

local function few(key, what)
  local size = call('ZCARD', P .. key)
  if size <= most then return true end
  found[#found + 1] = {'uncounted', '', service, '', size .. ' ' .. what, ''}
  return false
end

if service == '' then
  if few('leases', 'leases') then all_counted('held', 'worker', call('ZRANGE', P .. 'leases', 0, -1)) end
  if few('delayed', 'delayed tasks') then all_counted('delays', 'service', call('ZRANGE', P .. 'delayed', 0, -1)) end
  return found
end
for i = 6, #ARGV do check_ring(ARGV[i]) end
if #ARGV > 5 then return found end
local ring = P .. 'ring:' .. service
if few('ring:' .. service, 'users who wait for ' .. service) then
  local waiting = 0
  for _, user in ipairs(call('ZRANGE', ring, 0, -1)) do
    waiting = waiting + call('ZCARD', lane({service = service, user = user}))
  end
  compare('waiting', service, waiting)
end
return found

-- Gives free slots to waiting tasks. ARGV: prefix, ttl, '', most to admit, ms until the first look at an
-- admitted call, policies as JSON ({service: [priority, limit, limit of a user]}; 0: no limit), worker
-- ('' = the caller is none), its slots (0: it leaves), ms that it is believed to live, the µs of the latest
-- change that the caller ever saw.
-- Answers {{id, epoch}...}, ms until a delayed task is due (-1: none), 1 if there may be more to admit, and
-- the µs of the latest change.
local most, check = tonumber(ARGV[4]), tonumber(ARGV[5])
local policies = cjson.decode(ARGV[6])

local function attend(name, slots)
  if name == '' then return end
  if slots == '0' then return call('HDEL', P .. 'workers', name) end
  call('HSET', P .. 'workers', name, slots .. ' ' .. MS + tonumber(ARGV[9]))
end

-- The slots of living workers that no lease holds, less those that an admitted task will take.
local function free_slots()
  local free, workers, held = 0, call('HGETALL', P .. 'workers'), {}
  local leases = call('HGETALL', P .. 'held')
  for i = 1, #leases, 2 do held[leases[i]] = tonumber(leases[i + 1]) end
  for i = 1, #workers, 2 do
    local slots, believed = string.match(workers[i + 1], '^(%d+) (%d+)$')
    if tonumber(believed) < MS then
      call('HDEL', P .. 'workers', workers[i])
    else
      free = free + math.max(tonumber(slots) - (held[workers[i]] or 0), 0)
    end
  end
  return free - call('ZCARD', P .. 'queued')
end

-- Delayed tasks that are due go to their lanes. Answers how many there were.
local function wake()
  local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', MS, 'LIMIT', 0, most)
  for _, id in ipairs(due) do
    local r = load(id)
    if r then
      dequeue(r)
      enlane(r)
    else
      call('ZREM', P .. 'delayed', id)
    end
  end
  return #due
end

local function open_services()
  local modes, found = P .. 'modes', {}
  if string.find(call('HGET', modes, '*') or '', '^PAUSED') then return found end
  for _, name in ipairs(call('HKEYS', P .. 'waiting')) do
    local policy = policies[name] or {0, 0, 0}
    local room = policy[2] > 0 and policy[2] - call('HLEN', P .. 'busy:' .. name) or math.huge
    if room > 0 and not string.find(call('HGET', modes, name) or '', '^PAUSED') then
      found[#found + 1] = {name = name, priority = policy[1], room = room, each = policy[3]}
    end
  end
  table.sort(found, function(a, b) return a.priority > b.priority end)
  return found
end

local function full(service, user)
  if service.each == 0 then return false end
  if not service.users then
    service.users = {}
    for _, name in ipairs(call('HVALS', P .. 'busy:' .. service.name)) do
      service.users[name] = (service.users[name] or 0) + 1
    end
  end
  return (service.users[user] or 0) >= service.each
end

-- The user of a service whose turn it is, kept until that changes. Those who are at their limit are
-- passed over: they hold slots, so they are not more than those.
local function head(service)
  local from = 0
  while not service.user and not service.closed do
    local ring = call('ZRANGE', P .. 'ring:' .. service.name, from, from + 9, 'WITHSCORES')
    for i = 1, #ring, 2 do
      if not full(service, ring[i]) then
        service.user, service.turn = ring[i], tonumber(ring[i + 1])
        local first = call('ZRANGE', lane({service = service.name, user = ring[i]}), 0, 0, 'WITHSCORES')
        service.first, service.created = first[1], tonumber(first[2])
        return service.user
      end
    end
    service.closed = #ring < 20
    from = from + 10
  end
  return service.user
end

local function next_service(services)
  local best
  for _, service in ipairs(services) do
    if best and service.priority < best.priority then break end
    if head(service) and (not best or service.turn < best.turn
        or service.turn == best.turn and service.created < best.created) then
      best = service
    end
  end
  return best
end

-- A turn counts for the user in every service.
local function turn(user, services)
  local number = call('INCR', P .. 'turn')
  call('ZADD', P .. 'turns', number, user)
  for _, name in ipairs(call('HKEYS', P .. 'waiting')) do
    call('ZADD', P .. 'ring:' .. name, 'XX', number, user)
  end
  for _, service in ipairs(services) do
    if service.user == user then service.user = nil end
  end
end

-- Answers nothing for a task that is in the lane though it does not wait: no script leaves one there, but
-- one that somebody's hand has left must not stop all the others.
local function admit(service, services)
  local r = load(service.first)
  unlane({id = service.first, service = service.name, user = service.user})
  if not r or not r.managed or (r.status ~= 'PENDING' and r.status ~= 'DISPATCHING') then
    service.user = nil
    return nil
  end
  call('ZADD', P .. 'queued', MS + check, r.id)
  call('HSET', P .. 'busy:' .. r.service, r.id, r.user)
  service.room = service.room - 1
  if service.users then service.users[r.user] = (service.users[r.user] or 0) + 1 end
  service.closed = service.room <= 0
  turn(r.user, services)
  return {r.id, r.epoch}
end

compare_with(tonumber(ARGV[10]))
attend(ARGV[7], ARGV[8])
local more = wake() == most
local free, admitted = free_slots(), {}
local services = free > 0 and open_services() or {}
while #admitted < free do
  local service = next_service(services)
  if not service then break end
  if #admitted == most then
    more = true
    break
  end
  local found = admit(service, services)
  if found then admitted[#admitted + 1] = found end
end
if #admitted > 0 then call('ZREMRANGEBYRANK', P .. 'turns', 0, -10001) end
local due = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')[2]
return {admitted, due and math.max(due - MS, 0) or -1, more and 1 or 0, string.format('%.0f', latest_change())}

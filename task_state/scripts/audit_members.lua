-- Compares members of one set with their records. ARGV: prefix, ttl, '1' to mend what differs, what the
-- set is, its key after the prefix, members... A member that has gone meanwhile is passed over.
-- Answers {check, id, service, user, what differs, '1' if mended} for each difference.
local mending, what, name, found = ID == '1', ARGV[4], ARGV[5], {}
local key = P .. name

local function differs(check, id, r, text, mend)
  if mending then mend() end
  found[#found + 1] = {check, id, r and r.service or '', r and r.user or '', text, mending and '1' or ''}
end

-- Whether records of that state, service and user belong here: `index` itself says so, once for each.
local known = {}
local function belongs(status, service, user)
  local name = status .. ' ' .. service .. ' ' .. user
  if known[name] == nil then
    local real = call
    known[name] = key == P .. 'ids'
    call = function(_, place) known[name] = known[name] or place == key end
    index({id = '', status = status, service = service, user = user})
    call = real
  end
  return known[name]
end

local function check_index(id)
  local r = load(id)
  if r and belongs(r.status, r.service, r.user) or not call('ZSCORE', key, id) then return end
  local text = r and name .. ' holds it, and it is ' .. r.status or name .. ' holds it, and there is no record'
  differs('members', id, r, text, function() call('ZREM', key, id) end)
end

-- A record that expired in Redis first leaves its member to the sweeper, which is due to come.
local function check_expiry(member)
  local due = call('ZSCORE', key, member)
  local id, service, user = string.match(member, '^([^:]*):([^:]*):([^:]*)$')
  if not due or tonumber(due) <= MS then return end
  local r = load(id)
  if r and expiry_member(r) == member then return end
  differs('expiry', id, r, 'expiry holds ' .. member .. ', and there is no such record', function()
    call('ZREM', key, member)
    if r then return end
    for _, status in ipairs(STATUSES) do
      local gone = {id = id, status = status, service = service, user = user}
      if unindex(gone) == 1 then count(gone, -1) end
    end
  end)
end

local function waits(r) return r.managed and (r.status == 'PENDING' or r.status == 'DISPATCHING') end

local function what_it_is(r)
  return r and 'it is a task of ' .. r.user .. ' in ' .. r.service .. ', ' .. r.status or 'there is no record'
end

local function check_waiting(id)
  if not call('ZSCORE', key, id) then return end
  local r = load(id)
  local service, user = string.match(name, '^lane:([^:]*):([^:]*)$')
  if r and waits(r) and (not service or lane(r) == key) then return end
  differs('waiting', id, r, name .. ' holds it, and ' .. what_it_is(r), function()
    if service then
      unlane({id = id, service = service, user = user})
    elseif call('ZREM', key, id) == 1 and name == 'delayed' and r then
      tally('delays', r.service, -1)
    end
  end)
end

-- One that waits and has another place is found from its record.
local function check_arriving(id)
  local r = call('SISMEMBER', key, id) == 1 and load(id)
  if r == false or r and waits(r) and key == P .. 'arriving:' .. r.service then return end
  differs('waiting', id, r, name .. ' holds it, and ' .. what_it_is(r), function() call('SREM', key, id) end)
end

local function check_lease(id)
  if not call('ZSCORE', key, id) then return end
  local r = load(id)
  if r and r.lease > 0 then return end
  differs('leases', id, r, 'leases holds it, and ' .. what_it_is(r), function() call('ZREM', key, id) end)
end

-- One that runs may hold its slot without a lease: where the scheduler is not ours.
local function check_slot(id)
  if call('HEXISTS', key, id) == 0 then return end
  local r = load(id)
  local here = r and r.managed and P .. 'busy:' .. r.service == key
  if here and not terminal(r.status) and (not waits(r) or call('ZSCORE', P .. 'queued', id)) then return end
  differs('slots', id, r, name .. ' holds it, and ' .. what_it_is(r), function() call('HDEL', key, id) end)
end

-- Logs, output, report and series without a record: nobody's any more, perhaps, but never deleted here.
local function check_loose(id)
  local part = key .. ':' .. id
  if call('EXISTS', P .. 'task:' .. id) == 1 or call('PTTL', part) ~= -1 then return end
  differs('loose', id, nil, name .. ' without a record, which would never expire', function()
    call('PEXPIRE', part, TTL + DAY)
  end)
end

local checks = {index = check_index, expiry = check_expiry, waiting = check_waiting,
  arriving = check_arriving, leases = check_lease, slots = check_slot, loose = check_loose}
for i = 6, #ARGV do checks[what](ARGV[i]) end
return found

-- Compares records with all that is made of them. ARGV: prefix, ttl, '1' to mend what differs, ids...
-- Answers {check, id, service, user, what differs, '1' if mended} for each difference. All of one record
-- is looked at in one step, so what is found is so. What stands somewhere and should not is found from
-- there, by audit_members: most records have ended, and are nowhere but in the listings.
local mending, found = ID == '1', {}
local PATIENCE = 600000

local function differs(check, r, what, mend)
  local mended = mending and mend ~= nil
  if mended then mend() end
  found[#found + 1] = {check, r.id, r.service, r.user, what, mended and '1' or ''}
end

-- The sorted sets that a record belongs to, with its scores: `index` itself says so.
local function places(r)
  local wanted, real = {}, call
  call = function(_, key, score) wanted[key] = score end
  index(r)
  call = real
  wanted[P .. 'ids'] = 0
  return wanted
end

local function check_indexes(r)
  for key, score in pairs(places(r)) do
    if tonumber(call('ZSCORE', key, r.id) or 'nan') ~= tonumber(score) then
      differs('indexes', r, 'missing in ' .. key .. ', or elsewhere in its order', function()
        call('ZADD', key, score, r.id)
      end)
    end
  end
end

local function check_expiry(r)
  local due, life = call('ZSCORE', P .. 'expiry', expiry_member(r)), call('PTTL', r.key)
  if r.managed and not terminal(r.status) then
    if due or life >= 0 then
      differs('expiry', r, 'would expire before it has ended', function()
        call('ZREM', P .. 'expiry', expiry_member(r))
        call('PERSIST', r.key)
        for _, part in ipairs(PARTS) do call('PERSIST', P .. part .. r.id) end
      end)
    end
    return
  end
  local endless = life == -1
  for _, part in ipairs(PARTS) do endless = endless or call('PTTL', P .. part .. r.id) == -1 end
  if endless or not due then
    differs('expiry', r, 'would never expire', function()
      r.new, r.grown = true, true
      keep(r)
    end)
  end
end

local function check_log(r)
  local noted, lines = values(r, 'log_lines')[1] or '0', call('LLEN', P .. 'logs:' .. r.id)
  if tonumber(noted) ~= lines then
    differs('log-lines', r, 'counts ' .. noted .. ' log lines and has ' .. lines, function()
      thaw(r)
      call('HSET', r.key, 'log_lines', lines)
    end)
  end
end

local function check_lease(r)
  if r.lease == 0 then return end
  local noted = tonumber(call('ZSCORE', P .. 'leases', r.id) or 0)
  local works = r.status == 'RUNNING' or r.status == 'CANCEL_REQUESTED'
  if r.lease > 0 and not works then
    differs('leases', r, 'has a lease and is ' .. r.status, function() drop_lease(r) end)
  elseif noted ~= r.lease then
    differs('leases', r, 'its lease ends at ' .. r.lease .. ', the list of leases says ' .. noted, function()
      call('ZADD', P .. 'leases', r.lease, r.id)
    end)
  end
end

-- Where a task that waits for its slot stands: 'lane', 'delayed', 'queued', or nowhere.
local function standing(r)
  local at = {}
  if call('ZSCORE', lane(r), r.id) then at[#at + 1] = 'lane' end
  if call('ZSCORE', P .. 'delayed', r.id) then at[#at + 1] = 'delayed' end
  if call('ZSCORE', P .. 'queued', r.id) then at[#at + 1] = 'queued' end
  return at
end

local function leave_all(r)
  while #standing(r) > 0 do dequeue(r) end
end

-- Whoever waits for the first attempt and has no other place is on the way to the scheduler.
local function check_arriving(r, arrives)
  local key = P .. 'arriving:' .. r.service
  if (call('SISMEMBER', key, r.id) == 1) == arrives then return end
  differs('waiting', r, arrives and 'arrives, and is not counted' or 'arrived, and is still counted as on its way',
    function() call(arrives and 'SADD' or 'SREM', key, r.id) end)
end

local function check_waiting(r)
  if r.status ~= 'PENDING' and r.status ~= 'DISPATCHING' then return end
  local at = standing(r)
  check_arriving(r, #at == 0 and r.epoch == 0)
  if #at > 1 then
    differs('waiting', r, 'waits in two places: ' .. table.concat(at, ' and '), function()
      leave_all(r)
      line_up(r, 0)
    end)
  elseif #at == 0 and r.epoch > 0 then
    differs('waiting', r, 'waits for attempt ' .. (r.epoch + 1) .. ', and nobody knows', function()
      line_up(r, 0)
    end)
  elseif #at == 0 then
    found[#found + 1] = {'', r.id, r.service, r.user, r.created, ''}
  end
  return at[1]
end

local function check_slot(r, at)
  if r.lease == 0 and at ~= 'queued' then return end
  local key = P .. 'busy:' .. r.service
  if call('HGET', key, r.id) ~= r.user then
    differs('slots', r, 'runs, or is about to, and is not counted', function()
      call('HSET', key, r.id, r.user)
    end)
  end
end

local function check_stuck(r)
  if r.lease > 0 and MS - r.lease > PATIENCE then
    differs('stuck', r, 'its worker has been silent since ' .. math.floor((MS - r.lease) / 60000) .. ' min')
  elseif r.status == 'CANCEL_REQUESTED' and MS - tonumber(r.updated) / 1000 > PATIENCE then
    differs('stuck', r, 'was to be cancelled long ago, and has not ended')
  end
end

for i = 4, #ARGV do
  local r = load(ARGV[i])
  if r then
    check_indexes(r)
    check_expiry(r)
    check_log(r)
    check_lease(r)
    if terminal(r.status) and mending then
      freeze(r) -- an older layout knew no lines
    elseif r.managed and not terminal(r.status) then
      check_slot(r, check_waiting(r))
      check_stuck(r)
    end
  end
end
return found

-- What the scripts of schedules share; it goes on where the prelude ends, and is cut up like it.
-- A schedule is told by its name, which is `ID` where a script is about one.

-- A schedule as the scripts need it: nothing of what only the caller understands. `waits`: how many slots do.
local function load_schedule(name)
  local key = P .. 'schedule:' .. name
  local v = call('HMGET', key, 'revision', 'cursor', 'paused_at', 'service', 'user_id', 'overlap', 'created_at')
  if not v[1] then return nil end
  return {name = name, key = key, revision = tonumber(v[1]), cursor = tonumber(v[2]), paused = v[3],
    service = v[4], user = v[5], overlap = v[6], created = v[7], fires = {},
    waits = call('HLEN', P .. 'schedule-buffer:' .. name),
    active = P .. 'schedule-active:' .. name, buffer = P .. 'schedule-buffer:' .. name,
    history = P .. 'schedule-fires:' .. name}
end

-- A schedule as the caller is given it: {name, fields, active ones, the oldest of them, slots that wait}.
local function show_schedule(name)
  local fields = call('HGETALL', P .. 'schedule:' .. name)
  if #fields == 0 then return {name} end
  local active = P .. 'schedule-active:' .. name
  return {name, fields, call('ZCARD', active), call('ZRANGE', active, 0, 19),
    call('HKEYS', P .. 'schedule-buffer:' .. name)}
end

-- The oldest task of the schedule that has not ended. No script leaves another one there, but lost data
-- may: such ids are dropped, so that a schedule never waits for them.
local function first_active(s)
  for _ = 1, 50 do
    local ids = call('ZRANGE', s.active, 0, 19)
    for _, id in ipairs(ids) do
      local r = load(id)
      if r and not terminal(r.status) then return id end
      call('ZREM', s.active, id)
    end
    if #ids < 20 then return nil end
  end
  return call('ZRANGE', s.active, 0, 0)[1]
end

local function same_fire(a, b)
  return (b.outcome == 'missed' or b.outcome == 'skipped')
    and a.outcome == b.outcome and a.kind == b.kind and a.reason == b.reason
end

-- Notes what became of `count` slots, `first` to `slot`, in the history. What goes on in the same way is one
-- entry there, however long it goes on.
local function note_fire(s, fire)
  if s.newest == nil then
    local head = call('LINDEX', s.history, 0)
    s.newest = head and cjson.decode(head) or false
  end
  local newest = s.newest
  fire.at, fire.count, fire.first = US, fire.count or 1, fire.first or fire.slot
  local goes_on = newest and same_fire(newest, fire)
  fire.number = newest and newest.number + (goes_on and 0 or 1) or 1
  s.fires[#s.fires + 1] = cjson.encode(fire)
  if fire.outcome == 'missed' or fire.outcome == 'skipped' then
    call('HINCRBY', s.key, fire.outcome, fire.count)
  end
  s.newest = fire
  if goes_on then
    fire.count, fire.first = fire.count + newest.count, newest.first or fire.first
    return call('LSET', s.history, 0, cjson.encode(fire))
  end
  call('LPUSH', s.history, cjson.encode(fire))
  call('LTRIM', s.history, 0, $MAX_FIRES - 1)
end

-- Creates the task of a slot (or, without one, of a run by hand), as a submission does. item: service, user,
-- parameters (JSON or ''), line of its log.
local function fire_task(s, kind, slot, id, item)
  local from = #ARGV + 1
  ARGV[from] = item.line
  for i, part in ipairs({'managed', '1', 'max_attempts', '$MAX_ATTEMPTS', 'schedule_id', s.name}) do
    ARGV[from + i] = part
  end
  if item.parameters ~= '' then
    ARGV[from + 7], ARGV[from + 8] = 'parameters', item.parameters
  end
  local created = new_task(id, item.service, item.user, from, from, from + 1)
  for i = #ARGV, from, -1 do ARGV[i] = nil end
  if not created then
    return note_fire(s, {slot = slot, kind = kind, outcome = 'existing', task = id,
      reason = 'there is a task of this id already'})
  end
  call('ZADD', s.active, US, id)
  call('HINCRBY', s.key, 'fired', 1)
  note_fire(s, {slot = slot, kind = kind, outcome = 'fired', task = id})
end

local function slot_task(s, slot) return 's.' .. s.name .. '.' .. slot end

local function buffered_slots(s)
  local slots = call('HKEYS', s.buffer)
  table.sort(slots, function(a, b) return tonumber(a) < tonumber(b) end)
  return slots
end

local function release_next(s, slot)
  local kind, service, user, line, parameters =
    string.match(call('HGET', s.buffer, slot), '^(%S+) (%S+) (%S+) ([^\n]*)\n(.*)$')
  if (s.paused and kind ~= 'backfill') or is_draining(service) then return end
  call('HDEL', s.buffer, slot)
  s.waits = s.waits - 1
  fire_task(s, kind, tonumber(slot), slot_task(s, slot),
    {service = service, user = user, line = line, parameters = parameters})
end

-- Starts what waits and has nothing to wait for any more, oldest first, one at a time.
local function release_buffered(s)
  if s.waits == 0 then return end
  for _, slot in ipairs(buffered_slots(s)) do
    if first_active(s) then break end
    release_next(s, slot)
  end
  if s.waits == 0 then return call('ZREM', P .. 'schedule-waiting', s.name) end
  -- The end of a task brings the next look forward; this one is for tasks that were lost without an end.
  call('ZADD', P .. 'schedule-waiting', MS + 10000, s.name)
end

local function buffer_slot(s, kind, slot, item, before)
  s.waits = s.waits + 1
  call('HSET', s.buffer, slot, kind .. ' ' .. item.service .. ' ' .. item.user .. ' ' .. item.line .. '\n'
    .. item.parameters)
  call('ZADD', P .. 'schedule-waiting', before and MS + 10000 or 0, s.name)
  note_fire(s, {slot = tonumber(slot), kind = kind, outcome = 'buffered',
    reason = before and 'task ' .. before .. ' has not ended' or 'older slots wait'})
end

-- Makes room for a slot: what is active is asked to end, what waits gives way.
local function clear_for(s, slot, stamp)
  local line = #ARGV + 1
  for _, id in ipairs(call('ZRANGE', s.active, 0, 199)) do
    local r = load(id)
    if not r or terminal(r.status) then
      call('ZREM', s.active, id)
    else
      ARGV[line] = stamp .. ',Cancelled: the next slot of its schedule is due'
      request_end(r, line, line)
      ARGV[line] = nil
    end
  end
  if s.waits == 0 then return end
  for _, waiting in ipairs(buffered_slots(s)) do
    local kind = string.match(call('HGET', s.buffer, waiting), '^%S+')
    note_fire(s, {slot = tonumber(waiting), kind = kind, outcome = 'skipped',
      reason = 'slot ' .. slot .. ' took its place'})
  end
  s.waits = 0
  call('DEL', s.buffer)
  call('ZREM', P .. 'schedule-waiting', s.name)
end

-- Decides one slot by the overlap policy. `heir`: a later slot that cancels what is before it.
local function place_slot(s, kind, slot, overlap, item, stamp, heir)
  local id = slot_task(s, slot)
  local function tell(outcome, reason)
    note_fire(s, {slot = tonumber(slot), kind = kind, outcome = outcome, reason = reason,
      task = outcome == 'existing' and id or nil})
  end
  if call('EXISTS', P .. 'task:' .. id) == 1 or s.waits > 0 and call('HEXISTS', s.buffer, slot) == 1 then
    return tell('existing', 'its task exists, or the slot waits for others')
  end
  if heir then return tell('skipped', 'slot ' .. heir .. ' took its place') end
  if overlap == 'cancel_other' then clear_for(s, slot, stamp) end
  local before, waits = overlap ~= 'allow' and first_active(s), s.waits
  if overlap == 'allow' or not before and waits == 0 then
    return fire_task(s, kind, tonumber(slot), id, item)
  end
  local room = overlap == 'skip' and 0 or overlap == 'buffer_one' and 1 or $MAX_BUFFERED
  if waits < room then return buffer_slot(s, kind, slot, item, before) end
  if room == 0 and before then return tell('skipped', 'task ' .. before .. ' has not ended') end
  tell('skipped', waits .. (waits == 1 and ' slot waits already' or ' slots wait already'))
end

-- Decides slots: ARGV[from] and on are slot, line of its task's log, parameters. Of several that cancel
-- what is before them, the last alone would be left: the others are not even created.
local function place_slots(s, kind, overlap, from, stamp)
  local last = #ARGV - 2
  for i = from, last, 3 do
    place_slot(s, kind, ARGV[i], overlap,
      {service = s.service, user = s.user, line = ARGV[i + 1], parameters = ARGV[i + 2]}, stamp,
      overlap == 'cancel_other' and i < last and ARGV[last] or nil)
  end
end

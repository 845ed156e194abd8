-- What the scripts of the task store share: times, the record, its indexes, its end. Each script gets
-- the paragraphs (between blank lines) whose names it mentions, and those that these mention.
-- A refusal is {'!', code, ...}, which errors no statistics and no pipeline.

local clock = call('TIME')

local US = clock[1] .. string.sub('00000' .. clock[2], -6)

local MS = clock[1] * 1000 + math.floor(clock[2] / 1000)

local DAY = 86400000

local MOVES = '$MOVES'

local STATUSES = {$STATUSES}

local LOG_LINES, LOG_BYTES, OUTPUT_BYTES = $LOG_LINES, $LOG_BYTES, $OUTPUT_BYTES

local REPORT_BYTES = $REPORT_BYTES

local function allowed(from, to)
  return string.find(MOVES, ' ' .. from .. '>' .. to .. ' ', 1, true) ~= nil
end

local function terminal(status)
  return string.find(MOVES, ' ' .. status .. '>', 1, true) == nil
end

local function leased(r) return r.lease > MS end

local function unindex(r)
  local c, u = P .. 'c:' .. r.status, P .. 'u:' .. r.status
  local cs = c .. ':' .. r.service
  call('ZREM', c, r.id)
  call('ZREM', cs, r.id)
  call('ZREM', u, r.id)
  call('ZREM', u .. ':' .. r.service, r.id)
  return call('ZREM', cs .. ':' .. r.user, r.id)
end

local function index(r)
  local c, u = P .. 'c:' .. r.status, P .. 'u:' .. r.status
  local cs = c .. ':' .. r.service
  call('ZADD', c, r.created, r.id)
  call('ZADD', cs, r.created, r.id)
  call('ZADD', cs .. ':' .. r.user, r.created, r.id)
  call('ZADD', u, r.updated, r.id)
  call('ZADD', u .. ':' .. r.service, r.updated, r.id)
end

local function count(r, by)
  for key, field in pairs({[P .. 'users:' .. r.service] = r.user, [P .. 'services'] = r.service}) do
    if call('HINCRBY', key, field, by) <= 0 then call('HDEL', key, field) end
  end
end

-- What a stream entry says of a task; none of the parts can hold a space.
local function entry(r, kind)
  return kind .. ' ' .. r.id .. ' ' .. r.service .. ' ' .. r.user .. ' ' .. r.status
end

local function change(r, kind)
  call('XADD', P .. 'changes', 'MAXLEN', '~', 10000, '*', 'e', entry(r, kind))
end

local function publish(r, kind)
  call('XADD', P .. 'outbox', '*', 'e', entry(r, kind))
end

local function expiry_member(r) return r.id .. ':' .. r.service .. ':' .. r.user end

-- A text is not looked for in more than so much: a thousand records of a mebibyte would stop Redis for seconds.
local SEARCHED_BYTES = $SEARCHED_BYTES

-- What a record may have beside it.
local PARTS = {'logs:', 'output:', 'report:', 'series:'}

-- Starts the record's time to live, or starts it again once a thousandth of it is over: that spares a
-- task that logs a thousand lines most of the work. Native expiry comes a day after the sweeper's, so
-- that the sweeper still finds the record and can clear its indexes.
local function keep(r)
  if r.managed and not terminal(r.status) then return end
  if terminal(r.status) then freeze(r) end
  local life = TTL + DAY
  if not (r.new or r.grown) and math.abs(call('PTTL', r.key) - life) < TTL / 1000 then return end
  call('ZADD', P .. 'expiry', MS + TTL, expiry_member(r))
  call('PEXPIRE', r.key, life)
  if r.new and not r.grown then return end
  for _, part in ipairs(PARTS) do call('PEXPIRE', P .. part .. r.id, life) end
end

-- A counter in a HASH: its field goes when it comes to nothing.
local function tally(name, field, by)
  if call('HINCRBY', P .. name, field, by) <= 0 then call('HDEL', P .. name, field) end
end

-- A managed task that waits is in one of four places: `arriving` while it is on its way to the scheduler,
-- then in the lane of its service and user, among the `delayed`, or among the `queued`, which were admitted
-- and are on their way to a worker.
local function lane(r) return P .. 'lane:' .. r.service .. ':' .. r.user end

local function unlane(r)
  if call('ZREM', lane(r), r.id) == 0 then return false end
  tally('waiting', r.service, -1)
  if call('EXISTS', lane(r)) == 0 then call('ZREM', P .. 'ring:' .. r.service, r.user) end
  return true
end

-- A user whose last turn nobody remembers goes before all others, by the time of coming.
local function enlane(r)
  if call('ZADD', lane(r), r.created, r.id) == 0 then return end
  tally('waiting', r.service, 1)
  if call('ZCARD', lane(r)) > 1 then return end
  local turn = call('ZSCORE', P .. 'turns', r.user) or string.format('%.0f', US - 2 ^ 53)
  call('ZADD', P .. 'ring:' .. r.service, turn, r.user)
end

-- Takes the task out of where it waits.
local function dequeue(r)
  if call('ZREM', P .. 'queued', r.id) == 1 or unlane(r) then return end
  if call('ZREM', P .. 'delayed', r.id) == 1 then return tally('delays', r.service, -1) end
  call('SREM', P .. 'arriving:' .. r.service, r.id)
end

-- `busy`: the tasks of a service that were admitted or run, with their users.
local function free_slot(r) call('HDEL', P .. 'busy:' .. r.service, r.id) end

-- The task gave its slot back, and waits for the next one: in its lane, or `delay` ms before that.
local function line_up(r, delay)
  free_slot(r)
  if delay <= 0 then return enlane(r) end
  if call('ZADD', P .. 'delayed', MS + delay, r.id) == 1 then tally('delays', r.service, 1) end
end

-- Says that a service, or '*' for all, is paused or draining. What was admitted to one that is paused, and
-- has not begun, waits in its lane again.
local function set_mode(name, mode, reason)
  local before, since = string.match(call('HGET', P .. 'modes', name) or '', '^(%S+) (%d+)')
  call('HSET', P .. 'modes', name, mode .. ' ' .. (before == mode and since or US) .. ' ' .. reason)
  if mode ~= 'PAUSED' then return end
  for _, id in ipairs(call('ZRANGE', P .. 'queued', 0, -1)) do
    local r = load(id)
    if r and (name == '*' or r.service == name) then
      dequeue(r)
      line_up(r, 0)
    end
  end
end

-- `alive`: when the store was last known to be there, to some seconds; `silences`: the times of more than a
-- minute before that in which it was not, the latest hundred. A store that was never used was never there.
local MINUTE, SOON = 60000000, 5000000

local function note_alive()
  local now, alive = tonumber(US), tonumber(call('GET', P .. 'alive') or 0)
  if now < alive then -- the clock was set back: what it said of the time between now and then was wrong
    return call('ZREMRANGEBYSCORE', P .. 'silences', '(' .. US, '+inf')
  end
  if now - alive <= SOON then return end
  call('SET', P .. 'alive', US)
  if now - alive <= MINUTE then return end
  call('ZADD', P .. 'silences', US, string.format('%.0f', alive))
  call('ZREMRANGEBYRANK', P .. 'silences', 0, -101)
end

-- The first and the last µs of the silence at that time, unless it had lasted for less than a minute by then.
local function silence_at(us)
  local found = call('ZRANGEBYSCORE', P .. 'silences', string.format('%.0f', us), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if found[1] and us - found[1] > MINUTE then return found[1], tonumber(found[2]) end
end

-- The µs of the latest change that the store knows of. One from a silence, as when a frontend was there
-- alone, is told as one from after it: nobody who knows of it shall take it for lost.
local function latest_change()
  local last = call('XREVRANGE', P .. 'changes', '+', '-', 'COUNT', 1)[1]
  local changed = last and tonumber(string.match(last[1], '^%d+')) * 1000 or 0
  changed = math.max(changed, tonumber(call('GET', P .. 'sequence') or 0))
  local _, ended = silence_at(changed)
  return ended and ended + 1 or changed
end

-- `seen`: the latest change that the caller ever saw, in µs (0: none). If the store was not there at that
-- time, it is a restored one, or lost its data, and pauses itself, once. No id is issued a second time.
local function compare_with(seen)
  note_alive()
  if seen == 0 then return end
  if seen > latest_change() then call('SET', P .. 'sequence', string.format('%.0f', seen)) end
  seen = math.min(seen, tonumber(US)) -- a server that took over may have another clock
  local since = silence_at(seen)
  if not since then return end
  call('ZREM', P .. 'silences', since)
  local lost = since == '0' and 'everything' or math.floor((seen - since) / MINUTE) .. ' minutes or more'
  set_mode('*', 'PAUSED', 'restored, or lost data: it lacks ' .. lost .. ' of what was seen of it. Tasks that '
    .. 'wait here may have run since. Call the doctor, cancel what must not run again, then resume all')
end

-- `held`: how many leases each worker has.
local function drop_lease(r)
  if r.lease == 0 then return end
  call('HDEL', r.key, 'lease', 'worker')
  call('ZREM', P .. 'leases', r.id)
  if r.worker then tally('held', r.worker, -1) end
  r.lease = 0
end

-- A schedule changed in a way that every replica must see: it has a new version.
local function schedule_changed(name)
  local last = call('ZRANGE', P .. 'schedule-changes', -1, -1, 'WITHSCORES')[2] or 0
  local version = US
  if tonumber(last) >= tonumber(US) then version = string.format('%.0f', last + 1) end
  call('ZADD', P .. 'schedule-changes', version, name)
  return version
end

-- Revisions are of all schedules together: so one that is made anew never has one of its predecessor's.
local function revise_schedule(name)
  call('HSET', P .. 'schedule:' .. name, 'revision', call('INCR', P .. 'schedule-revision'), 'updated_at', US)
  schedule_changed(name)
end

local function pause_schedule(name, reason)
  call('HSET', P .. 'schedule:' .. name, 'paused_at', US, 'reason', reason)
  revise_schedule(name)
end

-- A task that a schedule made, which its id tells alone, is not active any more. What waited for it may
-- start; failures in a row pause the schedule.
local function leave_schedule(r)
  local name = string.match(r.id, '^s%.(.+)%.r?%d+$')
  if not name or call('ZREM', P .. 'schedule-active:' .. name, r.id) == 0 then return end
  call('ZADD', P .. 'schedule-waiting', 'XX', 0, name)
  local key = P .. 'schedule:' .. name
  local v = call('HMGET', key, 'revision', 'pause_after', 'paused_at')
  if not v[1] then return end
  if r.status == 'COMPLETED' then return call('HDEL', key, 'failures') end
  if r.status ~= 'FAILED' then return end
  local failures = call('HINCRBY', key, 'failures', 1)
  if not v[2] or v[3] or failures < tonumber(v[2]) then return end
  pause_schedule(name, 'task ' .. r.id .. ' failed, failure ' .. failures .. ' in a row')
end

local function forget(r)
  if unindex(r) == 1 then count(r, -1) end
  call('UNLINK', r.key) -- a log may hold a million lines
  for _, part in ipairs(PARTS) do call('UNLINK', P .. part .. r.id) end
  call('ZREM', P .. 'ids', r.id)
  call('ZREM', P .. 'expiry', expiry_member(r))
  if r.managed and not terminal(r.status) then
    drop_lease(r)
    dequeue(r)
    free_slot(r)
    leave_schedule(r)
  end
end

local function purge(r)
  forget(r)
  change(r, 'deleted')
end

-- Appends the log lines ARGV[from] to ARGV[to]. At a limit it keeps what fits and a marker, then nothing.
-- `log_lines` repeats the length of the list, so that a page need not ask for it record by record.
local function append(r, from, to)
  local had = r.logged or 0
  if to < from or had >= LOG_BYTES then return end
  thaw(r)
  local total = had
  for i = from, to do total = total + #ARGV[i] end
  local key, lines, last = P .. 'logs:' .. r.id, 0, to
  while total > LOG_BYTES do
    total, last = total - #ARGV[last], last - 1
  end
  for i = from, last, 500 do
    lines = call('RPUSH', key, unpack(ARGV, i, math.min(last, i + 499)))
  end
  r.grown = r.grown or lines == last - from + 1
  if last < to or total == LOG_BYTES or lines >= LOG_LINES then
    if lines > LOG_LINES then call('LTRIM', key, 0, LOG_LINES - 1) end
    local stamp = string.match(ARGV[to], '^[^,]*,') or ''
    lines = call('RPUSH', key, stamp .. '[log truncated here: it reached its limit]')
    total = LOG_BYTES
  end
  r.logged = total
  call('HSET', r.key, 'log_bytes', total, 'log_lines', lines)
end

local function output(r, text)
  if text == '' then return end
  local key = P .. 'output:' .. r.id
  local size = call('STRLEN', key)
  if size >= OUTPUT_BYTES then return end
  if size + #text >= OUTPUT_BYTES then
    text = string.sub(text, 1, OUTPUT_BYTES - size) .. '\n[output truncated here: it reached its limit]'
  end
  call('APPEND', key, text)
  r.grown = r.grown or size == 0
end

-- The lines that the report has, those that were omitted, and whether it is full but for its reserve.
local function report_facts(r)
  local kept, omitted, full = string.match(values(r, 'report')[1] or '', '^%[(%d+),(%d+),(%d)%]$')
  return tonumber(kept) or 0, tonumber(omitted) or 0, full == '1'
end

-- The record's field values from ARGV[from] on, two by two; an empty value removes the field.
local function fields(r, from)
  if from <= #ARGV then thaw(r) end
  local set, removed = {}, {}
  for i = from, #ARGV, 2 do
    if ARGV[i + 1] == '' then removed[#removed + 1] = ARGV[i]
    else cut_into(set, ARGV[i], ARGV[i + 1]) end
  end
  if #set > 0 then call('HSET', r.key, unpack(set)) end
  if #removed > 0 then call('HDEL', r.key, unpack(removed)) end
end

-- The record changed without changing its state: only the updated indexes move.
local function touch(r)
  thaw(r)
  r.updated, r.revision = US, r.revision + 1
  call('HSET', r.key, 'updated_at', US, 'revision', r.revision)
  call('ZADD', P .. 'u:' .. r.status, US, r.id)
  call('ZADD', P .. 'u:' .. r.status .. ':' .. r.service, US, r.id)
end

-- Notes in the record's history how an attempt ended that did not succeed, while its lease is still
-- there. Of more than 50 notes the first one and the latest stay. With `again` it takes the place of a
-- last note that says the same, so that a task that waits for long keeps its other notes.
local function remember(r, outcome, reason, again)
  local v = call('HMGET', r.key, 'history', 'attempts')
  local note = cjson.encode({epoch = r.epoch, attempt = tonumber(v[2]) or 0, worker = r.worker or nil,
    ended_at = US, outcome = outcome, reason = reason})
  local last = again and v[1] and string.match(v[1], '[^\n]*$')
  local said = last and cjson.decode(last) or {}
  if said.outcome == outcome and said.reason == reason then v[1] = string.sub(v[1], 1, -#last - 3) end
  local history = v[1] and v[1] ~= '' and v[1] .. ',\n' .. note or note
  local _, separators = string.gsub(history, ',\n', '')
  if separators >= 50 then history = string.gsub(history, '^(.-,\n).-,\n', '%1') end
  call('HSET', r.key, 'history', history)
end

-- Moves the record to a state; the callers have checked that they may. The terminal step publishes,
-- starts the time to live, and honours a delete that was asked for while the task was active.
local function move(r, to)
  local waited = r.managed and (r.status == 'PENDING' or r.status == 'DISPATCHING')
  unindex(r)
  r.status, r.updated, r.revision = to, US, r.revision + 1
  index(r)
  local ends = terminal(to)
  local stamp = ends and 'completed_at' or to == 'RUNNING' and not r.started and 'started_at'
  call('HSET', r.key, 'status', to, 'revision', r.revision, 'updated_at', US, stamp or 'updated_at', US)
  if waited and to ~= 'DISPATCHING' then
    dequeue(r)
    if to == 'RUNNING' then call('HSET', P .. 'busy:' .. r.service, r.id, r.user) else free_slot(r) end
  end
  if ends then
    drop_lease(r)
    if r.managed then
      free_slot(r)
      call('HDEL', r.key, 'checkpoint')
      leave_schedule(r)
    end
    publish(r, 'finished')
    if r.delete then purge(r) return end
  end
  keep(r)
  change(r, 'status')
end

local function fenced(r)
  call('HINCRBY', P .. 'counters', 'fenced', 1)
  return {'!', 'FENCED', r.status}
end

-- The next id: later than every one before it, even if Redis lost the sequence.
local function next_id()
  local last = tonumber(call('GET', P .. 'sequence') or '0')
  local id = US
  if last >= tonumber(US) then id = string.format('%.0f', last + 1) end
  call('SET', P .. 'sequence', id)
  return id
end

-- Writes a record that is not there (any more): its fields are ARGV[fields_from] and on, two by two.
local function create(r, lines_from, lines_to, fields_from)
  r.new = true
  local set = {'service', r.service, 'user_id', r.user, 'status', r.status, 'created_at', r.created,
    'updated_at', r.updated, 'revision', r.revision}
  if r.epoch > 0 then cut_into(set, 'epoch', r.epoch) end
  for i = fields_from, #ARGV, 2 do cut_into(set, ARGV[i], ARGV[i + 1]) end
  call('HSET', r.key, unpack(set))
  index(r)
  call('ZADD', P .. 'ids', 0, r.id)
  count(r, 1)
  append(r, lines_from, lines_to)
  change(r, 'created')
end

local function is_draining(service)
  for _, mode in ipairs(call('HMGET', P .. 'modes', service, '*')) do
    if mode and string.find(mode, '^DRAINING') then return true end
  end
  return false
end

-- Creates a managed task that waits to be dispatched; nothing if there is one of that id. Its log lines are
-- ARGV[lines_from] to ARGV[lines_to], its fields are ARGV[fields_from] and on, two by two.
local function new_task(id, service, user, lines_from, lines_to, fields_from)
  local r = {id = id, key = P .. 'task:' .. id, service = service, user = user, status = 'PENDING',
    created = US, updated = US, revision = 1, epoch = 0, lease = 0, managed = true}
  if call('EXISTS', r.key) == 1 then return nil end
  create(r, lines_from, lines_to, fields_from)
  call('SADD', P .. 'arriving:' .. service, id)
  publish(r, 'submitted')
  return r
end

-- Asks a task that has not ended to end: CANCELLED at once without a live lease, else CANCEL_REQUESTED. Its
-- log lines are ARGV[from] to ARGV[to].
local function request_end(r, from, to)
  local told = r.managed and r.status ~= 'PENDING'
  local status = leased(r) and 'CANCEL_REQUESTED' or 'CANCELLED'
  if r.status == status then return end
  append(r, from, to)
  if r.lease > 0 and status == 'CANCELLED' then
    remember(r, 'lost', 'Its worker had not been heard of for the whole lease when the task was cancelled')
  end
  if told then publish(r, 'cancel') end
  move(r, status)
end

-- What the scripts of the task store share: times, the record, its indexes, its end. Each script gets
-- the paragraphs (between blank lines) whose names it mentions, and those that these mention.
-- ARGV[1] is the key prefix, ARGV[2] the time to live in ms, ARGV[3] the task id (or a script's own
-- third argument). A refusal is {'!', code, ...}, which errors no statistics and no pipeline.

local P, TTL, ID = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local call = redis.call

local clock = call('TIME')

local US = clock[1] .. string.sub('00000' .. clock[2], -6)

local MS = clock[1] * 1000 + math.floor(clock[2] / 1000)

local DAY = 86400000

local MOVES = '$MOVES'

local STATUSES = {$STATUSES}

local LOG_LINES, LOG_BYTES, OUTPUT_BYTES = $LOG_LINES, $LOG_BYTES, $OUTPUT_BYTES

local function allowed(from, to)
  return string.find(MOVES, ' ' .. from .. '>' .. to .. ' ', 1, true) ~= nil
end

local function terminal(status)
  return string.find(MOVES, ' ' .. status .. '>', 1, true) == nil
end

local function load(id)
  local key = P .. 'task:' .. id
  local v = call('HMGET', key, 'status', 'service', 'user_id', 'created_at', 'updated_at',
    'revision', 'epoch', 'managed', 'lease', 'delete', 'started_at', 'worker', 'log_bytes')
  if not v[1] then return nil end
  return {id = id, key = key, status = v[1], service = v[2], user = v[3], created = v[4],
    updated = v[5], revision = tonumber(v[6]) or 0, epoch = tonumber(v[7]) or 0,
    managed = v[8] == '1', lease = tonumber(v[9]) or 0, delete = v[10], started = v[11],
    worker = v[12], logged = tonumber(v[13]) or 0}
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

-- Starts the record's time to live, or starts it again once a thousandth of it is over: that spares a
-- task that logs a thousand lines most of the work. Native expiry comes a day after the sweeper's, so
-- that the sweeper still finds the record and can clear its indexes.
local function keep(r)
  if r.managed and not terminal(r.status) then return end
  local life = TTL + DAY
  if not (r.new or r.grown) and math.abs(call('PTTL', r.key) - life) < TTL / 1000 then return end
  call('ZADD', P .. 'expiry', MS + TTL, expiry_member(r))
  call('PEXPIRE', r.key, life)
  if r.new and not r.grown then return end
  call('PEXPIRE', P .. 'logs:' .. r.id, life)
  call('PEXPIRE', P .. 'output:' .. r.id, life)
end

-- A counter in a HASH: its field goes when it comes to nothing.
local function tally(name, field, by)
  if call('HINCRBY', P .. name, field, by) <= 0 then call('HDEL', P .. name, field) end
end

-- A managed task that waits for a slot is in at most one of three places: in the lane of its service and
-- user, among the `delayed`, or among the `queued`, which were admitted and are on their way to a worker.
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

-- Takes the task out of where it waits for a slot.
local function dequeue(r)
  if call('ZREM', P .. 'queued', r.id) == 1 or unlane(r) then return end
  if call('ZREM', P .. 'delayed', r.id) == 1 then tally('delays', r.service, -1) end
end

-- `busy`: the tasks of a service that were admitted or run, with their users.
local function free_slot(r) call('HDEL', P .. 'busy:' .. r.service, r.id) end

-- The task gave its slot back, and waits for the next one: in its lane, or `delay` ms before that.
local function line_up(r, delay)
  free_slot(r)
  if delay <= 0 then return enlane(r) end
  if call('ZADD', P .. 'delayed', MS + delay, r.id) == 1 then tally('delays', r.service, 1) end
end

-- `held`: how many leases each worker has.
local function drop_lease(r)
  if r.lease == 0 then return end
  call('HDEL', r.key, 'lease', 'worker')
  call('ZREM', P .. 'leases', r.id)
  if r.worker then tally('held', r.worker, -1) end
  r.lease = 0
end

local function forget(r)
  if unindex(r) == 1 then count(r, -1) end
  call('UNLINK', r.key, P .. 'logs:' .. r.id, P .. 'output:' .. r.id) -- a log may hold a million lines
  call('ZREM', P .. 'ids', r.id)
  call('ZREM', P .. 'expiry', expiry_member(r))
  if r.managed and not terminal(r.status) then
    drop_lease(r)
    dequeue(r)
    free_slot(r)
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

-- Servers keep a small hash in half the memory, until one value has more than 64 bytes. So these fields are
-- stored in pieces of 64 bytes: `name`, `name:1`, ... to the first piece that is shorter (perhaps empty).
-- What has more than 512 bytes stays whole, and what an older layout wrote is whole too.
local CUT = {parameters = true, data = true, error = true, progress = true, jobs = true, description = true}

-- Adds the field to a list for HSET: the only way to write the fields above.
local function cut_into(set, name, value)
  local n = #set
  if not CUT[name] or #value < 64 or #value > 512 then
    set[n + 1], set[n + 2] = name, value
    return
  end
  for at = 0, math.floor(#value / 64) do
    set[n + 1], set[n + 2] = at == 0 and name or name .. ':' .. at, string.sub(value, at * 64 + 1, at * 64 + 64)
    n = n + 2
  end
end

local function set_cut(key, name, value)
  local set = {}
  cut_into(set, name, value)
  call('HSET', key, unpack(set))
end

-- The whole of a field whose first piece is `value`.
local function uncut(key, name, value)
  local at, piece = 0, value
  while piece and #piece == 64 do
    at = at + 1
    piece = call('HGET', key, name .. ':' .. at)
    if piece then value = value .. piece end
  end
  return value
end

-- The record's field values from ARGV[from] on, two by two; an empty value removes the field.
local function fields(r, from)
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
  r.updated, r.revision = US, r.revision + 1
  call('HSET', r.key, 'updated_at', US, 'revision', r.revision)
  call('ZADD', P .. 'u:' .. r.status, US, r.id)
  call('ZADD', P .. 'u:' .. r.status .. ':' .. r.service, US, r.id)
end

-- Notes in the record's history how an attempt ended that did not succeed, while its lease is still
-- there. Of more than 50 notes the first one and the latest stay.
local function remember(r, outcome, reason)
  local v = call('HMGET', r.key, 'history', 'attempts')
  local note = cjson.encode({epoch = r.epoch, attempt = tonumber(v[2]) or 0, worker = r.worker or nil,
    ended_at = US, outcome = outcome, reason = reason})
  local history = v[1] and v[1] .. ',\n' .. note or note
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
    if to ~= 'RUNNING' then free_slot(r) end
  end
  if ends then
    drop_lease(r)
    if r.managed then
      free_slot(r)
      call('HDEL', r.key, 'checkpoint')
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

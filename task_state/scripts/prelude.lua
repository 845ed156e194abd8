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
    'revision', 'epoch', 'managed', 'lease', 'delete', 'started_at')
  if not v[1] then return nil end
  return {id = id, key = key, status = v[1], service = v[2], user = v[3], created = v[4],
    updated = v[5], revision = tonumber(v[6]) or 0, epoch = tonumber(v[7]) or 0,
    managed = v[8] == '1', lease = tonumber(v[9]) or 0, delete = v[10], started = v[11]}
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

local function forget(r)
  if unindex(r) == 1 then count(r, -1) end
  call('DEL', r.key, P .. 'logs:' .. r.id, P .. 'output:' .. r.id)
  call('ZREM', P .. 'expiry', expiry_member(r))
  call('ZREM', P .. 'leases', r.id)
  call('ZREM', P .. 'queued', r.id)
end

local function purge(r)
  forget(r)
  change(r, 'deleted')
end

-- Appends the log lines ARGV[from] to ARGV[to]. At a limit it keeps what fits and a marker, then nothing.
local function append(r, from, to)
  if to < from then return end
  local bytes = 0
  for i = from, to do bytes = bytes + #ARGV[i] end
  local total = call('HINCRBY', r.key, 'log_bytes', bytes)
  if total - bytes >= LOG_BYTES then return end
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
    call('RPUSH', key, stamp .. '[log truncated here: it reached its limit]')
    call('HSET', r.key, 'log_bytes', LOG_BYTES)
  end
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

-- The record's field values from ARGV[from] on, two by two; an empty value removes the field.
local function fields(r, from)
  local set, removed = {}, {}
  for i = from, #ARGV, 2 do
    if ARGV[i + 1] == '' then removed[#removed + 1] = ARGV[i]
    else set[#set + 1], set[#set + 2] = ARGV[i], ARGV[i + 1] end
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

local function drop_lease(r)
  if r.lease == 0 then return end
  call('HDEL', r.key, 'lease', 'worker')
  call('ZREM', P .. 'leases', r.id)
  r.lease = 0
end

-- Moves the record to a state; the callers have checked that they may. The terminal step publishes,
-- starts the time to live, and honours a delete that was asked for while the task was active.
local function move(r, to)
  unindex(r)
  r.status, r.updated, r.revision = to, US, r.revision + 1
  index(r)
  local ends = terminal(to)
  local stamp = ends and 'completed_at' or to == 'RUNNING' and not r.started and 'started_at'
  call('HSET', r.key, 'status', to, 'revision', r.revision, 'updated_at', US, stamp or 'updated_at', US)
  if ends then
    drop_lease(r)
    if r.managed then call('ZREM', P .. 'queued', r.id) end
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
  call('HSET', r.key, 'service', r.service, 'user_id', r.user, 'status', r.status,
    'created_at', r.created, 'updated_at', r.updated, 'revision', r.revision,
    unpack(ARGV, fields_from))
  if r.epoch > 0 then call('HSET', r.key, 'epoch', r.epoch) end
  index(r)
  count(r, 1)
  append(r, lines_from, lines_to)
  change(r, 'created')
end

-- What a record is: a hash, or once it has ended one text, a line (_layout.py). Stands before the prelude,
-- and is cut up like it. ARGV[1] is the key prefix, ARGV[2] the time to live in ms, ARGV[3] the task id (or a
-- script's own third argument).

local P, TTL, ID = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local call = redis.call

-- A record that has ended is one text, a line (_layout.py), as long as it is small: it takes less memory, and
-- a page of such records is one MGET. All others are hashes. `thaw` makes it a hash again, to be written to.
-- Most steps need none of these tables, so they are built where they are needed.
local FIELDS, PLACES, TEXTS
local function know_fields()
  if not FIELDS then FIELDS, PLACES, TEXTS = {$FIELDS}, {$PLACES}, {$TEXTS} end
end

local function from_line(id, key, line)
  local status, service, user, created, updated, revision, epoch, managed, started, logged = string.match(line,
    '^"([^"]*)",\r"([^"]*)",\r"([^"]*)",\r([^,]*),\r([^,]*),\r([^,]*),\r([^,]*),\r([^,]*),\r([^,]*),\r([^,]*),')
  return {id = id, key = key, status = status, service = service, user = user, created = created, updated = updated,
    revision = tonumber(revision) or 0, epoch = tonumber(epoch) or 0, managed = managed == '1', lease = 0,
    delete = false, started = started ~= 'null' and started, worker = false, logged = tonumber(logged) or 0, line = line}
end

local function from_hash(id, key)
  local v = call('HMGET', key, 'status', 'service', 'user_id', 'created_at', 'updated_at',
    'revision', 'epoch', 'managed', 'lease', 'delete', 'started_at', 'worker', 'log_bytes')
  if not v[1] then return nil end
  return {id = id, key = key, status = v[1], service = v[2], user = v[3], created = v[4],
    updated = v[5], revision = tonumber(v[6]) or 0, epoch = tonumber(v[7]) or 0,
    managed = v[8] == '1', lease = tonumber(v[9]) or 0, delete = v[10], started = v[11],
    worker = v[12], logged = tonumber(v[13]) or 0}
end

local function load(id)
  local key = P .. 'task:' .. id
  local line = call('MGET', key)[1] -- nothing for a hash, where GET would be an error
  if line then return from_line(id, key, line) end
  return from_hash(id, key)
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

-- The values of a line as a hash has them, by their place; false where there is none. What a newer version has
-- added behind them stays as it is.
local function parts(line)
  know_fields()
  local found, at = {$NONE}, 0
  for value in string.gmatch(line .. ',\r', '(.-),\r') do
    at = at + 1
    if value ~= 'null' or at > #FIELDS then found[at] = value end
  end
  for _, place in ipairs(TEXTS) do
    if found[place] then found[place] = cjson.decode('[' .. found[place] .. ']')[1] end
  end
  local notes = PLACES.history
  if found[notes] then found[notes] = string.sub(found[notes], 2, -2) end
  return found
end

-- Some values of a record, as HMGET answers them, whatever form it has.
local function values(r, ...)
  if not r.line then return call('HMGET', r.key, ...) end
  local all, found = parts(r.line), {}
  for i, name in ipairs({...}) do found[i] = all[PLACES[name]] end
  return found
end

-- Whoever writes to a record that may have ended does this before.
local function thaw(r)
  if not r.line then return end
  local life, set, all = call('PTTL', r.key), {}, parts(r.line)
  for place, name in ipairs(FIELDS) do
    if all[place] then cut_into(set, name, all[place]) end
  end
  r.newer = #all > #FIELDS and table.concat(all, ',\r', #FIELDS + 1)
  call('DEL', r.key)
  call('HSET', r.key, unpack(set))
  if life > 0 then call('PEXPIRE', r.key, life) end
  r.line = nil
end

-- The line of a hash (an answer of HGETALL), with `newer` behind it if given, and the fields that are not in it.
local function line_of(flat, newer)
  know_fields()
  local found, rest, last = {$NONE}, {}, 0
  for i = 1, #flat, 2 do
    local place = PLACES[flat[i]]
    if place then
      found[place] = flat[i + 1]
      if place > last then last = place end
    else
      rest[flat[i]] = flat[i + 1]
    end
  end
  for name in pairs(CUT) do
    local place, at = PLACES[name], 1
    local piece = found[place]
    while piece and #piece == 64 do
      piece = rest[name .. ':' .. at]
      found[place], at = found[place] .. (piece or ''), at + 1
    end
  end
  for _, place in ipairs(TEXTS) do
    if found[place] then found[place] = cjson.encode(found[place]) end
  end
  local notes = PLACES.history
  if found[notes] then found[notes] = '[' .. found[notes] .. ']' end
  if newer then last = #FIELDS end
  for place = 1, last do found[place] = found[place] or 'null' end
  if newer then found[last + 1], last = newer, last + 1 end
  return table.concat(found, ',\r', 1, last), rest
end

-- The lines of some records; false for one that is not there. `read` answers the fields of a hash (not given:
-- all of them).
local function lines_of(ids, read)
  local names = {}
  for i, id in ipairs(ids) do names[i] = P .. 'task:' .. id end
  local found = call('MGET', unpack(names))
  for i, name in ipairs(names) do
    if not found[i] then
      local flat = read and read(name, ids[i]) or call('HGETALL', name)
      found[i] = #flat > 0 and line_of(flat)
    end
  end
  return found
end

-- The fields that may be of any length.
local LONG = {'parameters', 'data', 'error', 'progress', 'checkpoint', 'jobs', 'description', 'pod_status', 'history'}

local function large(key)
  local encoding = call('OBJECT', 'ENCODING', key)
  if encoding == 'listpack' or encoding == 'ziplist' then return false end -- no value has more than 64 bytes
  for _, name in ipairs(LONG) do
    if call('HSTRLEN', key, name) > 1024 then return true end
  end
  return false
end

-- Makes a record that has ended one text, unless it is large, or has fields that this version does not know. What
-- was behind them in a line has no place but in a line.
local function freeze(r)
  if r.line or not r.newer and large(r.key) then return end
  local flat = call('HGETALL', r.key)
  if call('HEXISTS', r.key, 'log_lines') == 0 then
    flat[#flat + 1], flat[#flat + 2] = 'log_lines', tostring(call('LLEN', P .. 'logs:' .. r.id))
  end
  local line, rest = line_of(flat, r.newer)
  for name in pairs(rest) do
    if not CUT[string.match(name, '^([a-z]+):%d+$') or ''] then return end
  end
  call('SET', r.key, line, 'KEEPTTL')
  r.line = line
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

-- A hash as a listing shows it: without the values of more than $LISTED_BYTES bytes, whose fields it then names
-- in `omitted`; of the history the latest note stays. A small hash (see above) has none of these.
local function listed(key)
  if call('OBJECT', 'ENCODING', key) ~= 'hashtable' then return call('HGETALL', key) end
  local omitted, left_out = {}, {}
  for _, name in ipairs(LONG) do
    if call('HSTRLEN', key, name) > $LISTED_BYTES then
      omitted[#omitted + 1], left_out[name] = name, true
    end
  end
  if #omitted == 0 then return call('HGETALL', key) end
  local names, flat = {}, {}
  for _, name in ipairs(call('HKEYS', key)) do
    if not left_out[name] then names[#names + 1] = name end
  end
  for i, value in ipairs(call('HMGET', key, unpack(names))) do flat[#flat + 1], flat[#flat + 2] = names[i], value end
  if left_out.history then
    local notes = call('HGET', key, 'history')
    flat[#flat + 1], flat[#flat + 2] = 'history', string.match(notes, '^.*,\n(.*)$') or notes
  end
  flat[#flat + 1], flat[#flat + 2] = 'omitted', table.concat(omitted, ' ')
  return flat
end

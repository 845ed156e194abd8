-- What the scripts of the events share. KEYS[1] is the version of the routes, for a cluster's routing;
-- ARGV[1] is the prefix of all keys, which share one hash tag. Keys (the queue's id is Q):
-- routes HASH Q -> JSON {pattern, group}; version STRING; mortal ZSET Q -> ms at which a subscription of
-- no group ends unless it is renewed; queue:Q STREAM with one consumer group; members:Q ZSET consumer
-- -> ms until which it is believed alive; counts:Q HASH dropped, dead; dead STREAM of dead letters;
-- once:I STRING, there as long as what was published once under the id I is not published again.

local P = ARGV[1]

local call = redis.call

local GROUP = 'members'

local MOST_DEAD = 100000

local clock = call('TIME')

local MS = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function queue_key(q) return P .. 'queue:' .. q end

local function members_key(q) return P .. 'members:' .. q end

local function counts_key(q) return P .. 'counts:' .. q end

-- The version is a time, so that it never comes again, not even after all was lost.
local function routes_changed()
  local last = tonumber(call('GET', P .. 'version') or '0')
  local now = clock[1] * 1000000 + clock[2]
  call('SET', P .. 'version', string.format('%.0f', math.max(now, last + 1)))
end

local function drop_queue(q)
  call('DEL', queue_key(q), members_key(q), counts_key(q))
  call('ZREM', P .. 'mortal', q)
  if call('HDEL', P .. 'routes', q) == 1 then
    routes_changed()
    return 1
  end
  return 0
end

local function drop_ended()
  local ended = call('ZRANGEBYSCORE', P .. 'mortal', '-inf', MS, 'LIMIT', 0, 100)
  for _, q in ipairs(ended) do drop_queue(q) end
end

local function as_map(fields)
  local map = {}
  for i = 1, #fields, 2 do map[fields[i]] = fields[i + 1] end
  return map
end

-- The fields of an entry, or nil when it was trimmed meanwhile.
local function fields_of(q, entry)
  local found = call('XRANGE', queue_key(q), entry, entry)[1]
  return found and as_map(found[2])
end

-- Take the entry out of the queue; false when it was taken out before.
local function finish(q, entry)
  local held = call('XACK', queue_key(q), GROUP, entry)
  call('XDEL', queue_key(q), entry)
  return held == 1
end

local function bury(q, fields, deliveries, reason)
  call('XADD', P .. 'dead', 'MAXLEN', '~', MOST_DEAD, '*', 'q', q, 't', fields.t or '',
    'e', fields.e or '', 'n', deliveries, 'r', reason)
  call('HINCRBY', counts_key(q), 'dead', 1)
end

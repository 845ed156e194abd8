-- Takes back the tasks of workers that are gone. ARGV: prefix, ttl, '', grace ms, period ms, heartbeat ms,
-- limit, deaths allowed, time prefix of log lines. One caller a period does it. While Redis was away no
-- worker could renew its lease, so nothing is rescued until one heartbeat after it came back.
local grace, period, heartbeat = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if not call('SET', P .. 'rescue:turn', 1, 'PX', math.max(period - 100, 1), 'NX') then return {} end
local last, since = unpack(call('HMGET', P .. 'rescue', 'last', 'since'))
if not last or MS - tonumber(last) > period + heartbeat then since = MS end
call('HSET', P .. 'rescue', 'last', MS, 'since', since)
if MS - tonumber(since) < heartbeat then return {} end

local lines = #ARGV
local function note(r, text)
  ARGV[lines + 1] = ARGV[9] .. ',' .. text
  append(r, lines + 1, lines + 1)
end

local function lost(r)
  local worker = call('HGET', r.key, 'worker') or 'unknown'
  local what = 'Worker ' .. worker .. ' was lost in attempt ' .. r.epoch
  remember(r, 'lost', what)
  local deaths = call('HINCRBY', r.key, 'deaths', 1)
  call('HINCRBY', r.key, 'attempts', -1)
  drop_lease(r)
  if r.status == 'CANCEL_REQUESTED' then
    note(r, what .. '; cancelled as requested')
    return move(r, 'CANCELLED')
  end
  if deaths >= tonumber(ARGV[8]) then
    local reason = what .. ': ' .. deaths .. ' workers died of this task with no progress between them'
    note(r, reason)
    set_cut(r.key, 'error', reason)
    return move(r, 'FAILED')
  end
  note(r, what .. '; the task waits for its next attempt')
  move(r, 'PENDING')
  line_up(r, 0)
end

local rescued = {}
local ids = call('ZRANGEBYSCORE', P .. 'leases', '-inf', MS - grace, 'LIMIT', 0, tonumber(ARGV[7]))
for _, id in ipairs(ids) do
  local r = load(id)
  if r and (r.status == 'RUNNING' or r.status == 'CANCEL_REQUESTED') then
    lost(r)
    rescued[#rescued + 1] = {id, r.status, r.epoch}
  else
    call('ZREM', P .. 'leases', id)
  end
end
return rescued

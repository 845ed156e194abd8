-- Starts a task of a schedule by hand. ARGV: prefix, ttl, name, idempotency key ('' = none), its life in ms,
-- line of its log, parameters. Answers the fire.
local s = load_schedule(ID)
if not s then return {'!', 'MISSING'} end
local known = P .. 'schedule-run:' .. s.created .. ':' .. ID .. ':' .. ARGV[4]
local first = ARGV[4] ~= '' and call('GET', known)
if first then
  return cjson.encode({kind = 'run', outcome = 'existing', task = first, at = US, count = 1, number = 0,
    reason = 'this key was used before'})
end
if is_draining(s.service) then return {'!', 'DRAINING', s.service} end
local last, number = call('HGET', s.key, 'last_run'), US
if last and tonumber(last) >= tonumber(US) then number = string.format('%.0f', last + 1) end
call('HSET', s.key, 'last_run', number)
local id = slot_task(s, 'r' .. number)
fire_task(s, 'run', nil, id, {service = s.service, user = s.user, line = ARGV[6], parameters = ARGV[7]})
if ARGV[4] ~= '' then call('SET', known, id, 'PX', ARGV[5]) end
return s.fires[1]

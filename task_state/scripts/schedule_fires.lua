-- The history of a schedule, newest first. Read-only. ARGV: prefix, ttl, name, the number of the entry before
-- which to begin ('' = the newest), how many.
local key, skip = P .. 'schedule-fires:' .. ID, 0
if call('EXISTS', P .. 'schedule:' .. ID) == 0 then return {'!', 'MISSING'} end
local newest = call('LINDEX', key, 0)
if not newest then return {} end
if ARGV[4] ~= '' then skip = math.max(cjson.decode(newest).number - tonumber(ARGV[4]) + 1, 0) end
return call('LRANGE', key, skip, skip + ARGV[5] - 1)

-- Stores a new schedule. ARGV: prefix, ttl, name, source, '1' if paused, reason, field, value, ...
if call('EXISTS', P .. 'schedule:' .. ID) == 1 then return {'!', 'EXISTS'} end
local key = P .. 'schedule:' .. ID
fields({key = key}, 7)
call('HSET', key, 'source', ARGV[4], 'created_at', US, 'cursor', clock[1])
if ARGV[5] == '1' then call('HSET', key, 'paused_at', US) end
if ARGV[6] ~= '' then call('HSET', key, 'reason', ARGV[6]) end
call('ZADD', P .. 'schedules', 0, ID)
call('ZREM', P .. 'schedule-deleted', ID)
revise_schedule(ID)
return show_schedule(ID)

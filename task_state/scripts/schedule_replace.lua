-- Gives a schedule another spec. ARGV: prefix, ttl, name, revision, cursor, the time (µs) by which the old
-- spec's next slot is due ('' = none), field, value, ...
local s = load_schedule(ID)
if not s then return {'!', 'MISSING'} end
if s.revision ~= tonumber(ARGV[4]) or s.cursor ~= tonumber(ARGV[5]) then return {'!', 'CONFLICT'} end
if ARGV[6] ~= '' and tonumber(US) >= tonumber(ARGV[6]) then return {'!', 'CONFLICT'} end
fields(s, 7)
call('HSET', s.key, 'cursor', clock[1])
revise_schedule(ID)
return show_schedule(ID)

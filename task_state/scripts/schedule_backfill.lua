-- Makes up slots of the past. ARGV: prefix, ttl, name, overlap, time prefix of log lines, then for each slot:
-- slot, line of its task's log, parameters. Answers the fires.
local s = load_schedule(ID)
if not s then return {'!', 'MISSING'} end
if tonumber(ARGV[#ARGV - 2]) > clock[1] + 0 then return {'!', 'EARLY'} end
if is_draining(s.service) then return {'!', 'DRAINING', s.service} end
release_buffered(s)
place_slots(s, 'backfill', ARGV[4], 6, ARGV[5])
return s.fires

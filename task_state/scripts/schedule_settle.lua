-- Decides the slots of a schedule up to a new cursor. ARGV: prefix, ttl, name, revision, cursor, new cursor,
-- time prefix of log lines, number of missed slots, the first and the last of them ('' = not known), then
-- for each slot that fires: slot, line of its task's log, parameters.
-- Answers {state, revision, cursor, fires}; all but 'done' changed nothing.
local new, tasks = tonumber(ARGV[6]), #ARGV > 10
local s = load_schedule(ID)
if not s then return {'gone', 0, 0, {}} end
if s.paused then return {'paused', s.revision, s.cursor, {}} end
if s.revision ~= tonumber(ARGV[4]) or s.cursor ~= tonumber(ARGV[5]) then
  return {'moved', s.revision, s.cursor, {}}
end
if new > clock[1] + 1 then return {'early', s.revision, s.cursor, {}} end
if tasks and is_draining(s.service) then return {'draining', s.revision, s.cursor, {}} end
release_buffered(s)
local missed = tonumber(ARGV[8])
if missed > 0 then
  note_fire(s, {slot = tonumber(ARGV[10]), first = tonumber(ARGV[9]), count = missed, kind = 'slot',
    outcome = 'missed'})
end
place_slots(s, 'slot', s.overlap, 11, ARGV[7])
call('HSET', s.key, 'cursor', ARGV[6])
return {'done', s.revision, new, s.fires}

-- Schedules by name. Read-only. ARGV: prefix, ttl, the name before the first ('' = from the start), how many.
-- Answers {schedules, the name to go on after ('' = there are no more)}.
local found, limit = {}, tonumber(ARGV[4])
local from = ID == '' and '-' or '(' .. ID
local names = call('ZRANGEBYLEX', P .. 'schedules', from, '+', 'LIMIT', 0, limit + 1)
for i = 1, math.min(limit, #names) do
  local schedule = show_schedule(names[i])
  if schedule[2] then found[#found + 1] = schedule end
end
return {found, #names > limit and names[limit] or ''}

-- Schedules by name. Read-only. ARGV: prefix, ttl, the name before the first ('' = from the start), how many.
local found = {}
local from = ID == '' and '-' or '(' .. ID
for _, name in ipairs(call('ZRANGEBYLEX', P .. 'schedules', from, '+', 'LIMIT', 0, ARGV[4])) do
  local schedule = show_schedule(name)
  if schedule[2] then found[#found + 1] = schedule end
end
return found

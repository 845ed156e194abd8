-- Removes finished records that nobody has changed since they were read. ARGV: prefix, ttl, '1' only to
-- look, then for each its id, revision, log lines, bytes of output and time of its last change ('' = not
-- compared). Answers one word for each.
local function verdict(i)
  local r = load(ARGV[i])
  if not r then return 'MISSING' end
  if not terminal(r.status) then return 'ACTIVE' end
  if r.revision ~= tonumber(ARGV[i + 1]) then return 'CHANGED' end
  if call('LLEN', P .. 'logs:' .. r.id) ~= tonumber(ARGV[i + 2]) then return 'CHANGED' end
  local size = tonumber(ARGV[i + 3])
  if size and call('STRLEN', P .. 'output:' .. r.id) ~= size then return 'CHANGED' end
  if ARGV[i + 4] ~= '' and r.updated ~= ARGV[i + 4] then return 'CHANGED' end
  if ARGV[3] == '' then purge(r) end
  return 'REMOVED'
end

local answers = {}
for i = 4, #ARGV, 5 do answers[#answers + 1] = verdict(i) end
return answers

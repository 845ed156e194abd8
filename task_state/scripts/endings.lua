-- How tasks ended, as their records say now: for each id {status, completed, attempts, retried id, schedule,
-- error}, the error's first ARGV[3] bytes alone; nothing for a record that is gone. Read-only.
-- ARGV: prefix, ttl, bytes of an error, ids...
local most, found = tonumber(ARGV[3]), {}
for i = 4, #ARGV do
  local r = load(ARGV[i])
  local v = r and values(r, 'status', 'completed_at', 'attempts', 'retry_of', 'schedule_id', 'error') or {}
  if v[6] then v[6] = string.sub(r.line and v[6] or uncut(r.key, 'error', v[6]), 1, most) end
  for n = 1, 6 do v[n] = v[n] or '' end
  found[#found + 1] = r and v or {}
end
return found

-- What changed since a version. Read-only. ARGV: prefix, ttl, version, what had been forgotten when the caller
-- began to read, how many to answer at most. Answers {version, what has been forgotten, now in µs, '1' if
-- the caller must forget what it knows, '1' if there is more, schedules (those that are gone: name alone)}.
-- A caller that began to read after something was forgotten misses nothing by it.
local key, at, known = P .. 'schedule-changes', tonumber(ID), tonumber(ARGV[4])
local forgotten = tonumber(call('GET', P .. 'schedule-floor') or 0)
local last = tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or 0)
local anew = (forgotten > known and at < forgotten) or at > math.max(last, forgotten)
if anew then at = 0 end
if anew or at >= forgotten then known = forgotten end
local from = string.format('(%.0f', at)
local found = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[5])
local schedules = {}
for i = 1, #found, 2 do
  schedules[#schedules + 1] = show_schedule(found[i])
  at = tonumber(found[i + 1])
end
return {string.format('%.0f', at), string.format('%.0f', known), US, anew and 1 or 0, at < last and 1 or 0, schedules}

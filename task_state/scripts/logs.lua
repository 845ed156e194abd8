-- A part of a log, as {offset of its first line, number of lines in all, lines}. Read-only.
-- ARGV: prefix, ttl, id, offset (negative: from the end), most lines wanted.
local key, from = P .. 'logs:' .. ID, tonumber(ARGV[4])
local total = call('LLEN', key)
if from < 0 then from = math.max(total + from, 0) end
return {from, total, call('LRANGE', key, from, from + tonumber(ARGV[5]) - 1)}

-- Puts an outbox event off: into the due set, out of the group's pending entries and of the due set's old
-- member. ARGV: prefix, ttl, group, entry id ('' = it came from the due set), old member, new member, ms.
call('ZADD', P .. 'due:' .. ID, MS + tonumber(ARGV[7]), ARGV[6])
if ARGV[4] ~= '' then call('XACK', P .. 'outbox', ID, ARGV[4]) end
if ARGV[5] ~= ARGV[6] then call('ZREM', P .. 'due:' .. ID, ARGV[5]) end
return 1

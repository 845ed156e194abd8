-- Takes or keeps a turn that one process at a time has. ARGV: prefix, ttl, name, owner, ms ('0' gives it
-- up). Answers 1 to who has it.
local key = P .. ID .. ':turn'
local owner, life = ARGV[4], tonumber(ARGV[5])
local held = call('GET', key)
if held and held ~= owner then return 0 end
if life > 0 then call('SET', key, owner, 'PX', life)
else call('DEL', key) end
return 1

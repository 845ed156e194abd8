-- A new id. ARGV: prefix, ttl.
local last = tonumber(call('GET', P .. 'sequence') or '0')
local id = string.format('%.0f', math.max(last + 1, NOW))
call('SET', P .. 'sequence', id)
return id

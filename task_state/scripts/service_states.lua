-- Every service with tasks or a mode, as {name, mode, waiting, delayed, running}; the mode as it is stored.
-- Of managed tasks: `waiting` are those that arrive, stand in a lane or were admitted. Read-only.
-- ARGV: prefix, ttl.
local modes, admitted, names = {}, {}, {}
local packed = call('HGETALL', P .. 'modes')
for i = 1, #packed, 2 do modes[packed[i]], names[packed[i]] = packed[i + 1], true end
for _, name in ipairs(call('HKEYS', P .. 'services')) do names[name] = true end
for _, id in ipairs(call('ZRANGE', P .. 'queued', 0, -1)) do
  local name = (load(id) or {}).service
  if name then admitted[name] = (admitted[name] or 0) + 1 end
end

-- The stricter one of what was said of the service and of all.
local function mode(name)
  local own, all = modes[name] or '', modes['*'] or ''
  if string.find(own, '^PAUSED') or all == '' then return own end
  return (string.find(all, '^PAUSED') or own == '') and all or own
end

local rows = {}
for name in pairs(names) do
  local queued = admitted[name] or 0
  local waiting = call('SCARD', P .. 'arriving:' .. name) + tonumber(call('HGET', P .. 'waiting', name) or 0) + queued
  local delayed = tonumber(call('HGET', P .. 'delays', name) or 0)
  rows[#rows + 1] = {name, mode(name), waiting, delayed, call('HLEN', P .. 'busy:' .. name) - queued}
end
return rows

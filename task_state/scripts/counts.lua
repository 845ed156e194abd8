-- How many tasks there are, as {by status, by service, by user}. Read-only: it runs on a replica too.
-- ARGV: prefix, ttl, service ('' = all), user ('' = all), most users to name.
local service, user, most = ARGV[3], ARGV[4], tonumber(ARGV[5])

-- The services that the answer is about, and how many tasks each has.
local function services()
  if service ~= '' and user == '' then
    return {service, call('HGET', P .. 'services', service) or '0'}
  end
  local all = service == '' and call('HGETALL', P .. 'services') or {service, '0'}
  if user == '' then return all end
  for i = 1, #all, 2 do all[i + 1] = call('HGET', P .. 'users:' .. all[i], user) or '0' end
  return all
end

local by_service, scopes = {}, {}
for i, value in ipairs(services()) do by_service[i] = value end
if user == '' then
  scopes[1] = service == '' and '' or ':' .. service
else
  for i = 1, #by_service, 2 do
    if by_service[i + 1] ~= '0' then scopes[#scopes + 1] = ':' .. by_service[i] .. ':' .. user end
  end
end
local by_status = {}
for i, status in ipairs(STATUSES) do
  by_status[i] = 0
  for _, scope in ipairs(scopes) do
    by_status[i] = by_status[i] + call('ZCARD', P .. 'c:' .. status .. scope)
  end
end
local named = {}
for i = 1, #by_service, 2 do
  if by_service[i + 1] ~= '0' then named[#named + 1], named[#named + 2] = by_service[i], by_service[i + 1] end
end
local users = P .. 'users:' .. service
local by_user = false
if service ~= '' and user ~= '' then
  by_user = named[1] and {user, named[2]} or {}
elseif service ~= '' and call('HLEN', users) <= most then
  by_user = call('HGETALL', users)
end
return {by_status, named, by_user}

-- Compares the count of a service, or of users of it, with the indexes. ARGV: prefix, ttl, '1' to mend what
-- differs, service, users... Answers {check, '', service, user, what differs, '1' if mended} for each difference.
local mending, service, found = ID == '1', ARGV[4], {}

local function indexed(scope)
  local tasks = 0
  for _, status in ipairs(STATUSES) do tasks = tasks + call('ZCARD', P .. 'c:' .. status .. scope) end
  return tasks
end

local function compare(key, field, user, real)
  local noted = tonumber(call('HGET', key, field) or 0)
  if noted == real and (real > 0 or call('HEXISTS', key, field) == 0) then return end
  if mending then
    if real > 0 then call('HSET', key, field, real)
    else call('HDEL', key, field) end
  end
  found[#found + 1] = {'counts', '', service, user, 'counts ' .. noted .. ' tasks and has ' .. real,
    mending and '1' or ''}
end

if #ARGV == 4 then compare(P .. 'services', service, '', indexed(':' .. service)) end
for i = 5, #ARGV do
  compare(P .. 'users:' .. service, ARGV[i], ARGV[i], indexed(':' .. service .. ':' .. ARGV[i]))
end
return found

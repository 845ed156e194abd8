-- Asks a task to end, and perhaps to be deleted. ARGV: prefix, ttl, id, service ('' = any), user,
-- delete ('1' or ''), number of lines, lines... Answers the state, or 'DELETED'.
local r = load(ID)
if not r or (ARGV[4] ~= '' and r.service ~= ARGV[4]) or (ARGV[5] ~= '' and r.user ~= ARGV[5]) then
  return {'!', 'MISSING'}
end
local delete = ARGV[6] == '1'
if terminal(r.status) then
  if delete then
    purge(r)
    return 'DELETED'
  end
  if r.status ~= 'CANCELLED' then return {'!', 'TRANSITION', r.status} end
  return r.status
end
if delete then
  call('HSET', r.key, 'delete', '1')
  r.delete = '1'
end
request_end(r, 8, 7 + tonumber(ARGV[7]))
if terminal(r.status) and delete then return 'DELETED' end
return r.status

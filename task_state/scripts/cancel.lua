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
local told = r.managed and r.status ~= 'PENDING'
local to = leased(r) and 'CANCEL_REQUESTED' or 'CANCELLED'
if r.status == to then return r.status end
append(r, 8, 7 + tonumber(ARGV[7]))
if r.lease > 0 and to == 'CANCELLED' then
  remember(r, 'lost', 'Its worker had not been heard of for the whole lease when the task was cancelled')
end
if told then publish(r, 'cancel') end
move(r, to)
if terminal(to) and delete then return 'DELETED' end
return r.status

-- Tasks that wait, and that neither the outbox nor admission knows. ARGV: prefix, ttl, '1' to have them
-- dispatched, the group that does it, ids... Answers {check, id, service, user, what differs, '1' if mended} for each.
local found = {}
for i = 5, #ARGV do
  local r = load(ARGV[i])
  if r and r.managed and r.epoch == 0 and (r.status == 'PENDING' or r.status == 'DISPATCHING')
      and not call('ZSCORE', lane(r), r.id) and not call('ZSCORE', P .. 'delayed', r.id)
      and not call('ZSCORE', P .. 'queued', r.id) then
    if ID == '1' then
      local event = cjson.encode({'submitted', r.id, r.service, r.user, r.status, 0})
      call('ZADD', P .. 'due:' .. ARGV[4], MS, event)
    end
    found[#found + 1] = {'dispatch', r.id, r.service, r.user,
      'is ' .. r.status .. ', and no event is left that would have it dispatched', ID}
  end
end
return found

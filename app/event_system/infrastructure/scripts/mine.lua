-- What a member holds without knowing it: the reply that had it was lost. ARGV: 2 queue id, 3 consumer,
-- then the ids of entries that it knows. Returns {id, deliveries, fields} of the others.
local q, consumer = ARGV[2], ARGV[3]
local known, unseen = {}, {}
for i = 4, #ARGV do known[ARGV[i]] = true end
for _, held in ipairs(call('XPENDING', queue_key(q), GROUP, '-', '+', 10000, consumer)) do
  if not known[held[1]] then
    local found = call('XRANGE', queue_key(q), held[1], held[1])[1]
    if found then
      unseen[#unseen + 1] = {held[1], held[4], found[2]}
    else
      finish(q, held[1])
    end
  end
end
return unseen

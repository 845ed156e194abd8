-- Deliver dead letters again, their deliveries counted anew. ARGV: their ids, from 2 on. Those whose queue
-- is gone stay. Returns how many it were.
local replayed = 0
for i = 2, #ARGV do
  local letter = call('XRANGE', P .. 'dead', ARGV[i], ARGV[i])[1]
  local fields = letter and as_map(letter[2])
  if fields and call('HEXISTS', P .. 'routes', fields.q) == 1 then
    call('XADD', queue_key(fields.q), '*', 't', fields.t, 'e', fields.e)
    call('XDEL', P .. 'dead', ARGV[i])
    replayed = replayed + 1
  end
end
return replayed

-- Settle deliveries. ARGV: 2 queue id, 3 how many acknowledgements follow; their entry ids; then for
-- each refusal its entry id, '1' when it becomes a dead letter (else it is delivered again), how often it
-- was delivered, and the reason. Repeating it does nothing.
local q = ARGV[2]
local key = queue_key(q)
local acks = tonumber(ARGV[3])
for first = 4, acks + 3, 1000 do
  local last = math.min(first + 999, acks + 3)
  call('XACK', key, GROUP, unpack(ARGV, first, last))
  call('XDEL', key, unpack(ARGV, first, last))
end
for at = acks + 4, #ARGV, 4 do
  local entry, dead, deliveries, reason = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local fields = fields_of(q, entry)
  if finish(q, entry) and fields then
    if dead == '1' then
      bury(q, fields, deliveries, reason)
    else
      call('XADD', key, '*', 't', fields.t or '', 'e', fields.e or '', 'n', deliveries, 'r', reason)
    end
  end
end
return 1

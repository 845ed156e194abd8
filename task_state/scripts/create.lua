-- Shared by save and submit: writes a record that is not there (any more). Fields from ARGV[from] on.
local function create(r, lines_from, lines_to, fields_from)
  call('HSET', r.key, 'service', r.service, 'user_id', r.user, 'status', r.status,
    'created_at', r.created, 'updated_at', r.updated, 'revision', r.revision,
    unpack(ARGV, fields_from))
  if r.epoch > 0 then call('HSET', r.key, 'epoch', r.epoch) end
  index(r)
  count(r, 1)
  append(r, lines_from, lines_to)
  change(r, 'created')
end

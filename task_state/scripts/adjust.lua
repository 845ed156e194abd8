-- Changes what holds for an active task. ARGV: prefix, ttl, id, service ('' = any), user ('' = any), what is to
-- be changed, its value as JSON ('' = as the task's parameters say), its log line. Answers all that was changed,
-- as a JSON object. The revision stays: no reader's copy of the record holds it, and no save() writes it.
local r = load(ID)
if not r or (ARGV[4] ~= '' and r.service ~= ARGV[4]) or (ARGV[5] ~= '' and r.user ~= ARGV[5]) then
  return {'!', 'MISSING'}
end
if not r.managed then return {'!', 'UNMANAGED'} end
if terminal(r.status) or r.status == 'CANCEL_REQUESTED' then return {'!', 'ENDED', r.status} end
local all = cjson.decode(values(r, 'adjust')[1] or '{}')
all[ARGV[6]] = ARGV[7] ~= '' and cjson.decode('[' .. ARGV[7] .. ']')[1] or nil
local members = {} -- cjson would write fourteen digits of a number
for name, value in pairs(all) do
  local written = type(value) == 'number' and string.format('%.17g', value) or cjson.encode(value)
  members[#members + 1] = cjson.encode(name) .. ':' .. written
end
local text = #members > 0 and '{' .. table.concat(members, ',') .. '}' or ''
thaw(r)
if text == '' then call('HDEL', r.key, 'adjust') else call('HSET', r.key, 'adjust', text) end
append(r, 8, 8)
change(r, 'result')
return text == '' and '{}' or text

-- Take over what dead members held. ARGV: 2 queue id, 3 consumer, 4 how many entries it has room for,
-- 5 '1' when it may take one that may have killed its member, 6 how often an event is delivered.
-- What nobody had in hands (given back unread: delivery count 0) comes in any number. Of the others one
-- of many killed its member, and nobody knows which: they come one at a time, so that only that one is
-- counted on. Returns {id, deliveries, fields} of each.
local q, consumer, room = ARGV[2], ARGV[3], tonumber(ARGV[4])
local suspects, most = ARGV[5] == '1', tonumber(ARGV[6])
local key = queue_key(q)
local taken = {}

local function take(entry, count)
  local got = call('XCLAIM', key, GROUP, consumer, 0, entry)[1]
  if got and got[2] then taken[#taken + 1] = {entry, count + 1, got[2]} end
end

local function consider(entry, count)
  local fields = fields_of(q, entry)
  local deliveries = fields and count + tonumber(fields.n or '0')
  if not fields or fields.w then
    finish(q, entry)
  elseif deliveries >= most then
    local why = 'its consumers died, the last of ' .. deliveries .. ' times it was delivered'
    bury(q, fields, deliveries, fields.r and why .. '; before that: ' .. fields.r or why)
    finish(q, entry)
  else
    take(entry, count)
    suspects = false
  end
end

for _, dead in ipairs(call('ZRANGEBYSCORE', members_key(q), '-inf', MS, 'LIMIT', 0, 20)) do
  if dead ~= consumer then
    for _, held in ipairs(call('XPENDING', key, GROUP, '-', '+', 200, dead)) do
      if #taken >= room then return taken end
      if held[4] == 0 then
        take(held[1], 0)
      elseif suspects then
        consider(held[1], held[4])
      end
    end
  end
end
return taken

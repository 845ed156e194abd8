-- Adds log lines, output, jobs and result fields; the state stays. ARGV: prefix, ttl, id, epoch
-- ('' = none), output, number of lines, lines..., number of jobs, jobs..., ('batch', name,) field, value, ...
-- Lines and output leave the revision alone: they are additions that no reader can conflict with.
local epoch, n = tonumber(ARGV[4]), tonumber(ARGV[6])
local jobs_at = 7 + n
local jobs = tonumber(ARGV[jobs_at])
local fields_at = jobs_at + jobs + 1
local r = load(ID)
if not r then return {'!', 'MISSING'} end
if epoch and r.epoch ~= epoch then return fenced(r) end
if ARGV[fields_at] == 'batch' then -- repeated because its answer was lost: it is there already
  if values(r, 'batch')[1] == ARGV[fields_at + 1] then return r.revision end
  thaw(r)
  call('HSET', r.key, 'batch', ARGV[fields_at + 1])
  fields_at = fields_at + 2
end
append(r, 7, jobs_at - 1)
output(r, ARGV[5])
if jobs > 0 then
  thaw(r)
  local known = cjson.decode(uncut(r.key, 'jobs', call('HGET', r.key, 'jobs') or '[]'))
  local has = {}
  for _, job in ipairs(known) do has[job] = true end
  for i = jobs_at + 1, jobs_at + jobs do
    if not has[ARGV[i]] then
      known[#known + 1] = ARGV[i]
      has[ARGV[i]] = true
    end
  end
  set_cut(r.key, 'jobs', cjson.encode(known))
end
fields(r, fields_at)
local changed = jobs > 0 or fields_at <= #ARGV
if changed then touch(r) end
keep(r)
change(r, changed and 'result' or 'log')
return r.revision

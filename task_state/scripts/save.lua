-- Saves a whole record. ARGV: prefix, ttl, id, expected revision ('' if it was never loaded), service,
-- user, status, created ('' = now), output mode ('', 'append', 'replace'), output, number of lines,
-- lines..., field, value, ... Answers the revision and the times created, updated, started, completed.
local expected, service, user, status, created = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local mode, text, n = ARGV[9], ARGV[10], tonumber(ARGV[11])
local old = load(ID)

local function finish(r)
  if mode == 'replace' then call('DEL', P .. 'output:' .. ID) end
  output(r, text)
  keep(r)
  if r.status == 'PENDING' then return {r.revision, r.created, r.updated, false, false} end
  local times = values(r, 'started_at', 'completed_at')
  return {r.revision, r.created, r.updated, times[1], times[2]}
end

if expected == '' then
  if old and old.managed and not terminal(old.status) then return {'!', 'CONFLICT', 'ACTIVE'} end
  local r = {id = ID, key = P .. 'task:' .. ID, service = service, user = user, status = status,
    created = created == '' and US or created, updated = US, revision = 1, epoch = 0, lease = 0,
    managed = false}
  if old then
    forget(old)
    -- A new epoch, so that the last attempt of the task that was here cannot write to this one.
    r.revision, r.epoch = old.revision + 1, old.epoch + (old.managed and 1 or 0)
  end
  create(r, 12, 11 + n, 12 + n)
  if status == 'RUNNING' then call('HSETNX', r.key, 'started_at', US) end
  if terminal(status) then
    call('HSETNX', r.key, 'completed_at', US)
    publish(r, 'finished')
  end
  return finish(r)
end

if not old then return {'!', 'MISSING'} end
if old.revision ~= tonumber(expected) then return {'!', 'CONFLICT', 'REVISION'} end
if old.service ~= service or old.user ~= user then return {'!', 'CONFLICT', 'OWNER'} end
if status ~= old.status then
  if leased(old) and status ~= 'CANCEL_REQUESTED' then return {'!', 'LEASED'} end
  if not allowed(old.status, status) then return {'!', 'TRANSITION', old.status} end
end
fields(old, 12 + n)
append(old, 12, 11 + n)
if status == old.status then
  touch(old)
  change(old, 'result')
else
  move(old, status)
end
if call('EXISTS', old.key) == 0 then return {old.revision, old.created, old.updated, false, false} end
return finish(old)

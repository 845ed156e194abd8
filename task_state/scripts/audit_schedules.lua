-- Compares schedules with what is made of them. ARGV: prefix, ttl, '1' to mend what differs, what the names
-- are, and for 'active' the schedule; then the names:
-- 'schedule': schedules that have a record; 'listed': those that the index has; 'part': schedules to which
-- there are active tasks, a buffer or a history; 'active': tasks that a schedule holds for active;
-- 'task': tasks whose ids say that a schedule made them.
-- Answers {'schedules', task, '', '', what differs, '1' if mended} for each difference.
local mending, kind, found = ID == '1', ARGV[4], {}

local function differs(task, what, mend)
  if mending then mend() end
  found[#found + 1] = {'schedules', task, '', '', what, mending and '1' or ''}
end

local function exists(name) return call('EXISTS', P .. 'schedule:' .. name) == 1 end

local checks = {}

function checks.schedule(name)
  if not call('ZSCORE', P .. 'schedules', name) then
    differs('', 'schedule ' .. name .. ' is not listed', function() call('ZADD', P .. 'schedules', 0, name) end)
  end
  if not call('ZSCORE', P .. 'schedule-changes', name) then
    differs('', 'no scheduler is told of schedule ' .. name, function() schedule_changed(name) end)
  end
  local waits = call('EXISTS', P .. 'schedule-buffer:' .. name) == 1
  if waits and not call('ZSCORE', P .. 'schedule-waiting', name) then
    differs('', 'nothing looks after the slots of schedule ' .. name .. ' that wait', function()
      call('ZADD', P .. 'schedule-waiting', 0, name)
    end)
  end
end

function checks.listed(name)
  if exists(name) then return end
  differs('', 'schedule ' .. name .. ' is listed, and does not exist', function()
    call('ZREM', P .. 'schedules', name)
  end)
end

function checks.part(name)
  if exists(name) then return end
  differs('', 'there is something left of schedule ' .. name .. ', which does not exist', function()
    for _, part in ipairs({'active', 'buffer', 'fires'}) do
      call('UNLINK', P .. 'schedule-' .. part .. ':' .. name)
    end
    call('ZREM', P .. 'schedule-waiting', name)
  end)
end

function checks.active(id)
  local r, name = load(id), ARGV[5]
  if r and not terminal(r.status) then return end
  differs(id, 'schedule ' .. name .. ' takes it for active', function()
    call('ZREM', P .. 'schedule-active:' .. name, id)
    call('ZADD', P .. 'schedule-waiting', 'XX', 0, name)
  end)
end

-- A schedule that was made anew does not know the tasks of its predecessor.
function checks.task(id)
  local name, r = string.match(id, '^s%.(.+)%.r?%d+$'), load(id)
  if not name or not r or not r.managed or terminal(r.status) then return end
  local made = call('HGET', P .. 'schedule:' .. name, 'created_at')
  local active = P .. 'schedule-active:' .. name
  if not made or tonumber(made) > tonumber(r.created) or call('ZSCORE', active, id) then return end
  differs(id, 'schedule ' .. name .. ' does not take it for active', function() call('ZADD', active, r.created, id) end)
end

for i = kind == 'active' and 6 or 5, #ARGV do checks[kind](ARGV[i]) end
return found

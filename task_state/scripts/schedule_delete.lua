-- Removes a schedule; its tasks go on. ARGV: prefix, ttl, name, how many deleted ones to remember at most:
-- who asks for changes since before the last that was forgotten has to load everything anew.
local removed = call('DEL', P .. 'schedule:' .. ID)
call('UNLINK', P .. 'schedule-active:' .. ID, P .. 'schedule-buffer:' .. ID, P .. 'schedule-fires:' .. ID)
call('ZREM', P .. 'schedules', ID)
call('ZREM', P .. 'schedule-waiting', ID)
if removed == 0 then return 0 end
local deleted = P .. 'schedule-deleted'
call('ZADD', deleted, schedule_changed(ID), ID)
while call('ZCARD', deleted) > tonumber(ARGV[4]) do
  local name, version = unpack(call('ZPOPMIN', deleted))
  call('ZREM', P .. 'schedule-changes', name)
  call('SET', P .. 'schedule-floor', version)
end
return 1

-- One schedule; nothing if there is none. Read-only. ARGV: prefix, ttl, name.
local schedule = show_schedule(ID)
return schedule[2] and schedule or {}

-- Pauses, drains or resumes a service, or '*': all. ARGV: prefix, ttl, service, mode, reason.
if ARGV[4] == 'ACTIVE' then call('HDEL', P .. 'modes', ID)
else set_mode(ID, ARGV[4], ARGV[5]) end
return 1

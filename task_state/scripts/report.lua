-- Adds a block of lines to a task's report. ARGV: prefix, ttl, id, epoch, block (gzip; '' = its lines were left
-- out already), lines in it, '1' if they tell of failures (which may fill the reserve too), lines that the report
-- had before, kept and omitted: a repeat after a lost answer changes nothing. What does not fit is counted.
-- Answers the lines kept, the lines omitted, and 1 once lines that tell of no failure do not fit any more.
local block, lines, before = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[8])
local r = load(ID)
if not r then return {'!', 'MISSING'} end
if r.epoch ~= tonumber(ARGV[4]) then return fenced(r) end
local kept, omitted, full = report_facts(r)
if kept + omitted ~= before then return {kept, omitted, full and 1 or 0} end
local key = P .. 'report:' .. ID
local size = call('STRLEN', key)
local limit = ARGV[7] == '1' and 2 * REPORT_BYTES or REPORT_BYTES
if block == '' or size + #block > limit then
  omitted, full = omitted + lines, full or block ~= '' and limit == REPORT_BYTES
else
  call('APPEND', key, block)
  kept = kept + lines
  r.grown = size == 0
end
thaw(r)
call('HSET', r.key, 'report', string.format('[%.0f,%.0f,%d]', kept, omitted, full and 1 or 0))
keep(r)
return {kept, omitted, full and 1 or 0}

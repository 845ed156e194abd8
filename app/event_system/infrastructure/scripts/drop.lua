-- End a queue and all that it holds. ARGV: 2 queue id. Returns 0 when there is none.
return drop_queue(ARGV[2])

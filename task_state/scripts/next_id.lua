-- A new id. ARGV: prefix, ttl.
return next_id()

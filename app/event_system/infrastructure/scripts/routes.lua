-- The version of the routes, and all of them.
return {call('GET', P .. 'version') or '0', call('HGETALL', P .. 'routes')}

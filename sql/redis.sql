-- The link to Redis where there is none, and its settings; test/driver has the rest.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS cache_ext;
RESET client_min_messages;

-- no Redis is a normal state
SELECT address, role, state, breaker, server_version, reconnects, last_error FROM redis_status;
SELECT cache_ping();

-- nobody is there: one row, the reason, and no exception
SET cache_ext.redis_url = 'unix:///nowhere/redis.sock?db=7';
SELECT address, role, state, breaker, clients, memory_bytes, keys, keyspace_hits, keyspace_misses, round_trip_ms, reconnects, last_error
  FROM redis_status;
SELECT since <= clock_timestamp() AS dated FROM redis_status;
SELECT cache_ping();

-- a view for everybody, a function not
CREATE ROLE regress_redis_reader;
SET ROLE regress_redis_reader;
SELECT count(*) FROM redis_status;
SELECT cache_ping();
SET cache_ext.redis_url = '';
SET cache_ext.redis_tls_ca_file = '/tmp/mine';
SET cache_ext.max_connections = 1;
RESET ROLE;
DROP ROLE regress_redis_reader;

-- an address is refused when it is set, whoever sets it, and nothing of it is repeated
ALTER SYSTEM SET cache_ext.redis_url = 'redis://:hunter2@host:port';
ALTER ROLE CURRENT_USER SET cache_ext.redis_url = 'rediss://:hunter2@[::1';
DO $$ BEGIN PERFORM set_config('cache_ext.redis_url', 'unix://:hunter2@/tmp/s?db=x', false); END $$;

-- a password in a setting earns a warning each time it is typed
SET cache_ext.redis_url = 'redis://:hunter2@localhost';
ALTER ROLE CURRENT_USER SET cache_ext.redis_url = 'rediss://shop:hunter2@localhost';
ALTER ROLE CURRENT_USER RESET cache_ext.redis_url;
SET cache_ext.redis_url = 'redis://shop@localhost';
SHOW cache_ext.redis_url;
RESET cache_ext.redis_url;

-- limits
SET cache_ext.max_connections = 0;
\set VERBOSITY sqlstate
SET cache_ext.idle_timeout = -1;
\set VERBOSITY default
SET cache_ext.redis_tls_verify = 'none';

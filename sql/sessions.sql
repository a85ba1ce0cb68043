-- Sessions and rate limits without Redis: in a table, and in the memory of the server.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS cache_ext;
RESET client_min_messages;
SET cache_ext.redis_url = '';
SELECT cache_stats_reset();

-- 1. What is stored is there, in the transaction that stores it and for all when that commits
SELECT session_set('s1', '{"userId": 7, "cart": [1, 2]}');
SELECT session_get('s1'), session_get('absent');
BEGIN;
SELECT session_set('s1', '{"userId": 8}'), session_set('s2', '{"userId": 8}');
SELECT session_get('s1'), session_get('s2');
SAVEPOINT s;
SELECT session_destroy('s1'), session_get('s1');
ROLLBACK TO s;
SELECT session_get('s1');
ROLLBACK;
SELECT session_get('s1'), session_get('s2');
-- in one statement, too
SELECT session_set('s2', '{"userId": 9}'), session_get('s2');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT session_get('s1') IS NOT NULL AS there;
SELECT session_set('s1', '{"userId": 7}');
SELECT session_get('s1');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT session_set('s3', '{"userId": 7}'), session_touch('s3'), session_get('s3');
COMMIT;

-- 2. Lives: what was asked for, else the cookie's, else the setting's
CREATE FUNCTION life(which text) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce((SELECT round(extract(epoch FROM ttl) / 60) || ' min' FROM session_list
                     WHERE session = left(encode(sha256(which::bytea), 'hex'), 16)), 'none') $$;
SELECT life('s1');
SET cache_ext.session_ttl = '2 h';
SELECT session_set('s1', '{"userId": 7}'), life('s1');
SELECT session_set('s1', '{"userId": 7}', '5 min'), life('s1');
SELECT session_touch('s1'), life('s1');
SELECT session_set('s1', '{"userId": 7}', '3 h'), session_touch('s1'), life('s1');
RESET cache_ext.session_ttl;
SELECT session_set('c', format('{"cookie": {"originalMaxAge": 3600000, "expires": "%s", "path": "/"}, "n": 1}',
    to_char(now() AT TIME ZONE 'UTC' + interval '30 min', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))::jsonb), life('c');
SELECT session_touch('c'), life('c'), session_get('c') #>> '{cookie,originalMaxAge}' AS full_life,
    round(extract(epoch FROM (session_get('c') #>> '{cookie,expires}')::timestamptz - now()) / 60) AS minutes;
SELECT session_set('c', session_get('c'), '10 min'), life('c'), session_get('c') #>> '{cookie,originalMaxAge}' AS full_life,
    round(extract(epoch FROM (session_get('c') #>> '{cookie,expires}')::timestamptz - now()) / 60) AS minutes;
SELECT session_set('b', '{"cookie": {"originalMaxAge": null, "expires": null}}', '10 min'), life('b'), session_get('b');
SELECT session_set('c', '{"cookie": {"expires": "2020-01-01T00:00:00.000Z"}}'), session_get('c');   -- over: as connect-redis does
SELECT session_set('c', '{"cookie": {"expires": "next week"}}');
SELECT session_set('c', '{"n": 1}', '1 microsecond');
SELECT pg_sleep(0.002), session_get('c'), session_touch('c'), session_destroy('c'), session_regenerate('c');

-- 3. A new sid, and the old one is nobody's
SELECT session_set('old', '{"userId": 7, "cookie": {"originalMaxAge": null, "expires": null}}', '1 hour');
SELECT session_regenerate('old') AS fresh \gset
SELECT :'fresh' ~ '^[A-Za-z0-9_-]{32}$' AS unguessable, session_get('old') AS old, session_get(:'fresh') AS fresh, life(:'fresh');
SELECT session_regenerate('old'), session_touch('old'), session_destroy('old');
BEGIN;
SELECT session_regenerate(:'fresh') IS NOT NULL AS moved, session_get(:'fresh') AS gone;
ROLLBACK;
SELECT session_get(:'fresh') IS NOT NULL AS back;
SELECT session_destroy(:'fresh'), session_destroy(:'fresh');

-- 4. All sessions of somebody
SELECT session_destroy_all('userId', '7') > 0 AS some, session_destroy_all('userId', '9') > 0 AS more;
SELECT count(session_set(s, d::jsonb)) FROM (VALUES ('p1', '{"passport": {"user": "u-1"}}'), ('p2', '{"passport": {"user": "u-2"}, "userId": "7"}'),
    ('p3', '{"userId": 7}'), ('p4', '{"userId": 7.0}'), ('p5', '{"passport.user": "u-1"}'), ('p6', '{"userId": null, "admin": true}'),
    ('p7', '{"list": [7]}')) AS v (s, d);
BEGIN;
SELECT session_destroy_all('userId', '7');
SELECT session_get('p2'), session_get('p3'), session_get('p4');
SELECT session_set('p3', '{"userId": 7, "again": true}');
ROLLBACK;
SELECT session_get('p3');
SELECT session_destroy_all('passport.user', 'u-1'), session_destroy_all('userId', '7'), session_destroy_all('admin', 'true'),
    session_destroy_all('userId', 'null'), session_destroy_all('list', '[7]'), session_destroy_all('nobody', '');
SELECT s, session_get(s) FROM unnest('{p1,p2,p3,p4,p5,p6,p7}'::text[]) AS s WHERE session_get(s) IS NOT NULL ORDER BY s;

-- 5. Arguments
SELECT session_get(NULL);
\set SHOW_CONTEXT never
DO $$
DECLARE
    call text;
    state text;
    message text;
BEGIN
    FOREACH call IN ARRAY ARRAY[
        $q$session_set(NULL, '{}')$q$, $q$session_set('s', NULL)$q$, $q$session_touch(NULL)$q$, $q$session_destroy(NULL)$q$,
        $q$session_regenerate(NULL)$q$, $q$session_destroy_all(NULL, 'x')$q$, $q$session_destroy_all('x', NULL)$q$,
        $q$session_set('', '{}')$q$, $q$session_get('')$q$, $q$session_set(repeat('x', 9000), '{}')$q$, $q$session_get(repeat('x', 9000))$q$,
        $q$session_set('s', '[1]')$q$, $q$session_set('s', '"x"')$q$, $q$session_set('s', '{}', '0')$q$, $q$session_set('s', '{}', '-1 s')$q$,
        $q$session_set('s', '{}', '20000 years')$q$, $q$session_set('s', jsonb_build_object('x', repeat('x', 2000000)))$q$,
        $q$session_destroy_all('', 'x')$q$,
        $q$rate_limit(NULL, 1, '1 s')$q$, $q$rate_limit('k', NULL, '1 s')$q$, $q$rate_limit('k', 1, NULL)$q$, $q$rate_limit('k', 1, '1 s', NULL)$q$,
        $q$rate_limit('k', 1, '1 s', algorithm => NULL)$q$, $q$rate_limit('', 1, '1 s')$q$, $q$rate_limit(repeat('x', 9000), 1, '1 s')$q$,
        $q$rate_limit('k', 0, '1 s')$q$, $q$rate_limit('k', 1, '0')$q$, $q$rate_limit('k', 1, '-1 s')$q$, $q$rate_limit('k', 1, '100 years')$q$,
        $q$rate_limit('k', 1, '1 s', 0)$q$, $q$rate_limit('k', 1, '1 s', 2)$q$, $q$rate_limit('k', 1, '1 s', burst => 0)$q$,
        $q$rate_limit('k', 1, '1 year', burst => 2000000000)$q$,
        $q$rate_limit('k', 1, '1 s', burst => 2, algorithm => 'fixed_window')$q$, $q$rate_limit('k', 1, '1 s', algorithm => 'leaky')$q$,
        $q$cache_get('limit:gcra:1000000:k')$q$]
    LOOP
        state := '00000'; message := 'NO ERROR';
        BEGIN
            EXECUTE 'SELECT ' || call;
        EXCEPTION WHEN others THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
        END;
        RAISE NOTICE '% %: %', state, left(call, 60), message;
    END LOOP;
END $$;
SELECT rate_limit('k', 5, '1 s', algorithm => 'leaky');
BEGIN READ ONLY;
SELECT session_get('p7');
SELECT session_set('p7', '{}');
ROLLBACK;

-- 6. Who may
CREATE ROLE regress_app;
SET ROLE regress_app;
SELECT session_get('p7');
SELECT session_list FROM session_list;
SELECT * FROM rate_limit('k', 1, '1 s');
RESET ROLE;
SELECT cache_grant('regress_app', 'write');
SET ROLE regress_app;
SELECT session_set('mine', '{"userId": 1}'), session_get('mine'), session_touch('mine'), session_destroy('mine');
SELECT session_destroy_all('userId', '1'), session_regenerate('mine');
SELECT allowed, remaining FROM rate_limit('k', 2, '1 h');
SELECT session FROM session_list;
SELECT count(*) FROM session_stats;
RESET ROLE;
SELECT cache_grant('regress_app', 'admin');
SET ROLE regress_app;
SELECT kept_in, bytes, members FROM session_list ORDER BY members::text;
SET ROLE NONE;
SET cache_ext.allowed_prefix = 'shop:';
SELECT session_get('p7');
SELECT session_destroy_all('userId', '1');
SELECT * FROM rate_limit('k', 2, '1 h');
SELECT allowed FROM rate_limit('shop:k', 2, '1 h');
RESET cache_ext.allowed_prefix;
REVOKE SELECT ON session_list FROM regress_app;
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p, aclexplode(p.proacl) a WHERE a.grantee = 'regress_app'::regrole LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM regress_app', f);
    END LOOP;
END $$;
ALTER ROLE regress_app IN DATABASE :DBNAME RESET ALL;
DROP ROLE regress_app;

-- 7. Limits
SELECT i, r.allowed, r.remaining, r.retry_after > '0' AS later, r.reset_at > clock_timestamp() AS resets
  FROM generate_series(1, 4) i, LATERAL (SELECT * FROM rate_limit('gcra' || (i * 0), 3, '1 hour')) r;
SELECT allowed, remaining FROM rate_limit('costs', 10, '1 hour', cost => 7);
SELECT allowed, remaining FROM rate_limit('costs', 10, '1 hour', cost => 4);
SELECT allowed, remaining FROM rate_limit('costs', 10, '1 hour', cost => 3);
SELECT allowed, remaining FROM rate_limit('burst', 1, '1 hour', burst => 3, cost => 3);
SELECT allowed, remaining, retry_after > '59 min' AS in_an_hour FROM rate_limit('burst', 1, '1 hour', burst => 3);
SELECT i, r.allowed, r.remaining, date_trunc('minute', r.retry_after) AS wait
  FROM generate_series(1, 3) i, LATERAL (SELECT * FROM rate_limit('window' || (i * 0), 2, '1 hour', algorithm => 'fixed_window')) r;
SELECT i, r.allowed, r.remaining, r.retry_after BETWEEN '56 min' AND '64 min' AS wait
  FROM generate_series(1, 3) i, LATERAL (SELECT * FROM rate_limit('window' || (i * 0), 2, '1 hour', algorithm => 'sliding_window')) r;
-- one key, two limits that count apart, and a maximum that changes
SELECT (SELECT allowed FROM rate_limit('two', 1, '1 min')), (SELECT allowed FROM rate_limit('two', 5, '1 hour')), (SELECT allowed FROM rate_limit('two', 1, '1 min'));
SELECT remaining FROM rate_limit('two', 10, '1 hour');
-- at once, whatever becomes of the transaction
BEGIN;
SELECT allowed FROM rate_limit('rollback', 1, '1 hour');
ROLLBACK;
SELECT allowed FROM rate_limit('rollback', 1, '1 hour');
-- time passes
SELECT allowed FROM rate_limit('soon', 1, '100 ms');
SELECT pg_sleep(0.101);
SELECT allowed FROM rate_limit('soon', 1, '100 ms');
SELECT pg_typeof(allowed), pg_typeof(remaining), pg_typeof(retry_after), pg_typeof(reset_at) FROM rate_limit('types', 1, '1 s');

-- 8. What is told of them
SELECT hits > 0, misses > 0, sets > 0, touches > 0, destroys > 0 FROM session_stats;
SELECT allowed > 0, denied > 0, undecided, forgotten, in_memory > 0, room >= 256 FROM rate_limit_stats;
SELECT component, state, detail LIKE '%room for%' AS room FROM cache_health() WHERE component IN ('sessions', 'rate limits') ORDER BY 1;
SELECT line FROM regexp_split_to_table(cache_metrics(), E'\n') AS line WHERE line ~ '^# TYPE.*(session|rate_limit)' ORDER BY 1;
SELECT cache_stats_json() -> 'rate_limits' ? 'denied' AS limits, cache_stats_json() -> 'sessions' ? 'hits' AS sessions;
SELECT name, value, unit FROM cache_settings WHERE name ~ 'session|rate_limit' ORDER BY 1;
SET cache_ext.session_durability = 'both';
SET cache_ext.rate_limit_on_failure = 'maybe';
-- the table knows no sid, and no dump has it
SELECT session_set('a sid that nobody sees', '{}');
SELECT count(*) AS rows, count(*) FILTER (WHERE encode(id, 'escape') LIKE '%nobody%') AS sids FROM cache_ext_internal.session;
SELECT 'cache_ext_internal.session'::regclass = ANY (extconfig) AS dumped FROM pg_extension WHERE extname = 'cache_ext';

DELETE FROM cache_ext_internal.session;
DROP FUNCTION life;

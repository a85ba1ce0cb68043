-- Operating the cache: figures, explanations, advice and rights.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS cache_ext;
RESET client_min_messages;

CREATE SCHEMA operate_test;
CREATE TABLE operate_test.t (v integer);
INSERT INTO operate_test.t VALUES (1);

-- a row a tier; counted from the last reset on
SELECT cache_get('operate:1', 'SELECT v FROM operate_test.t', ttl => '1 hour');
SELECT cache_stats_reset();
SELECT tier, hits, misses, hit_rate, sets, deletes, errors, stale_hits, avg_ms, p99_ms FROM cache_stats ORDER BY tier;
SELECT cache_get('operate:2', 'SELECT v + 1 AS v FROM operate_test.t');
SELECT cache_get('operate:absent') IS NULL AS miss;
SELECT hits, misses, hit_rate, errors, avg_ms > 0 AS timed, p99_ms >= avg_ms AS ordered, reset_at > now() - interval '1 minute' AS since
  FROM cache_stats WHERE tier = 'query';
\set VERBOSITY sqlstate
SELECT cache_get('operate:failing', 'SELECT 1/0');
SELECT hits, errors FROM cache_stats WHERE tier = 'query';

-- figures in other shapes
SELECT jsonb_object_keys(cache_stats_json()) ORDER BY 1;
SELECT cache_stats_json('express') #> '{data,misses}' AS express, cache_stats_json('nextjs') #> '{cache,totalMisses}' AS nextjs,
       cache_stats_json('django') -> 'misses' AS django;
SELECT cache_stats_json('unheard-of');
SELECT substring(line FROM ',tier.*') AS line FROM regexp_split_to_table(cache_metrics(), E'\n') AS line WHERE line ~ '^cache_ext_hits_total.*query';
SELECT count(*) AS malformed FROM regexp_split_to_table(cache_metrics(), E'\n') AS line
 WHERE line !~ '^(# (HELP|TYPE) [a-z0-9_]+ .+|[a-z0-9_]+\{database="[^"]+"(,(tier|result|kind)="[a-z]+")?\} [-+.e0-9]+|)$';

-- explanations
SELECT key, tier, reason FROM cache_explain('operate:never');
SELECT cache_explain(NULL) IS NULL AS nothing;
SELECT cache_explain('');
BEGIN;
DELETE FROM operate_test.t;
SELECT reason LIKE '%; this transaction takes no shared values' AS because FROM cache_explain('operate:never');
SELECT cache_warm();
ROLLBACK;

-- health: the whole first; the doctor names the hole and mends it
SELECT component FROM cache_health();
SELECT DISTINCT state IN ('ok', 'degraded', 'down') AS state FROM cache_health();
SELECT cache_define('operate:{v}', 'SELECT v FROM operate_test.t WHERE v = $1',
                    warm => 'SELECT v FROM operate_test.t UNION ALL SELECT 5 ORDER BY 1');
SELECT severity, object, problem, remedy FROM cache_doctor() WHERE object LIKE 'loader%';
SELECT cache_watch('operate_test.t', patterns => ARRAY['operate:*']);
SELECT severity, object, problem, remedy FROM cache_doctor() WHERE object LIKE 'loader%';
ALTER TABLE operate_test.t DISABLE TRIGGER ALL;
SELECT DISTINCT severity, object FROM cache_doctor() WHERE object = 'operate_test.t';
ALTER TABLE operate_test.t ENABLE TRIGGER ALL;
SELECT cache_unwatch('operate_test.t');
ALTER TABLE operate_test.t RENAME COLUMN v TO w;
SELECT severity, object, problem, remedy FROM cache_doctor() WHERE object LIKE 'loader%';
ALTER TABLE operate_test.t RENAME COLUMN w TO v;

-- secrets are masked
SET client_min_messages = error;
SET cache_ext.redis_url = 'redis://user:hunter2@127.0.0.1:1/0';
SELECT name, value, unit FROM cache_settings WHERE name IN ('cache_ext.redis_url', 'cache_ext.default_ttl') ORDER BY name;
SELECT object FROM cache_doctor() WHERE object = 'cache_ext.redis_url';
RESET cache_ext.redis_url;
RESET client_min_messages;

-- rights
CREATE ROLE regress_operate_role LOGIN;
SELECT cache_grant('regress_operate_role', 'guest');
SELECT cache_grant('regress_operate_role', NULL);
SELECT cache_grant('regress_operate_role', 'admin', 'x:');
CREATE FUNCTION operate_test.granted() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(DISTINCT p.proname, ' ' ORDER BY p.proname)
    FROM pg_proc p, aclexplode(p.proacl) a
    WHERE a.grantee = 'regress_operate_role'::regrole
$$;
SELECT cache_grant('regress_operate_role', 'read');
SELECT operate_test.granted();
SELECT cache_grant('regress_operate_role', 'write', 'app:');
SELECT operate_test.granted();
SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'regress_operate_role'::regrole;
-- a lower level takes away what is above it; a prefix that would not hold is refused
SELECT cache_grant('regress_operate_role', 'read', 'app:');
SELECT operate_test.granted();
SELECT cache_grant('regress_operate_role', 'write', 't*:');
CREATE ROLE regress_operate_member IN ROLE regress_operate_role;
SELECT cache_grant('regress_operate_role', 'write', 'app:');
SELECT cache_grant('regress_operate_member', 'write', 'app:');
DROP ROLE regress_operate_member;
SELECT cache_grant('regress_operate_role', 'admin');
SELECT operate_test.granted();
SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'regress_operate_role'::regrole;

-- a session that is kept to a prefix
SET cache_ext.allowed_prefix = 'app:';
SELECT cache_get('other:1', 'SELECT 1');
SELECT cache_set('other:1', 'x');
SELECT cache_set('app:1', 'x', tags => '{other}');
SELECT cache_invalidate('other:1');
SELECT cache_invalidate_tags('other');
SELECT cache_invalidate_pattern('*');
SELECT cache_incr('other:n');
SELECT cache_publish('other', 'x');
SELECT cache_get('app:1', 'SELECT 1 AS x');
SELECT cache_invalidate('app:1');
RESET cache_ext.allowed_prefix;
SELECT cache_publish('invalidate', '{"v": 1, "all": true}');
SELECT cache_watch('operate_test.t', channels => '{invalidate}');
SET ROLE regress_operate_role;
SET cache_ext.allowed_prefix = '';
RESET ROLE;

SELECT cache_undefine('operate:{v}');
DROP OWNED BY regress_operate_role;
DROP ROLE regress_operate_role;
SET client_min_messages = warning;
DROP SCHEMA operate_test CASCADE;

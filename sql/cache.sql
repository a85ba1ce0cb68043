-- The cache without any tier: queries answer, errors are errors, nobody else may.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS cache_ext;
RESET client_min_messages;
SET cache_ext.enabled = off;

CREATE SCHEMA cache_test;
CREATE TABLE cache_test.vendor (id integer PRIMARY KEY, name text, paid numeric);
INSERT INTO cache_test.vendor VALUES (1, 'Ada', 10.50), (2, 'B "quoted" \ end', NULL);

-- a query's rows are a JSON array of objects, with the query's own column names
SELECT cache_get('vendors', 'SELECT id, name AS "The Name", paid FROM cache_test.vendor ORDER BY id');
SELECT cache_get('none', 'SELECT 1 AS x WHERE false');
SELECT cache_get('nested', $$SELECT ARRAY[1, NULL] AS a, ROW(1, 'x') AS r, '{"j": 1}'::jsonb AS j, NULL::text AS n$$);
SELECT cache_get('values', 'VALUES (1), (2)');
SELECT cache_get('with', 'WITH x AS (SELECT 7 AS n) SELECT n FROM x;');
SELECT cache_get('comment', 'SELECT 1 AS x -- the end');

-- no query: a miss
SELECT cache_get('vendors') IS NULL AS miss;

-- arguments by name; NULLs
SELECT cache_get(key => 'k', query => 'SELECT 1 AS x', ttl => '1 minute', tags => '{a,b}', dialect => 'plain');
SELECT cache_get(NULL) IS NULL AS null_key, cache_get(NULL, 'SELECT 1/0') IS NULL AS not_run;
SELECT cache_get('k', 'SELECT 1 AS x', tags => NULL);
SELECT cache_delete('a', 'b', 'c') AS named, cache_delete(VARIADIC keys => ARRAY['a']) AS one,
       cache_delete(VARIADIC '{}') AS nothing;

-- it works for each row of a query, and sees its own transaction's changes
SELECT v.id, cache_get('one:' || v.id, format('SELECT name FROM cache_test.vendor WHERE id = %s', v.id))
  FROM cache_test.vendor v ORDER BY v.id;
BEGIN;
UPDATE cache_test.vendor SET paid = 11 WHERE id = 1;
SELECT cache_get('paid', 'SELECT sum(paid) FROM cache_test.vendor');
ROLLBACK;
SELECT cache_get('paid', 'SELECT sum(paid) FROM cache_test.vendor');

-- a statement that began earlier does not hold the query back: its snapshot is its own
CREATE FUNCTION cache_test.fresh() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cache_test.vendor VALUES (3, 'C', 1);
    RETURN cache_get('count', 'SELECT count(*) FROM cache_test.vendor');
END $$;
SELECT cache_test.fresh();
DELETE FROM cache_test.vendor WHERE id = 3;

-- the rest of the family reads NULL as NULL, and finds nothing where nothing is
SELECT cache_exists(NULL) IS NULL AS exists, cache_ttl(NULL) IS NULL AS ttl, cache_ttl('absent') IS NULL AS absent,
       cache_exists('absent') AS there, cache_expire('absent', '1 s') AS expired;
SELECT * FROM cache_get_many(NULL);
SELECT * FROM cache_get_many('{NULL,absent}');
SELECT cache_keys(NULL);
BEGIN;
SELECT cache_set_many('{"a": "text \n", "b": {"deep": [1, null]}, "c": 1.50, "d": true}', ttl => '1 h', tags => '{t}');
SELECT * FROM cache_get_many('{d,c,x,b,a}');
SELECT cache_ttl('a') BETWEEN '50 min' AND '1 h' AS ttl, cache_exists('b') AS there, cache_add('c', 'x') AS added;
SELECT cache_delete('b');
SELECT cache_get('b') IS NULL AS deleted;
SAVEPOINT s;
SELECT cache_clear();
SELECT cache_get('a') IS NULL AS cleared;
ROLLBACK TO s;
SELECT cache_get('a');
ROLLBACK;

-- loaders answer keys of a pattern, the most literal one first, with bound values
CREATE TABLE cache_test.campaign (id integer PRIMARY KEY, tenant_id integer, name text, since timestamptz);
INSERT INTO cache_test.campaign VALUES (1, 7, 'a', '2026-01-01 00:00+00'), (2, 7, 'b; DROP', NULL), (3, 8, 'c', 'infinity');
SELECT cache_define('campaigns:{tenant_id}', 'SELECT id, name FROM cache_test.campaign WHERE tenant_id = $1 ORDER BY id',
                    tags => ARRAY['tenant:{tenant_id}']);
SELECT cache_define('campaigns:{a}{{{b}}}', 'SELECT $2 AS second, $1 AS first');
SELECT cache_define('campaigns:new', $$SELECT 'new' AS v$$);
SELECT cache_define('by:{name}:{tenant}', 'SELECT id FROM cache_test.campaign WHERE tenant_id = $2 AND name = $1');
SELECT cache_get('campaigns:7'), cache_get('campaigns:99');
SELECT cache_get('campaigns:new') AS literal, cache_get('campaigns:x{y}') AS braces, cache_get('campaigns:7:8') AS none;
SELECT cache_get('by:b; DROP:7');
SELECT cache_get('campaigns:7', 'SELECT 1 AS inline');
BEGIN;
UPDATE cache_test.campaign SET name = 'changed' WHERE id = 1;
SELECT cache_get('campaigns:7') AS own_change;
ROLLBACK;
SELECT cache_define('campaigns:new', $$SELECT 'newer' AS v$$);
SELECT cache_get('campaigns:new') AS redefined;
SELECT cache_undefine('campaigns:new');
SELECT cache_get('campaigns:8') AS others_stay;
BEGIN;
SELECT cache_define('campaigns:rolled back', 'SELECT 1');
ROLLBACK;
SELECT cache_undefine('campaigns:rolled back');

-- a query's rows as rows, of the types that the caller names
SELECT * FROM cache_query('SELECT id, name, since AT TIME ZONE ''UTC'', ARRAY[id, NULL], NULL::integer FROM cache_test.campaign WHERE tenant_id = $1 ORDER BY id',
                          ARRAY['7']) AS t (id bigint, name text, since timestamp, a integer[], n integer);
SELECT * FROM cache_query('SELECT id, name, since AT TIME ZONE ''UTC'', ARRAY[id, NULL], NULL::integer FROM cache_test.campaign WHERE tenant_id = $1 ORDER BY id',
                          ARRAY['7']) AS t (id bigint, name text, since timestamp, a integer[], n integer);
SELECT * FROM cache_query('SELECT $1, $2::integer + 1', ARRAY[NULL, '41']) AS t (a text, b integer);
SELECT count(*) FROM cache_query('SELECT 1 WHERE false') AS t (x integer);
SELECT count(*) FROM cache_query(NULL) AS t (x integer);

-- errors, by their codes
\set VERBOSITY sqlstate
SELECT cache_get('');
SELECT cache_get(repeat('x', 10000));
SELECT cache_get('v:123');
SELECT cache_get('floor');
SELECT cache_get('k', 'SELECT 1', ttl => '0');
SELECT cache_get('k', 'SELECT 1', ttl => '-1 day');
SELECT cache_get('k', 'SELECT 1', ttl => '20000 years');
SELECT cache_get('k', 'SELECT 1', tags => '{a,NULL}');
SELECT cache_get('k', 'SELECT 1', tags => '{a,""}');
SELECT cache_get('k', 'SELECT 1', dialect => 'unheard-of');
SELECT cache_set(NULL, 'x');
SELECT cache_set('k', NULL);
SELECT cache_set('', 'x');
SELECT cache_set('v:1', 'x');
SELECT cache_set('k', 'x', ttl => '0');
SELECT cache_set('k', 'x', tags => '{NULL}');
SELECT cache_delete('a', NULL);
SELECT cache_delete(VARIADIC NULL);
SELECT cache_delete('');
SELECT cache_define(NULL, 'SELECT 1');
SELECT cache_define('x', NULL);
SELECT cache_define('', 'SELECT 1');
SELECT cache_define('{', 'SELECT 1');
SELECT cache_define('{a}{b}', 'SELECT 1');
SELECT cache_define('x:{a}', 'SELECT $2');
SELECT cache_define('x:{a}', 'SELECT 1', tags => ARRAY['t:{b}']);
SELECT cache_define('x', 'SELECT 1', ttl => '0');
SELECT cache_define('x', 'SELECT 1', stale_for => '-1 s');
SELECT cache_define('x', 'SELECT 1', eager => 1);
SELECT cache_define('x', 'SELECT 1', eager => 0.5, dialect => 'plain');
SELECT cache_define('x', 'SELECT random()');
SELECT cache_define('x', 'DELETE FROM cache_test.vendor');
SELECT cache_define('x', 'SELECT * FROM cache_test.missing');
SELECT cache_undefine('x');
SELECT cache_get('campaigns:seven');
SELECT cache_get('campaigns:99999999999999');
SELECT * FROM cache_query('SELECT 1, 2') AS t (x integer);
SELECT * FROM cache_query('SELECT ''x''') AS t (x integer);
SELECT * FROM cache_query('SELECT $1', '{}') AS t (x text);
SELECT * FROM cache_query('SELECT $1::integer', '{x}') AS t (x text);
SELECT * FROM cache_query('SELECT random()') AS t (x text);
SELECT * FROM cache_query('DELETE FROM cache_test.vendor') AS t (x text);
SELECT cache_set_many(NULL);
SELECT cache_set_many('[]');
SELECT cache_set_many('{"a": null}');
SELECT cache_set_many('{"": 1}');
SELECT cache_set_many('{"v:1": 1}');
SELECT cache_set_many('{"a": 1}', ttl => '0');
SELECT cache_set_many('{"a": 1}', tags => '{NULL}');
SELECT cache_add(NULL, 'x');
SELECT cache_add('k', NULL);
SELECT cache_add('', 'x');
SELECT cache_add('k', 'x', ttl => '0');
SELECT cache_get_many('{a,""}');
SELECT cache_exists('');
SELECT cache_ttl(repeat('x', 10000));
SELECT cache_expire(NULL, '1 s');
SELECT cache_expire('k', NULL);
SELECT cache_expire('k', '-1 s');
SELECT cache_incr(NULL);
SELECT cache_incr('k', NULL);
SELECT cache_incr('l:0123456789abcdef0123456789abcdef');
SELECT cache_keys('');
SELECT cache_keys(repeat('*', 100));

-- exactly one SELECT
SELECT cache_get('k', '');
SELECT cache_get('k', ' ; ');
SELECT cache_get('k', 'SELECT 1; SELECT 2');
SELECT cache_get('k', 'SELECT 1) AS q; DROP TABLE cache_test.vendor; --');
SELECT cache_get('k', 'SELECT $1');
SELECT cache_get('k', 'EXPLAIN SELECT 1');
SELECT cache_get('k', 'SHOW search_path');

-- that writes nothing, however deep
CREATE SEQUENCE cache_test.numbers;
CREATE FUNCTION cache_test.writes() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cache_test.vendor VALUES (4, 'D', 1);
    RETURN 4;
END $$;
SELECT cache_get('k', 'DELETE FROM cache_test.vendor');
SELECT cache_get('k', 'INSERT INTO cache_test.vendor VALUES (5)');
SELECT cache_get('k', 'WITH d AS (DELETE FROM cache_test.vendor RETURNING 1) SELECT * FROM d');
SELECT cache_get('k', 'SELECT * FROM cache_test.vendor FOR UPDATE');
SELECT cache_get('k', 'SELECT 1 INTO cache_test.made');
SELECT cache_get('k', 'TRUNCATE cache_test.vendor');
SELECT cache_get('k', $$SELECT nextval('cache_test.numbers')$$, ttl => '1 s');
SELECT cache_get('k', 'SELECT cache_test.writes()', ttl => '1 s');
-- and the transaction may write again afterwards
INSERT INTO cache_test.vendor VALUES (6, 'F', 1);
DELETE FROM cache_test.vendor WHERE id = 6;
DO $$
BEGIN
    PERFORM cache_get('k', 'SELECT cache_test.writes()', ttl => '1 s');
EXCEPTION WHEN read_only_sql_transaction THEN
    INSERT INTO cache_test.vendor VALUES (7, 'G', 1);
    DELETE FROM cache_test.vendor WHERE id = 7;
END $$;

SELECT cache_get('k', $$SELECT cache_set('other', 'x')$$, ttl => '1 s');
BEGIN READ ONLY;
SELECT cache_get('k', 'SELECT 1 AS x');
SELECT cache_delete('k');
ROLLBACK;
-- what happens at once cannot hide in a query either
SELECT cache_get('k', $$SELECT cache_incr('n')$$, ttl => '1 s');
SELECT cache_get('k', $$SELECT cache_add('n', 'x')$$, ttl => '1 s');
-- nor in a function that planning runs
CREATE FUNCTION cache_test.folded() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM public.cache_set('other', 'x');
    RETURN 1;
END $$;
SELECT cache_get('folded', 'SELECT cache_test.folded() AS x');
-- volatile functions only with a ttl
SELECT cache_get('k', 'SELECT random()');
SELECT cache_get('k', 'SELECT random() < 2 AS x', ttl => '1 s');
CREATE FUNCTION cache_test.steady() RETURNS integer LANGUAGE sql STABLE AS 'SELECT 1';
SELECT cache_get('steady', 'SELECT cache_test.steady() AS x');
CREATE OR REPLACE FUNCTION cache_test.steady() RETURNS integer LANGUAGE sql VOLATILE AS 'SELECT 1';
SELECT cache_get('steady', 'SELECT cache_test.steady() AS x');

-- the query's own errors come through
SELECT cache_get('k', 'SELECT 1/0');
SELECT cache_get('k', 'SELEC 1');
SELECT cache_get('k', 'SELECT * FROM cache_test.missing');
\set VERBOSITY default
SELECT cache_get('k', 'SELECT random()');
SELECT cache_get('k', 'SELECT oops');

-- kept plans follow the tables
SELECT cache_get('plan', 'SELECT * FROM cache_test.vendor WHERE id = 1');
ALTER TABLE cache_test.vendor ADD COLUMN town text DEFAULT 'Delft';
SELECT cache_get('plan', 'SELECT * FROM cache_test.vendor WHERE id = 1');
-- more queries than plans are kept
SELECT count(DISTINCT cache_get('many:' || n, format('SELECT %s AS n', n))) FROM generate_series(1, 200) n;

-- the functions are not for everybody, and the query runs as the caller
CREATE ROLE regress_cache_reader;
GRANT USAGE ON SCHEMA cache_test TO regress_cache_reader;
SET ROLE regress_cache_reader;
\set VERBOSITY sqlstate
SELECT cache_get('k');
SELECT cache_set('k', 'v');
SELECT cache_delete('k');
SELECT cache_incr('k');
SELECT cache_clear();
SELECT cache_define('x', 'SELECT 1');
SELECT * FROM cache_query('SELECT 1') AS t (x integer);
RESET ROLE;
GRANT EXECUTE ON FUNCTION cache_get(text, text, interval, text[], text) TO regress_cache_reader;
SET ROLE regress_cache_reader;
SELECT cache_get('k', 'SELECT 1 AS x');
SELECT cache_get('k', 'SELECT * FROM cache_test.vendor');
SELECT current_setting('cache_ext.redis_url');
SET cache_ext.redis_url = 'redis://elsewhere';
SET cache_ext.enabled = off;
RESET ROLE;

-- settings are checked when they are made, and secrets stay out of messages
\set VERBOSITY default
SET cache_ext.redis_url = 'redis://:hunter2@host:port';
SET cache_ext.redis_url = 'http://:hunter2@host';
SET cache_ext.redis_url = 'redis://:hunter2@host/one';
-- a password in a setting is taken, and earns a warning
SET cache_ext.redis_url = 'rediss://:hunter2@host';
RESET cache_ext.redis_url;
SET cache_ext.redis_tls_verify = none;
\set VERBOSITY sqlstate
SET cache_ext.default_ttl = 0;
\set VERBOSITY default
SET cache_ext.no_such_setting = 1;

DROP OWNED BY regress_cache_reader;
DROP ROLE regress_cache_reader;
SELECT cache_undefine('campaigns:{tenant_id}'), cache_undefine('campaigns:{a}{{{b}}}'), cache_undefine('by:{name}:{tenant}');
SET client_min_messages = warning;
DROP SCHEMA cache_test CASCADE;

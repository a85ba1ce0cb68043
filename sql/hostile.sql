-- Objects planted in the search_path run nowhere; names of any form work; others' things are refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS cache_ext;
CREATE ROLE regress_hostile;
CREATE SCHEMA evil AUTHORIZATION regress_hostile;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE SCHEMA prey;
SET search_path = prey, public;
\i test/driver/bag_tracking.sql

-- 1. A trap for each function and operator of pg_catalog that could be taken by mistake, and for its relations
SET ROLE regress_hostile;
DO $$
DECLARE
    f record;
    arguments text;
BEGIN
    FOR f IN
        SELECT p.*, r.oprname FROM pg_proc p LEFT JOIN pg_operator r ON r.oprcode = p.oid
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset AND p.provariadic = 0
          AND (r.oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '||', '->', '->>', '@>', '~', '~~') AND r.oprleft <> 0
               OR p.proname IN ('now', 'clock_timestamp', 'to_jsonb', 'quote_ident', 'quote_literal', 'pg_get_viewdef', 'to_regclass',
                   'current_setting', 'set_config', 'length', 'lower', 'upper', 'replace', 'array_position', 'array_length', 'cardinality',
                   'obj_description', 'pg_relation_size', 'nextval', 'int8', 'text', 'numeric', 'btrim', 'jsonb_object_keys', 'date_trunc',
                   'has_table_privilege', 'pg_get_expr', 'int4', 'array_append', 'array_to_string', 'pg_size_pretty', 'md5', 'to_char'))
          AND NOT p.proargtypes::oid[] && ARRAY['internal', 'cstring', 'trigger', 'event_trigger']::regtype[]::oid[]
          AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) t JOIN pg_type y ON y.oid = t WHERE y.typtype = 'p')
          AND NOT EXISTS (SELECT FROM pg_type y WHERE y.oid = p.prorettype AND y.typtype = 'p')
    LOOP
        EXECUTE format('CREATE OR REPLACE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', f.proname,
                       (SELECT string_agg(t::regtype::text, ', ' ORDER BY n) FROM unnest(f.proargtypes) WITH ORDINALITY AS u (t, n)),
                       f.prorettype::regtype, format('BEGIN RAISE EXCEPTION ''the trap for %s was run''; END', f.oid::regprocedure));
        IF f.oprname IS NOT NULL AND cardinality(f.proargtypes::oid[]) = 2 THEN
            EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.%I)', f.oprname,
                           f.proargtypes[0]::regtype, f.proargtypes[1]::regtype, f.proname);
        END IF;
    END LOOP;
END $$;
CREATE FUNCTION evil.caught() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trap was run'; END $$;
CREATE VIEW evil.pg_class AS SELECT 1 AS oid, 'x' AS relname WHERE evil.caught();
CREATE VIEW evil.pg_namespace AS SELECT 1 AS oid WHERE evil.caught();
CREATE VIEW evil.pg_attribute AS SELECT 1 AS attrelid WHERE evil.caught();
CREATE VIEW evil.pg_trigger AS SELECT 1 AS tgrelid WHERE evil.caught();
CREATE DOMAIN evil.jsonb AS pg_catalog.jsonb CHECK (evil.caught());
CREATE DOMAIN evil.regclass AS pg_catalog.regclass CHECK (evil.caught());
CREATE DOMAIN evil.name AS pg_catalog.name CHECK (evil.caught());
CREATE FUNCTION evil.statistics_create(text, text) RETURNS regclass LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trap was run'; END $$;
CREATE FUNCTION evil.cache_watch(regclass, text[]) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trap was run'; END $$;
RESET ROLE;
SELECT count(*) > 100 AS traps FROM pg_operator WHERE oprnamespace = 'evil'::regnamespace;

CREATE TABLE prey.sale (id integer PRIMARY KEY, kind text, amount numeric, paid boolean);
SELECT statistics_create('prey.sales', 'SELECT kind, count(*) AS n, sum(amount) AS total, min(amount) AS least, count(DISTINCT amount) AS amounts
    FROM prey.sale WHERE paid GROUP BY kind');
SELECT cache_watch('prey.sale', keys => ARRAY['sale:{id}'], tags => ARRAY['kind:{kind}']);
CREATE TEMP VIEW pg_proc AS SELECT 1 AS oid WHERE evil.caught();
CREATE TEMP VIEW pg_type AS SELECT 1 AS oid WHERE evil.caught();

-- a trap does work where its schema comes first
SET search_path = evil, pg_catalog, public, prey;
DO $$ BEGIN PERFORM 1 = 1; RAISE 'the trap is not set'; EXCEPTION WHEN raise_exception THEN
    IF SQLERRM NOT LIKE 'the trap for %' THEN RAISE; END IF; END $$;

-- and nothing of ours steps into one, whoever calls
INSERT INTO sale VALUES (1, 'a', 10, true), (2, 'b', 20, true), (3, 'a', 5, false);
UPDATE sale SET paid = true, kind = 'b';
DELETE FROM sale;
INSERT INTO sale VALUES (4, 'a', 1.50, true), (5, 'a', NULL, true), (6, NULL, 7, true);
SELECT * FROM sales ORDER BY kind;
SELECT statistics_fold(NULL) OPERATOR(pg_catalog.>=) 0::bigint AS folded;
SELECT * FROM sales ORDER BY kind;
SELECT statistics_verify('prey.sales'::pg_catalog.regclass);
SELECT statistics_refresh('prey.sales'::pg_catalog.regclass);
SELECT statistics_wait('prey.sales'::pg_catalog.regclass, '10 s');
SELECT statistics_last_change('prey.sales'::pg_catalog.regclass) IS NOT NULL AS changed;
SELECT pg_catalog.count(*) FROM invalidation_status;
SELECT bag_tracking_attach('prey');
INSERT INTO prey."user" (username) VALUES ('u');
INSERT INTO prey.bag (qr_id, type, user_id) VALUES ('q', 'child', 1);
SELECT total_bags, unlinked_children FROM prey.statistics_cache;
UPDATE prey.statistics_cache SET total_bags = NULL;
SELECT bag_tracking_detach('prey');
SELECT cache_get('k', 'SELECT 1 AS one', '1 minute', '{t}');
SELECT cache_set('k', 'v'), cache_delete('k'), cache_invalidate('k'), cache_invalidate_tags('t'), cache_invalidate_pattern('k*'),
       cache_publish('c', 'm');
SELECT cache_target_create('evil_target', 'plain'), cache_target_drop('evil_target');
SET cache_ext.redis_url = '';
SELECT session_set('h1', '{"userId": 7}'), session_touch('h1'), session_get('h1'), session_regenerate('h1') IS NOT NULL AS moved, session_destroy('h1');
SELECT session_destroy_all('userId', '7'), pg_catalog.count(*) AS listed FROM session_list;
SELECT allowed FROM rate_limit('h', 1, '1 hour');
SELECT misses OPERATOR(pg_catalog.>=) 0::bigint AS counted FROM session_stats;
RESET cache_ext.redis_url;
SELECT cache_unwatch('prey.sale'::pg_catalog.regclass);
ALTER TABLE prey.sale RENAME amount TO price;
ALTER TABLE prey.sale ALTER kind SET DEFAULT 'c';
CREATE TABLE prey.part (id integer, kind text) PARTITION BY LIST (kind);
SELECT statistics_create('prey.parts', 'SELECT pg_catalog.count(*) AS n FROM prey.part', concurrently => true);
SELECT statistics_wait('prey.parts'::pg_catalog.regclass, '1 minute');
CREATE TABLE prey.part_a PARTITION OF prey.part FOR VALUES IN ('a');
INSERT INTO prey.part VALUES (1, 'a');
ALTER TABLE prey.part DETACH PARTITION prey.part_a;
SELECT n FROM parts;
SELECT statistics_drop('prey.parts'::pg_catalog.regclass);
DROP TABLE prey.part, prey.part_a CASCADE;
-- a query that answers itself, with its owner's rights, does not meet the reader's functions
CREATE FUNCTION prey.spelled(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower($1); END';
BEGIN;
SELECT statistics_create('prey.spellings', 'SELECT prey.spelled(kind) AS kind, pg_catalog.count(*) AS n FROM prey.sale GROUP BY 1', concurrently => true);
SELECT * FROM spellings ORDER BY kind;
ROLLBACK;
-- aggregates, where what counts runs as the owner of the extension
RESET search_path;
CREATE SCHEMA regress_hostile AUTHORIZATION regress_hostile;
SET ROLE regress_hostile;
CREATE FUNCTION regress_hostile.trap(bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the trap for count was run as %', current_user; END $$;
CREATE AGGREGATE regress_hostile.count(*) (SFUNC = regress_hostile.trap, STYPE = bigint, INITCOND = '0');
SET search_path = regress_hostile, pg_catalog, public;
SELECT count(*) FROM (VALUES (1)) v;
SELECT relation, groups FROM statistics_status ORDER BY relation::text;
RESET search_path;
RESET ROLE;
DROP TABLE prey.sale CASCADE;
DROP SCHEMA regress_hostile CASCADE;

DROP VIEW pg_proc, pg_type;

-- 2. Names of any form: quotes, commands, percent signs, braces, letters of several bytes, 63 bytes
SET client_encoding = 'UTF8';
SELECT count(*) AS before FROM pg_class WHERE relnamespace = 'cache_ext_internal'::regnamespace AND relname ~ '^(totals|part|state|query)_' \gset
CREATE SCHEMA "a""b ü";
SET search_path = "a""b ü", public;
CREATE TABLE "x'; DROP TABLE y; --" ("%I" integer, "{col}" text, "select" numeric, "naïve ""q""" text);
CREATE TABLE "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄx23" ("cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc123" integer, k "char");
SELECT max(octet_length(relname)) AS longest FROM pg_class WHERE relnamespace = '"a""b ü"'::regnamespace;
SELECT statistics_create('"s\"" %s"', 'SELECT "%I" % 2 AS "odd? ""%s""", count(*) AS "n;", sum("select") AS "{sum}",
    min("naïve ""q""") AS "ünder", count(DISTINCT "{col}") AS "d" FROM "x''; DROP TABLE y; --" GROUP BY "%I" % 2');
SELECT statistics_create('"a""b ü"."zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz123"',
    'SELECT k, count(*) AS "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc124",
        max("cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc123")
     FROM "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄx23" GROUP BY k');
SELECT cache_watch('"x''; DROP TABLE y; --"', keys => ARRAY['k:{"%I"}:{"naïve ""q"""}', '{{{"{col}"}}}'], patterns => ARRAY['p:{"naïve ""q"""}:*'],
                   columns => ARRAY['%I', '{col}', 'naïve "q"']::name[]) > 0 AS watched;
INSERT INTO "x'; DROP TABLE y; --" VALUES (1, '*?[x]', 2.5, E'new\nline'), (2, '{}', 1, 'ü'), (3, NULL, NULL, '');
UPDATE "x'; DROP TABLE y; --" SET "%I" = "%I" + 1, "naïve ""q""" = '%s' WHERE "%I" > 1;
INSERT INTO "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄx23" VALUES (1, 'x'), (2, 'x'), (3, '');
SELECT * FROM "s\"" %s" ORDER BY 1;
SELECT * FROM "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz123" ORDER BY 1;
ALTER TABLE "x'; DROP TABLE y; --" RENAME "%I" TO "%L";
ALTER SCHEMA "a""b ü" RENAME TO "A%""s";
SET search_path = public;
CREATE TEMP VIEW here AS SELECT * FROM statistics_status WHERE relation::text LIKE '"A\%%';
SELECT statistics_verify(relation) FROM here;
SELECT statistics_refresh(relation) FROM here;
SELECT relation, state FROM here ORDER BY relation::text COLLATE "C";
SELECT statistics_drop(relation) FROM here;
DROP VIEW here;
SELECT count(*) - :before AS left_over FROM pg_class WHERE relnamespace = 'cache_ext_internal'::regnamespace AND relname ~ '^(totals|part|state|query)_';
DROP SCHEMA "A%""s" CASCADE;
-- what is no name is refused
SELECT statistics_create('', 'SELECT 1');
SELECT statistics_create('a.b.c.d', 'SELECT 1');
SELECT statistics_create('"unfinished', 'SELECT 1');

-- 3. An ordinary role and what is not its own
CREATE TABLE prey.secret (i integer);
INSERT INTO prey.secret VALUES (42);
SELECT statistics_create('prey.secrets', 'SELECT max(i) AS i, count(*) AS n FROM prey.secret');
GRANT USAGE ON SCHEMA prey TO regress_hostile;
GRANT SELECT ON prey.secrets TO regress_hostile;
SET ROLE regress_hostile;
SELECT * FROM prey.secrets;              -- as for a view: the owner's rights
\set VERBOSITY sqlstate
SELECT statistics_create('evil.mine', 'SELECT count(*) FROM prey.secret');
SELECT statistics_create('prey.mine', 'SELECT count(*) FROM prey.secrets');
SELECT statistics_create('prey.secrets', 'SELECT 1', replace => true);
SELECT statistics_refresh('prey.secrets');
SELECT statistics_drop('prey.secrets');
SELECT statistics_verify('prey.secrets');
SELECT bag_tracking_attach('prey');
DROP VIEW prey.secrets;
SELECT * FROM cache_ext_internal.statistic;
SELECT cache_ext_internal.status();
SELECT cache_ext_internal.worker_pid();
CREATE FUNCTION evil.capture() RETURNS trigger LANGUAGE c AS 'cache_ext', 'cache_ext_capture_statement';
CREATE TABLE evil.own (i integer);
CREATE TRIGGER forged AFTER INSERT ON evil.own EXECUTE FUNCTION cache_ext_internal.capture_statement();
CREATE FOREIGN TABLE evil.state (i integer) SERVER cache_ext_state;
SET cache_ext.redis_url = 'redis://elsewhere';
SET cache_ext.key_prefix = 'x';
SHOW cache_ext.redis_url;
SHOW cache_ext.redis_password_file;
\set VERBOSITY default
-- no function of the cache, unless granted; its own tables may be counted
SELECT count(*) AS granted FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cache_ext')
WHERE p.proname ~ '^(cache_|session_|rate_)' AND has_function_privilege(p.oid, 'EXECUTE') AND p.pronamespace <> 'cache_ext_internal'::regnamespace;
SELECT statistics_create('evil.own_count', 'SELECT count(*) AS n FROM evil.own');
INSERT INTO evil.own VALUES (1);
SELECT * FROM evil.own_count;
SELECT statistics_drop('evil.own_count');
-- what a query calls never runs as anybody else: neither for children that come and go nor when the query is taken apart
CREATE TABLE evil.seen (who name);
CREATE FUNCTION evil.look() RETURNS void LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.seen SELECT current_user WHERE current_user <> 'regress_hostile'; END$$;
CREATE FUNCTION evil.one(integer) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM evil.look(); RETURN $1; END';
CREATE TABLE evil.parent (k integer);
CREATE TABLE evil.child (k integer);
INSERT INTO evil.child VALUES (1);
SELECT statistics_create('evil.called', 'SELECT evil.one(k) AS k, count(*) AS n FROM evil.parent WHERE evil.one(2) = 2 GROUP BY 1');
ALTER TABLE evil.child INHERIT evil.parent;
SELECT * FROM evil.called;
ALTER TABLE evil.child NO INHERIT evil.parent;
SELECT * FROM evil.called;
\set VERBOSITY terse
SELECT statistics_create('evil.limited', 'SELECT count(*) FROM evil.parent p WHERE EXISTS (SELECT FROM evil.own o WHERE o.i = p.k LIMIT evil.one(1))');
\set VERBOSITY default
SELECT statistics_create('evil.limited', 'SELECT count(*) AS n FROM evil.parent p WHERE EXISTS (SELECT FROM evil.own o WHERE o.i = p.k LIMIT 1)');
RESET ROLE;
SELECT statistics_fold() >= 0 AS folded;
SELECT count(*) FROM statistics_status;
SELECT * FROM evil.seen;

-- a plan is not thrown away while it is being planned; what lies under the key of cache_query may be anything
\set VERBOSITY sqlstate
CREATE FUNCTION evil.fill(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    FOR i IN 1..n LOOP PERFORM public.cache_get('filled:' || i, 'SELECT ' || i || ' AS n'); END LOOP;
    RETURN n;
END$$;
SELECT cache_get('outer:' || n, format('SELECT evil.fill(%s) AS n', n)) FROM unnest('{63,64,65,127,129}'::integer[]) n;
DO $$
DECLARE
    v text;
    r text;
BEGIN
    FOREACH v IN ARRAY ARRAY['[["a"],[1]]', '["abcdefghijklmnopqrstuvwxyz"]', '{"a": 1}', '7', '"x"', '[["a"],["b","c"]]', '[["a"],[["b"]]]', '[["a"],{"b":1}]', 'no json'] LOOP
        PERFORM cache_set('query:' || encode(sha256('\x01'::bytea || 'SELECT ''x'' AS a'::bytea || '\x00'::bytea), 'hex'), v);
        BEGIN
            SELECT a INTO r FROM cache_query('SELECT ''x'' AS a') AS t (a text);
            RAISE WARNING '% gave %', v, r;
        EXCEPTION WHEN invalid_text_representation OR datatype_mismatch THEN
            NULL;
        END;
    END LOOP;
END$$;
\set VERBOSITY default
-- why a filling failed is told to who may read the statistic: errors quote values
CREATE TABLE prey.told (v text);
INSERT INTO prey.told VALUES ('the-secret-4711');
SELECT statistics_create('prey.tells', 'SELECT v::integer AS v, count(*) AS n FROM prey.told GROUP BY 1', concurrently => true);
\set VERBOSITY sqlstate
SELECT statistics_wait('prey.tells', '30 s');
SELECT detail ~ '4711' AS told FROM statistics_status WHERE relation = 'prey.tells'::regclass;
SET ROLE regress_hostile;
SELECT state, detail FROM statistics_status WHERE relation = 'prey.tells'::regclass;
RESET ROLE;
-- functions of event triggers, called by hand
SELECT cache_ext_internal.before_ddl();
SELECT cache_ext_internal.on_alter();
SELECT cache_ext_internal.on_drop();
\set VERBOSITY default
-- what the owner may not read any more the statistic does not show
CREATE TABLE prey.lent (i integer);
INSERT INTO prey.lent VALUES (1);
GRANT SELECT, TRIGGER ON prey.lent TO regress_hostile;
SET ROLE regress_hostile;
SELECT statistics_create('evil.borrowed', 'SELECT count(*) AS n FROM prey.lent');
SELECT * FROM evil.borrowed;
RESET ROLE;
REVOKE SELECT ON prey.lent FROM regress_hostile;
\set VERBOSITY terse
SELECT * FROM evil.borrowed;
\set VERBOSITY default

-- operators that pg_catalog lacks, planted before the extension is installed: installing it and its views run none
CREATE DATABASE regress_hostile_install;
\c regress_hostile_install
SET client_min_messages = warning;
CREATE SCHEMA evil AUTHORIZATION regress_hostile;
SET ROLE regress_hostile;
DO $$
DECLARE
    o record;
BEGIN
    FOR o IN
        SELECT l::regtype AS l, r::regtype AS r, name
        FROM unnest('{smallint,integer,bigint,numeric,real,double precision,text,name,oid,interval,timestamptz,boolean,jsonb,regclass,char}'::regtype[]) l,
            unnest('{smallint,integer,bigint,numeric,real,double precision,text,name,oid,interval,timestamptz,boolean,jsonb,regclass,char}'::regtype[]) r,
            unnest('{+,-,*,/,%,=,<>,<,>,<=,>=,||,~,~~,->,->>}'::text[]) name
        WHERE NOT EXISTS (SELECT FROM pg_operator p WHERE p.oprname = name AND p.oprleft = l AND p.oprright = r AND p.oprnamespace = 'pg_catalog'::regnamespace)
    LOOP
        EXECUTE format('CREATE OR REPLACE FUNCTION evil.trap(%s, %s) RETURNS integer LANGUAGE plpgsql AS $f$BEGIN RAISE EXCEPTION %L; END$f$',
                       o.l, o.r, format('a trap was run for %s and %s', o.l, o.r));
        EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.trap)', o.name, o.l, o.r);
    END LOOP;
END $$;
RESET ROLE;
CREATE EXTENSION cache_ext SCHEMA evil;
SET search_path = evil, public;
DO $$
DECLARE
    v regclass;
BEGIN
    FOR v IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'evil'::regnamespace AND c.relkind = 'v' ORDER BY 1 LOOP
        EXECUTE format('SELECT count(v::text) FROM %s v', v);
    END LOOP;
END $$;
SELECT count(*) > 10 AS settings FROM cache_settings;
SELECT count(*) > 0 AS told FROM cache_doctor();
SELECT length(cache_metrics()) > 0 AS metrics, cache_stats_json() IS NOT NULL AS json;
\c contrib_regression
SET client_min_messages = warning;
DROP DATABASE regress_hostile_install WITH (FORCE);

DROP SCHEMA prey CASCADE;
DROP OWNED BY regress_hostile CASCADE;
DROP SCHEMA IF EXISTS evil CASCADE;
DROP ROLE regress_hostile;

-- What a transaction queues for Redis, and what it does not.  Needs no Redis: sessions that believe in one
-- queue, and without one configured for the server nobody delivers.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS cache_ext;
CREATE SCHEMA invalidation_test;
SET search_path = invalidation_test, public;
RESET client_min_messages;

-- the items of a row: kind, length (seven bits a byte, low ones first), body
CREATE FUNCTION items_of(payload bytea) RETURNS SETOF bytea LANGUAGE plpgsql AS $$
DECLARE
    at integer := 0;
    body integer;
    length integer;
BEGIN
    WHILE at < octet_length(payload) LOOP
        body := at + 1;
        length := 0;
        LOOP
            length := length + ((get_byte(payload, body) & 127) << (7 * (body - at - 1)));
            body := body + 1;
            EXIT WHEN get_byte(payload, body - 1) < 128;
        END LOOP;
        RETURN NEXT substr(payload, at + 1, body - at + length);
        at := body + length;
    END LOOP;
END $$;

-- what is queued, readable: kind (k key, t tag, p pattern, T tags that match, c message, s value) and body,
-- with a dot for lengths and other bytes that are no text
CREATE VIEW queued AS
    SELECT regexp_replace(encode(item, 'escape'), E'[\\x01-\\x1f]|\\\\[0-7]{3}', '.', 'g') COLLATE "C" AS item
    FROM cache_ext_internal.outbox, items_of(payload) item WHERE items > 0;
CREATE PROCEDURE forget() LANGUAGE sql AS 'DELETE FROM cache_ext_internal.outbox';

CREATE TABLE orders (id integer PRIMARY KEY, vendor_id integer, note text);
SELECT cache_watch('orders', keys => ARRAY['a:{vendor_id}'], tags => ARRAY['orders', 'v:{vendor_id}']);

-- no Redis configured: nothing is queued; it is noted once that somebody would have to be told
SELECT cache_invalidate('a', 'b');
INSERT INTO orders VALUES (1, 7, 'x');
INSERT INTO orders VALUES (2, 7, 'x');
SELECT items FROM cache_ext_internal.outbox;
CALL forget();

SET cache_ext.redis_url = 'unix:///nonexistent/redis.sock';

-- committed: queued; rolled back: not
SELECT cache_invalidate('a', 'b', 'a');
BEGIN; SELECT cache_invalidate('c'); ROLLBACK;
SELECT cache_invalidate_tags('t'), cache_invalidate_pattern('p:*'), cache_invalidate_pattern('lit\*eral');
SELECT cache_publish('news', 'told');
SELECT * FROM queued ORDER BY 1;
SELECT pending, oldest IS NOT NULL AS oldest FROM invalidation_status;
CALL forget();

-- savepoints: what they rolled back is not queued, what outlived them is
BEGIN;
SELECT cache_invalidate('kept1');
SAVEPOINT a;
SELECT cache_invalidate('gone1');
SAVEPOINT b;
SELECT cache_invalidate('gone2');
RELEASE b;
ROLLBACK TO a;
SELECT cache_invalidate('kept2');
SAVEPOINT c;
SELECT cache_invalidate('kept3', 'kept1');
RELEASE c;
DO $$
BEGIN
    PERFORM public.cache_invalidate('gone3');
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    PERFORM public.cache_invalidate('kept4');
END $$;
SELECT cache_invalidate('kept5');
COMMIT;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- a savepoint's own item returns when it is said again
BEGIN;
SAVEPOINT a;
SELECT cache_invalidate('again');
ROLLBACK TO a;
SELECT cache_invalidate('again');
COMMIT;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- the order of a set and of what removes it
BEGIN;
SELECT cache_set('s1', 'value', tags => '{T}');
SELECT cache_invalidate('s1');
SELECT cache_set('s2', 'value', tags => '{T}');
SELECT cache_invalidate_tags('T');
SELECT cache_set('s:3', 'value');
SELECT cache_invalidate_pattern('s:*');
SELECT cache_set('s4', 'old');
SELECT cache_set('s4', 'new');
COMMIT;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- rows: both versions of an UPDATE, each name once
INSERT INTO orders VALUES (3, 8, 'x'), (4, 8, 'y');
SELECT * FROM queued ORDER BY 1;
CALL forget();
UPDATE orders SET vendor_id = 9 WHERE id = 3;
SELECT * FROM queued ORDER BY 1;
CALL forget();
DELETE FROM orders WHERE id = 4;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- a NULL drops the target
INSERT INTO orders VALUES (5, NULL, 'x');
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- TRUNCATE: what names no column as it is, the rest as patterns
TRUNCATE orders;
SELECT * FROM queued ORDER BY 1;
CALL forget();
SELECT cache_unwatch('orders');
INSERT INTO orders VALUES (1, 1, 'unwatched');
SELECT * FROM queued;

-- old, new, substitutes, braces, messages, columns, patterns with values escaped
SELECT cache_watch('orders', keys => ARRAY['old:{old.vendor_id}', 'new:{new.vendor_id|none}', 'n:{note|no}'],
                   patterns => ARRAY['p[12]:{note}:*'], channels => ARRAY['ch:{id}'],
                   message => '{{"id":{id}}}', columns => ARRAY['vendor_id', 'note']);
SELECT cache_watch('orders', channels => ARRAY['all']);
INSERT INTO orders VALUES (2, NULL, '*[x]\?');
SELECT * FROM queued ORDER BY 1;
CALL forget();
UPDATE orders SET id = 20 WHERE id = 2;
SELECT * FROM queued ORDER BY 1;
CALL forget();
UPDATE orders SET vendor_id = 5 WHERE id = 20;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- a renamed column: its targets widen, and nothing is forgotten
ALTER TABLE orders RENAME note TO remark;
CALL forget();
UPDATE orders SET vendor_id = 6 WHERE id = 20;
SELECT * FROM queued ORDER BY 1;
CALL forget();
ALTER TABLE orders RENAME remark TO note;
CALL forget();
SELECT cache_unwatch('orders', 2);
SELECT cache_unwatch('orders', 2);
SELECT relation, watch FROM cache_ext_internal.watch WHERE relation = 'orders'::regclass;
SELECT cache_unwatch(relation => 'orders');
SELECT relation, watch FROM cache_ext_internal.watch WHERE relation = 'orders'::regclass;

-- values are those of to_jsonb, whatever the session's settings
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN small AS integer;
CREATE TABLE typed (a smallint, b bigint, c boolean, d numeric, e real, f double precision, g date, h timestamp,
    i timestamptz, j uuid, k mood, l small, m char(4), n jsonb, o interval, p bytea, q text[], r time, s money);
SELECT cache_watch('typed', keys => (
    SELECT array_agg(format('%1$s={%1$s}', attname) ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = 'typed'::regclass AND attnum > 0));
SET DateStyle = 'German'; SET TimeZone = 'America/New_York'; SET extra_float_digits = -3;
SET IntervalStyle = 'sql_standard'; SET bytea_output = 'escape';
BEGIN;
INSERT INTO typed VALUES (-1, 1234567890123, true, 1.50, 0.1, 1e22, DATE '2026-02-03', TIMESTAMP '2026-02-03 04:05:06.7',
    TIMESTAMPTZ '2026-02-03 04:05:06+02', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'happy', 5, 'ab', '{"x": [1, null]}',
    '1 day 2 hours', '\x00ff', '{a,NULL}', '04:05', 12.5);
INSERT INTO typed (f, n) VALUES ('-Infinity', 'null'), ('-0', '"text"'), ('NaN', '1.0');
COMMIT;
RESET DateStyle; RESET TimeZone; RESET extra_float_digits; RESET IntervalStyle; RESET bytea_output;
SELECT substring(item FROM 3) AS name FROM queued ORDER BY 1;
-- the oracle
SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres';
SELECT key || '=' || replace(value, '\', '\\') AS missing
    FROM typed t, jsonb_each_text(to_jsonb(t) - 's') WHERE value IS NOT NULL
EXCEPT SELECT regexp_replace(item, '^k.', '') FROM queued;
RESET TimeZone; RESET IntervalStyle;
CALL forget();

-- many rows: a watch widens rather than forget
CREATE TABLE many (id integer);
SELECT cache_watch('many', keys => ARRAY['m:{id}'], tags => ARRAY['m']);
INSERT INTO many SELECT generate_series(1, 9000);
SELECT sum(items) AS items, count(*) < 100 AS in_few_rows FROM cache_ext_internal.outbox;
CALL forget();
INSERT INTO many SELECT generate_series(1, 30000);
SELECT count(*) < 10010 AS bounded, bool_or(item = 'p.m:*') AS widened FROM queued;
CALL forget();

-- partitions, written through the root and directly
CREATE TABLE part (id integer, x integer) PARTITION BY RANGE (id);
CREATE TABLE part1 (x integer, id integer);
ALTER TABLE part ATTACH PARTITION part1 FOR VALUES FROM (0) TO (10);
CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (10) TO (20);
SELECT cache_watch('part', keys => ARRAY['{id}/{x}']);
INSERT INTO part VALUES (1, 2);
INSERT INTO part1 (id, x) VALUES (3, 4);
UPDATE part SET id = 11 WHERE id = 1;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- partitions that come and go with their rows; empty ones bring nothing
CREATE TABLE part3 (id integer, x integer);
INSERT INTO part3 VALUES (25, 26);
ALTER TABLE part ATTACH PARTITION part3 FOR VALUES FROM (20) TO (30);
SELECT * FROM queued ORDER BY 1;
CALL forget();
ALTER TABLE part DETACH PARTITION part3;
SELECT * FROM queued ORDER BY 1;
CALL forget();
CREATE TABLE part4 PARTITION OF part FOR VALUES FROM (30) TO (40);
ALTER TABLE part DETACH PARTITION part4;
SELECT * FROM queued ORDER BY 1;
ALTER TABLE part ATTACH PARTITION part4 FOR VALUES FROM (30) TO (40);
DROP TABLE part4;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- what others bring about: cascades, SET NULL, MERGE, ON CONFLICT, COPY, inheritance children
CREATE TABLE owner (id integer PRIMARY KEY);
CREATE TABLE owned (id integer PRIMARY KEY, owner integer REFERENCES owner ON DELETE CASCADE ON UPDATE SET NULL);
SELECT cache_watch('owned', keys => ARRAY['o:{id}:{owner|none}']);
INSERT INTO owner SELECT generate_series(1, 3);
COPY owned FROM STDIN;
1	1
2	2
3	3
\.
SELECT * FROM queued ORDER BY 1;
CALL forget();
DELETE FROM owner WHERE id = 1;
UPDATE owner SET id = 20 WHERE id = 2;
SELECT * FROM queued ORDER BY 1;
CALL forget();
MERGE INTO owned USING (VALUES (3), (4)) v (id) ON owned.id = v.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 3);
INSERT INTO owned VALUES (4, 20) ON CONFLICT (id) DO UPDATE SET owner = excluded.owner;
SELECT * FROM queued ORDER BY 1;
CALL forget();
CREATE TABLE owned_more () INHERITS (owned);
INSERT INTO owned_more VALUES (7, 3);
TRUNCATE owner CASCADE;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- two-phase: queued by PREPARE, visible by COMMIT PREPARED
BEGIN;
INSERT INTO part VALUES (5, 6);
PREPARE TRANSACTION 'cache_ext_regress';
SELECT * FROM queued;
COMMIT PREPARED 'cache_ext_regress';
SELECT * FROM queued;
CALL forget();

-- what cannot work is refused
\set VERBOSITY sqlstate
SELECT cache_watch('orders');
SELECT cache_watch('orders', keys => ARRAY['a:{nobody}']);
SELECT cache_watch('orders', keys => ARRAY['a:{ctid}']);
CREATE TABLE routed (i integer, twice integer GENERATED ALWAYS AS (i * 2) STORED) PARTITION BY LIST (i);
SELECT cache_watch('routed', keys => ARRAY['a:{twice}']);
SELECT cache_watch('routed', keys => ARRAY['a:{i}'], columns => '{twice}');
DROP TABLE routed;
SELECT cache_watch('orders', keys => ARRAY['a:{id']);
SELECT cache_watch('orders', keys => ARRAY['']);
SELECT cache_watch('orders', keys => ARRAY[NULL]);
SELECT cache_watch('orders', keys => ARRAY['a'], columns => ARRAY['nobody']);
SELECT cache_watch('orders', keys => ARRAY['a'], message => 'no channel');
SELECT cache_watch('orders', patterns => ARRAY[repeat('*', 20)]);
SELECT cache_watch('orders', keys => ARRAY['a'], target => 'spring');
SELECT cache_watch('orders', keys => ARRAY['a'], repeat_after => '0 s');
SELECT cache_watch('orders', keys => ARRAY['a'], repeat_after => '1 month');
SELECT cache_watch(NULL, keys => ARRAY['a']);
SELECT cache_watch('pg_class', keys => ARRAY['a']);
SELECT cache_watch('queued', keys => ARRAY['a']);
SELECT cache_watch('part1', keys => ARRAY['a']);
CREATE TEMP TABLE fleeting (id integer);
SELECT cache_watch('fleeting', keys => ARRAY['a']);
CREATE UNLOGGED TABLE careless (id integer);
SELECT cache_watch('careless', keys => ARRAY['a']);
SELECT cache_watch('cache_ext_internal.outbox', keys => ARRAY['a']);
SELECT cache_unwatch('orders', 77);
SELECT cache_invalidate(NULL);
SELECT cache_invalidate('');
SELECT cache_invalidate(repeat('x', 9000));
SELECT cache_invalidate_tags('t', NULL);
SELECT cache_invalidate_pattern('');
SELECT cache_invalidate_pattern(repeat('a*', 20));
SELECT cache_publish('c', NULL);
\set VERBOSITY default
SELECT cache_watch('orders', keys => ARRAY['ab{c']);
SELECT * FROM queued;

-- targets: names as cache libraries store them, in the exact and in the widened form
SELECT cache_target_create('dj', 'django', '{"key_prefix": "shop", "version": 2}');
SELECT cache_target_create('node', 'ioredis', '{"key_prefix": "{app}*:"}');
SELECT cache_target_create('bare', 'plain');
SELECT name, dialect, prefix, tags FROM cache_ext_internal.target ORDER BY name;
CREATE TABLE told (id integer PRIMARY KEY, vendor_id integer);
SELECT cache_watch('told', keys => ARRAY['v:{vendor_id}'], patterns => ARRAY['p:{id}:*'], target => 'dj');
SELECT cache_watch('told', keys => ARRAY['v:{vendor_id}'], tags => ARRAY['t{vendor_id}'], patterns => ARRAY['p*'], target => 'node');
SELECT cache_watch('told', tags => ARRAY['t{vendor_id}'], target => 'bare');
INSERT INTO told VALUES (1, 7);
SELECT * FROM queued ORDER BY 1;
CALL forget();
TRUNCATE told;
SELECT * FROM queued ORDER BY 1;
CALL forget();
SELECT cache_target_drop('node');
SELECT cache_unwatch('told');
SELECT cache_target_drop(name) FROM cache_ext_internal.target ORDER BY name;
SELECT cache_target_drop('node');
SELECT cache_target_create('x', 'memcached');
SELECT cache_target_create('x', 'django', '{"prefix": "shop"}');
SELECT cache_target_create('x', 'plain', '[]');
SELECT cache_target_create('', 'plain');
SELECT cache_target_create('x', NULL);
SELECT cache_target_create('x', 'django');
SELECT cache_target_create('x', 'plain');
SELECT cache_watch('told', tags => ARRAY['t'], target => 'x');
SELECT cache_target_drop('x');

-- what is to be deleted once more is queued as such, once a name, and with its target
SELECT cache_watch('told', keys => ARRAY['v:{vendor_id}'], repeat_after => '1.5 s');
INSERT INTO told VALUES (1, 7), (2, 7);
SELECT * FROM queued ORDER BY 1;
SELECT cache_unwatch('told');
DROP TABLE told;
CALL forget();

-- commands that change or drop what rows hold: all that the watches could name, in the command's transaction
CREATE SCHEMA leaving;
CREATE DOMAIN leaving.code AS integer;
CREATE TABLE retyped (id integer, n integer, note text, code leaving.code);
CREATE TABLE above (note text);
CREATE TABLE below (id integer) INHERITS (above);
SELECT cache_watch('retyped', keys => ARRAY['r:{id}'], tags => ARRAY['r'], channels => ARRAY['r'], message => '{id}');
SELECT cache_watch('retyped', keys => ARRAY['n:{id}'], columns => ARRAY['n']);
SELECT cache_watch('below', keys => ARRAY['below:{id}']);
CREATE TABLE leaving.a (id integer);
CREATE TABLE leaving.b (id integer);
SELECT cache_watch('leaving.a', keys => ARRAY['a:{id}'], channels => ARRAY['gone']);
SELECT cache_watch('leaving.b', tags => ARRAY['b:{id}']);
SELECT * FROM queued ORDER BY 1;
BEGIN; ALTER TABLE retyped ALTER n TYPE text USING 'x'; ROLLBACK;
BEGIN; DROP TABLE leaving.a; ROLLBACK;
BEGIN; SAVEPOINT s; DROP SCHEMA leaving CASCADE; ROLLBACK TO s; COMMIT;
ALTER TABLE retyped ALTER n SET DEFAULT 5, ADD CHECK (id > 0);
SELECT * FROM queued ORDER BY 1;
ALTER TABLE retyped ALTER note TYPE varchar(5) USING left(note, 5);
SELECT * FROM queued ORDER BY 1;
CALL forget();
ALTER TABLE retyped ALTER n TYPE text USING 'x';
SELECT * FROM queued ORDER BY 1;
CALL forget();
ALTER TABLE retyped ADD COLUMN more integer DEFAULT 7;
SELECT count(*) FROM queued;
CALL forget();
ALTER TABLE retyped RENAME more TO still_more;
SELECT count(*) FROM queued;
CALL forget();
ALTER TABLE retyped DROP COLUMN still_more;
SELECT count(*) FROM queued;
CALL forget();
SET client_min_messages = warning;
DROP DOMAIN leaving.code CASCADE;
SELECT count(*) FROM queued;
CALL forget();
DROP SCHEMA leaving CASCADE;
SELECT * FROM queued ORDER BY 1;
CALL forget();
ALTER TABLE above ALTER note TYPE varchar;
DROP TABLE retyped CASCADE;
RESET client_min_messages;
SELECT * FROM queued ORDER BY 1;
CALL forget();

-- who may
CREATE ROLE regress_invalidation_nobody;
GRANT USAGE ON SCHEMA invalidation_test TO regress_invalidation_nobody;
SET ROLE regress_invalidation_nobody;
SELECT count(*) FROM invalidation_status;
SELECT cache_invalidate('a');
SELECT cache_watch('orders', keys => ARRAY['a']);
SELECT * FROM cache_ext_internal.outbox;
RESET ROLE;
GRANT EXECUTE ON FUNCTION cache_watch TO regress_invalidation_nobody;
SET ROLE regress_invalidation_nobody;
SELECT cache_watch('orders', keys => ARRAY['a']);
RESET ROLE;
GRANT INSERT, TRIGGER ON orders TO regress_invalidation_nobody;
SET ROLE regress_invalidation_nobody;
SELECT cache_watch('orders', keys => ARRAY['row:{id}']);
INSERT INTO orders VALUES (99, 1, 'by nobody');
RESET ROLE;
SELECT * FROM queued;
CALL forget();

-- a dropped table takes its watches along
SET client_min_messages = warning;
DROP TABLE orders, many, part, typed, above, below;
SELECT * FROM cache_ext_internal.watch WHERE relation::oid NOT IN (SELECT oid FROM pg_class);
REVOKE EXECUTE ON FUNCTION cache_watch FROM regress_invalidation_nobody;
DROP SCHEMA invalidation_test CASCADE;
DROP OWNED BY regress_invalidation_nobody;
DROP ROLE regress_invalidation_nobody;
DELETE FROM cache_ext_internal.outbox;

-- somebody's event trigger refuses the triggers that a watch or a statistic needs: an error, and nothing else
CREATE TABLE guarded (id integer PRIMARY KEY);
SELECT cache_watch('guarded', keys => ARRAY['guarded:{id}']);
CREATE TABLE guarded_too (id integer);
CREATE FUNCTION no_triggers() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no triggers here'; END $$;
CREATE EVENT TRIGGER no_triggers ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER', 'DROP TRIGGER') EXECUTE FUNCTION no_triggers();
\set VERBOSITY terse
SELECT cache_watch('guarded_too', keys => ARRAY['guarded:{id}']);
SELECT statistics_create('guarded_count', 'SELECT count(*) FROM guarded_too');
SELECT cache_unwatch('guarded');
\set VERBOSITY default
DROP EVENT TRIGGER no_triggers;
SELECT cache_unwatch('guarded');
DROP FUNCTION no_triggers;
DROP TABLE guarded, guarded_too;

-- a key of placeholders alone could name anything; a watched table cannot become one that a crash empties
CREATE TABLE bare (id integer, sid text);
SELECT cache_watch('bare', keys => ARRAY['{sid}']);
SELECT cache_watch('bare', keys => ARRAY['s:{sid}']);
ALTER TABLE bare SET UNLOGGED;
DROP TABLE bare;
-- what writes and drops the extension can commit
CREATE DATABASE regress_invalidation_drop;
\c regress_invalidation_drop
SET client_min_messages = warning;
CREATE EXTENSION cache_ext;
CREATE TABLE left_behind (id integer);
SELECT cache_watch('left_behind', keys => ARRAY['left:{id}']);
BEGIN;
INSERT INTO left_behind VALUES (1);
SELECT cache_invalidate('x');
DROP EXTENSION cache_ext CASCADE;
COMMIT;
INSERT INTO left_behind VALUES (2);
\c contrib_regression
SET client_min_messages = warning;
DROP DATABASE regress_invalidation_drop WITH (FORCE);

-- What a statistic keeps, what it refuses, and how it lives beside its tables.
\set VERBOSITY terse
CREATE TABLE orders (
    id integer PRIMARY KEY,
    vendor text,
    quantity integer,
    total numeric(12, 2),
    weight double precision,
    paid boolean,
    placed timestamp
);
CREATE TABLE returned (order_id integer, reason text);

-- differences between a statistic and a recomputation; none is the only right answer
CREATE FUNCTION differences(statistic regclass) RETURNS bigint
    LANGUAGE sql AS 'SELECT count(*) FROM statistics_verify(statistic)';

-- every aggregate, with FILTER, WHERE, GROUP BY, HAVING and expressions
SELECT statistics_create('vendor_orders', $$
    SELECT vendor, count(*) AS orders, count(total) AS priced, sum(quantity) AS quantity,
        sum(total) AS revenue, avg(total) AS mean, min(total) AS least, max(placed) AS latest,
        count(DISTINCT quantity) AS quantities, sum(weight) AS weight, avg(weight) AS mean_weight,
        count(*) FILTER (WHERE paid) AS paid,
        round(sum(total) / nullif(count(*), 0), 2) AS per_order
    FROM orders WHERE quantity > 0 GROUP BY vendor HAVING count(*) > 0 $$);
SELECT statistics_create('totals', $$
    SELECT (SELECT count(*) FROM orders) AS orders,
        (SELECT sum(total) FROM orders WHERE paid) AS paid,
        (SELECT count(*) FROM orders o WHERE paid AND NOT EXISTS
            (SELECT FROM returned r WHERE r.order_id = o.id)) AS kept,
        (SELECT sum(quantity) FROM orders o WHERE EXISTS
            (SELECT FROM returned r WHERE r.order_id = o.id AND r.reason <> 'size')) AS came_back,
        (SELECT max(weight) FROM orders) AS heaviest,
        42 AS answer $$);
SELECT * FROM vendor_orders;
SELECT * FROM totals;
INSERT INTO orders SELECT i, 'v' || i % 3, i % 5, i * 1.25, i / 8.0, i % 2 = 0, timestamp '2026-01-01' + i * interval '1 hour'
FROM generate_series(1, 20) i;
INSERT INTO returned VALUES (2, 'size'), (4, 'broken'), (4, 'size'), (99, 'broken'), (NULL, 'broken');
SELECT * FROM vendor_orders ORDER BY vendor;
SELECT * FROM totals;
SELECT differences('vendor_orders'), differences('totals');
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT * FROM totals;
SELECT differences('vendor_orders'), differences('totals');

-- a fold that brings only links: the sums it adds are those of the tables, key after key
BEGIN;
SELECT statistics_create('linked', $$
    SELECT (SELECT sum(quantity) FROM orders o WHERE EXISTS
        (SELECT FROM returned r WHERE r.order_id = o.id AND r.reason = 'late')) AS quantity $$);
INSERT INTO returned SELECT i, 'late' FROM generate_series(1, 20) i;
SELECT statistics_fold() > 0 AS folded;
SELECT * FROM linked;
ROLLBACK;

-- columns have the types of the plain query
SELECT attname, atttypid::regtype FROM pg_attribute
WHERE attrelid = 'vendor_orders'::regclass AND attnum > 0 ORDER BY attnum;

-- a look-up of one group is pushed down, also as a parameter
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        RETURN NEXT regexp_replace(line, 'state_[0-9]+', 'state');
    END LOOP;
END $$;
SELECT plan_of($$SELECT * FROM vendor_orders WHERE vendor = 'v1'$$);
DROP FUNCTION plan_of;
PREPARE one(text) AS SELECT orders FROM vendor_orders WHERE vendor = $1;
EXECUTE one('v1');
EXECUTE one(NULL);
DEALLOCATE one;

-- floating point: exact, without drift, NaN and infinities apart
CREATE TABLE f (g integer, x double precision, y real);
SELECT statistics_create('f_sums', 'SELECT g, sum(x) AS x, avg(x) AS ax, sum(y) AS y, avg(y) AS ay FROM f GROUP BY g');
INSERT INTO f VALUES (1, 0.1, 0.1), (1, 0.2, 0.2), (1, 1e15, 1e15), (1, 'NaN', 'NaN'), (1, 'Infinity', '-Infinity'),
    (1, 4.9e-324, 1e-45), (2, 1e308, 3e38), (2, -1e308, -3e38), (3, NULL, NULL);
SELECT * FROM f_sums ORDER BY g;
DELETE FROM f WHERE x = 'NaN';
SELECT * FROM f_sums ORDER BY g;
DELETE FROM f WHERE abs(x) > 1e14;
SELECT g, x, ax FROM f_sums ORDER BY g;
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT g, x, ax FROM f_sums ORDER BY g;
INSERT INTO f VALUES (4, 1.7e308, 1), (4, 1.7e308, 1);
SELECT x FROM f_sums WHERE g = 4;
DELETE FROM f WHERE g = 4;

-- whole numbers: sums past the type of the result are raised at the read
CREATE TABLE big (i bigint, j integer);
SELECT statistics_create('big_sum', 'SELECT sum(i) AS i, sum(j) AS j, avg(i) AS a FROM big');
INSERT INTO big VALUES (9223372036854775807, 2147483647), (9223372036854775807, 2147483647);
SELECT * FROM big_sum;

-- extremes survive the deletion of the extreme value; groups come and go, NULL is a group
CREATE TABLE m (g integer, v integer);
SELECT statistics_create('m_range', 'SELECT g, min(v) AS lo, max(v) AS hi, count(DISTINCT v) AS d FROM m GROUP BY g');
INSERT INTO m SELECT g, v FROM unnest(ARRAY[1, 2, NULL]) g, generate_series(1, 5) v, generate_series(1, 2);
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
DELETE FROM m WHERE v IN (1, 5) AND g = 1;
SELECT * FROM m_range ORDER BY g;
DELETE FROM m WHERE g IS NULL;
UPDATE m SET v = NULL WHERE g = 2;
SELECT * FROM m_range ORDER BY g;
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT * FROM m_range ORDER BY g;
SELECT differences('m_range');

-- extremes from an index that the table has anyway: nothing is kept twice, whatever is folded
CREATE TABLE visit (place text, at timestamp, n integer);
CREATE INDEX visit_at ON visit (place, at DESC);
CREATE INDEX visit_n ON visit (n) INCLUDE (place);
SELECT statistics_create('visits', 'SELECT place, count(*) AS visits, min(at) AS first, max(at) AS last FROM visit GROUP BY place');
SELECT statistics_create('visit_range', 'SELECT min(n) AS lo, max(n) AS hi, max(at) AS last FROM visit');
SELECT count(*) AS parts FROM pg_class WHERE relnamespace = 'cache_ext_internal'::regnamespace AND relkind = 'r'
    AND relname ~ (SELECT '^part_(' || string_agg(id::text, '|') || ')_' FROM cache_ext_internal.statistic
                   WHERE relation IN ('visits'::regclass, 'visit_range'::regclass));
INSERT INTO visit SELECT p, timestamp '2026-01-01' + i * interval '1 day', i
FROM unnest(ARRAY['a', 'b', NULL]) p, generate_series(1, 4) i;
INSERT INTO visit VALUES ('c', NULL, NULL);
SELECT * FROM visits ORDER BY place;
SELECT statistics_fold() >= 0 AS folded;
SELECT * FROM visits ORDER BY place;
SELECT * FROM visit_range;
DELETE FROM visit WHERE n = 4 AND place = 'a' OR n = 1;
UPDATE visit SET at = at + interval '1 hour', n = n * 10 WHERE place = 'b' AND n = 4;
SELECT * FROM visits ORDER BY place;
SELECT * FROM visit_range;
SELECT statistics_fold() >= 0 AS folded;
INSERT INTO visit VALUES ('c', '2025-12-24', 0);
SELECT * FROM visits ORDER BY place;
DELETE FROM visit WHERE place IN ('c', 'b') OR place IS NULL;
SELECT statistics_fold() >= 0 AS folded;
SELECT * FROM visits ORDER BY place;
SELECT * FROM visit_range;
SELECT differences('visits'), differences('visit_range');
-- without the index what needs it is answered by the query
DROP INDEX visit_at;
DELETE FROM visit WHERE at = (SELECT max(at) FROM visit);
SELECT * FROM visits;
SELECT differences('visits'), differences('visit_range');
DROP TABLE visit CASCADE;

-- refused, with the construct's name
\set ECHO none
CREATE FUNCTION refusal(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    PERFORM statistics_create('refused', query);
    RETURN 'created';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat(SQLSTATE, ' ', SQLERRM, CASE WHEN detail = '' THEN ' (no detail)' END, CASE WHEN hint = '' THEN ' (no hint)' END);
END $$;
CREATE VIEW orders_view AS SELECT * FROM orders;
CREATE UNLOGGED TABLE unlogged (i integer);
CREATE TABLE secret (i integer);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE MATERIALIZED VIEW orders_once AS SELECT * FROM orders;
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE far (i integer) SERVER elsewhere;
CREATE TABLE half_far (i integer) PARTITION BY LIST (i);
CREATE FOREIGN TABLE half_far_1 PARTITION OF half_far FOR VALUES IN (1) SERVER elsewhere;
CREATE TABLE half_logged (i integer);
CREATE UNLOGGED TABLE half_logged_child () INHERITS (half_logged);
CREATE TABLE routed (i integer, twice integer GENERATED ALWAYS AS (i * 2) STORED) PARTITION BY LIST (i);
CREATE TABLE setting (x double precision, y real, b bytea, p point, t text);
\set ECHO all
SELECT refusal(q) FROM unnest(ARRAY[
    'SELECT count(*) FROM orders, returned',
    'SELECT count(*) FROM orders o LEFT JOIN returned r ON r.order_id = o.id',
    'SELECT id FROM orders',
    'SELECT vendor, count(*) FROM orders GROUP BY vendor ORDER BY 2 DESC LIMIT 3',
    'SELECT vendor, count(*) FROM orders GROUP BY vendor ORDER BY 2',
    'SELECT DISTINCT count(*) FROM orders',
    'SELECT count(*) FROM orders_view',
    'SELECT count(*) FROM unlogged',
    'SELECT count(*) FROM secret',
    'SELECT count(*) FROM pg_class',
    'SELECT count(*) FROM ONLY orders',
    'SELECT count(*) FROM orders TABLESAMPLE SYSTEM (10)',
    'SELECT count(*) FROM (SELECT * FROM orders) o',
    'SELECT count(*) FROM generate_series(1, 3)',
    'SELECT count(*) FROM orders WHERE placed > now()',
    'SELECT count(*) FROM orders WHERE random() > 0.5',
    'SELECT count(*) FROM orders WHERE ctid IS NOT NULL',
    'SELECT count(orders) FROM orders',
    'SELECT string_agg(vendor, '','') FROM orders',
    'SELECT corr(total, weight) FROM orders',
    'SELECT sum(DISTINCT placed - placed) FROM orders',
    'SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM orders',
    'SELECT count(*) OVER () FROM orders',
    'SELECT vendor, count(*) FROM orders GROUP BY CUBE (vendor)',
    'WITH o AS (SELECT * FROM orders) SELECT count(*) FROM o',
    'SELECT count(*) FROM orders UNION SELECT 1',
    'SELECT count(*) FROM orders WHERE id NOT IN (SELECT order_id FROM returned)',
    'SELECT count(*) FROM orders WHERE id < ALL (SELECT order_id FROM returned)',
    'SELECT count(*) FROM orders WHERE paid OR id IN (SELECT order_id FROM returned)',
    'SELECT count(*) FROM orders WHERE id IN (SELECT order_id FROM returned LIMIT 1)',
    'SELECT count(*) FROM orders WHERE id IN (SELECT max(order_id) FROM returned)',
    'SELECT count(*) FROM orders o JOIN returned r ON r.order_id = o.id AND r.order_id = o.quantity',
    'SELECT count(*) FROM orders o JOIN returned r ON r.order_id = o.id WHERE o.vendor < r.reason',
    'SELECT count(*) FROM orders a, orders b, orders c WHERE a.id = b.id AND b.id = c.id AND c.id = a.id',
    'SELECT sum(o.quantity * r.order_id) FROM orders o JOIN returned r ON r.order_id = o.id',
    'SELECT count(*) FROM orders o JOIN returned r ON r.order_id = o.id GROUP BY o.vendor || r.reason',
    'SELECT count(*) FROM orders o JOIN returned r ON r.order_id = o.id WHERE EXISTS (SELECT FROM returned x WHERE x.order_id = o.id AND x.reason = r.reason)',
    'SELECT count(*) FROM orders o WHERE EXISTS (SELECT FROM returned r, returned x WHERE r.order_id = o.id)',
    'SELECT count(*) FROM orders o, LATERAL (SELECT FROM returned r WHERE r.order_id = o.id) x',
    'SELECT count(*) FROM orders o WHERE EXISTS (SELECT FROM returned r WHERE r.order_id < o.id)',
    'SELECT count(*) FROM orders o WHERE EXISTS (SELECT FROM returned r)',
    'SELECT (SELECT total FROM orders WHERE id = 1)',
    'SELECT (SELECT vendor FROM orders GROUP BY vendor)',
    'SELECT 1',
    'SELECT id, vendor, count(*) FROM orders GROUP BY id',
    'SELECT count(*) FROM orders FOR UPDATE',
    'INSERT INTO orders VALUES (1)',
    'SELECT count(*) FROM orders; DROP TABLE orders',
    'SELECT count(*) FROM nowhere',
    'SELECT DISTINCT ON (vendor) vendor, id FROM orders',
    'WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT count(*) FROM r',
    'SELECT count(*) FROM orders_once',
    'SELECT count(*) FROM far',
    'SELECT count(*) FROM half_far',
    'SELECT twice, count(*) FROM routed GROUP BY twice',
    'SELECT count(*) FROM orders o WHERE NOT EXISTS (SELECT FROM routed r WHERE r.twice = o.id)',
    'SELECT (SELECT count(*) FROM routed r WHERE r.twice > 1)',
    'SELECT count(*) FROM routed r JOIN orders o ON o.id = r.i WHERE r.twice > 1',
    'SELECT count(*) FROM half_logged',
    'SELECT count(*) FROM cache_ext_internal.source',
    'SELECT x::text, count(*) FROM setting GROUP BY 1',
    'SELECT count(DISTINCT y::varchar(3)) FROM setting',
    'SELECT max(b::text) FROM setting',
    'SELECT count(*) FROM setting WHERE length(p::text) > 5',
    'SELECT quote_ident(t), count(*) FROM setting GROUP BY 1',
    (SELECT 'SELECT count(*) FROM orders GROUP BY ' || string_agg('id + ' || i, ', ') FROM generate_series(1, 33) i),
    (SELECT 'SELECT max(id) FROM orders GROUP BY ' || string_agg('id + ' || i, ', ') FROM generate_series(1, 32) i)]) q;
-- results may be written as the reader's session writes them
SELECT statistics_create('written', 'SELECT sum(x)::text AS x, b::text AS b FROM setting GROUP BY b');
INSERT INTO setting VALUES (1 / 3.0, 0, '\x01');
SET extra_float_digits = -5;
SET bytea_output = escape;
SELECT * FROM written;
RESET extra_float_digits;
RESET bytea_output;
SELECT differences('written');
DROP TABLE setting, routed, half_logged CASCADE;
DROP TABLE half_far;
DROP SERVER elsewhere CASCADE;
DROP FOREIGN DATA WRAPPER elsewhere;
SELECT statistics_create(NULL, 'SELECT count(*) FROM orders');
SELECT statistics_create('totals', 'SELECT count(*) FROM orders');
SELECT statistics_verify('orders');
SELECT statistics_drop('orders');

-- replaced, refreshed; dropping and retyping as for a view; renames follow
SELECT statistics_create('totals', 'SELECT count(*) AS n FROM orders', replace => true);
SELECT * FROM totals;
SELECT statistics_refresh('totals');
SELECT differences('totals');
ALTER TABLE orders DROP COLUMN total;
ALTER TABLE orders ALTER quantity TYPE bigint;
ALTER TABLE orders RENAME COLUMN quantity TO pieces;
ALTER TABLE orders RENAME TO purchases;
ALTER VIEW vendor_orders RENAME TO vendor_purchases;
UPDATE purchases SET pieces = pieces + 1;
SELECT differences('vendor_purchases'), differences('totals');
DROP TABLE purchases;
SELECT relation, state, groups, detail FROM statistics_status ORDER BY relation::text;

-- one transaction: created on own rows, used, rolled back
BEGIN;
INSERT INTO returned VALUES (5, 'late');
SELECT statistics_create('reasons', 'SELECT reason, count(*) AS n FROM returned GROUP BY reason');
INSERT INTO returned VALUES (6, 'late');
SELECT * FROM reasons ORDER BY reason;
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT * FROM reasons ORDER BY reason;
ROLLBACK;
SELECT to_regclass('reasons');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT statistics_create('reasons', 'SELECT reason, count(*) AS n FROM returned GROUP BY reason');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT statistics_fold();
ROLLBACK;

-- an expression that raises makes the write fail, and the error says whose it is
\set VERBOSITY default
SELECT statistics_create('by_tenth', 'SELECT 10 / g AS k, count(*) AS n FROM m GROUP BY 10 / g');
INSERT INTO m VALUES (0, 1);
SELECT differences('by_tenth');
\set VERBOSITY terse

-- privileges: those of CREATE VIEW and CREATE TRIGGER; writers need none of ours
CREATE ROLE cache_ext_owner;
CREATE ROLE cache_ext_writer;
CREATE SCHEMA shop AUTHORIZATION cache_ext_owner;
CREATE TABLE shop."odd ""name; --%I" ("käse %s" text);
ALTER TABLE shop."odd ""name; --%I" OWNER TO cache_ext_owner;
GRANT USAGE ON SCHEMA shop TO cache_ext_writer;
GRANT INSERT ON shop."odd ""name; --%I" TO cache_ext_writer;
SET ROLE cache_ext_writer;
SELECT statistics_create('shop.mine', 'SELECT count(*) FROM shop."odd ""name; --%I"');
SET ROLE cache_ext_owner;
SELECT statistics_create('shop."its %I count"', 'SELECT "käse %s" AS "k""x", count(*) FROM shop."odd ""name; --%I" GROUP BY 1');
SET ROLE cache_ext_writer;
INSERT INTO shop."odd ""name; --%I" VALUES ('Emmentaler'), ('Gouda'), ('Gouda');
SELECT * FROM shop."its %I count";
SELECT statistics_verify('shop."its %I count"');
SELECT statistics_drop('shop."its %I count"');
SELECT * FROM cache_ext_internal.statistic;
RESET ROLE;
GRANT SELECT ON shop."its %I count" TO cache_ext_writer;
SET ROLE cache_ext_writer;
SELECT * FROM shop."its %I count" ORDER BY 1;
SELECT statistics_last_change('shop."its %I count"') > now() - interval '1 hour' AS recent;
RESET ROLE;
SELECT differences('shop."its %I count"');
DROP SCHEMA shop CASCADE;
DROP ROLE cache_ext_owner;
DROP ROLE cache_ext_writer;

-- a fold that meets mostly new keys puts many in at a time, or without looking them up: some are there, one goes
CREATE TABLE visits (page integer, visitor integer);
SELECT statistics_create('visitors', 'SELECT count(DISTINCT visitor) AS n, sum(DISTINCT visitor) AS s FROM visits');
SELECT statistics_create('visitor_range', 'SELECT count(DISTINCT visitor) AS n, min(visitor) AS lo, max(visitor) AS hi FROM visits');
INSERT INTO visits SELECT 1, i FROM generate_series(100, 2000, 100) i;
SELECT statistics_fold() >= 0 AS folded;
INSERT INTO visits SELECT 2, i FROM generate_series(1, 2000) i;
DELETE FROM visits WHERE visitor = 300;
SELECT statistics_fold() >= 0 AS folded;
SELECT * FROM visitors, visitor_range;
DELETE FROM visits WHERE page = 2;
SELECT * FROM visitors, visitor_range;
SELECT statistics_fold() >= 0 AS folded;
SELECT * FROM visitors, visitor_range;
DELETE FROM visits;
SELECT statistics_fold() >= 0 AS folded;
SELECT * FROM visitors, visitor_range;
DROP TABLE visits CASCADE;

-- values that are equal are one, however many bytes they have
CREATE TABLE padded (code bpchar, price numeric);
SELECT statistics_create('codes', 'SELECT code, count(*) AS rows, count(DISTINCT price) AS prices FROM padded GROUP BY code');
INSERT INTO padded VALUES ('a', 1.0), ('a  ', 1), ('b', 2), (NULL, NULL);
SELECT code, rows, prices FROM codes ORDER BY code;
SELECT statistics_fold() >= 0 AS folded;
INSERT INTO padded VALUES ('a ', 1.00), ('b  ', 2.5);
SELECT code, rows, prices FROM codes ORDER BY code;
SELECT statistics_fold() >= 0 AS folded;
DELETE FROM padded WHERE octet_length(code) = 1;
SELECT code, rows, prices FROM codes ORDER BY code;
SELECT differences('codes');
DROP TABLE padded CASCADE;

-- nothing of a dropped statistic stays
SELECT statistics_drop(relation) FROM statistics_status;
SELECT count(*) AS sources FROM cache_ext_internal.source;
SELECT tgname FROM pg_trigger WHERE tgname LIKE '0\_cache\_ext%';
SELECT relname FROM pg_class WHERE relnamespace = 'cache_ext_internal'::regnamespace AND relname ~ '_[0-9]+$';
-- verify is no wronger than the statistic where plain sums lose their digits
CREATE TABLE cancel (g integer, x double precision, y real);
SELECT statistics_create('cancelled', $$
    SELECT g, sum(x) AS s, avg(x) AS a, stddev(x) AS d, sum(y) AS sy, sum(x) / nullif(count(*), 0) AS q
    FROM cancel GROUP BY g $$);
INSERT INTO cancel SELECT i % 3, CASE i % 2 WHEN 0 THEN 1e15 ELSE -1e15 END + i * 0.1, i * 0.1 FROM generate_series(1, 600) i;
INSERT INTO cancel VALUES (7, 'NaN', 1), (8, 'Infinity', 1), (9, '-Infinity', 'NaN'), (10, NULL, NULL);
SELECT statistics_verify('cancelled');
SELECT statistics_fold() >= 0 AS folded;
SELECT folded, write_us > 0 AND write_us < 1e7 AS measured FROM statistics_status WHERE relation = 'cancelled'::regclass;
DELETE FROM cancel WHERE x > 1e14 AND x < 'Infinity';
SELECT statistics_verify('cancelled');
UPDATE cancel SET x = x + 1e15 WHERE g < 3;
SELECT statistics_verify('cancelled');
DROP TABLE cancel CASCADE;
DROP TABLE purchases, returned, f, big, m, unlogged, secret CASCADE;
DROP FUNCTION differences, refusal;

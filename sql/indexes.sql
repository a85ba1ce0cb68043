-- Statistics that rely on an index of their table, and what becomes of them when it goes.
\set VERBOSITY terse
CREATE TABLE shelf (id integer PRIMARY KEY, kind text, price integer, at timestamptz DEFAULT now());
INSERT INTO shelf SELECT i, 'k' || i % 3, i FROM generate_series(1, 300) i;
CREATE INDEX shelf_kind ON shelf (kind, price);
CREATE INDEX shelf_at ON shelf (at);
ALTER TABLE shelf ADD CONSTRAINT dear UNIQUE (price);
SELECT statistics_create('by_kind', 'SELECT kind, count(*) AS n, min(price) AS lowest, max(price) AS highest FROM shelf GROUP BY kind');
SELECT statistics_create('lately', $$SELECT count(*) AS n FROM shelf WHERE at > now() - interval '1 hour'$$);
SELECT statistics_create('in_all', 'SELECT max(price) AS highest FROM shelf');
CREATE FUNCTION parts() RETURNS TABLE (statistic regclass, parts bigint) LANGUAGE sql AS $$
    SELECT s.relation, count(c.oid) FROM cache_ext_internal.statistic s LEFT JOIN pg_class c
        ON c.relnamespace = 'cache_ext_internal'::regnamespace AND c.relname ~ format('^part_%s_', s.id) AND c.relkind = 'r'
    WHERE s.relation IN ('by_kind'::regclass, 'in_all'::regclass) GROUP BY 1 ORDER BY s.relation::text $$;
CREATE FUNCTION differences() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM unnest('{by_kind, lately, in_all}'::text[]) s, statistics_verify(s::regclass) $$;
SELECT * FROM parts();

-- an index that nothing relies on, and one whose work another can do
CREATE INDEX shelf_more ON shelf (kind, price, id);
CREATE INDEX shelf_price ON shelf ((price + 1));
DROP INDEX shelf_kind, shelf_price;
SELECT relation, state, detail FROM statistics_status WHERE relation IN ('by_kind'::regclass, 'in_all'::regclass) ORDER BY relation::text;
SELECT * FROM parts();

-- the last one: the worker fills it anew, with a part, and meanwhile it is exact
BEGIN;
DELETE FROM shelf WHERE price > 290;
DROP INDEX shelf_more;
SELECT * FROM by_kind ORDER BY kind;
SELECT state FROM statistics_status WHERE relation = 'by_kind'::regclass;
COMMIT;
SELECT statistics_wait('by_kind');
SELECT * FROM parts();
SELECT state, detail FROM statistics_status WHERE relation = 'by_kind'::regclass;
DELETE FROM shelf WHERE price IN (1, 290, 289);
SELECT * FROM by_kind ORDER BY kind;
SELECT statistics_fold() >= 0 AS folded;
SELECT * FROM by_kind ORDER BY kind;
SELECT differences();

-- rolled back, nothing has happened
BEGIN;
ALTER TABLE shelf DROP CONSTRAINT dear;
SELECT state FROM statistics_status WHERE relation = 'in_all'::regclass;
ROLLBACK;
SELECT state FROM statistics_status WHERE relation = 'in_all'::regclass;

-- a constraint's index; there is another again before the statistic is filled
BEGIN;
ALTER TABLE shelf DROP CONSTRAINT dear;
CREATE INDEX shelf_price ON shelf (price DESC);
COMMIT;
SELECT statistics_wait('in_all');
SELECT * FROM parts();
DROP INDEX CONCURRENTLY shelf_price;
SELECT statistics_wait('in_all');
SELECT * FROM parts();
DELETE FROM shelf WHERE price > 280;
SELECT * FROM in_all;
SELECT differences();

-- unnoticed: the state says it, and a refresh mends it
CREATE UNIQUE INDEX dear ON shelf (price);
SELECT statistics_create('in_all', 'SELECT max(price) AS highest, min(price) AS lowest FROM shelf', replace => true);
ALTER EVENT TRIGGER cache_ext_on_drop DISABLE;
DROP INDEX dear;
ALTER EVENT TRIGGER cache_ext_on_drop ENABLE ALWAYS;
SELECT state, detail FROM statistics_status WHERE relation = 'in_all'::regclass;
DELETE FROM shelf WHERE price > 270;
SELECT * FROM in_all;
SELECT statistics_refresh('in_all');
SELECT state, detail FROM statistics_status WHERE relation = 'in_all'::regclass;
SELECT * FROM parts();
SELECT * FROM in_all;

-- a child has no part in its parent's index
CREATE INDEX dear ON shelf (price);
SELECT statistics_create('in_all', 'SELECT max(price) AS highest FROM shelf', replace => true);
CREATE TABLE drawer (depth integer) INHERITS (shelf);
SELECT statistics_wait('in_all');
INSERT INTO drawer VALUES (1000, 'k0', 1000, now(), 3);
SELECT * FROM in_all;
DELETE FROM drawer;
SELECT * FROM in_all;
SELECT * FROM parts();
DROP TABLE drawer;
ALTER TABLE drawer NO INHERIT shelf;
DROP TABLE drawer;

-- the ends of a window are read by an index
DROP INDEX shelf_at;
SELECT state, detail FROM statistics_status WHERE relation = 'lately'::regclass;
INSERT INTO shelf VALUES (2000, 'k1', 2000, now() - interval '59 minutes'), (2001, 'k1', 2001, now() - interval '61 minutes');
SELECT (SELECT n FROM lately) = (SELECT count(*) FROM shelf WHERE at > now() - interval '1 hour') AS exact;
CREATE INDEX ON shelf (at);
SELECT state, detail FROM statistics_status WHERE relation = 'lately'::regclass;
SELECT differences();

SELECT statistics_drop(relation) FROM cache_ext_internal.statistic WHERE relation IN ('by_kind'::regclass, 'in_all'::regclass, 'lately'::regclass);
DROP TABLE shelf;
DROP FUNCTION parts(), differences();

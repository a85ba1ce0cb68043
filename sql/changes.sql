-- Every way to change a table counts, on plain and on partitioned tables.
\set VERBOSITY terse
CREATE TABLE owner (id integer PRIMARY KEY, name text);
CREATE TABLE thing (
    id integer PRIMARY KEY,
    owner_id integer REFERENCES owner ON DELETE SET NULL ON UPDATE CASCADE,
    kind text,
    weight numeric,
    parent_id integer REFERENCES thing ON DELETE CASCADE
);
CREATE TABLE tag (thing_id integer REFERENCES thing ON DELETE CASCADE, label text);
SELECT statistics_create('by_owner', $$
    SELECT owner_id, count(*) AS things, sum(weight) AS weight, max(weight) AS heaviest,
        count(DISTINCT kind) AS kinds FROM thing WHERE kind <> 'ghost' GROUP BY owner_id $$);
SELECT statistics_create('overview', $$
    SELECT (SELECT count(*) FROM thing) AS things, (SELECT count(*) FROM owner) AS owners,
        (SELECT count(*) FROM thing t WHERE NOT EXISTS (SELECT FROM tag WHERE thing_id = t.id)) AS untagged,
        (SELECT min(label) FROM tag) AS first_label $$);

CREATE FUNCTION exact(step text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    SELECT string_agg(v::text, ' ') INTO found
    FROM unnest('{by_owner,overview}'::regclass[]) s, LATERAL statistics_verify(s) v;
    RETURN step || coalesce(' WRONG ' || found, ' exact');
END $$;

INSERT INTO owner VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO thing SELECT i, 1 + i % 3, 'k' || i % 4, i * 0.5, NULL FROM generate_series(1, 30) i;
INSERT INTO thing VALUES (31, NULL, 'ghost', 1000, 1), (32, 1, NULL, NULL, 31);
INSERT INTO tag SELECT i % 20 + 1, 'l' || i FROM generate_series(1, 40) i;
SELECT exact('INSERT');
COPY thing FROM STDIN;
40	1	k1	7.5	\N
41	2	ghost	8.5	40
\.
SELECT exact('COPY');
COPY thing FROM STDIN;
50	1	k1	7.5	\N
51	nonsense	k1	7.5	\N
\.
SELECT exact('failed COPY');
UPDATE thing SET kind = 'ghost' WHERE id % 7 = 0;
UPDATE thing SET kind = 'k0' WHERE id = 31;
SELECT exact('UPDATE in and out of the filter');
UPDATE thing SET owner_id = 1 + (id + 1) % 3, weight = weight + 1;
SELECT exact('UPDATE between groups');
UPDATE thing t SET weight = o.id FROM owner o WHERE o.id = t.owner_id AND t.id < 9;
SELECT exact('UPDATE FROM');
INSERT INTO thing VALUES (1, 2, 'new', 1), (60, 2, 'new', 1) ON CONFLICT DO NOTHING;
INSERT INTO thing VALUES (1, 2, 'new', 1), (61, 2, 'new', 1)
    ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, owner_id = excluded.owner_id;
INSERT INTO thing VALUES (1, 3, 'no', 9) ON CONFLICT (id) DO UPDATE SET kind = 'no' WHERE false;
SELECT exact('ON CONFLICT');
MERGE INTO thing t USING (VALUES (1, 'x'), (2, 'gone'), (70, 'y')) AS s (id, kind) ON s.id = t.id
    WHEN MATCHED AND s.kind = 'gone' THEN DELETE
    WHEN MATCHED THEN UPDATE SET kind = s.kind
    WHEN NOT MATCHED THEN INSERT VALUES (s.id, 3, s.kind, 2);
SELECT exact('MERGE');
UPDATE owner SET id = 33 WHERE id = 3;
DELETE FROM owner WHERE id = 2;
SELECT exact('ON UPDATE CASCADE and ON DELETE SET NULL');
DELETE FROM thing WHERE id = 40;
SELECT exact('self-referencing cascade');
WITH gone AS (DELETE FROM tag WHERE label < 'l2' RETURNING thing_id),
    moved AS (UPDATE thing SET weight = -1 WHERE id IN (SELECT thing_id FROM gone) RETURNING id)
INSERT INTO tag SELECT id, 'moved' FROM moved;
SELECT exact('data-modifying CTE');
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM thing WHERE id < 12 FOR UPDATE;
MOVE 2 IN c;
DELETE FROM thing WHERE CURRENT OF c;
MOVE 1 IN c;
UPDATE thing SET weight = NULL WHERE CURRENT OF c;
COMMIT;
SELECT exact('WHERE CURRENT OF');

-- a cursor keeps showing what its snapshot saw
BEGIN;
DECLARE before CURSOR FOR SELECT things FROM overview;
DELETE FROM thing WHERE id > 25;
SELECT things FROM overview;
SELECT statistics_fold() >= 0 AS folded;
FETCH before;
ROLLBACK;
SELECT exact('ROLLBACK');

BEGIN;
INSERT INTO thing VALUES (100, 1, 'k1', 1);
SAVEPOINT a;
INSERT INTO thing VALUES (101, 1, 'k1', 1);
SAVEPOINT b;
DELETE FROM thing WHERE id < 5;
SELECT exact('inside savepoints');
ROLLBACK TO b;
RELEASE a;
SELECT exact('ROLLBACK TO');
COMMIT;
SELECT exact('savepoints');
DO $$
BEGIN
    FOR i IN 200..300 LOOP
        BEGIN
            INSERT INTO thing VALUES (i, 1, 'k' || i % 3, i);
            IF i % 2 = 0 THEN
                RAISE division_by_zero;
            END IF;
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT exact('a hundred subtransactions');

CREATE FUNCTION nest(depth integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO thing VALUES (1000 + depth, 1, 'k' || depth % 3, depth);
    IF depth > 0 THEN
        PERFORM nest(depth - 1);
    END IF;
    IF depth = 30 THEN
        RAISE division_by_zero;
    END IF;
EXCEPTION WHEN division_by_zero THEN
    UPDATE thing SET weight = depth WHERE id = 1;
END $$;
BEGIN;
SELECT nest(99);
SELECT exact('a hundred nested subtransactions');
COMMIT;
SELECT count(*) AS kept FROM thing WHERE id >= 1000;
SELECT exact('their commit');
DELETE FROM thing WHERE id >= 1000;

-- BEFORE triggers of the user's: one that changes the row and others, one that discards
CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind = 'discard' THEN
        RETURN NULL;
    END IF;
    INSERT INTO tag VALUES (1, 'by ' || NEW.id);
    UPDATE thing SET weight = weight + 1 WHERE id = NEW.id - 1;
    NEW.weight := NEW.weight * 2;
    RETURN NEW;
END $$;
CREATE TRIGGER before BEFORE INSERT ON thing FOR EACH ROW EXECUTE FUNCTION before();
INSERT INTO thing VALUES (1000, 1, 'k1', 5), (1001, 1, 'discard', 5), (1002, 1, 'k2', 5), (1003, 1, 'k3', 6);
SELECT exact('BEFORE triggers');
DROP TRIGGER before ON thing;
-- rows that a statement changes twice
CREATE FUNCTION touch(which integer) RETURNS integer LANGUAGE sql AS $$
    UPDATE thing SET weight = weight + 1, kind = 'touched' WHERE id = which RETURNING id $$;
INSERT INTO thing VALUES (1010, 1, 'k1', 1), (1011, 1, 'k1', 1) RETURNING touch(id);
UPDATE thing SET weight = 100 WHERE id IN (1, 1010) RETURNING touch(id), touch(id);
SELECT exact('a row changed twice in a statement');
DELETE FROM thing WHERE id >= 1000;

-- a trigger of the user's that changes further rows, and one that reads the statistic
CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE thing SET weight = weight + 1 WHERE id = NEW.id AND weight < 3;
    RETURN NULL;
END $$;
CREATE TRIGGER more AFTER INSERT OR UPDATE ON thing FOR EACH ROW EXECUTE FUNCTION more();
INSERT INTO thing VALUES (400, 1, 'k9', 1), (401, 33, 'k9', 0);
UPDATE thing SET weight = 0 WHERE id BETWEEN 400 AND 410;
SELECT exact('user triggers');
DROP TRIGGER more ON thing;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE INFO '% things', (SELECT things FROM overview) - (SELECT count(*) FROM thing);
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON thing FOR EACH STATEMENT EXECUTE FUNCTION tell();
INSERT INTO thing VALUES (402, 1, 'k9', 1);
DROP TRIGGER tell ON thing;

TRUNCATE tag;
SELECT exact('TRUNCATE');
BEGIN;
INSERT INTO tag VALUES (5, 'x');
TRUNCATE owner CASCADE;
SELECT exact('TRUNCATE CASCADE');
INSERT INTO owner VALUES (1, 'again');
INSERT INTO thing VALUES (1, 1, 'k', 1);
SELECT exact('INSERT after TRUNCATE');
SAVEPOINT s;
TRUNCATE thing, tag RESTART IDENTITY;
SELECT exact('TRUNCATE of several');
ROLLBACK TO s;
SELECT exact('TRUNCATE rolled back to a savepoint');
ROLLBACK;
SELECT exact('TRUNCATE rolled back');

SET session_replication_role = replica;
INSERT INTO thing VALUES (500, 1, 'k5', 5), (501, NULL, 'k6', 6);
UPDATE thing SET weight = 50, kind = NULL WHERE id = 500;
DELETE FROM thing WHERE id = 501;
INSERT INTO tag VALUES (500, 'r');
RESET session_replication_role;
SELECT exact('session_replication_role = replica');
SELECT statistics_fold() >= 0 AS folded;
SELECT exact('fold');
-- while a trigger is disabled the statistics answer from the tables; afterwards the worker fills them
ALTER TABLE thing DISABLE TRIGGER "0_cache_ext_insert";
INSERT INTO thing VALUES (510, 1, 'unseen', 5);
SELECT relation, state, detail FROM statistics_status ORDER BY relation::text;
SELECT exact('DISABLE TRIGGER');
SELECT statistics_wait('overview');
SELECT statistics_create('unseen', 'SELECT count(*) FROM thing');
ALTER TABLE thing ENABLE TRIGGER ALL;
SELECT tgname, tgenabled FROM pg_trigger
WHERE tgrelid = 'thing'::regclass AND tgname LIKE '0_cache_ext%' ORDER BY 1;
SELECT statistics_wait('by_owner', '1 min'), statistics_wait('overview', '1 min');
SELECT relation, state FROM statistics_status ORDER BY relation::text;
SELECT exact('ENABLE TRIGGER ALL');
ALTER TABLE thing DISABLE TRIGGER ALL;
DELETE FROM thing WHERE id = 510;
SELECT statistics_refresh('by_owner');
SELECT state FROM statistics_status WHERE relation = 'by_owner'::regclass;
DELETE FROM thing WHERE id = 500;
DROP TRIGGER "0_cache_ext_delete" ON thing;
DELETE FROM thing WHERE id = 400;
SELECT exact('DROP TRIGGER');
SELECT statistics_refresh('overview'), statistics_refresh('by_owner');
DELETE FROM thing WHERE id = 401;
SELECT relation, state FROM statistics_status ORDER BY relation::text;
SELECT exact('refresh');

-- what could not be kept exact is refused
ALTER TABLE thing SET UNLOGGED;
ALTER TABLE thing ENABLE ROW LEVEL SECURITY;
-- foreign tables do not become members, by whichever command
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE TABLE herd (i integer) PARTITION BY LIST (i);
CREATE TABLE pack (i integer);
SELECT statistics_create('herds', 'SELECT count(*) AS n FROM herd'), statistics_create('packs', 'SELECT count(*) AS n FROM pack');
CREATE FOREIGN TABLE far PARTITION OF herd FOR VALUES IN (1) SERVER elsewhere;
CREATE FOREIGN TABLE far () INHERITS (pack) SERVER elsewhere;
CREATE FOREIGN TABLE far (i integer) SERVER elsewhere;
ALTER TABLE herd ATTACH PARTITION far FOR VALUES IN (1);
ALTER FOREIGN TABLE far INHERIT pack;
-- a member that comes with its schema is one
CREATE SCHEMA stable CREATE TABLE box PARTITION OF public.herd FOR VALUES IN (2);
INSERT INTO stable.box VALUES (2);
INSERT INTO herd VALUES (2);
SELECT n FROM herds;
DROP TABLE herd, pack CASCADE;
DROP SCHEMA stable;
DROP SERVER elsewhere CASCADE;
DROP FOREIGN DATA WRAPPER elsewhere;
SELECT statistics_drop('by_owner'), statistics_drop('overview');
DROP FUNCTION exact;

-- inheritance: through the parent, to a child, children that come and go
CREATE TABLE animal (id integer, legs integer, name text);
CREATE TABLE dog (tag text) INHERITS (animal);
INSERT INTO animal VALUES (1, 2, 'hen'), (2, 8, 'spider');
INSERT INTO dog VALUES (3, 4, 'rex', 'a');
SELECT statistics_create('zoo', $$
    SELECT legs, count(*) AS n, max(name) AS last, count(DISTINCT name) AS names FROM animal GROUP BY legs $$);
CREATE FUNCTION exact(step text) RETURNS text LANGUAGE sql AS $$
    SELECT step || coalesce(' WRONG ' || string_agg(v::text, ' '), ' exact') FROM statistics_verify('zoo') v $$;
INSERT INTO dog SELECT i, 4, 'dog' || i, 't' FROM generate_series(10, 20) i;
INSERT INTO animal VALUES (4, 4, 'cat');
SELECT exact('INSERT into parent and child');
UPDATE animal SET legs = 3 WHERE id IN (2, 3, 11);
DELETE FROM animal WHERE id IN (1, 12);
SELECT exact('UPDATE and DELETE through the parent');
UPDATE dog SET legs = 4, tag = 'b';
DELETE FROM ONLY dog WHERE id = 13;
SELECT exact('UPDATE and DELETE of the child');
CREATE TABLE puppy () INHERITS (dog);
INSERT INTO puppy SELECT i, 4, 'puppy' || i, 't' FROM generate_series(1, 3) i;
SELECT exact('a new grandchild');
CREATE TABLE cow (legs integer, id integer, milk integer, name text);
INSERT INTO cow VALUES (4, 50, 7, 'elsa');
ALTER TABLE cow INHERIT animal;
INSERT INTO cow VALUES (4, 51, 7, 'resi');
UPDATE animal SET name = name || '!' WHERE id > 17;
SELECT exact('INHERIT');
TRUNCATE ONLY animal;
SELECT exact('TRUNCATE ONLY');
BEGIN;
TRUNCATE animal;
INSERT INTO cow VALUES (4, 52, 7, 'zenzi');
SELECT exact('TRUNCATE with children');
ROLLBACK;
SELECT exact('the same rolled back');
SET session_replication_role = replica;
INSERT INTO cow VALUES (4, 53, 7, 'vroni');
UPDATE animal SET legs = 5 WHERE id IN (1, 53);
DELETE FROM puppy WHERE id = 2;
RESET session_replication_role;
SELECT exact('replicated changes of children');
DROP TABLE cow;
ALTER TABLE cow NO INHERIT animal;
INSERT INTO cow VALUES (4, 54, 7, 'lone');
DROP TABLE cow;
SELECT exact('NO INHERIT');
SELECT statistics_create('dogs', 'SELECT count(*) FROM dog');
SELECT statistics_fold() >= 0 AS folded;
SELECT exact('fold');
SELECT statistics_refresh('zoo');
SELECT * FROM zoo ORDER BY legs;
DROP TABLE animal CASCADE;
DROP FUNCTION exact;

-- partitions: through the root, to a leaf, across, attached, detached
CREATE TABLE part (id integer, region integer, size double precision, name text) PARTITION BY LIST (region);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 (name text, dropped integer, size double precision, region integer, id integer);
ALTER TABLE part_2 DROP COLUMN dropped;
INSERT INTO part_2 VALUES ('before', 1.5, 2, 1);
ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2);
CREATE TABLE part_3 PARTITION OF part FOR VALUES IN (3, 4) PARTITION BY LIST (region);
CREATE TABLE part_33 PARTITION OF part_3 FOR VALUES IN (3);
SELECT statistics_create('regions', $$
    SELECT region, count(*) AS n, sum(size) AS size, max(size) AS largest, min(name) AS first,
        count(DISTINCT name) AS names FROM part GROUP BY region $$);
CREATE FUNCTION exact(step text) RETURNS text LANGUAGE sql AS $$
    SELECT step || coalesce(' WRONG ' || string_agg(v::text, ' '), ' exact') FROM statistics_verify('regions') v $$;
INSERT INTO part SELECT i, 1 + i % 3, i * 0.5, 's' || i % 4 FROM generate_series(1, 30) i;
SELECT exact('INSERT through the root');
INSERT INTO part_2 SELECT 's', i, 2, i FROM generate_series(1, 5) i;
INSERT INTO part_3 VALUES (99, 3, NULL, NULL);
SELECT exact('INSERT below the root');
UPDATE part SET region = 1 + region % 3;
SELECT exact('row movement');
UPDATE part_2 SET size = size + 1;
DELETE FROM part_33 WHERE id < 5;
SELECT exact('UPDATE and DELETE of a leaf');
CREATE TABLE part_34 PARTITION OF part_3 FOR VALUES IN (4);
INSERT INTO part VALUES (1, 4, 4, 'x');
INSERT INTO part_34 VALUES (2, 4, 5, 'y');
SELECT exact('a new partition');
TRUNCATE part_2;
SELECT exact('TRUNCATE of a leaf');
ALTER TABLE part DETACH PARTITION part_1;
INSERT INTO part_1 VALUES (1, 1, 1, 'z');
SELECT exact('DETACH');
ALTER TABLE part ATTACH PARTITION part_1 FOR VALUES IN (1);
INSERT INTO part_1 VALUES (1, 1, 1, 'z');
SELECT exact('ATTACH');
ALTER TABLE part DETACH PARTITION part_3;
SELECT exact('DETACH of a subtree');
ALTER TABLE part ATTACH PARTITION part_3 FOR VALUES IN (3, 4);
SELECT exact('ATTACH of a subtree');
DROP TABLE part_1;
BEGIN;
ALTER TABLE part DETACH PARTITION part_1;
DROP TABLE part_1;
SELECT exact('DETACH and DROP');
ROLLBACK;
SELECT exact('the same rolled back');
ALTER TABLE part DETACH PARTITION part_1 CONCURRENTLY;
SET session_replication_role = replica;
INSERT INTO part VALUES (7, 2, 7, 'r'), (8, 1, 8, 'r');
UPDATE part SET region = 3 WHERE id = 8;
DELETE FROM part_2 WHERE id = 7;
TRUNCATE part_1;
RESET session_replication_role;
SELECT exact('replicated changes');
BEGIN;
INSERT INTO part SELECT i, 1 + i % 3, i, 't' FROM generate_series(1, 30) i;
TRUNCATE part;
INSERT INTO part VALUES (1, 1, 1, 'a');
SELECT exact('TRUNCATE of the root');
COMMIT;
SELECT statistics_refresh('regions');
SELECT * FROM regions;
SELECT exact('refresh');
ALTER TABLE part_33 DISABLE TRIGGER ALL;
DELETE FROM part_33;
SELECT exact('triggers of a leaf disabled');
ALTER TABLE part_33 ENABLE TRIGGER ALL;
SELECT statistics_wait('regions', '1 min');
INSERT INTO part_33 VALUES (3, 3, 3, 'three');
SELECT exact('triggers of a leaf enabled');
ALTER TABLE part_33 SET UNLOGGED;
CREATE UNLOGGED TABLE part_4 PARTITION OF part DEFAULT;
DROP TABLE part CASCADE;
DROP TABLE thing, owner, tag CASCADE;
DROP FUNCTION exact, more, tell, nest, before, touch;

-- names change, of tables, columns, types, schemas and of the statistic; what it counts does not
CREATE SCHEMA "Elsewhere, 1";
CREATE TYPE size AS ENUM ('small', 'large');
CREATE TYPE pair AS (a integer, b text);
CREATE TABLE crate (id integer PRIMARY KEY, kind text, size size, pair pair, n numeric, twice integer GENERATED ALWAYS AS (id * 2) STORED, rest text);
SELECT statistics_create('crates', 'SELECT kind, size, pair, count(*) AS n, sum(n) AS total, max(twice) AS twice FROM crate GROUP BY kind, size, pair');
CREATE FUNCTION crates_differ() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM cache_ext_internal.statistic s, statistics_verify(s.relation) WHERE s.relation::text ~ 'crates' $$;
INSERT INTO crate SELECT i, 'k' || i % 3, (ARRAY['small', 'large'])[1 + i % 2]::size, (i % 2, 'x')::pair, i / 4.0 FROM generate_series(1, 20) i;
ALTER TABLE crate RENAME COLUMN kind TO "Kind";
ALTER TABLE crate RENAME TO "Crate %I";
UPDATE "Crate %I" SET "Kind" = 'k1' WHERE id = 3;
SELECT crates_differ();
ALTER TABLE "Crate %I" SET SCHEMA "Elsewhere, 1";
ALTER SCHEMA "Elsewhere, 1" RENAME TO "Zoë";
DELETE FROM "Zoë"."Crate %I" WHERE id = 4;
SELECT crates_differ();
ALTER VIEW crates RENAME COLUMN n TO "Anzahl";
ALTER VIEW crates RENAME TO "Viele crates";
ALTER VIEW "Viele crates" SET SCHEMA "Zoë";
INSERT INTO "Zoë"."Crate %I" VALUES (30, 'k2', 'small', NULL, 1);
SELECT sum("Anzahl"), sum(total) FROM "Zoë"."Viele crates";
SELECT crates_differ();
ALTER TYPE size ADD VALUE 'middle' BEFORE 'large';
ALTER TYPE size RENAME VALUE 'small' TO 'tiny';
ALTER TABLE "Zoë"."Crate %I" ADD COLUMN more integer DEFAULT 5, DROP COLUMN rest;
ALTER TABLE "Zoë"."Crate %I" ALTER COLUMN more TYPE bigint;
ALTER TYPE pair ADD ATTRIBUTE c integer;
UPDATE "Zoë"."Crate %I" SET size = 'middle', n = n + 1 WHERE id % 5 = 0;
SELECT crates_differ();
VACUUM FULL "Zoë"."Crate %I";
REINDEX SCHEMA cache_ext_internal;
SELECT statistics_refresh('"Zoë"."Viele crates"');
DELETE FROM "Zoë"."Crate %I" WHERE id % 4 = 0;
SELECT statistics_fold() >= 0 AS folded;
SELECT crates_differ();
-- a column that old rows have by its default alone
CREATE TABLE fast (id integer);
INSERT INTO fast SELECT generate_series(1, 3);
ALTER TABLE fast ADD COLUMN c integer NOT NULL DEFAULT 5, ADD COLUMN t text DEFAULT 'five';
SELECT statistics_create('fast_ones', 'SELECT c, t, count(*) AS n FROM fast GROUP BY c, t');
UPDATE fast SET c = 6 WHERE id = 1;
DELETE FROM fast WHERE id = 2;
SELECT * FROM fast_ones ORDER BY c;
SELECT * FROM statistics_verify('fast_ones');
DROP TABLE fast CASCADE;

-- used columns, and what a statistic could not follow
ALTER TABLE "Zoë"."Crate %I" ALTER COLUMN n TYPE bigint;
ALTER TABLE "Zoë"."Crate %I" DROP COLUMN "Kind";
ALTER TABLE "Zoë"."Crate %I" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Zoë"."Crate %I" SET UNLOGGED;
-- somebody puts another view in its place
CREATE OR REPLACE VIEW "Zoë"."Viele crates" AS SELECT 'k'::text AS kind, 'large'::size AS size, NULL::pair AS pair, 1::bigint AS "Anzahl", 2::numeric AS total, 3 AS twice;
SELECT state, detail FROM statistics_status WHERE relation::text ~ 'crates';
DROP SCHEMA "Zoë" CASCADE;
SELECT count(*) FROM statistics_status;
DROP TYPE size, pair;
DROP FUNCTION crates_differ;

-- a function that a query uses and that is replaced: its statistics follow, through operators and SQL-standard bodies, too
CREATE TABLE graded (id integer PRIMARY KEY, points integer);
INSERT INTO graded SELECT i, i FROM generate_series(1, 10) i;
CREATE FUNCTION grade(integer) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT CASE WHEN $1 > 5 THEN 'good' ELSE 'bad' END$$;
CREATE FUNCTION passes(integer, integer) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 > $2; END';
CREATE OPERATOR >>>> (LEFTARG = integer, RIGHTARG = integer, FUNCTION = passes);
CREATE FUNCTION standard(p integer) RETURNS text IMMUTABLE RETURN grade(p);
SELECT statistics_create('by_grade', 'SELECT grade(points) AS grade, count(*) AS n FROM graded GROUP BY 1');
SELECT statistics_create('passed', 'SELECT count(*) AS n FROM graded WHERE points >>>> 7');
SELECT statistics_create('by_standard', 'SELECT standard(points) AS grade, count(*) AS n FROM graded GROUP BY 1');
INSERT INTO graded VALUES (11, 11);
BEGIN;
UPDATE graded SET points = 1 WHERE id = 11;
CREATE OR REPLACE FUNCTION grade(integer) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT CASE WHEN $1 > 8 THEN 'good' ELSE 'bad' END$$;
CREATE OR REPLACE FUNCTION passes(integer, integer) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 >= $2; END';
UPDATE graded SET points = 9 WHERE id = 1;
SELECT * FROM by_grade ORDER BY 1;
SELECT * FROM passed;
COMMIT;
SELECT statistics_wait(s, '60 s') FROM unnest('{by_grade,passed,by_standard}'::regclass[]) s;
DELETE FROM graded WHERE id = 2;
INSERT INTO graded VALUES (12, 9), (13, 3);
SELECT * FROM by_grade ORDER BY 1;
SELECT * FROM by_standard ORDER BY 1;
SELECT * FROM passed;
SELECT statistics_verify(s) FROM unnest('{by_grade,passed,by_standard}'::regclass[]) s;
ALTER FUNCTION grade(integer) STABLE;
ALTER FUNCTION passes(integer, integer) VOLATILE;
ALTER FUNCTION grade(integer) COST 10;

-- from within a statement that writes the table, its rows would be counted twice
CREATE FUNCTION made_amid() RETURNS integer LANGUAGE plpgsql AS $$BEGIN
    PERFORM statistics_create('amid', 'SELECT count(*) AS n FROM graded');
    RETURN 1;
END$$;
CREATE FUNCTION refreshed_amid() RETURNS integer LANGUAGE plpgsql AS $$BEGIN
    PERFORM statistics_refresh('passed');
    RETURN 1;
END$$;
INSERT INTO graded SELECT 20 + i, made_amid() FROM generate_series(1, 2) i;
UPDATE graded SET points = points + refreshed_amid();
SELECT statistics_verify('passed');

-- our triggers keep their names
ALTER TRIGGER "0_cache_ext_insert" ON graded RENAME TO later;
DROP TABLE graded CASCADE;
DROP FUNCTION made_amid, refreshed_amid, standard;
DROP OPERATOR >>>> (integer, integer);
DROP FUNCTION grade, passes;

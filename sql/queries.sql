-- The forms of queries beyond one table with plain counts and sums: what they keep, what they refuse.
\set VERBOSITY terse
-- differences between a statistic and a recomputation; none is the only right answer
CREATE FUNCTION differences(statistic regclass) RETURNS bigint
    LANGUAGE sql AS 'SELECT count(*) FROM statistics_verify(statistic)';

-- bool_and, bool_or, variance, standard deviation, and aggregates of distinct values
CREATE TABLE spread (
    g integer,
    i integer,
    b bigint,
    n numeric,
    m numeric(12, 2),
    x double precision,
    y real,
    f boolean
);
CREATE VIEW spread_query AS
    SELECT g, bool_and(f) AS bool_and, bool_or(f) AS bool_or, every(i > 0) FILTER (WHERE f) AS every,
        bool_or(DISTINCT f) AS anyone, variance(i) AS variance, var_pop(b) AS var_pop, stddev(n) AS stddev,
        stddev_pop(m) AS stddev_pop, var_samp(i) FILTER (WHERE i > 3) AS var_samp,
        sum(n) AS sum, avg(n) AS avg, avg(m * i) AS product, sum(DISTINCT i) AS sum_distinct,
        avg(DISTINCT b) AS avg_distinct, stddev(DISTINCT i) AS stddev_distinct, sum(DISTINCT m) AS sum_distinct_m
    FROM spread GROUP BY g;
SELECT statistics_create('spreads', pg_get_viewdef('spread_query'));
SELECT statistics_create('float_spreads', $$
    SELECT g, var_samp(x), var_pop(x), stddev(x), stddev_pop(y), variance(y) AS variance_y, avg(y) AS avg_y,
        sum(DISTINCT x) AS sum_distinct, avg(DISTINCT y) AS avg_distinct
    FROM spread GROUP BY g $$);
INSERT INTO spread SELECT k % 4, (k * 7919) % 13, k::bigint * 1000000000, (k % 7)::numeric / (10 ^ (k % 5)),
    k / 3.0, k / 7.0, k / 7.0, k % 3 = 0 FROM generate_series(1, 50) k;
INSERT INTO spread VALUES (9, 1, 1, 1.000, 1, 1, 1, true), (10, 1, 1, 'NaN', 1, 'Infinity', 1, NULL),
    (10, 2, 2, 1, 3, 1, 1, NULL), (11, 123456, 1, 9.87654321, 1, 1e15, 1, NULL), (11, -50000, 2, 1e30, 1, 1e15 + 2, 1, NULL),
    (12, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
-- also as text: not a digit more or less than the plain query has
CREATE FUNCTION spread_texts_differ() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM (SELECT s::text FROM spreads s EXCEPT ALL SELECT q::text FROM spread_query q) d $$;
SELECT differences('spreads'), differences('float_spreads'), spread_texts_differ();
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
DELETE FROM spread WHERE i % 5 = 0;
UPDATE spread SET n = round(n, 1), i = i * 1003;
SELECT differences('spreads'), differences('float_spreads'), spread_texts_differ();
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT differences('spreads'), differences('float_spreads'), spread_texts_differ();
SELECT g, var_samp, stddev FROM float_spreads WHERE g > 8 ORDER BY g;
SELECT g, bool_and, bool_or, every, anyone, variance, stddev FROM spreads WHERE g > 8 ORDER BY g;

-- joins and several conditions about other tables: both sides change at once, keys are NULL, groups
-- and extremes come from every table
CREATE TABLE person (id integer PRIMARY KEY, role text, pay numeric);
CREATE TABLE bag (id integer PRIMARY KEY, type text, weight double precision, owner integer);
CREATE TABLE scan (id bigint PRIMARY KEY, person integer, bag bigint, seconds smallint);
CREATE TABLE lost (bag bigint, reason text);
SELECT statistics_create('by_role', $$
    SELECT p.role, count(*) AS scans, sum(s.seconds) AS seconds, sum(b.weight) AS weight, min(b.type) AS type,
        max(s.seconds) AS longest, count(DISTINCT b.type) AS types, avg(p.pay) AS pay,
        count(*) FILTER (WHERE b.type = 'a') AS a, bool_or(s.seconds > 4) AS long
    FROM scan s JOIN person p ON p.id = s.person, bag b
    WHERE b.id = s.bag AND s.seconds > 0 AND b.type <> 'z' GROUP BY p.role HAVING count(*) > 0 $$);
SELECT statistics_create('by_type', $$
    SELECT type, count(*) AS bags, max(weight) AS heaviest, sum(weight) AS weight FROM bag
    WHERE NOT EXISTS (SELECT FROM lost WHERE lost.bag = bag.id AND reason <> 'q')
        AND EXISTS (SELECT FROM scan WHERE scan.bag = bag.id)
        AND owner IN (SELECT id FROM person WHERE role = 'r1') GROUP BY type $$);
SELECT statistics_create('mixed', $$
    SELECT (SELECT count(*) FROM bag WHERE id NOT IN (SELECT bag FROM scan WHERE bag IS NOT NULL)) AS unscanned,
        (SELECT count(*) FROM scan a, scan b WHERE a.bag = b.bag AND a.seconds = b.seconds) AS twins,
        (SELECT min(weight) FROM bag WHERE NOT EXISTS (SELECT FROM lost WHERE lost.bag = bag.id)) AS lightest,
        (SELECT sum(pay) FROM person WHERE EXISTS (SELECT FROM scan WHERE scan.person = person.id)) AS paid,
        (SELECT count(*) FROM scan s JOIN lost USING (bag) WHERE (s.bag, s.person) IN (SELECT id, owner FROM bag)) AS own_lost $$);
CREATE FUNCTION all_differences() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', s, d), E'\n')
    FROM unnest('{by_role, by_type, mixed}'::regclass[]) s, statistics_verify(s) d $$;
INSERT INTO person SELECT k, 'r' || k % 3, k * 1.5 FROM generate_series(1, 10) k;
INSERT INTO bag SELECT k, chr(97 + k % 4), k / 8.0, nullif(k % 11, 0) FROM generate_series(1, 40) k;
INSERT INTO scan SELECT k, nullif(k % 12, 0), nullif(k % 39, 0), k % 6 FROM generate_series(1, 200) k;
INSERT INTO lost SELECT nullif(k % 20, 0), CASE k % 3 WHEN 1 THEN 'q' ELSE 'p' END FROM generate_series(1, 30) k;
SELECT * FROM by_role ORDER BY role;
SELECT * FROM by_type ORDER BY type;
SELECT * FROM mixed;
SELECT all_differences();
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT all_differences();
BEGIN;
UPDATE person SET role = 'r7', pay = pay + 0.125 WHERE id % 2 = 0;
UPDATE bag SET type = 'z' WHERE id % 5 = 0;
DELETE FROM scan WHERE id % 3 = 1;
UPDATE scan SET person = person + 1, seconds = seconds + 1;
DELETE FROM lost WHERE reason = 'p' AND bag % 2 = 1;
SELECT all_differences();
COMMIT;
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT all_differences();
WITH moved AS (UPDATE person SET role = 'r1' WHERE id = 3 RETURNING id), gone AS (DELETE FROM bag WHERE id = 7)
    INSERT INTO scan SELECT 1000, id, 8, 3 FROM moved;
TRUNCATE lost;
SELECT all_differences();
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT all_differences();
SELECT statistics_refresh(s) FROM unnest('{by_role, by_type, mixed}'::regclass[]) s;
SELECT all_differences();
TRUNCATE scan, person;
SELECT all_differences();
SELECT * FROM by_role;
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT all_differences();
-- what does not matter to EXISTS and IN
SELECT statistics_create('careless', $$
    SELECT count(*) AS bags FROM bag b
    WHERE EXISTS (SELECT DISTINCT s.seconds FROM scan s WHERE s.bag = b.id ORDER BY s.seconds LIMIT 1)
        AND owner IN (SELECT DISTINCT id FROM person ORDER BY id) $$);
INSERT INTO person VALUES (1, 'r1'), (2, 'r1');
INSERT INTO scan VALUES (5, 1, 1, 1), (6, 1, 2, 1), (7, 1, 2, 2), (8, 1, 3, 3);
SELECT bags FROM careless;
SELECT differences('careless');

-- NOT IN relies on NOT NULL; a NULL that comes later is no silent error
INSERT INTO scan VALUES (1, 1, 1, 1);
SELECT statistics_create('not_in', 'SELECT count(*) FROM bag WHERE id NOT IN (SELECT id FROM scan)');
ALTER TABLE scan DROP CONSTRAINT scan_pkey, ALTER id DROP NOT NULL;
INSERT INTO scan VALUES (NULL, 1, 1, 1);
SELECT differences('not_in');

-- windows relative to now(), of every kind of moment; groups by parts of a time
CREATE TABLE event (
    id serial,
    at timestamp,
    instant timestamptz,
    day date,
    kind text,
    x integer,
    v numeric(10, 2),
    w double precision
) PARTITION BY RANGE (id);
CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM (0) TO (200);
CREATE TABLE event_2 (w double precision, gone text, id integer NOT NULL, day date, at timestamp, v numeric(10, 2), kind text, x integer,
    instant timestamptz);
ALTER TABLE event_2 DROP COLUMN gone;
ALTER TABLE event ATTACH PARTITION event_2 DEFAULT;
CREATE FUNCTION lately(column_name text, selected text DEFAULT 'count(*)') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    PERFORM statistics_create('refused', format('SELECT %s FROM event WHERE %s >= now() - interval ''1 day''', selected, column_name));
    RETURN 'created';
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN SQLERRM || E'\n' || hint;
END $$;
SELECT lately('at');
CREATE INDEX ON event (at);
CREATE INDEX ON event (instant);
SELECT lately('id * interval ''1 day'' + at');
SELECT lately('id IN (SELECT bag FROM lost WHERE now() > ''today'') AND at');
SELECT lately('instant < now() AND at');
SELECT lately('NOT at');
SELECT lately('at', 'count(*) FILTER (WHERE at > now())');
SELECT refused.* FROM statistics_create('refused', 'SELECT count(*) FROM event WHERE at < now() - interval ''1 day''') refused;
SELECT statistics_create('lately', $$
    SELECT kind, count(*) AS events, sum(x) AS x, avg(w) AS w, bool_or(x > 3) AS some, avg(v) AS v
    FROM event WHERE at >= now() - interval '24 hours' AND x > 0 GROUP BY kind $$);
SELECT statistics_create('windows', $$
    SELECT (SELECT count(*) FROM event WHERE instant >= now() - interval '24 hours' AND instant < now() - interval '5 minutes') AS settled,
        (SELECT count(*) FROM event) AS events,
        (SELECT sum(w) FROM event WHERE day >= current_date - 2) AS days,
        (SELECT count(*) FROM event WHERE day = current_date) AS today,
        (SELECT count(*) FROM event WHERE at BETWEEN now() - interval '20 minutes' AND now() - interval '10 minutes') AS minutes,
        (SELECT count(*) FROM event WHERE instant > date_trunc('day', now())) AS since_midnight,
        (SELECT variance(x) FROM event WHERE localtimestamp - interval '30 days' < at) AS month,
        (SELECT count(*) FROM event WHERE at >= timestamptz '2026-03-29 01:30 UTC' AND at < timestamptz '2026-03-29 02:10 UTC') AS spring,
        (SELECT count(*) FROM event WHERE at >= timestamptz '2026-10-25 01:30 UTC' AND at < timestamptz '2026-10-25 02:10 UTC') AS autumn $$);
-- extremes and distinct values, which leave with the time that passes; numbers are spelled as the rows in the window spell them
SELECT statistics_create('window_values', $$
    SELECT v * x AS product, count(*) AS events, min(at) AS first, max(w) AS highest, min(x) FILTER (WHERE x > 2) AS lowest,
        count(DISTINCT x) AS xs, sum(DISTINCT v) FILTER (WHERE kind <> 'k1') AS vs, avg(v * w::numeric) AS mean, sum(v * x) AS total, max(kind) AS kind
    FROM event WHERE at > now() - interval '3 hours' AND at <= now() + interval '1 hour' GROUP BY v * x $$);
SELECT statistics_create('window_row', $$
    SELECT (SELECT max(x) FROM event WHERE instant >= now() - interval '24 hours') AS highest,
        (SELECT count(DISTINCT kind) FROM event WHERE day >= current_date - 2) AS kinds,
        (SELECT min(w) FROM event WHERE at BETWEEN now() - interval '20 minutes' AND now() - interval '10 minutes') AS lowest,
        (SELECT sum(DISTINCT x) FROM event WHERE at >= timestamptz '2026-03-29 01:30 UTC' AND at < timestamptz '2026-03-29 02:10 UTC') AS spring,
        (SELECT max(at) FROM event WHERE at >= timestamptz '2026-10-25 00:30 UTC' AND at < timestamptz '2026-10-25 01:10 UTC') AS autumn $$);
-- joins: the bucket is that of the table with the time, the other tables change as well
CREATE TABLE place (kind text, label text, weight numeric);
SELECT statistics_create('window_join', $$
    SELECT p.label, count(*) AS events, sum(e.x) AS x, max(e.w) AS w, count(DISTINCT e.x) AS xs, min(p.weight) AS lightest, sum(p.weight) AS weight,
        count(*) FILTER (WHERE e.x > 3) AS some
    FROM place p JOIN event e ON e.kind = p.kind
    WHERE e.at >= now() - interval '5 hours' AND e.at < now() AND NOT EXISTS (SELECT FROM lost WHERE lost.bag = e.x) GROUP BY p.label $$);
SELECT statistics_create('window_pairs', $$
    SELECT (SELECT count(*) FROM event a JOIN event b ON b.kind = a.kind AND b.x = a.x WHERE a.instant > now() - interval '100 minutes') AS pairs,
        (SELECT max(id) FROM event WHERE day > current_date - 3 AND x IN (SELECT bag FROM lost)) AS latest_lost,
        (SELECT sum(x) FROM event WHERE at >= now() - interval '90 minutes' AND NOT EXISTS (SELECT FROM place WHERE place.kind = event.kind)) AS placeless $$);
SELECT statistics_create('by_hour', $$
    SELECT date_trunc('hour', at) AS hour, date_trunc('week', instant AT TIME ZONE 'UTC') AS week, extract(dow FROM day) AS weekday,
        count(*) AS events, max(at) AS latest FROM event GROUP BY 1, 2, 3 $$);
CREATE FUNCTION window_differences() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', s, d), E'\n')
    FROM unnest('{lately, windows, by_hour, window_values, window_row, window_join, window_pairs}'::regclass[]) s, statistics_verify(s) d $$;
INSERT INTO place SELECT 'k' || i % 4, 'p' || i % 3, i / 4.0 FROM generate_series(1, 8) i;
INSERT INTO lost SELECT i, 'r' FROM generate_series(5, 9) i;
INSERT INTO event (at, instant, day, kind, x, v, w)
    SELECT now() - i * interval '7 minutes 13 seconds', now() - i * interval '11 minutes 17 seconds', current_date - i / 30,
        'k' || i % 3, i % 7, i / 8.0, i / 3.0 FROM generate_series(-20, 400) i;
INSERT INTO event (at, instant, day, x) VALUES (NULL, NULL, NULL, 1), ('infinity', 'infinity', 'infinity', 5), ('-infinity', '-infinity', '-infinity', 5);
-- hours that do not exist, or exist twice, where clocks change
INSERT INTO event (at, x) SELECT t + i * interval '10 minutes', 1
    FROM unnest(ARRAY[timestamp '2026-03-29 00:00', '2026-10-25 00:00']) t, generate_series(0, 36) i;
SELECT window_differences();
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT window_differences();
SELECT sum(events) > 100 AS many FROM lately;
-- not a digit more or less than the plain query has
CREATE VIEW window_values_query AS SELECT v * x AS product, sum(v * x) AS total, avg(v * w::numeric) AS mean
    FROM event WHERE at > now() - interval '3 hours' AND at <= now() + interval '1 hour' GROUP BY v * x;
SELECT s::text FROM (SELECT product, total, mean FROM window_values) s EXCEPT ALL SELECT q::text FROM window_values_query q;
SELECT count(*) > 10 AS many FROM window_values;
SELECT events > 0 AS some, x > 0 AS summed, xs FROM window_join ORDER BY label;
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT relation, groups FROM statistics_status WHERE relation IN ('lately'::regclass, 'window_join'::regclass) ORDER BY relation::text;
-- one group looked up, and as it stands among all
SELECT a::text = b::text AS same, a.kind FROM (SELECT * FROM lately WHERE kind = 'k1') a FULL JOIN (SELECT * FROM lately WHERE kind || '' = 'k1') b USING (kind);
SELECT a::text = b::text AS same, a.label FROM (SELECT * FROM window_join WHERE label = 'p2') a FULL JOIN (SELECT * FROM window_join WHERE label || '' = 'p2') b USING (label);
SELECT count(*) FROM window_join WHERE label = 'nowhere';
-- extremes go, by a write and by a partial row that is not folded yet
BEGIN;
DELETE FROM event WHERE x = 6 OR w > 20 AND id % 2 = 0;
UPDATE place SET label = 'p9', weight = weight + 0.25 WHERE label = 'p1';
DELETE FROM lost WHERE bag = 5;
SELECT window_differences();
UPDATE event SET x = x + 1, at = at - interval '40 minutes' WHERE id % 4 = 1;
SELECT window_differences();
COMMIT;
INSERT INTO place VALUES ('k1', 'p0', 0.0625);
-- PostgreSQL 17 skips comparisons in an index where an hour is missing; the statistic compares each row
SET enable_indexscan = off;
SET enable_indexonlyscan = off;
SET enable_bitmapscan = off;
SET timezone = 'Europe/Berlin';
SELECT window_differences();
SELECT spring, autumn FROM windows;
SET timezone = 'America/New_York';
SELECT window_differences();
UPDATE event SET at = at + interval '1 hour', instant = instant - interval '1 hour', day = day + 1 WHERE id % 3 = 1;
UPDATE event SET id = id + 190 WHERE id BETWEEN 1 AND 20;
SELECT window_differences();
RESET timezone;
RESET enable_indexscan;
RESET enable_indexonlyscan;
RESET enable_bitmapscan;
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
TRUNCATE event_1;
SELECT window_differences();
SELECT statistics_refresh(s) FROM unnest('{window_values, window_row, window_join, window_pairs}'::regclass[]) s;
SELECT window_differences();
-- without the index it is slower, and still right
DROP INDEX event_at_idx;
SELECT window_differences();

-- types with an order and no hash function
CREATE TABLE odd (m money, b bit varying, v tsvector);
SELECT statistics_create('odd_groups', 'SELECT m, b, count(*) AS n, max(m) AS most, count(DISTINCT v) AS vectors FROM odd GROUP BY m, b');
INSERT INTO odd SELECT nullif(i % 5, 0)::text::money, substring(B'10110' FROM 1 FOR i % 4), array_to_tsvector(ARRAY['a', chr(97 + i % 3)])
    FROM generate_series(1, 60) i;
SELECT differences('odd_groups');
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
DELETE FROM odd WHERE m = 4::money;
UPDATE odd SET v = NULL WHERE b = B'10';
SELECT differences('odd_groups');

-- types whose operators are not on the pinned search path, results without equality, nothing but a time
CREATE TYPE ticket;
SET client_min_messages = warning;
CREATE FUNCTION ticket_in(cstring) RETURNS ticket LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION ticket_out(ticket) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
RESET client_min_messages;
CREATE TYPE ticket (INPUT = ticket_in, OUTPUT = ticket_out, LIKE = integer);
CREATE FUNCTION ticket_eq(ticket, ticket) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
CREATE FUNCTION ticket_lt(ticket, ticket) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4lt';
CREATE FUNCTION ticket_gt(ticket, ticket) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4gt';
CREATE FUNCTION ticket_le(ticket, ticket) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4le';
CREATE FUNCTION ticket_ge(ticket, ticket) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4ge';
CREATE FUNCTION ticket_cmp(ticket, ticket) RETURNS integer LANGUAGE internal IMMUTABLE STRICT AS 'btint4cmp';
CREATE OPERATOR = (LEFTARG = ticket, RIGHTARG = ticket, FUNCTION = ticket_eq, COMMUTATOR = =, MERGES);
CREATE OPERATOR < (LEFTARG = ticket, RIGHTARG = ticket, FUNCTION = ticket_lt);
CREATE OPERATOR > (LEFTARG = ticket, RIGHTARG = ticket, FUNCTION = ticket_gt);
CREATE OPERATOR <= (LEFTARG = ticket, RIGHTARG = ticket, FUNCTION = ticket_le);
CREATE OPERATOR >= (LEFTARG = ticket, RIGHTARG = ticket, FUNCTION = ticket_ge);
CREATE OPERATOR CLASS ticket_ops DEFAULT FOR TYPE ticket USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 ticket_cmp(ticket, ticket);
CREATE TABLE admission (t ticket, x double precision);
SELECT statistics_create('by_ticket', 'SELECT t, count(*)::text::json AS n, sum(x) AS x FROM admission GROUP BY t'),
    statistics_create('admitted', 'SELECT statistics_last_change() AS last FROM admission GROUP BY t');
INSERT INTO admission SELECT CASE WHEN i % 4 > 0 THEN (i % 4)::text::ticket END, i / 3.0 FROM generate_series(1, 30) i;
SELECT differences('by_ticket'), differences('admitted');
SELECT * FROM by_ticket WHERE t = '3';
DROP TABLE admission CASCADE;
DROP TYPE ticket CASCADE;

-- the newest rows: a plain view, and the index that it needs
CREATE FUNCTION hint(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    PERFORM statistics_create('refused', query);
    RETURN 'created';
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN hint;
END $$;
SELECT hint('SELECT * FROM event ORDER BY at DESC, "id" LIMIT 50');
SELECT hint('SELECT e.id FROM event e JOIN person p USING (id) ORDER BY e.at DESC NULLS LAST LIMIT 50');
SELECT hint('SELECT kind, count(*) FROM event GROUP BY kind ORDER BY count(*) DESC LIMIT 3');

-- nothing of a dropped statistic stays
SELECT statistics_drop(relation) FROM statistics_status;
DROP TABLE spread, person, bag, scan, lost, event, place, odd CASCADE;
DROP FUNCTION differences, all_differences, window_differences, spread_texts_differ, lately, hint;

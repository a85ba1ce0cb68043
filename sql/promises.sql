-- What interface and README promise, each where a test can see it.
\set VERBOSITY terse

-- 3. a look-up of one group uses an index, and neither reads the table nor the other groups
CREATE TABLE sale (id integer PRIMARY KEY, shop integer, day integer, amount numeric, label text);
INSERT INTO sale SELECT i, i % 500, i % 2, i, 'l' || i % 20 FROM generate_series(1, 5000) i;
CREATE TABLE shop (id integer PRIMARY KEY, name text);
INSERT INTO shop SELECT i, 's' || i FROM generate_series(0, 499) i;
ANALYZE sale, shop;
SELECT statistics_create('by_shop', 'SELECT shop, day, count(*) AS n, sum(amount) AS total, max(amount) AS highest, count(DISTINCT label) AS labels FROM sale GROUP BY shop, day');
SELECT statistics_create('by_name', 'SELECT s.name, count(*) AS n FROM sale JOIN shop s ON s.id = sale.shop GROUP BY s.name');
-- rows that a query reads: of the totals by scanning and by index, and of the tables
CREATE FUNCTION counters(statistic regclass, OUT scanned bigint, OUT fetched bigint, OUT of_tables bigint) LANGUAGE sql VOLATILE AS $$
    SELECT sum(seq_tup_read) FILTER (WHERE t.relid = c.oid), sum(coalesce(idx_tup_fetch, 0)) FILTER (WHERE t.relid = c.oid),
        sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FILTER (WHERE t.relid <> c.oid)
    FROM cache_ext_internal.statistic s
    JOIN pg_class c ON c.relname = 'totals_' || s.id AND c.relnamespace = 'cache_ext_internal'::regnamespace
    JOIN pg_stat_xact_all_tables t ON t.relid IN (c.oid, 'sale'::regclass, 'shop'::regclass)
    WHERE s.relation = statistic $$;
CREATE FUNCTION reads(statistic regclass, query text, OUT scanned bigint, OUT fetched bigint, OUT of_tables bigint) LANGUAGE plpgsql AS $$
DECLARE
    before record;
    after record;
BEGIN
    SELECT * INTO before FROM counters(statistic);
    EXECUTE query;
    SELECT * INTO after FROM counters(statistic);
    scanned := after.scanned - before.scanned;
    fetched := after.fetched - before.fetched;
    of_tables := after.of_tables - before.of_tables;
END $$;
SELECT statistics_fold() >= 0 AS folded;
SELECT * FROM reads('by_shop', 'SELECT * FROM by_shop WHERE shop = 17 AND day = 1');
SELECT * FROM reads('by_shop', 'SELECT * FROM by_shop WHERE shop = 17');   -- leading groups are enough
SELECT * FROM reads('by_name', $$SELECT * FROM by_name WHERE 's17' = name$$);
SELECT * FROM reads('by_name', $$SELECT * FROM by_name WHERE name = (SELECT 's17')$$);
PREPARE one(text) AS SELECT n FROM by_name WHERE name = $1;
SET plan_cache_mode = force_generic_plan;
SELECT * FROM reads('by_name', $$EXECUTE one('s7')$$);
RESET plan_cache_mode;
SELECT * FROM reads('by_name', 'SELECT * FROM by_name');
BEGIN;
INSERT INTO sale VALUES (10001, 17, 1, 10001, 'new');   -- nobody folds it
SELECT * FROM by_shop WHERE shop = 17 AND day = 1;
SELECT * FROM reads('by_shop', 'SELECT * FROM by_shop WHERE shop = 17 AND day = 1');
SELECT * FROM reads('by_name', $$SELECT * FROM by_name WHERE name = 's17'$$);
ROLLBACK;

-- 6. what overflows is raised by the read of that group, and by nothing else
CREATE TABLE large (g text, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, n numeric);
SELECT statistics_create('sum_i8', 'SELECT g, sum(i4) AS i4, sum(i8) AS i8, sum(i2) AS i2, avg(i8) AS mean FROM large GROUP BY g');
SELECT statistics_create('sum_f4', 'SELECT g, sum(f4) AS total FROM large GROUP BY g');
SELECT statistics_create('sum_f8', 'SELECT g, sum(f8) AS total FROM large GROUP BY g');
SELECT statistics_create('avg_f8', 'SELECT g, avg(f8) AS f8, avg(f4) AS f4 FROM large GROUP BY g');
SELECT statistics_create('var_f8', 'SELECT g, var_pop(f8) AS spread FROM large GROUP BY g');
SELECT statistics_create('dev_f8', 'SELECT g, stddev_pop(f8) AS spread FROM large GROUP BY g');
SELECT statistics_create('dist_f8', 'SELECT g, sum(DISTINCT f8) AS total FROM large GROUP BY g');
SELECT statistics_create('sum_n', 'SELECT g, sum(n) AS total, max(n) AS highest FROM large GROUP BY g');
SELECT statistics_create('var_n', 'SELECT g, var_pop(n) AS spread FROM large WHERE abs(n) < 1e70000 GROUP BY g');
SELECT statistics_create('product', 'SELECT g, sum(i4 * i4) AS total FROM large WHERE g = ''x'' GROUP BY g');
CREATE FUNCTION outcome(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    IF query ~ '^SELECT' THEN
        EXECUTE query INTO answer;
    ELSE
        EXECUTE query;
        answer := 'done';
    END IF;
    RETURN coalesce(answer, 'NULL');
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
INSERT INTO large (g, i2, i4, i8) VALUES ('ints', 32767, 2147483647, 9223372036854775807), ('ints', 32767, 2147483647, 9223372036854775807);
INSERT INTO large (g, f4, f8) VALUES ('floats', 3e38, 1.7e308), ('floats', 3e38, 1.6e308), ('small', 1, 1);
INSERT INTO large (g, f8) VALUES ('wide', 1e200), ('wide', -1e200);
SELECT outcome('SELECT s FROM sum_i8 s WHERE g = ''ints''');
SELECT s, outcome(format('SELECT t FROM %s t WHERE g = ''floats''', s)) AS floats, outcome(format('SELECT t FROM %s t WHERE g = ''wide''', s)) AS wide,
    outcome(format('SELECT t FROM %s t WHERE g = ''small''', s)) AS small
FROM unnest('{sum_f4, sum_f8, avg_f8, var_f8, dev_f8, dist_f8}'::regclass[]) s;
SELECT statistics_fold() >= 0 AS folded;
SELECT s, outcome(format('SELECT t FROM %s t WHERE g = ''floats''', s)) AS floats, outcome(format('SELECT t FROM %s t WHERE g = ''wide''', s)) AS wide,
    outcome(format('SELECT t FROM %s t WHERE g = ''small''', s)) AS small
FROM unnest('{sum_f4, sum_f8, avg_f8, var_f8, dev_f8, dist_f8}'::regclass[]) s;
-- gone with what was too much
DELETE FROM large WHERE f8 = 1.6e308 OR f8 < 0;
SELECT s, outcome(format('SELECT t FROM %s t WHERE g = ''floats''', s)) AS floats, outcome(format('SELECT t FROM %s t WHERE g = ''wide''', s)) AS wide
FROM unnest('{sum_f4, sum_f8, avg_f8, var_f8, dev_f8, dist_f8}'::regclass[]) s;
-- an expression of the query that raises makes the write fail
SELECT outcome('INSERT INTO large (g, i4) VALUES (''x'', 2147483647)');
-- numbers so large that their sum would be no number any more
SELECT outcome('INSERT INTO large (g, n) VALUES (''n'', 9e131071)');
SELECT outcome('INSERT INTO large (g, n) VALUES (''n'', -1e66000)');
SELECT outcome('INSERT INTO large (g, n) SELECT ''m'', 1e65525 FROM generate_series(1, 50)');
SELECT outcome('INSERT INTO large (g, n) SELECT ''n'', 1e131050 FROM generate_series(1, 50)');
SELECT statistics_fold() >= 0 AS folded;
SELECT outcome('SELECT total = 5e131051, highest = 1e131050 FROM sum_n WHERE g = ''n''') AS sum_n, outcome('SELECT spread FROM var_n WHERE g = ''m''') AS var_n;
DELETE FROM large WHERE g = 'm';
DELETE FROM large WHERE g = 'n';
SELECT statistics_fold() >= 0 AS folded;
SELECT count(*) FROM sum_n WHERE g IN ('m', 'n');
-- a fold that one statistic stops does not stop the others: it runs its query from then on, and says why
CREATE TABLE strange (n numeric, g integer);
SELECT statistics_create('strange_sum', 'SELECT sum(DISTINCT n) AS total FROM strange');
SELECT statistics_create('strange_count', 'SELECT count(*) AS n FROM strange');
CREATE FUNCTION await(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    done boolean := false;
BEGIN
    FOR i IN 1 .. 400 LOOP
        EXECUTE 'SELECT ' || condition INTO done;
        EXIT WHEN done;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RETURN done;
END $$;
INSERT INTO strange VALUES (8e131071, 1), (9e131071, 1);
SELECT await($$ state = 'broken' FROM statistics_status WHERE relation = 'strange_sum'::regclass $$);
SELECT await($$ pending = 0 FROM statistics_status WHERE relation = 'strange_count'::regclass $$);
SELECT state, detail FROM statistics_status WHERE relation::text ~ '^strange' ORDER BY relation::text;
SELECT outcome('SELECT * FROM strange_sum'), outcome('SELECT sum(DISTINCT n) FROM strange') AS query;
DELETE FROM strange WHERE n = 8e131071;
SELECT outcome('SELECT total = 9e131071 FROM strange_sum');
UPDATE strange SET n = 5;
SELECT statistics_refresh('strange_sum');
SELECT s.state, t.total FROM statistics_status s, strange_sum t WHERE relation = 'strange_sum'::regclass;

-- 7. rounding: ties between two doubles go to the even one, in whatever order values came and went
CREATE TABLE tie (g text, x double precision, y real);
SELECT statistics_create('ties', 'SELECT g, sum(x) AS x, avg(x) AS mean, sum(y) AS y FROM tie GROUP BY g');
SELECT statistics_create('spread', 'SELECT g, stddev_pop(x) AS dev, var_pop(x) AS var FROM tie GROUP BY g');
INSERT INTO tie VALUES
    ('down', 9007199254740992, 16777216), ('down', 1, 1),                           -- 2^53 + 1: a tie, to 2^53
    ('up', 9007199254740994, 16777218), ('up', 1, 1),                               -- 2^53 + 3: a tie, to 2^53 + 4
    ('above', 9007199254740992, 16777216), ('above', 1, 1), ('above', 1e-300, 1e-30),   -- a little more than a tie
    ('below', 9007199254740994, 16777218), ('below', 1, 1), ('below', -4.9406564584124654e-324, -1e-45),
    ('tiny', 4.9406564584124654e-324, 1e-45), ('tiny', 0, 0),                       -- half of the smallest: a tie, to 0
    ('tinier', 1.4821969375237396e-323, 4e-45), ('tinier', 0, 0),                   -- 1.5 of them: a tie, to 2
    ('cancels', 1e308, 3e38), ('cancels', -1e308, -3e38), ('cancels', 1e-308, 1e-38);
CREATE VIEW rounded AS
    SELECT t.g, t.x = e.x AS sum, t.y = e.y AS real, t.mean = e.mean AS mean FROM ties t JOIN (VALUES
        ('down', 9007199254740992::double precision, 16777216::real, 4503599627370496.5::double precision),
        ('up', 9007199254740996, 16777220, 4503599627370497.5),
        ('above', 9007199254740994, 16777218, 3002399751580331),
        ('below', 9007199254740994, 16777218, 3002399751580331.5),
        ('tiny', 4.9406564584124654e-324, 1e-45, 0),
        ('tinier', 1.4821969375237396e-323, 4e-45, 9.8813129168249309e-324),
        ('cancels', 1e-308, 1e-38, 3.3333333333333335e-309)) AS e (g, x, y, mean) USING (g) ORDER BY 1;
TABLE rounded;
SELECT statistics_fold() >= 0 AS folded;
TABLE rounded;
-- away and back, large values in between
INSERT INTO tie SELECT g, 1e300 * i, 1e37 * i FROM (SELECT DISTINCT g FROM tie) t, generate_series(1, 3) i;
SELECT statistics_fold() >= 0 AS folded;
DELETE FROM tie WHERE x IN (1e300, 2e300, 3e300);
TABLE rounded;
-- nothing cancels: three values far from zero, whose spread the plain formula loses
INSERT INTO tie (g, x) SELECT 'spread', 1e15 + i FROM generate_series(-1, 1) i;
SELECT dev, var FROM spread WHERE g = 'spread';

-- a change of one group has to fit a page, beside others or alone; what does not is refused by its statistic's name
CREATE TABLE wide (g text, n numeric, m integer);
SELECT statistics_create('wide_sums', format('SELECT g, %s FROM wide GROUP BY g',
    (SELECT string_agg(format('sum(n + %s) AS s%s', i, i), ', ') FROM generate_series(1, 60) i)));
INSERT INTO wide SELECT repeat('g', 2500) || i, 1, i FROM generate_series(1, 50) i;
INSERT INTO wide SELECT 'short' || e || i, power(10::numeric, e) + i, i FROM generate_series(60, 150, 3) e, generate_series(1, 3) i;
INSERT INTO wide SELECT repeat('h', 2500) || i, 1e140 + 1, i FROM generate_series(1, 3) i;
SELECT count(*), sum(s1) = (SELECT sum(n + 1) FROM wide), sum(s60) = (SELECT sum(n + 60) FROM wide) FROM wide_sums;
SELECT statistics_fold() >= 0 AS folded;
SELECT count(*) FROM statistics_verify('wide_sums');
\set VERBOSITY default
INSERT INTO wide VALUES (repeat('i', 2500), 1e300 + 1, 0);
INSERT INTO wide VALUES (repeat('j', 2700), 1, 0);
\set VERBOSITY terse
SELECT count(*) FROM statistics_verify('wide_sums');
SELECT statistics_drop('wide_sums');
DROP TABLE wide;

DROP VIEW rounded;
SELECT count(statistics_drop(s)) FROM unnest('{by_shop, by_name, sum_i8, sum_f4, sum_f8, avg_f8, var_f8, dev_f8, dist_f8, sum_n, var_n, product,
    strange_sum, strange_count, ties, spread}'::regclass[]) s;
DROP TABLE sale, shop, large, strange, tie;
DROP FUNCTION outcome, await, reads, counters;

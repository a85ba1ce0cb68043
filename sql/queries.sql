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

-- nothing of a dropped statistic stays
SELECT statistics_drop(relation) FROM statistics_status;
DROP TABLE spread CASCADE;
DROP FUNCTION differences, spread_texts_differ;

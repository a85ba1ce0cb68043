-- Keys whose equal values may be spelled differently.  (A server without ICU has no such collations.)
SELECT count(*) = 0 AS without_icu FROM pg_collation WHERE collprovider = 'i' \gset
\if :without_icu
\quit
\endif
\set VERBOSITY terse
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE word (t text COLLATE ignore_case, m money, n numeric, x integer);
CREATE TABLE other (t text COLLATE ignore_case, m money);
SELECT statistics_create('words', 'SELECT t, count(*) AS words, sum(x) AS x, count(DISTINCT t) AS spellings FROM word GROUP BY t');
SELECT statistics_create('numbers', 'SELECT n, count(*) AS words, max(x) AS x FROM word GROUP BY n');
SELECT statistics_create('joined', $$
    SELECT w.t, count(*) AS pairs FROM word w JOIN other USING (t) WHERE w.m IN (SELECT m FROM other) GROUP BY w.t $$);
SELECT statistics_create('lengths', 'SELECT t COLLATE "C" AS t, count(*) AS n FROM word GROUP BY 1 HAVING max(length(t)) < 3');
SELECT statistics_create('largest', 'SELECT max(t) FROM word');
CREATE FUNCTION differences() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', s, d), E'\n')
    FROM unnest('{words, numbers, joined, lengths}'::regclass[]) s, statistics_verify(s) d $$;
INSERT INTO word VALUES ('ABC', 1.5, 1.0, 1), ('abc', 1.5, 1.00, 2), ('Abc', 2, 1, 3), ('x', NULL, NULL, NULL), (NULL, 2, 2.5, 1);
INSERT INTO other VALUES ('aBC', 2), ('X', 3), ('abC', 1.5);
SELECT differences();
SELECT * FROM words WHERE t = 'aBc';
SELECT * FROM joined;
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
-- a group is spelled as some row spells it now
DELETE FROM word WHERE t COLLATE "C" = 'ABC';
UPDATE word SET t = 'ABc' WHERE x = 3;
UPDATE word SET n = 2.50000 WHERE n = 2.5;
DELETE FROM word WHERE n::text = '1.00';
SELECT * FROM words ORDER BY t;
SELECT * FROM numbers ORDER BY n;
SELECT differences();
SELECT statistics_fold() >= 0 AS folded;   -- the worker may have been first
SELECT * FROM words ORDER BY t;
SELECT * FROM numbers WHERE n = 2.5;
SELECT differences();
DROP TABLE word, other CASCADE;
DROP FUNCTION differences;
DROP COLLATION ignore_case;

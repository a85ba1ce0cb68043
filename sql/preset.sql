-- The bag-tracking preset over the application's tables, also over a statistics_cache kept by hand.
\set VERBOSITY terse
CREATE SCHEMA warehouse;
SET search_path = warehouse, public;
SELECT bag_tracking_attach();
\set ECHO none
\i test/driver/bag_tracking.sql
\set ECHO all
CREATE TABLE statistics_cache (id integer PRIMARY KEY, total_bags integer);
INSERT INTO statistics_cache VALUES (1, 12345);
INSERT INTO "user" (username) SELECT 'user' || i FROM generate_series(1, 3) i;
INSERT INTO bag (qr_id, type, dispatch_area, user_id)
SELECT 'Q' || i, CASE WHEN i % 10 = 0 THEN 'parent' ELSE 'child' END, 'area' || i % 2, 1 + i % 3 FROM generate_series(1, 100) i;
INSERT INTO link (parent_bag_id, child_bag_id) SELECT 10, i FROM generate_series(1, 9) i;
INSERT INTO bill (bill_id, status, total_weight_kg) VALUES ('B1', 'new', 10.5), ('B2', 'new', 0.25), ('B3', 'completed', NULL);
INSERT INTO scan (child_bag_id, parent_bag_id, user_id, "timestamp")
SELECT CASE WHEN i % 2 = 0 THEN i END, 10, 1 + i % 2, timestamp '2026-01-01' + i * interval '1 minute' FROM generate_series(1, 60) i;

SELECT bag_tracking_attach();
SELECT bag_tracking_attach(replace => true);
SELECT bag_tracking_attach();   -- harmless
SELECT id, total_bags, parent_bags, child_bags, unlinked_children, total_scans, total_bills, total_users,
    last_updated BETWEEN now()::timestamp - interval '1 hour' AND clock_timestamp()::timestamp AS recent
FROM statistics_cache;
SELECT attname, atttypid::regtype FROM pg_attribute
WHERE attrelid = 'statistics_cache'::regclass AND attnum > 0 ORDER BY attnum;
SELECT * FROM bill_statistics ORDER BY status;
SELECT * FROM bag_statistics ORDER BY dispatch_area, type;
SELECT * FROM scan_statistics ORDER BY user_id;
SELECT count(*), min("timestamp"), max("timestamp") FROM recent_scans;
SELECT * FROM recent_scans LIMIT 2;
SELECT * FROM statistics_cache_before;

-- what the application did by hand is accepted and changes nothing
UPDATE statistics_cache SET total_bags = 0 WHERE id = 1;
DELETE FROM statistics_cache;
INSERT INTO statistics_cache (id, total_bags) VALUES (2, 7);
SELECT total_bags FROM statistics_cache;

-- it follows; last_updated moves with a change and not without one
SELECT last_updated AS before FROM statistics_cache \gset
UPDATE bag SET status = 'completed';
SELECT last_updated = :'before' AS unmoved FROM statistics_cache;
BEGIN;
WITH child AS (INSERT INTO bag (qr_id, type) VALUES ('new', 'child') RETURNING id)
INSERT INTO link (parent_bag_id, child_bag_id) SELECT 10, id FROM child;
DELETE FROM link WHERE child_bag_id = 1;
DELETE FROM bag WHERE id = 99;
INSERT INTO scan (child_bag_id, user_id) VALUES (5, 3);
SELECT total_bags, child_bags, unlinked_children, total_scans, last_updated > :'before' AS moved FROM statistics_cache;
ROLLBACK;
SELECT total_bags, child_bags, unlinked_children, total_scans, last_updated = :'before' AS unmoved FROM statistics_cache;
DELETE FROM "user" WHERE id = 2;
DELETE FROM scan WHERE "timestamp" > '2026-01-01 00:50';
SELECT * FROM scan_statistics ORDER BY user_id;
SELECT s, v.* FROM unnest('{statistics_cache,bill_statistics,bag_statistics,scan_statistics}'::regclass[]) s,
    LATERAL statistics_verify(s) v;

-- detached, everything is as before
SELECT bag_tracking_detach();
SELECT * FROM statistics_cache;
SELECT count(*) FROM statistics_status;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname <> 'loaders_changed';
SELECT bag_tracking_detach();   -- harmless, too
RESET search_path;
SELECT bag_tracking_attach('warehouse', replace => true);
SELECT total_bags FROM warehouse.statistics_cache;
DROP SCHEMA warehouse CASCADE;
SELECT count(*) FROM statistics_status;

-- things of the user's own that bear our names: attach refuses, detach leaves them alone
CREATE SCHEMA preset_own;
SET search_path = preset_own, public;
SET client_min_messages = warning;
\i test/driver/bag_tracking.sql
RESET client_min_messages;
CREATE VIEW recent_scans AS SELECT 1 AS mine;
CREATE TABLE statistics_cache_before (mine integer);
\set VERBOSITY terse
SELECT count(*) FROM bag_tracking_attach('preset_own');
SELECT bag_tracking_detach('preset_own');
SELECT to_regclass('preset_own.recent_scans') AS mine, to_regclass('preset_own.statistics_cache_before') AS mine_too;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA preset_own CASCADE;

-- The extension installs into the schema asked for, says what its objects are, and leaves nothing behind.
-- The tests say themselves which Redis there is, whatever the server's configuration says.
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET cache_ext.redis_url = %L', current_database(), ''); END $$;
CREATE SCHEMA ext;
CREATE EXTENSION cache_ext SCHEMA ext;

-- everything public has a comment
SELECT pg_catalog.pg_describe_object(classid, objid, 0) AS without_comment
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cache_ext')
  AND classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
  AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = objid AND c.relkind = 'S')
  AND pg_catalog.obj_description(objid, classid::regclass::text::name) IS NULL
ORDER BY 1;

-- PUBLIC may call the statistics functions and read the status views, nothing else
SELECT p.oid::regprocedure AS for_everyone
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE p.pronamespace = 'ext'::regnamespace
  AND has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY p.proname;
SELECT c.oid::regclass AS readable_by_everyone
FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
WHERE has_table_privilege('public', c.oid, 'SELECT')
ORDER BY 1;
SELECT has_schema_privilege('public', 'cache_ext_internal', 'USAGE') AS internals_are_open;

-- functions that run SQL pin their search_path or qualify every name
CREATE TABLE t (i integer);
SELECT ext.statistics_create('t_count', 'SELECT count(*) AS n FROM t');
INSERT INTO t SELECT generate_series(1, 3);
SELECT * FROM t_count;

DROP EXTENSION cache_ext;
DROP EXTENSION cache_ext CASCADE;
INSERT INTO t VALUES (4);
SELECT to_regclass('t_count') AS statistic, to_regnamespace('cache_ext_internal') AS internals;
SELECT evtname FROM pg_event_trigger;
DROP TABLE t;
DROP SCHEMA ext;
CREATE EXTENSION cache_ext;

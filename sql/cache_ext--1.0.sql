-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION cache_ext" to load this file. \quit

CREATE SCHEMA cache_ext_internal;
COMMENT ON SCHEMA cache_ext_internal IS 'internals of cache_ext; nothing here is meant for users';

CREATE FUNCTION cache_ext_internal.begin_update(version text) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_begin_update'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION cache_ext_internal.begin_update(text) IS
    'the first call of every update script: is the library new enough? holds off the worker';
REVOKE ALL ON FUNCTION cache_ext_internal.begin_update(text) FROM PUBLIC;   -- for our scripts

---------------------------------------------------------------------------
-- Statistics
---------------------------------------------------------------------------

CREATE SEQUENCE cache_ext_internal.statistic_id AS integer;
CREATE SEQUENCE cache_ext_internal.source_id AS integer;

CREATE TABLE cache_ext_internal.statistic (
    id integer PRIMARY KEY,
    relation regclass NOT NULL UNIQUE,
    query regclass NOT NULL,
    state regclass NOT NULL,
    CHECK (id > 0)
);
COMMENT ON TABLE cache_ext_internal.statistic IS
    'a row a statistic: the relation that users read, the view that defines it, the foreign table that answers';

CREATE TABLE cache_ext_internal.source (
    id integer PRIMARY KEY,
    relation regclass NOT NULL UNIQUE
);
COMMENT ON TABLE cache_ext_internal.source IS
    'a row a captured table (the root of its partitions or children); log_<id> has its partial rows';

CREATE TABLE cache_ext_internal.statistic_source (
    source integer NOT NULL REFERENCES cache_ext_internal.source ON DELETE CASCADE,
    statistic integer NOT NULL REFERENCES cache_ext_internal.statistic ON DELETE CASCADE,
    PRIMARY KEY (source, statistic)
);
COMMENT ON TABLE cache_ext_internal.statistic_source IS 'which statistics look at which source';

CREATE TABLE cache_ext_internal.leaf (
    relation regclass PRIMARY KEY,
    source integer NOT NULL REFERENCES cache_ext_internal.source ON DELETE CASCADE
);
COMMENT ON TABLE cache_ext_internal.leaf IS
    'partitions and inheritance children of the sources as the statistics count them, so that those that come and go are noticed';

CREATE TABLE cache_ext_internal.progress (
    statistic integer PRIMARY KEY REFERENCES cache_ext_internal.statistic ON DELETE CASCADE,
    last_change timestamptz,
    last_fold timestamptz,
    folded bigint NOT NULL DEFAULT 0,
    us double precision NOT NULL DEFAULT 0
) WITH (fillfactor = 20);
COMMENT ON TABLE cache_ext_internal.progress IS
    'what folding has done for each statistic; a snapshot that sees its row sees the statistic filled';

CREATE TABLE cache_ext_internal.failure (
    statistic integer PRIMARY KEY,
    message text NOT NULL,
    at timestamptz NOT NULL
);
COMMENT ON TABLE cache_ext_internal.failure IS
    'why the worker could not fill a statistic; it does not try again before statistics_refresh()';

CREATE TABLE cache_ext_internal.verification (
    statistic integer PRIMARY KEY REFERENCES cache_ext_internal.statistic ON DELETE CASCADE,
    at timestamptz NOT NULL,
    ok boolean NOT NULL
);
COMMENT ON TABLE cache_ext_internal.verification IS 'what the last verification in the background found';

CREATE FUNCTION cache_ext_internal.exact(value double precision) RETURNS numeric
    AS 'MODULE_PATHNAME', 'cache_ext_exact'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION cache_ext_internal.exact(double precision) IS
    'the numeric that is exactly this number; statistics_verify adds up these';

-- None of these is dumped: a dump carries a statistic as its views, its foreign table and its triggers,
-- from which the worker of the database that it is restored into makes the rest (restore.cpp).

CREATE FUNCTION cache_ext_internal.capture_statement() RETURNS trigger
    AS 'MODULE_PATHNAME', 'cache_ext_capture_statement'
    LANGUAGE C;
COMMENT ON FUNCTION cache_ext_internal.capture_statement() IS
    'appends what a statement changed to the log of its table';

CREATE FUNCTION cache_ext_internal.capture_row() RETURNS trigger
    AS 'MODULE_PATHNAME', 'cache_ext_capture_row'
    LANGUAGE C;
COMMENT ON FUNCTION cache_ext_internal.capture_row() IS
    'the same for a row that replication applies, where statement triggers do not fire';

CREATE FUNCTION cache_ext_internal.capture_truncate() RETURNS trigger
    AS 'MODULE_PATHNAME', 'cache_ext_capture_truncate'
    LANGUAGE C;
COMMENT ON FUNCTION cache_ext_internal.capture_truncate() IS
    'takes the rows of a table that is about to be truncated out of its statistics';

CREATE FUNCTION cache_ext_internal.state_handler() RETURNS fdw_handler
    AS 'MODULE_PATHNAME', 'cache_ext_state_handler'
    LANGUAGE C STRICT;
COMMENT ON FUNCTION cache_ext_internal.state_handler() IS
    'reads a statistic: totals, parts and the partial rows not yet folded, in one snapshot';

CREATE FOREIGN DATA WRAPPER cache_ext_state HANDLER cache_ext_internal.state_handler;
CREATE SERVER cache_ext_state FOREIGN DATA WRAPPER cache_ext_state;

CREATE FUNCTION statistics_create(
    name text,
    query text,
    concurrently boolean DEFAULT false,
    replace boolean DEFAULT false
) RETURNS regclass
    AS 'MODULE_PATHNAME', 'cache_ext_statistics_create'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION statistics_create(text, text, boolean, boolean) IS
    'makes a relation that always equals the query, maintained as its tables change';

CREATE FUNCTION statistics_drop(relation regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_statistics_drop'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION statistics_drop(regclass) IS 'drops a statistic, as DROP VIEW on it does';

CREATE FUNCTION statistics_refresh(relation regclass, concurrently boolean DEFAULT false) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_statistics_refresh'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION statistics_refresh(regclass, boolean) IS 'computes a statistic anew from its tables';

CREATE FUNCTION statistics_verify(relation regclass)
    RETURNS TABLE (difference text, row_data jsonb)
    AS 'MODULE_PATHNAME', 'cache_ext_statistics_verify'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION statistics_verify(regclass) IS
    'rows that a recomputation in the same snapshot has (missing) or has not (extra); none when the statistic is exact';

CREATE FUNCTION statistics_wait(relation regclass, timeout interval DEFAULT NULL) RETURNS boolean
    AS 'MODULE_PATHNAME', 'cache_ext_statistics_wait'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION statistics_wait(regclass, interval) IS
    'waits until the statistic is ready; false when the time is over';

CREATE FUNCTION statistics_fold(relation regclass DEFAULT NULL) RETURNS bigint
    AS 'MODULE_PATHNAME', 'cache_ext_statistics_fold'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION statistics_fold(regclass) IS
    'folds pending partial rows now (of one statistic or of all) and returns how many';

CREATE FUNCTION statistics_last_change(relation regclass DEFAULT NULL) RETURNS timestamptz
    AS 'MODULE_PATHNAME', 'cache_ext_statistics_last_change'
    LANGUAGE C STABLE;
COMMENT ON FUNCTION statistics_last_change(regclass) IS
    'time of the newest visible change to a statistic; without an argument inside the query of a statistic: of that one';

CREATE FUNCTION cache_ext_internal.status()
    RETURNS TABLE (
        relation regclass,
        query text,
        state text,
        progress real,
        groups bigint,
        pending bigint,
        folded bigint,
        last_change timestamptz,
        last_fold timestamptz,
        write_us double precision,
        verified_at timestamptz,
        verified_ok boolean,
        detail text
    )
    AS 'MODULE_PATHNAME', 'cache_ext_statistics_status'
    LANGUAGE C STABLE;
COMMENT ON FUNCTION cache_ext_internal.status() IS 'rows of the view statistics_status';

CREATE VIEW statistics_status AS
    SELECT * FROM cache_ext_internal.status();
COMMENT ON VIEW statistics_status IS 'a row a statistic: what it is, whether it is exact, what waits to be folded';
GRANT SELECT ON statistics_status TO PUBLIC;   -- tells names and figures, no data of the tables

CREATE FUNCTION cache_ext_internal.on_drop() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'cache_ext_on_drop'
    LANGUAGE C;
COMMENT ON FUNCTION cache_ext_internal.on_drop() IS 'forgets statistics and sources whose relations were dropped';

CREATE FUNCTION cache_ext_internal.on_alter() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'cache_ext_on_alter'
    LANGUAGE C;
COMMENT ON FUNCTION cache_ext_internal.on_alter() IS
    'follows partitions that are created, attached and detached, functions that are replaced, and tells watches of columns that are changed';

CREATE FUNCTION cache_ext_internal.before_ddl() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'cache_ext_before_ddl'
    LANGUAGE C;
COMMENT ON FUNCTION cache_ext_internal.before_ddl() IS
    'refuses what could not be followed in the same transaction; keeps the worker off tables about to be dropped';

REVOKE ALL ON FUNCTION cache_ext_internal.on_drop(), cache_ext_internal.on_alter(), cache_ext_internal.before_ddl()
    FROM PUBLIC;   -- only events call them

CREATE EVENT TRIGGER cache_ext_before_ddl ON ddl_command_start
    EXECUTE FUNCTION cache_ext_internal.before_ddl();
CREATE EVENT TRIGGER cache_ext_on_drop ON sql_drop
    EXECUTE FUNCTION cache_ext_internal.on_drop();
CREATE EVENT TRIGGER cache_ext_on_alter ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'ALTER FOREIGN TABLE', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA',
        'CREATE FUNCTION', 'ALTER FUNCTION', 'ALTER ROUTINE')
    EXECUTE FUNCTION cache_ext_internal.on_alter();
ALTER EVENT TRIGGER cache_ext_before_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER cache_ext_on_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER cache_ext_on_alter ENABLE ALWAYS;

---------------------------------------------------------------------------
-- Invalidation
---------------------------------------------------------------------------

CREATE TABLE cache_ext_internal.target (
    name    text PRIMARY KEY CHECK (name <> ''),
    dialect text NOT NULL,
    options jsonb NOT NULL,
    prefix  text NOT NULL,
    tags    boolean NOT NULL
);
COMMENT ON TABLE cache_ext_internal.target IS 'how a cache library names its keys (src/core/invalidation/dialect.hpp)';
SELECT pg_catalog.pg_extension_config_dump('cache_ext_internal.target', '');

CREATE TABLE cache_ext_internal.watch (
    relation regclass NOT NULL,
    watch    integer NOT NULL CHECK (watch > 0),
    keys     text[] NOT NULL,
    tags     text[] NOT NULL,
    patterns text[] NOT NULL,
    channels text[] NOT NULL,
    message  text,
    columns  name[],
    target   text REFERENCES cache_ext_internal.target,
    repeat_ms bigint CHECK (repeat_ms > 0),
    PRIMARY KEY (relation, watch)
);
COMMENT ON TABLE cache_ext_internal.watch IS 'which targets a changed row of a relation invalidates (src/ext/invalidation)';
SELECT pg_catalog.pg_extension_config_dump('cache_ext_internal.watch', '');

-- No key and no index: the worker reads all of it each time, and keeps it so small that readers can, too.
-- Only the worker deletes, so vacuum never needs to cut the table short under a lock that stops writers.
CREATE TABLE cache_ext_internal.outbox (
    buckets bytea NOT NULL,     -- numbers of two bytes
    items   integer NOT NULL,
    at      timestamptz NOT NULL,
    payload bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        vacuum_truncate = off, toast.vacuum_truncate = off);
COMMENT ON TABLE cache_ext_internal.outbox IS 'committed items that Redis has not confirmed, in most cases a row a transaction (src/ext/invalidation)';

-- No key either: rows come and go by age.
CREATE TABLE cache_ext_internal.retained (
    at          timestamptz NOT NULL,
    incarnation bytea NOT NULL,
    items       integer NOT NULL,
    payload     bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        vacuum_truncate = off, toast.vacuum_truncate = off);
COMMENT ON TABLE cache_ext_internal.retained IS 'delivered items that an older state of Redis could bring back (src/ext/invalidation)';

-- No key: rows come with a delivery and go when they are due.
CREATE TABLE cache_ext_internal.repeat (
    due     timestamptz NOT NULL,
    items   integer NOT NULL,
    payload bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        vacuum_truncate = off, toast.vacuum_truncate = off);
COMMENT ON TABLE cache_ext_internal.repeat IS 'delivered items that are to be delivered once more (src/ext/invalidation)';

CREATE TABLE cache_ext_internal.redis_state (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch       bigint NOT NULL,
    incarnation bytea
);
COMMENT ON TABLE cache_ext_internal.redis_state IS 'epoch of own entries, and the Redis that has all deliveries (src/ext/invalidation)';

-- The first epoch is a time in microseconds, so that no installation takes up the values of an earlier one,
-- nor of another server that was copied from the same files.
INSERT INTO cache_ext_internal.redis_state (epoch)
    VALUES (pg_catalog.floor(1000000::numeric OPERATOR(pg_catalog.*) EXTRACT(epoch FROM pg_catalog.clock_timestamp()))::bigint);

CREATE TABLE cache_ext_internal.delivery (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq           bigint NOT NULL DEFAULT 0,
    clean         boolean NOT NULL DEFAULT true,
    delivered     bigint NOT NULL DEFAULT 0,
    retried       bigint NOT NULL DEFAULT 0,
    collapsed     bigint NOT NULL DEFAULT 0,
    last_delivery timestamptz,
    last_error    text,
    last_error_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE cache_ext_internal.delivery IS 'counters of the delivery, written by the worker alone (src/ext/invalidation)';
INSERT INTO cache_ext_internal.delivery DEFAULT VALUES;

CREATE FUNCTION cache_invalidate(VARIADIC keys text[]) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_invalidate'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_invalidate(text[]) IS 'remove these keys from every cache if and when this transaction commits';
REVOKE ALL ON FUNCTION cache_invalidate(text[]) FROM PUBLIC;   -- removes other people's keys

CREATE FUNCTION cache_invalidate_tags(VARIADIC tags text[]) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_invalidate_tags'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_invalidate_tags(text[]) IS 'remove every entry with one of these tags if and when this transaction commits';
REVOKE ALL ON FUNCTION cache_invalidate_tags(text[]) FROM PUBLIC;   -- removes other people's keys

CREATE FUNCTION cache_invalidate_pattern(pattern text) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_invalidate_pattern'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_invalidate_pattern(text) IS 'remove the keys that match this glob pattern if and when this transaction commits';
REVOKE ALL ON FUNCTION cache_invalidate_pattern(text) FROM PUBLIC;   -- removes other people's keys

CREATE FUNCTION cache_publish(channel text, message text) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_publish'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_publish(text, text) IS 'publish the message on the channel if and when this transaction commits';
REVOKE ALL ON FUNCTION cache_publish(text, text) FROM PUBLIC;   -- speaks for the database

CREATE FUNCTION cache_ext_internal.read_dialect(
    dialect text,
    names text[],
    given text[],
    OUT prefix text,
    OUT tags boolean
)
    AS 'MODULE_PATHNAME', 'cache_ext_read_dialect'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION cache_ext_internal.read_dialect(text, text[], text[]) IS 'what the options of a target come to';

-- The caller need not be able to write our tables.
CREATE FUNCTION cache_target_create(name text, dialect text, options jsonb DEFAULT '{}') RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF name IS NULL OR dialect IS NULL OR options IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'name, dialect and options of a target must not be null';
    END IF;
    IF name = '' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'name of a target must not be empty';
    END IF;
    IF jsonb_typeof(options) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'options of a target must be a JSON object',
            HINT = 'For instance {"key_prefix": "shop", "version": 1}.';
    END IF;
    INSERT INTO cache_ext_internal.target (name, dialect, options, prefix, tags)
        SELECT name, dialect, options, d.prefix, d.tags
            FROM cache_ext_internal.read_dialect(dialect,
                ARRAY(SELECT o.key FROM jsonb_each_text(options) o ORDER BY o.key),
                ARRAY(SELECT coalesce(o.value, '') FROM jsonb_each_text(options) o ORDER BY o.key)) d;
EXCEPTION WHEN unique_violation THEN
    RAISE duplicate_object USING MESSAGE = format('target "%s" already exists', name);
END
$$;
COMMENT ON FUNCTION cache_target_create(text, text, jsonb)
    IS 'declare how a cache library names its keys in Redis, for watches to speak of them as the application does';
REVOKE ALL ON FUNCTION cache_target_create(text, text, jsonb) FROM PUBLIC;   -- names other people's keys

CREATE FUNCTION cache_target_drop(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    users text;
BEGIN
    IF name IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'name of a target must not be null';
    END IF;
    -- waits for those who declare a watch on it
    LOCK TABLE cache_ext_internal.target IN SHARE ROW EXCLUSIVE MODE;
    SELECT string_agg(format('watch %s of %s', w.watch, w.relation), ', ' ORDER BY w.relation::text, w.watch)
        INTO users FROM cache_ext_internal.watch w WHERE w.target = name;
    IF users IS NOT NULL THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = format('cannot drop target "%s" because watches speak to it', name),
            DETAIL = users || '.', HINT = 'Use cache_unwatch() first.';
    END IF;
    DELETE FROM cache_ext_internal.target t WHERE t.name = cache_target_drop.name;
    IF NOT FOUND THEN
        RAISE undefined_object USING MESSAGE = format('target "%s" does not exist', name);
    END IF;
END
$$;
COMMENT ON FUNCTION cache_target_drop(text) IS 'forget a target that no watch speaks to';
REVOKE ALL ON FUNCTION cache_target_drop(text) FROM PUBLIC;   -- as for cache_target_create

CREATE FUNCTION cache_watch(
    relation regclass,
    keys text[] DEFAULT '{}',
    tags text[] DEFAULT '{}',
    patterns text[] DEFAULT '{}',
    channels text[] DEFAULT '{}',
    message text DEFAULT NULL,
    columns name[] DEFAULT NULL,
    target text DEFAULT NULL,
    repeat_after interval DEFAULT NULL
) RETURNS integer
    AS 'MODULE_PATHNAME', 'cache_ext_watch'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_watch(regclass, text[], text[], text[], text[], text, name[], text, interval)
    IS 'invalidate these keys, tags and patterns whenever a row of the relation changes; gives the watch''s number';
REVOKE ALL ON FUNCTION cache_watch(regclass, text[], text[], text[], text[], text, name[], text, interval)
    FROM PUBLIC;   -- every writer of the table then removes keys

CREATE FUNCTION cache_unwatch(relation regclass, watch integer DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_unwatch'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_unwatch(regclass, integer) IS 'forget one watch of the relation, or all of them';
REVOKE ALL ON FUNCTION cache_unwatch(regclass, integer) FROM PUBLIC;   -- lets caches go stale

CREATE FUNCTION cache_ext_internal.worker_pid() RETURNS integer
    AS 'MODULE_PATHNAME', 'cache_ext_worker_pid'
    LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION cache_ext_internal.worker_pid() IS 'process number of this database''s worker, NULL when none runs';

CREATE VIEW invalidation_status AS
    SELECT o.pending, o.oldest, d.delivered, d.retried, d.collapsed,
        d.last_delivery, d.last_error, d.last_error_at,
        cache_ext_internal.worker_pid() AS worker_pid, s.epoch
    FROM cache_ext_internal.delivery d
        CROSS JOIN cache_ext_internal.redis_state s
        CROSS JOIN (
            SELECT COALESCE(pg_catalog.sum(items), 0)::bigint AS pending, pg_catalog.min(at) AS oldest
            FROM cache_ext_internal.outbox) o;
COMMENT ON VIEW invalidation_status IS 'what waits for Redis and what it has confirmed, one row';
COMMENT ON COLUMN invalidation_status.pending IS 'items committed and not confirmed';
COMMENT ON COLUMN invalidation_status.oldest IS 'when the oldest of them was queued';
COMMENT ON COLUMN invalidation_status.delivered IS 'items confirmed by Redis';
COMMENT ON COLUMN invalidation_status.retried IS 'attempts that failed and were repeated';
COMMENT ON COLUMN invalidation_status.collapsed IS 'items merged with others while Redis was away';
COMMENT ON COLUMN invalidation_status.worker_pid IS 'the worker of this database, NULL when it has nothing to do';
COMMENT ON COLUMN invalidation_status.epoch IS 'own entries of other epochs are void';
GRANT SELECT ON invalidation_status TO PUBLIC;   -- figures only, no names

---------------------------------------------------------------------------
-- The cache
---------------------------------------------------------------------------

-- Not for PUBLIC: a key is a name that applications share, whoever reads or sets one acts for them.

CREATE FUNCTION cache_get(
    key text,
    query text DEFAULT NULL,
    ttl interval DEFAULT NULL,
    tags text[] DEFAULT '{}',
    dialect text DEFAULT NULL
) RETURNS text
    AS 'MODULE_PATHNAME', 'cache_ext_get'
    LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;   -- takes snapshots of its own

COMMENT ON FUNCTION cache_get(text, text, interval, text[], text) IS
    'value cached under key; on a miss the result of query as a JSON array of objects, stored for next time, or NULL without a query';

REVOKE ALL ON FUNCTION cache_get(text, text, interval, text[], text) FROM PUBLIC;   -- reads what others cached

CREATE FUNCTION cache_set(
    key text,
    value text,
    ttl interval DEFAULT NULL,
    tags text[] DEFAULT '{}',
    dialect text DEFAULT NULL
) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_set'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_set(text, text, interval, text[], text) IS
    'when this transaction commits, replace what is cached under key by value';

REVOKE ALL ON FUNCTION cache_set(text, text, interval, text[], text) FROM PUBLIC;   -- chooses what others read

CREATE FUNCTION cache_set_many(
    entries jsonb,
    ttl interval DEFAULT NULL,
    tags text[] DEFAULT '{}'
) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_set_many'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_set_many(jsonb, interval, text[]) IS
    'when this transaction commits, replace what is cached under each key of the object by its value: a string as it is, anything else as JSON';

REVOKE ALL ON FUNCTION cache_set_many(jsonb, interval, text[]) FROM PUBLIC;   -- chooses what others read

CREATE FUNCTION cache_add(key text, value text, ttl interval DEFAULT NULL) RETURNS boolean
    AS 'MODULE_PATHNAME', 'cache_ext_add'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_add(text, text, interval) IS
    'at once, store the value if nothing is cached under key; false if something was';

REVOKE ALL ON FUNCTION cache_add(text, text, interval) FROM PUBLIC;   -- chooses what others read

CREATE FUNCTION cache_get_many(
    keys text[],
    OUT key text,
    OUT value text
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'cache_ext_get_many'
    LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000 ROWS 10;

COMMENT ON FUNCTION cache_get_many(text[]) IS
    'the keys that are cached and their values, in the order asked; nothing is loaded';

REVOKE ALL ON FUNCTION cache_get_many(text[]) FROM PUBLIC;   -- reads what others cached

CREATE FUNCTION cache_delete(VARIADIC keys text[]) RETURNS bigint
    AS 'MODULE_PATHNAME', 'cache_ext_delete'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_delete(text[]) IS
    'when this transaction commits, remove what is cached under the keys; returns how many keys were named';

REVOKE ALL ON FUNCTION cache_delete(text[]) FROM PUBLIC;   -- empties what others rely on

CREATE FUNCTION cache_exists(key text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'cache_ext_exists'
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000;

COMMENT ON FUNCTION cache_exists(text) IS 'is something cached under key?';

REVOKE ALL ON FUNCTION cache_exists(text) FROM PUBLIC;   -- tells what others cached

CREATE FUNCTION cache_ttl(key text) RETURNS interval
    AS 'MODULE_PATHNAME', 'cache_ext_ttl'
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 1000;

COMMENT ON FUNCTION cache_ttl(text) IS 'how much longer the entry lives, NULL when there is none';

REVOKE ALL ON FUNCTION cache_ttl(text) FROM PUBLIC;   -- tells what others cached

CREATE FUNCTION cache_expire(key text, ttl interval) RETURNS boolean
    AS 'MODULE_PATHNAME', 'cache_ext_expire'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_expire(text, interval) IS
    'at once, let the entry live for so long from now; false when there is none';

REVOKE ALL ON FUNCTION cache_expire(text, interval) FROM PUBLIC;   -- changes what others rely on

CREATE FUNCTION cache_incr(key text, by bigint DEFAULT 1) RETURNS bigint
    AS 'MODULE_PATHNAME', 'cache_ext_incr'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_incr(text, bigint) IS
    'at once, add to the number under key, from 0 when there is none, and return the sum';

REVOKE ALL ON FUNCTION cache_incr(text, bigint) FROM PUBLIC;   -- changes what others rely on

CREATE FUNCTION cache_keys(pattern text DEFAULT '*') RETURNS SETOF text
    AS 'MODULE_PATHNAME', 'cache_ext_keys'
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1000;

COMMENT ON FUNCTION cache_keys(text) IS
    'names in the cache that match the glob pattern, void entries included, sessions not';

REVOKE ALL ON FUNCTION cache_keys(text) FROM PUBLIC;   -- tells what others cached

CREATE FUNCTION cache_clear() RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_clear'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_clear() IS
    'when this transaction commits, every own entry of this database is void; sessions and other people''s keys stay';

REVOKE ALL ON FUNCTION cache_clear() FROM PUBLIC;   -- empties every user's cache

CREATE TABLE cache_ext_internal.loader (
    pattern      text PRIMARY KEY,
    query        text NOT NULL,
    types        regtype[] NOT NULL,
    owner        regrole NOT NULL,
    settings     text[] NOT NULL,
    ttl          interval,
    tags         text[] NOT NULL,
    negative_ttl interval,
    stale_for    interval,
    eager        real,
    soft_timeout interval,
    warm         text,
    dialect      text
);
COMMENT ON TABLE cache_ext_internal.loader IS
    'which query answers keys of which pattern, as whom and under which settings (src/ext/cache)';
SELECT pg_catalog.pg_extension_config_dump('cache_ext_internal.loader', '');

CREATE FUNCTION cache_ext_internal.loaders_changed() RETURNS trigger
    AS 'MODULE_PATHNAME', 'cache_ext_loaders_changed'
    LANGUAGE C;
COMMENT ON FUNCTION cache_ext_internal.loaders_changed() IS 'tells every session to read the loaders anew';

CREATE TRIGGER loaders_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON cache_ext_internal.loader
    FOR EACH STATEMENT EXECUTE FUNCTION cache_ext_internal.loaders_changed();
ALTER TABLE cache_ext_internal.loader ENABLE ALWAYS TRIGGER loaders_changed;

CREATE FUNCTION cache_define(
    pattern text,
    query text,
    ttl interval DEFAULT NULL,
    tags text[] DEFAULT '{}',
    negative_ttl interval DEFAULT NULL,
    stale_for interval DEFAULT NULL,
    eager real DEFAULT NULL,
    soft_timeout interval DEFAULT NULL,
    warm text DEFAULT NULL,
    dialect text DEFAULT NULL
) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_define'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_define(text, text, interval, text[], interval, interval, real, interval, text, text) IS
    'let the query, run with your rights, answer cache_get of every key that matches the pattern';

REVOKE ALL ON FUNCTION cache_define(text, text, interval, text[], interval, interval, real, interval, text, text)
    FROM PUBLIC;   -- answers for others

CREATE FUNCTION cache_undefine(pattern text) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_undefine'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION cache_undefine(text) IS 'forget the loader with this pattern';

REVOKE ALL ON FUNCTION cache_undefine(text) FROM PUBLIC;   -- takes answers away from others

CREATE FUNCTION cache_query(
    query text,
    args text[] DEFAULT '{}',
    ttl interval DEFAULT NULL,
    tags text[] DEFAULT '{}'
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'cache_ext_query'
    LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000;

COMMENT ON FUNCTION cache_query(text, text[], interval, text[]) IS
    'rows of the query with args as $1, $2, ..., cached for the caller''s role; name their columns and types in FROM';

REVOKE ALL ON FUNCTION cache_query(text, text[], interval, text[]) FROM PUBLIC;   -- fills what all share

CREATE FUNCTION cache_warm(
    pattern text DEFAULT NULL,
    OUT key text,
    OUT ok boolean,
    OUT elapsed interval,
    OUT error text
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'cache_ext_warm'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_warm(text) IS
    'loads anew what loaders without placeholders answer and what warming queries name, a row a key; all, or keys that match the glob pattern';
REVOKE ALL ON FUNCTION cache_warm(text) FROM PUBLIC;   -- runs queries of others

---------------------------------------------------------------------------
-- Sessions and rate limits
---------------------------------------------------------------------------

-- Not for PUBLIC: whoever knows a sid acts for its session, and limits are the application's.

CREATE TABLE cache_ext_internal.session (
    id         bytea CONSTRAINT session_pkey PRIMARY KEY,
    data       jsonb NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE cache_ext_internal.session IS
    'sessions that are not in Redis, by the SHA-256 of their sid; not dumped, since a dump would let in whoever had logged out';

CREATE FUNCTION cache_ext_internal.session_has_field(data jsonb, field text, value text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'cache_ext_session_has_field'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION cache_ext_internal.session_has_field(jsonb, text, text) IS
    'has a session this field, or the one that a path with dots leads to, with this text for value?';

CREATE FUNCTION session_set(sid text, data jsonb, ttl interval DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_session_set'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION session_set(text, jsonb, interval) IS
    'store a session as connect-redis does: for ttl, else as long as its cookie says, else for cache_ext.session_ttl';
REVOKE ALL ON FUNCTION session_set(text, jsonb, interval) FROM PUBLIC;   -- logs in

CREATE FUNCTION session_get(sid text) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'cache_ext_session_get'
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION session_get(text) IS 'data of the session, NULL when there is none';
REVOKE ALL ON FUNCTION session_get(text) FROM PUBLIC;   -- reads what applications know of people

CREATE FUNCTION session_touch(sid text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'cache_ext_session_touch'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION session_touch(text) IS
    'give the session its full life anew, that of its cookie or cache_ext.session_ttl; false when there is none';
REVOKE ALL ON FUNCTION session_touch(text) FROM PUBLIC;   -- keeps people logged in

CREATE FUNCTION session_destroy(sid text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'cache_ext_session_destroy'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION session_destroy(text) IS 'end the session; false when there was none';
REVOKE ALL ON FUNCTION session_destroy(text) FROM PUBLIC;   -- logs out

CREATE FUNCTION session_regenerate(sid text) RETURNS text
    AS 'MODULE_PATHNAME', 'cache_ext_session_regenerate'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION session_regenerate(text) IS
    'give the session a new sid that nobody can guess, and return it; the old one is no session any more. NULL when it was none';
REVOKE ALL ON FUNCTION session_regenerate(text) FROM PUBLIC;   -- takes sessions over

CREATE FUNCTION session_destroy_all(field text, value text) RETURNS bigint
    AS 'MODULE_PATHNAME', 'cache_ext_session_destroy_all'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION session_destroy_all(text, text) IS
    'when this transaction commits, end all sessions whose data have the field (a name, or names with dots between them) with this text for value; returns how many';
REVOKE ALL ON FUNCTION session_destroy_all(text, text) FROM PUBLIC;   -- logs everybody out

CREATE FUNCTION cache_ext_internal.session_list(
    OUT session text,
    OUT kept_in text,
    OUT expires_at timestamptz,
    OUT bytes bigint,
    OUT members text[]
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'cache_ext_session_list'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_ext_internal.session_list() IS 'the rows of session_list';

CREATE VIEW session_list AS
    SELECT l.session, l.kept_in, l.expires_at, l.expires_at - pg_catalog.clock_timestamp() AS ttl, l.bytes, l.members
    FROM cache_ext_internal.session_list() l;
COMMENT ON VIEW session_list IS
    'the sessions there are, for administrators (cache_grant); without their sids, which would let the reader in, and without what they hold';
COMMENT ON COLUMN session_list.session IS
    'first 16 digits of encode(sha256(sid::bytea), ''hex''): who has a sid finds its row, and not the other way round';
COMMENT ON COLUMN session_list.kept_in IS 'redis or table';
COMMENT ON COLUMN session_list.expires_at IS 'NULL: never';
COMMENT ON COLUMN session_list.bytes IS 'of its JSON';
COMMENT ON COLUMN session_list.members IS 'names of what it holds, without the values';

CREATE FUNCTION rate_limit(
    key text,
    max_requests integer,
    period interval,
    cost integer DEFAULT 1,
    burst integer DEFAULT NULL,
    algorithm text DEFAULT 'gcra',
    OUT allowed boolean,
    OUT remaining integer,
    OUT retry_after interval,
    OUT reset_at timestamptz
)
    AS 'MODULE_PATHNAME', 'cache_ext_rate_limit'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rate_limit(text, integer, interval, integer, integer, text) IS
    'at once, count a request: is it allowed, what remains, how long to wait if it is not, and when all is as if nothing had been asked for; algorithm: gcra, fixed_window or sliding_window';
REVOKE ALL ON FUNCTION rate_limit(text, integer, interval, integer, integer, text) FROM PUBLIC;   -- uses up what others are allowed

CREATE FUNCTION cache_ext_internal.tallies(
    OUT session_hits bigint,
    OUT session_misses bigint,
    OUT session_sets bigint,
    OUT session_touches bigint,
    OUT session_destroys bigint,
    OUT limit_allowed bigint,
    OUT limit_denied bigint,
    OUT limit_undecided bigint,
    OUT limit_forgotten bigint,
    OUT reset_at timestamptz
)
    AS 'MODULE_PATHNAME', 'cache_ext_tallies'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cache_ext_internal.tallies() IS 'what session_stats and rate_limit_stats are made from';

CREATE FUNCTION cache_ext_internal.limit_figures(OUT used bigint, OUT room bigint)
    AS 'MODULE_PATHNAME', 'cache_ext_limit_figures'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cache_ext_internal.limit_figures() IS 'rate limits in the memory of the server';

CREATE VIEW session_stats AS
    SELECT t.session_hits AS hits, t.session_misses AS misses, t.session_sets AS sets,
        t.session_touches AS touches, t.session_destroys AS destroys, t.reset_at
    FROM cache_ext_internal.tallies() t;
COMMENT ON VIEW session_stats IS 'what session functions have done in this database since reset_at (cache_stats_reset), one row';
COMMENT ON COLUMN session_stats.hits IS 'session_get found one';
COMMENT ON COLUMN session_stats.destroys IS 'ended one by one, or named by session_destroy_all';
GRANT SELECT ON session_stats TO PUBLIC;   -- figures, no names

CREATE VIEW rate_limit_stats AS
    SELECT t.limit_allowed AS allowed, t.limit_denied AS denied, t.limit_undecided AS undecided,
        t.limit_forgotten AS forgotten, f.used AS in_memory, f.room, t.reset_at
    FROM cache_ext_internal.tallies() t, cache_ext_internal.limit_figures() f;
COMMENT ON VIEW rate_limit_stats IS 'what rate_limit has said in this database since reset_at (cache_stats_reset), one row';
COMMENT ON COLUMN rate_limit_stats.undecided IS 'Redis could not be asked: answered as cache_ext.rate_limit_on_failure says';
COMMENT ON COLUMN rate_limit_stats.forgotten IS 'limits given up before their time, because more were in use at once than there is room for';
COMMENT ON COLUMN rate_limit_stats.in_memory IS 'limits that the memory of the server knows now, of all databases';
GRANT SELECT ON rate_limit_stats TO PUBLIC;   -- figures, no names

---------------------------------------------------------------------------
-- The link to Redis
---------------------------------------------------------------------------

CREATE FUNCTION cache_ext_internal.redis_status(
    OUT address text,
    OUT role text,
    OUT state text,
    OUT breaker text,
    OUT since timestamptz,
    OUT server_version text,
    OUT clients integer,
    OUT memory_bytes bigint,
    OUT keys bigint,
    OUT keyspace_hits bigint,
    OUT keyspace_misses bigint,
    OUT round_trip_ms double precision,
    OUT reconnects bigint,
    OUT last_error text,
    OUT eviction text,      -- the policy, if it evicts
    OUT appends boolean
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'cache_ext_redis_status'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION cache_ext_internal.redis_status() IS 'the rows of redis_status';

CREATE VIEW redis_status AS
    SELECT address, role, state, breaker, since, server_version, clients, memory_bytes, keys,
        keyspace_hits, keyspace_misses, round_trip_ms, reconnects, last_error
    FROM cache_ext_internal.redis_status();
COMMENT ON VIEW redis_status IS 'a row for each Redis endpoint in use, one row ''off'' when there is none';
COMMENT ON COLUMN redis_status.address IS 'where it is, without secrets';
COMMENT ON COLUMN redis_status.role IS 'what it says it is: master or replica';
COMMENT ON COLUMN redis_status.state IS 'off, connecting, ready or failed';
COMMENT ON COLUMN redis_status.breaker IS 'closed: everybody asks it; open: nobody for a while, after a failure; half-open: one asks for all';
COMMENT ON COLUMN redis_status.since IS 'when it began to answer, or ceased to';
COMMENT ON COLUMN redis_status.clients IS 'all its clients, not only this server''s';
COMMENT ON COLUMN redis_status.keys IS 'in the database in use';
COMMENT ON COLUMN redis_status.round_trip_ms IS 'of the question that brought these figures';
COMMENT ON COLUMN redis_status.reconnects IS 'how often it has answered again after failures, since this server''s start';
COMMENT ON COLUMN redis_status.last_error IS 'the last failure, also when it is over';
GRANT SELECT ON redis_status TO PUBLIC;   -- a status view: no secrets, and while Redis is away nobody is kept waiting

CREATE FUNCTION cache_ping() RETURNS interval
    AS 'MODULE_PATHNAME', 'cache_ext_ping'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cache_ping() IS 'round trip to Redis now, or the error that prevents one';
REVOKE ALL ON FUNCTION cache_ping() FROM PUBLIC;   -- does not wait for the pause after a failure

---------------------------------------------------------------------------
-- Operating it
---------------------------------------------------------------------------

CREATE FUNCTION cache_ext_internal.stats(
    OUT tier text,
    OUT hits bigint,
    OUT misses bigint,
    OUT sets bigint,
    OUT deletes bigint,
    OUT errors bigint,
    OUT stale_hits bigint,
    OUT evictions bigint,
    OUT keys bigint,
    OUT bytes bigint,
    OUT avg_ms double precision,
    OUT p99_ms double precision,
    OUT reset_at timestamptz
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'cache_ext_stats'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 3;
COMMENT ON FUNCTION cache_ext_internal.stats() IS 'what cache_stats is made from';

CREATE FUNCTION cache_ext_internal.memory_is_there() RETURNS boolean
    AS 'MODULE_PATHNAME', 'cache_ext_memory_is_there'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cache_ext_internal.memory_is_there() IS 'may this server use the memory tier?';

CREATE FUNCTION cache_ext_internal.warm_report(
    OUT every integer,
    OUT ended_at timestamptz,
    OUT loaded bigint,
    OUT failed bigint,
    OUT error text
)
    AS 'MODULE_PATHNAME', 'cache_ext_warm_report'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cache_ext_internal.warm_report() IS
    'how the last warming by the worker went, and after how many seconds there is another';
REVOKE ALL ON FUNCTION cache_ext_internal.warm_report() FROM PUBLIC;   -- errors of others' queries

CREATE FUNCTION cache_ext_internal.loader_relations(OUT pattern text, OUT relation regclass, OUT error text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'cache_ext_loader_relations'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_ext_internal.loader_relations() IS
    'which relations each loader''s query reads, or why that cannot be told';

CREATE VIEW cache_stats AS
    SELECT s.tier, s.hits, s.misses,
        pg_catalog.round(100::numeric * s.hits::numeric / nullif((s.hits + s.misses)::numeric, 0::numeric), 2)::numeric(5, 2) AS hit_rate,
        s.sets, s.deletes, s.evictions, s.errors, s.stale_hits,
        CASE s.tier WHEN 'redis' THEN r.keys ELSE s.keys END AS keys,
        CASE s.tier WHEN 'redis' THEN r.memory_bytes ELSE s.bytes END AS bytes,
        s.avg_ms, s.p99_ms, s.reset_at
    FROM cache_ext_internal.stats() s
        LEFT JOIN LATERAL (SELECT * FROM @extschema@.redis_status LIMIT 1) r ON s.tier = 'redis';
COMMENT ON VIEW cache_stats IS 'what each tier of the cache has done in this database since reset_at';
COMMENT ON COLUMN cache_stats.hits IS 'memory and redis: answers; query: queries that were run';
COMMENT ON COLUMN cache_stats.misses IS 'memory and redis: nothing there; query: neither a query nor a loader';
COMMENT ON COLUMN cache_stats.hit_rate IS 'percent, NULL before the first read';
COMMENT ON COLUMN cache_stats.deletes IS 'keys that cache_delete has named';
COMMENT ON COLUMN cache_stats.evictions IS 'of memory: entries that made room, on the whole server';
COMMENT ON COLUMN cache_stats.errors IS 'redis: could not be used; query: failed';
COMMENT ON COLUMN cache_stats.stale_hits IS 'expired values given because their query failed';
COMMENT ON COLUMN cache_stats.p99_ms IS 'to within a fifth';
GRANT SELECT ON cache_stats TO PUBLIC;   -- figures, no names

CREATE FUNCTION cache_stats_reset() RETURNS void
    AS 'MODULE_PATHNAME', 'cache_ext_stats_reset'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cache_stats_reset() IS 'begin the figures of cache_stats anew for this database';
REVOKE ALL ON FUNCTION cache_stats_reset() FROM PUBLIC;   -- takes figures away from others

CREATE FUNCTION cache_explain(
    INOUT key text,
    OUT tier text,
    OUT age interval,
    OUT ttl interval,
    OUT tags text[],
    OUT bytes bigint,
    OUT loads bigint,
    OUT hits bigint,
    OUT removed_at timestamptz,
    OUT removed_by text,
    OUT removed_xid xid8,
    OUT reason text
)
    AS 'MODULE_PATHNAME', 'cache_ext_explain'
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION cache_explain(text) IS
    'where the key is cached and why, or why not; removals of names that share a generation show as well';
REVOKE ALL ON FUNCTION cache_explain(text) FROM PUBLIC;   -- tells what others cached

CREATE VIEW cache_settings AS
    SELECT s.name,
        pg_catalog.regexp_replace(s.setting, '://([^:@/]*):[^/]*@', '://\1:***@') AS value,
        s.unit, s.source, s.short_desc AS effect
    FROM cache_ext_internal.memory_is_there() loaded,   -- a session has the settings once it has the library
        pg_catalog.pg_settings s
    WHERE s.name LIKE 'cache\_ext.%';
COMMENT ON VIEW cache_settings IS 'the settings of cache_ext that you may see, passwords masked';
GRANT SELECT ON cache_settings TO PUBLIC;   -- what SHOW tells, and less

CREATE FUNCTION cache_health(
    OUT component text,
    OUT state text,
    OUT detail text,
    OUT recommendation text
) RETURNS SETOF record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $health$
DECLARE
    found record;
    worst integer := 0;
    rows jsonb := '[]';
    r record;
BEGIN
    FOR r IN
        SELECT 'library' AS component,
            CASE WHEN preloaded THEN 0 ELSE 1 END AS level,
            CASE WHEN preloaded THEN 'loaded at the start of the server' ELSE 'loaded by each session' END AS detail,
            CASE WHEN NOT preloaded THEN
                'Add cache_ext to shared_preload_libraries and restart: without it there is no memory tier, and the worker starts at first use.' END AS advice
        FROM (SELECT current_setting('shared_preload_libraries') ~ '\mcache_ext\M' AS preloaded) p
        UNION ALL
        SELECT 'memory', CASE WHEN there OR pg_is_in_recovery() THEN 0 ELSE 1 END,
            CASE WHEN there THEN format('%s entries, %s bytes', s.keys, s.bytes)
                 WHEN pg_is_in_recovery() THEN 'not used on a standby' ELSE 'there is none' END,
            CASE WHEN NOT there AND NOT pg_is_in_recovery() THEN
                'Add cache_ext to shared_preload_libraries, with cache_ext.memory_size above zero.' END
        FROM cache_ext_internal.memory_is_there() there, cache_ext_internal.stats() s WHERE s.tier = 'memory'
        UNION ALL
        SELECT 'redis', CASE WHEN rs.state IN ('off', 'ready') THEN 0 ELSE 1 END,
            CASE WHEN rs.state = 'off' THEN 'not configured' ELSE
                concat_ws(', ', rs.address, rs.state, 'breaker ' || rs.breaker, rs.last_error) END,
            CASE WHEN rs.state NOT IN ('off', 'ready') THEN
                'Memory and queries answer meanwhile. See that Redis runs at this address and lets us in; SELECT cache_ping().' END
        FROM @extschema@.redis_status rs
        UNION ALL
        SELECT 'invalidation',
            CASE WHEN i.pending = 0 OR i.oldest > clock_timestamp() - interval '10 s' THEN 0 ELSE 1 END,
            format('%s pending%s', i.pending,
                CASE WHEN i.pending > 0 THEN format(', the oldest since %s%s', i.oldest, '; ' || i.last_error) ELSE '' END),
            CASE WHEN i.pending > 0 AND i.oldest <= clock_timestamp() - interval '10 s' THEN
                'Nothing is lost: all of it is delivered when Redis answers and the worker runs. Readers of this server see nothing old meanwhile.' END
        FROM @extschema@.invalidation_status i
        UNION ALL
        SELECT 'worker',
            CASE WHEN i.worker_pid IS NULL AND i.pending > 0 AND i.oldest <= clock_timestamp() - interval '10 s' THEN 2 ELSE 0 END,
            CASE WHEN i.worker_pid IS NULL THEN 'has nothing to do' ELSE format('process %s', i.worker_pid) END,
            CASE WHEN i.worker_pid IS NULL AND i.pending > 0 AND i.oldest <= clock_timestamp() - interval '10 s' THEN
                'There is work and no worker: increase max_worker_processes.' END
        FROM @extschema@.invalidation_status i
        UNION ALL
        SELECT 'statistics',
            CASE WHEN count(*) FILTER (WHERE st.state NOT IN ('ready', 'filling')) > 0 THEN 2 ELSE 0 END,
            format('%s, of which %s ready', count(*), count(*) FILTER (WHERE st.state = 'ready')),
            CASE WHEN count(*) FILTER (WHERE st.state NOT IN ('ready', 'filling')) > 0 THEN
                'See statistics_status and cache_doctor().' END
        FROM @extschema@.statistics_status st
        UNION ALL
        SELECT 'sessions', CASE WHEN away AND used THEN 2 ELSE 0 END,
            CASE WHEN in_redis THEN 'in Redis' ELSE 'in a table' END,
            CASE WHEN away AND used THEN
                'Session functions fail until Redis answers; cache_ext.session_durability = table would keep sessions here instead.' END
        FROM (SELECT s.hits + s.misses + s.sets > 0 AS used, in_redis, in_redis AND rs.state <> 'ready' AS away
              FROM @extschema@.session_stats s, @extschema@.redis_status rs,
                  LATERAL (SELECT rs.state <> 'off' AND current_setting('cache_ext.session_durability') = 'redis') p (in_redis)) s
        UNION ALL
        SELECT 'rate limits', CASE WHEN (l.allowed + l.denied > 0 AND rs.state NOT IN ('off', 'ready')) OR l.forgotten > 0 THEN 1 ELSE 0 END,
            concat_ws('; ', CASE rs.state WHEN 'off' THEN format('%s in the memory of the server, room for %s', l.in_memory, l.room)
                      WHEN 'ready' THEN 'in Redis'
                      ELSE format('Redis does not answer: %s', current_setting('cache_ext.rate_limit_on_failure')) END,
                CASE WHEN l.forgotten > 0 THEN format('%s forgotten before their time', l.forgotten) END),
            CASE WHEN l.allowed + l.denied > 0 AND rs.state NOT IN ('off', 'ready') THEN
                     'Limits do not hold for several servers together until Redis answers.'
                 WHEN l.forgotten > 0 THEN
                     'More are in use at once than there is room for: preload cache_ext, or set cache_ext.redis_url.' END
        FROM @extschema@.rate_limit_stats l, @extschema@.redis_status rs
        UNION ALL
        SELECT 'warming', CASE WHEN w.failed > 0 THEN 1 ELSE 0 END,
            concat_ws('; ', CASE WHEN w.every > 0 THEN format('every %s s', w.every) ELSE 'off' END,
                CASE WHEN w.ended_at IS NOT NULL THEN format('%s entries at %s', w.loaded, w.ended_at) END,
                CASE WHEN w.failed > 0 THEN format('%s failed, the first %s', w.failed, w.error) END),
            CASE WHEN w.failed > 0 THEN 'See the loader''s query; SELECT * FROM cache_warm() tries all of them now.' END
        FROM cache_ext_internal.warm_report() w
        UNION ALL
        SELECT 'cache', CASE WHEN current_setting('cache_ext.enabled')::boolean THEN 0 ELSE 1 END,
            CASE WHEN current_setting('cache_ext.enabled')::boolean THEN 'enabled' ELSE 'disabled: queries answer' END,
            CASE WHEN NOT current_setting('cache_ext.enabled')::boolean THEN 'Set cache_ext.enabled = on.' END
    LOOP
        worst := greatest(worst, r.level);
        rows := rows || jsonb_build_object('c', r.component, 'l', r.level, 'd', r.detail, 'a', r.advice);
    END LOOP;
    component := 'overall';
    state := (ARRAY['ok', 'degraded', 'down'])[worst + 1];
    detail := (SELECT string_agg(e ->> 'c', ', ') FROM jsonb_array_elements(rows) e WHERE (e ->> 'l')::integer > 0);
    RETURN NEXT;
    FOR found IN SELECT e FROM jsonb_array_elements(rows) AS t (e) LOOP
        component := found.e ->> 'c';
        state := (ARRAY['ok', 'degraded', 'down'])[(found.e ->> 'l')::integer + 1];
        detail := found.e ->> 'd';
        recommendation := found.e ->> 'a';
        RETURN NEXT;
    END LOOP;
END
$health$;
COMMENT ON FUNCTION cache_health() IS 'state of each part of cache_ext, the whole first, with advice where something is wrong';
REVOKE ALL ON FUNCTION cache_health() FROM PUBLIC;   -- errors may name hosts

CREATE FUNCTION cache_doctor(
    OUT severity text,
    OUT object text,
    OUT problem text,
    OUT remedy text
) RETURNS SETOF record
    LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $doctor$
    -- triggers that watches and statistics rest on
    SELECT 'error', t.tgrelid::regclass::text,
        format('trigger %I is disabled: changes are missed', t.tgname),
        format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.tgrelid::regclass, t.tgname)
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE p.pronamespace = 'cache_ext_internal'::regnamespace AND p.proname LIKE 'capture%' AND t.tgenabled = 'D'
    UNION ALL
    SELECT 'error', st.relation::text, format('the statistic is %s: %s', st.state, st.detail),
        format('SELECT @extschema@.statistics_refresh(%L)', st.relation)
    FROM @extschema@.statistics_status st WHERE st.state NOT IN ('ready', 'filling')
    UNION ALL
    -- loaders
    SELECT 'error', format('loader %s', l.pattern), format('its query cannot be run: %s', l.error),
        format('SELECT @extschema@.cache_undefine(%L)', l.pattern)
    FROM cache_ext_internal.loader_relations() l WHERE l.error IS NOT NULL
    UNION ALL
    SELECT DISTINCT 'warning', format('loader %s', l.pattern),
        format('it reads %s, which nobody watches: its entries live to the end of their ttl whatever changes there', l.relation),
        format('SELECT @extschema@.cache_watch(%L, patterns => ARRAY[%L])', l.relation,
            regexp_replace(l.pattern, '\{[^{}]*\}', '*', 'g'))
    FROM cache_ext_internal.loader_relations() l JOIN pg_class c ON c.oid = l.relation
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'cache_ext_internal'::regnamespace)
        AND NOT EXISTS (
            SELECT FROM cache_ext_internal.watch w
            WHERE w.relation = l.relation OR w.relation IN (SELECT relid FROM pg_partition_ancestors(l.relation)))
    UNION ALL
    -- where it runs
    SELECT 'warning', 'shared_preload_libraries', 'cache_ext is not preloaded: there is no memory tier, and the worker starts at first use',
        format('ALTER SYSTEM SET shared_preload_libraries = %s, then restart',
            (SELECT string_agg(quote_literal(btrim(library, ' "')), ', ')   -- a list: one literal each
             FROM unnest(string_to_array(nullif(current_setting('shared_preload_libraries'), ''), ',') || 'cache_ext'::text) library))
    WHERE current_setting('shared_preload_libraries') !~ '\mcache_ext\M'
    UNION ALL
    SELECT 'warning', 'cache_ext.redis_url', 'the address holds a password, which superusers and the configuration show',
        'ALTER SYSTEM SET cache_ext.redis_password_file = ''/path/of/a/file/of/mode/600'', and an address without the password'
    WHERE current_setting('cache_ext.redis_url') ~ '://[^:@/]*:[^@/]+@'
    UNION ALL
    SELECT 'warning', 'cache_ext.enabled', 'the cache is neither read nor filled',
        format('ALTER DATABASE %I SET cache_ext.enabled = on', current_database())
    WHERE NOT current_setting('cache_ext.enabled')::boolean
    UNION ALL
    SELECT 'warning', 'Redis', format('%s: %s', rs.state, coalesce(rs.last_error, 'it has not answered')),
        'SELECT @extschema@.cache_ping()'
    FROM @extschema@.redis_status rs WHERE rs.state NOT IN ('off', 'ready')
    UNION ALL
    SELECT 'warning', 'cache_ext.session_durability',
        format('%s sessions lie in the table, where nobody looks while Redis keeps them', count(*)),
        format('ALTER DATABASE %I SET cache_ext.session_durability = %L', current_database(), 'table')
    FROM cache_ext_internal.session s
    WHERE s.expires_at > clock_timestamp() AND current_setting('cache_ext.session_durability') = 'redis'
        AND EXISTS (SELECT FROM @extschema@.redis_status rs WHERE rs.state <> 'off')
    HAVING count(*) > 0
    UNION ALL
    SELECT 'warning', 'Redis', p.problem, format('ALTER DATABASE %I SET cache_ext.session_durability = %L', current_database(), 'table')
    FROM @extschema@.session_stats s, cache_ext_internal.redis_status() rs, LATERAL (VALUES
        (rs.eviction IS NOT NULL, format('it makes room by evicting sessions, too: maxmemory-policy is %s', rs.eviction)),
        (NOT rs.appends, 'when it restarts sessions are lost, all or the latest: appendonly is off')) p (is_so, problem)
    WHERE p.is_so AND s.hits + s.misses + s.sets > 0 AND current_setting('cache_ext.session_durability') = 'redis'
    UNION ALL
    SELECT 'warning', w.relation::text, 'it is watched and unlogged: a crash empties it, and no row tells',
        format('ALTER TABLE %s SET LOGGED', w.relation)
    FROM cache_ext_internal.watch w JOIN pg_class c ON c.oid = w.relation WHERE c.relpersistence = 'u'
$doctor$;
COMMENT ON FUNCTION cache_doctor() IS 'holes found by looking, each with the SQL that mends it; no rows: none were found';
REVOKE ALL ON FUNCTION cache_doctor() FROM PUBLIC;   -- names others' tables and loaders

CREATE FUNCTION cache_stats_json(style text DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $json$
DECLARE
    answered bigint;
    missed bigint;
    m record;
    r record;
    q record;
    rate numeric;
    redis boolean;
BEGIN
    SELECT * INTO m FROM @extschema@.cache_stats WHERE tier = 'memory';
    SELECT * INTO r FROM @extschema@.cache_stats WHERE tier = 'redis';
    SELECT * INTO q FROM @extschema@.cache_stats WHERE tier = 'query';
    SELECT state = 'ready' INTO redis FROM @extschema@.redis_status LIMIT 1;
    answered := m.hits + r.hits;
    missed := q.hits + q.misses;
    rate := coalesce(round(100.0 * answered / nullif(answered + missed, 0), 2), 0);
    CASE style
        WHEN 'express' THEN
            RETURN jsonb_build_object('success', true, 'data', jsonb_build_object(
                'hits', answered, 'misses', missed, 'hitRate', rate, 'sets', m.sets + r.sets,
                'deletes', m.deletes, 'errors', r.errors + q.errors, 'keys', coalesce(r.keys, m.keys),
                'memoryBytes', m.bytes, 'connected', redis, 'avgMs', m.avg_ms));
        WHEN 'nextjs' THEN
            RETURN jsonb_build_object('status', CASE WHEN q.errors = 0 THEN 'ok' ELSE 'degraded' END,
                'timestamp', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                'cache', jsonb_build_object('hitRate', rate, 'totalHits', answered, 'totalMisses', missed,
                    'totalRequests', answered + missed, 'stale', q.stale_hits, 'keys', coalesce(r.keys, m.keys)),
                'redis', jsonb_build_object('connected', redis, 'p99Ms', r.p99_ms));
        WHEN 'django' THEN
            RETURN jsonb_build_object('hits', answered, 'misses', missed, 'hit_rate', rate,
                'keys', coalesce(r.keys, m.keys), 'memory_bytes', m.bytes, 'redis_connected', redis,
                'since', m.reset_at);
        ELSE
            IF style IS NOT NULL THEN
                RAISE EXCEPTION 'unknown style "%" of cache figures', style
                    USING ERRCODE = 'invalid_parameter_value', HINT = 'Give ''express'', ''nextjs'' or ''django'', or nothing.';
            END IF;
    END CASE;
    RETURN (SELECT jsonb_object_agg(s.tier, to_jsonb(s) - 'tier') FROM @extschema@.cache_stats s)
        || jsonb_build_object('sessions', (SELECT to_jsonb(s) FROM @extschema@.session_stats s),
            'rate_limits', (SELECT to_jsonb(l) FROM @extschema@.rate_limit_stats l));
END
$json$;
COMMENT ON FUNCTION cache_stats_json(text) IS
    'the figures of cache_stats in the shape of an application''s endpoint: express, nextjs, django, or all of them';
REVOKE ALL ON FUNCTION cache_stats_json(text) FROM PUBLIC;   -- for those who operate it

CREATE FUNCTION cache_metrics() RETURNS text
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET jit = off   -- a second of compiling for a millisecond of work
AS $metrics$
    WITH label AS (
        SELECT format('database="%s"', replace(replace(replace(current_database(), '\', '\\'), '"', '\"'), E'\n', '\n')) AS db
    ), figure (name, kind, help, labels, value, line) AS (
        SELECT f.name, f.kind, f.help, format('{%s,tier="%s"}', label.db, s.tier), f.value, f.line * 10 + 1
        FROM label, @extschema@.cache_stats s, LATERAL (VALUES
            ('cache_ext_hits_total', 'counter', 'Answers of a tier.', s.hits::double precision, 1),
            ('cache_ext_misses_total', 'counter', 'Reads that a tier could not answer.', s.misses, 2),
            ('cache_ext_sets_total', 'counter', 'Values stored.', s.sets, 3),
            ('cache_ext_deletes_total', 'counter', 'Keys named for deletion.', s.deletes, 4),
            ('cache_ext_evictions_total', 'counter', 'Entries that made room.', s.evictions, 5),
            ('cache_ext_errors_total', 'counter', 'Failures.', s.errors, 6),
            ('cache_ext_stale_hits_total', 'counter', 'Expired values given while the source failed.', s.stale_hits, 7),
            ('cache_ext_keys', 'gauge', 'Entries.', s.keys, 8),
            ('cache_ext_bytes', 'gauge', 'Bytes of the entries.', s.bytes, 9),
            ('cache_ext_latency_seconds_avg', 'gauge', 'Average time to an answer.', s.avg_ms / 1000, 10),
            ('cache_ext_latency_seconds_p99', 'gauge', 'Time that 99 of 100 answers need at most.', s.p99_ms / 1000, 11)
        ) AS f (name, kind, help, value, line)
        UNION ALL
        SELECT f.name, f.kind, f.help, format('{%s}', label.db), f.value, f.line * 10 + 1
        FROM label, @extschema@.invalidation_status i, LATERAL (VALUES
            ('cache_ext_invalidations_pending', 'gauge', 'Items that Redis has not confirmed.', i.pending::double precision, 21),
            ('cache_ext_invalidations_delivered_total', 'counter', 'Items that Redis has confirmed.', i.delivered, 22),
            ('cache_ext_invalidations_retried_total', 'counter', 'Deliveries that were repeated.', i.retried, 23),
            ('cache_ext_invalidations_oldest_seconds', 'gauge', 'Age of the oldest item.',
                extract(epoch FROM clock_timestamp() - i.oldest)::double precision, 24)
        ) AS f (name, kind, help, value, line)
        UNION ALL
        SELECT f.name, 'counter', f.help, format('{%s}', concat_ws(',', label.db, f.kind)), f.value, f.line * 10 + 1
        FROM label, @extschema@.session_stats s, @extschema@.rate_limit_stats l, LATERAL (VALUES
            ('cache_ext_session_reads_total', 'Sessions asked for.', 'result="hit"', s.hits::double precision, 25),
            ('cache_ext_session_reads_total', 'Sessions asked for.', 'result="miss"', s.misses, 25),
            ('cache_ext_session_changes_total', 'Sessions stored, touched and ended.', 'kind="set"', s.sets, 26),
            ('cache_ext_session_changes_total', 'Sessions stored, touched and ended.', 'kind="touch"', s.touches, 26),
            ('cache_ext_session_changes_total', 'Sessions stored, touched and ended.', 'kind="destroy"', s.destroys, 26),
            ('cache_ext_rate_limits_total', 'Requests that rate limits have judged.', 'result="allowed"', l.allowed, 27),
            ('cache_ext_rate_limits_total', 'Requests that rate limits have judged.', 'result="denied"', l.denied, 27),
            ('cache_ext_rate_limits_undecided_total', 'Of these, how often Redis could not be asked.', NULL, l.undecided, 28),
            ('cache_ext_rate_limits_forgotten_total', 'Limits forgotten before their time.', NULL, l.forgotten, 29)
        ) AS f (name, help, kind, value, line)
        UNION ALL
        SELECT 'cache_ext_rate_limits', 'gauge', 'Limits in use in the memory of the server.', format('{%s}', label.db), l.in_memory, 301
        FROM label, @extschema@.rate_limit_stats l
        UNION ALL
        SELECT 'cache_ext_redis_up', 'gauge', 'Does Redis answer?', format('{%s}', label.db),
            CASE WHEN rs.state = 'ready' THEN 1 ELSE 0 END, 311
        FROM label, @extschema@.redis_status rs WHERE rs.state <> 'off'
    ), line (name, number, text) AS (
        SELECT DISTINCT name, line - 1, format(E'# HELP %s %s\n# TYPE %1$s %3$s', name, help, kind)
        FROM figure WHERE value IS NOT NULL
        UNION ALL
        SELECT name, line, name || labels || ' ' || value FROM figure WHERE value IS NOT NULL
    )
    SELECT string_agg(text, E'\n' ORDER BY number, text) || E'\n' FROM line
$metrics$;
COMMENT ON FUNCTION cache_metrics() IS
    'the figures of cache_stats, invalidation_status, session_stats and rate_limit_stats as Prometheus reads them';
REVOKE ALL ON FUNCTION cache_metrics() FROM PUBLIC;   -- for those who operate it

CREATE FUNCTION cache_grant(role regrole, level text, prefix text DEFAULT '') RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $grant$
DECLARE
    levels constant text[] := ARRAY['read', 'write', 'admin'];
    writing constant text[] := ARRAY['cache_set', 'cache_set_many', 'cache_add', 'cache_delete', 'cache_expire', 'cache_incr',
        'cache_invalidate', 'cache_invalidate_tags', 'cache_invalidate_pattern', 'cache_publish',
        'session_set', 'session_touch', 'session_destroy', 'session_regenerate', 'session_destroy_all', 'rate_limit'];
    administering constant text[] := ARRAY['cache_define', 'cache_undefine', 'cache_keys', 'cache_clear', 'cache_warm',
        'cache_watch', 'cache_unwatch', 'cache_target_create', 'cache_target_drop', 'cache_stats_reset', 'cache_explain',
        'cache_health', 'cache_doctor', 'cache_stats_json', 'cache_metrics', 'cache_ping'];
    wanted text[] := ARRAY['cache_get', 'cache_get_many', 'cache_exists', 'cache_ttl', 'cache_query', 'session_get'];
    f regprocedure;
    granted boolean;
BEGIN
    IF role IS NULL OR level IS NULL OR prefix IS NULL THEN
        RAISE EXCEPTION 'role, level and prefix must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF level <> ALL (levels) THEN
        RAISE EXCEPTION 'unknown level "%"', level
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give ''read'', ''write'' or ''admin''.';
    END IF;
    IF level IN ('write', 'admin') THEN
        wanted := wanted || writing;
    END IF;
    IF level = 'admin' THEN
        IF prefix <> '' THEN
            RAISE EXCEPTION 'an administrator of the cache cannot be kept to a prefix'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        wanted := wanted || administering;
    END IF;
    IF prefix ~ '[*?\[\]\\]' THEN
        RAISE EXCEPTION 'prefix must not contain characters of patterns'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'A pattern that begins so would reach other names.';
    END IF;
    IF prefix <> '' AND (NOT (SELECT r.rolcanlogin FROM pg_roles r WHERE r.oid = role)
                         OR EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = role)) THEN
        RAISE EXCEPTION 'role % cannot be kept to a prefix', role
            USING ERRCODE = 'feature_not_supported',
                DETAIL = 'Others have its rights as its members, and the prefix is a setting of who logs in.',
                HINT = 'Call cache_grant for each role that logs in.';
    END IF;
    FOR f, granted IN
        SELECT p.oid, p.proname = ANY (wanted) FROM pg_proc p
            JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
            JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'cache_ext'
        WHERE p.pronamespace = e.extnamespace AND p.proname = ANY (wanted || writing || administering)
        ORDER BY p.proname
    LOOP
        IF granted THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f, role);
        ELSE
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %s', f, role);
        END IF;
    END LOOP;
    IF level = 'admin' THEN
        EXECUTE format('GRANT SELECT ON @extschema@.session_list TO %s', role);
    ELSE
        EXECUTE format('REVOKE SELECT ON @extschema@.session_list FROM %s', role);
    END IF;
    IF prefix <> '' THEN
        EXECUTE format('ALTER ROLE %s IN DATABASE %I SET cache_ext.allowed_prefix = %L', role, current_database(), prefix);
    ELSE
        EXECUTE format('ALTER ROLE %s IN DATABASE %I RESET cache_ext.allowed_prefix', role, current_database());
    END IF;
END
$grant$;
COMMENT ON FUNCTION cache_grant(regrole, text, text) IS
    'lets a role read, write or administer the cache, and no more than that; with a prefix its sessions may name only keys that begin so';
REVOKE ALL ON FUNCTION cache_grant(regrole, text, text) FROM PUBLIC;   -- gives rights away

---------------------------------------------------------------------------
-- The worker
---------------------------------------------------------------------------

---------------------------------------------------------------------------
-- The bag-tracking preset
---------------------------------------------------------------------------

CREATE FUNCTION bag_tracking_ignore_write() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('cache_ext_preset.told', true) IS DISTINCT FROM 'on' THEN
        PERFORM set_config('cache_ext_preset.told', 'on', false);
        RAISE NOTICE 'writes to "%" change nothing', TG_TABLE_NAME
            USING DETAIL = 'The statistic follows its tables by itself.',
                  HINT = 'Remove the code that keeps the counters.';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION bag_tracking_ignore_write() IS
    'trigger: accepts writes of code that kept the counters by hand, reports the row, changes nothing';

CREATE FUNCTION bag_tracking_attach(
    schema_name name DEFAULT NULL,
    concurrently boolean DEFAULT false,
    replace boolean DEFAULT false
) RETURNS SETOF regclass
    LANGUAGE plpgsql
AS $attach$
DECLARE
    -- types are qualified here: the caller's search_path holds until set_config below
    s constant pg_catalog.name := coalesce(schema_name, pg_catalog.current_schema());
    callers_path constant pg_catalog.text := pg_catalog.current_setting('search_path');
    newest constant pg_catalog.text := 'the newest 50 scans, read from the table through its index';
    missing pg_catalog.text;
    target pg_catalog.text;
    queries pg_catalog.text[];
    watches pg_catalog.int4[];
    i pg_catalog.int4;
BEGIN
    -- every name below is qualified; operators are PostgreSQL's own
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    SELECT string_agg(quote_ident(needed), ', ') INTO missing
    FROM unnest(ARRAY['user', 'bag', 'link', 'bill', 'bill_bag', 'scan']) AS needed
    WHERE to_regclass(format('%I.%I', s, needed)) IS NULL;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'schema "%" lacks tables of the bag-tracking application: %', s, missing
            USING ERRCODE = 'undefined_table',
                  HINT = 'Name the schema that has them: bag_tracking_attach(schema_name => ...).';
    END IF;

    queries := ARRAY[
        'statistics_cache', format($q$
            SELECT 1 AS id,
                (SELECT count(*) FROM %1$I.bag) AS total_bags,
                (SELECT count(*) FROM %1$I.bag WHERE type = 'parent') AS parent_bags,
                (SELECT count(*) FROM %1$I.bag WHERE type = 'child') AS child_bags,
                (SELECT count(*) FROM %1$I.bag b WHERE type = 'child'
                    AND NOT EXISTS (SELECT FROM %1$I.link l WHERE l.child_bag_id = b.id)) AS unlinked_children,
                (SELECT count(*) FROM %1$I.scan) AS total_scans,
                (SELECT count(*) FROM %1$I.bill) AS total_bills,
                (SELECT count(*) FROM %1$I."user") AS total_users,
                @extschema@.statistics_last_change()::timestamp AS last_updated $q$, s),
        'bill_statistics', format($q$
            SELECT status, count(*) AS bills, sum(total_weight_kg) AS total_weight_kg,
                min(total_weight_kg) AS min_weight_kg, max(total_weight_kg) AS max_weight_kg
            FROM %1$I.bill GROUP BY status $q$, s),
        'bag_statistics', format($q$
            SELECT dispatch_area, type, count(*) AS bags
            FROM %1$I.bag GROUP BY dispatch_area, type $q$, s),
        'scan_statistics', format($q$
            SELECT user_id, count(*) AS scans,
                count(DISTINCT coalesce(child_bag_id, parent_bag_id)) AS bags,
                max("timestamp") AS last_scan
            FROM %1$I.scan GROUP BY user_id $q$, s)];

    FOR i IN 1 .. array_length(queries, 1) BY 2 LOOP
        target := format('%I.%I', s, queries[i]);
        IF EXISTS (SELECT FROM @extschema@.statistics_status st WHERE st.relation = to_regclass(target)) THEN
            CONTINUE;    -- attached before
        END IF;
        IF to_regclass(target) IS NOT NULL THEN
            IF NOT replace OR queries[i] <> 'statistics_cache' THEN
                RAISE EXCEPTION 'relation "%" already exists', queries[i]
                    USING ERRCODE = 'duplicate_table',
                          HINT = CASE WHEN queries[i] = 'statistics_cache'
                              THEN 'bag_tracking_attach(replace => true) renames the old table to "statistics_cache_before".'
                              ELSE 'Rename it, or attach in a schema where the name is free.' END;
            END IF;
            EXECUTE format('ALTER TABLE %s RENAME TO statistics_cache_before', target);
        END IF;
        PERFORM @extschema@.statistics_create(target, queries[i + 1], bag_tracking_attach."concurrently");
        IF queries[i] <> 'statistics_cache' THEN
            CONTINUE;
        END IF;

        EXECUTE format('CREATE TRIGGER ignore_write INSTEAD OF INSERT OR UPDATE OR DELETE ON %s '
            'FOR EACH ROW EXECUTE FUNCTION @extschema@.bag_tracking_ignore_write()', target);
        watches := ARRAY[
            @extschema@.cache_watch(format('%I.bag', s)::regclass,
                tags => ARRAY['bags', 'bag:{id}', 'dashboard']),
            @extschema@.cache_watch(format('%I.link', s)::regclass,
                tags => ARRAY['bags', 'bag:{parent_bag_id}', 'bag:{child_bag_id}', 'dashboard']),
            @extschema@.cache_watch(format('%I.bill', s)::regclass,
                tags => ARRAY['bills', 'bill:{id}', 'dashboard']),
            @extschema@.cache_watch(format('%I.bill_bag', s)::regclass,
                tags => ARRAY['bills', 'bill:{bill_id}', 'bag:{bag_id}']),
            @extschema@.cache_watch(format('%I.scan', s)::regclass,
                tags => ARRAY['scans', 'user:{user_id}', 'dashboard']),
            @extschema@.cache_watch(format('%I.%I', s, 'user')::regclass,
                tags => ARRAY['user:{id}', 'dashboard'])];
        -- detach reads the numbers from here; a dump carries them
        EXECUTE format('COMMENT ON VIEW %s IS %L', target,
            'the dashboard''s counters, kept by cache_ext; watches ' || array_to_string(watches, ' '));
    END LOOP;

    target := format('%I.recent_scans', s);
    IF to_regclass(target) IS NOT NULL AND obj_description(to_regclass(target), 'pg_class') IS DISTINCT FROM newest THEN
        RAISE EXCEPTION 'relation "%" already exists', target
            USING ERRCODE = 'duplicate_table', HINT = 'Rename it: the application''s newest scans are to have this name.';
    END IF;
    IF to_regclass(target) IS NULL THEN
        EXECUTE format($q$
            CREATE VIEW %1$I.recent_scans AS
            SELECT n.id AS scan_id, n."timestamp", n.user_id, u.username,
                b.id AS bag_id, b.qr_id, b.type AS bag_type
            FROM (SELECT id, "timestamp", user_id, parent_bag_id, child_bag_id
                  FROM %1$I.scan WHERE "timestamp" IS NOT NULL
                  ORDER BY "timestamp" DESC, id DESC LIMIT 50) n
            LEFT JOIN %1$I."user" u ON u.id = n.user_id
            LEFT JOIN %1$I.bag b ON b.id = coalesce(n.child_bag_id, n.parent_bag_id)
            ORDER BY n."timestamp" DESC, n.id DESC $q$, s);
        EXECUTE format('COMMENT ON VIEW %s IS %L', target, newest);   -- by which detach knows it
    END IF;

    PERFORM set_config('search_path', callers_path, true);
    FOREACH target IN ARRAY ARRAY['statistics_cache', 'bill_statistics', 'bag_statistics',
                                    'scan_statistics', 'recent_scans'] LOOP
        RETURN NEXT pg_catalog.to_regclass(pg_catalog.format('%I.%I', s, target));
    END LOOP;
END
$attach$;
COMMENT ON FUNCTION bag_tracking_attach(name, boolean, boolean) IS
    'creates the statistics, the view and the watches of the bag-tracking application in a schema';

CREATE FUNCTION bag_tracking_detach(schema_name name DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql
AS $detach$
DECLARE
    s constant pg_catalog.name := coalesce(schema_name, pg_catalog.current_schema());
    callers_path constant pg_catalog.text := pg_catalog.current_setting('search_path');
    watched pg_catalog.text[] := ARRAY['bag', 'link', 'bill', 'bill_bag', 'scan', 'user'];
    watches pg_catalog.text[];
    target pg_catalog.text;
    i pg_catalog.int4;
    is_ours pg_catalog.bool;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    is_ours := EXISTS (SELECT FROM @extschema@.statistics_status st
                       WHERE st.relation = to_regclass(format('%I.statistics_cache', s)));
    watches := string_to_array(substring(
        obj_description(to_regclass(format('%I.statistics_cache', s)), 'pg_class')
        from 'watches ([0-9 ]+)$'), ' ');
    FOR i IN 1 .. coalesce(array_length(watches, 1), 0) LOOP
        IF to_regclass(format('%I.%I', s, watched[i])) IS NOT NULL THEN
            PERFORM @extschema@.cache_unwatch(format('%I.%I', s, watched[i])::regclass, watches[i]::integer);
        END IF;
    END LOOP;
    FOREACH target IN ARRAY ARRAY['statistics_cache', 'bill_statistics', 'bag_statistics', 'scan_statistics'] LOOP
        target := format('%I.%I', s, target);
        IF EXISTS (SELECT FROM @extschema@.statistics_status st WHERE st.relation = to_regclass(target)) THEN
            PERFORM @extschema@.statistics_drop(target::regclass);
        END IF;
    END LOOP;
    target := format('%I.recent_scans', s);
    IF obj_description(to_regclass(target), 'pg_class') = 'the newest 50 scans, read from the table through its index' THEN
        EXECUTE format('DROP VIEW %s', target);
    END IF;
    IF is_ours AND to_regclass(format('%I.statistics_cache_before', s)) IS NOT NULL
       AND to_regclass(format('%I.statistics_cache', s)) IS NULL THEN
        EXECUTE format('ALTER TABLE %I.statistics_cache_before RENAME TO statistics_cache', s);
    END IF;
    PERFORM set_config('search_path', callers_path, true);
END
$detach$;
COMMENT ON FUNCTION bag_tracking_detach(name) IS
    'takes away what bag_tracking_attach created, and gives an old statistics_cache its name back';

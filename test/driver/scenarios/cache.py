"""The cache: never stale by race, transactional, and only for whom an answer is right."""

import contextlib
import json
import os
import random
import signal
import threading
import time

from harness import Failure, Redis, RedisGone, Servers, expect, is_waiting, judged, wait_for, work

# The table's value, as the query behind a key; the second form waits in its middle, after its
# snapshot has been taken, until nobody holds advisory lock 1 exclusively.
QUERY = "SELECT v FROM t"
WAITING = "SELECT v FROM t, (SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)) AS w"


class Cache(Servers):
    """Servers with a one-row table, whose Redis is not replaced by memory: memory.py has the tests of that tier."""

    def __init__(self, name, **settings):
        super().__init__(name, Redis(work(name + "_redis")).start(), **{"cache_ext__memory_size": "0", **settings})

    def create(self, dbname):
        super().create(dbname)
        with self.postgres.session(dbname) as db:
            db.run("CREATE TABLE t (v integer); INSERT INTO t VALUES (1)")


def text(*values):
    return json.dumps([{"v": value} for value in values], separators=(",", ":"))


def get(db, key="k", query=QUERY, **arguments):
    extra = "".join(f", {name} => {value}" for name, value in arguments.items())
    if query is None:
        return db.value(f"SELECT cache_get(%s{extra})", (key,))
    return db.value(f"SELECT cache_get(%s, %s{extra})", (key, query))


def change(db, value, *invalidations):
    """Change the table and invalidate, in one transaction; it has committed when this returns."""
    calls = "; ".join(f"SELECT {call}" for call in invalidations or ["cache_invalidate('k')"])
    db.run(f"BEGIN; UPDATE t SET v = {value}; {calls}; COMMIT")


def warm(db, key="k", **arguments):
    get(db, key, **arguments)
    expect(get(db, key, None) is not None, f"{key} was not cached")


@contextlib.contextmanager
def silenced(cache, db):
    """The worker stands still, so that Redis is not told."""
    db.run("SELECT cache_invalidate('something')")
    workers = wait_for("a worker runs", lambda: cache.postgres.worker_pids("shop"))
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


# ---------------------------------------------------------------------------
# Never stale by race
# ---------------------------------------------------------------------------

def overtaken_fill(cache, dialect):
    """A fill whose query began before an invalidation and ends after its delivery."""
    reader, writer, holder = cache.session(), cache.session(), cache.session()
    holder.run("SELECT pg_advisory_lock(1)")
    reader.start("SELECT cache_get('k', %s, ttl => '1 hour', dialect => %s)", (WAITING, dialect))
    wait_for("the fill's query waits", lambda: is_waiting(cache.postgres, reader))
    change(writer, 2)
    cache.delivered(writer)
    holder.run("SELECT pg_advisory_unlock(1)")
    expect(reader.finish()[0][0] == text(1), "the query did not see its own snapshot")
    return writer


def a_fill_that_an_invalidation_overtakes_is_void(options):
    with Cache("overtaken") as cache:
        db = overtaken_fill(cache, None)
        expect(cache.redis.ask("EXISTS", "k") == 1, "the late store did not happen: nothing is tested")
        expect(get(db, "k", None) is None, "a value from before the invalidation was believed")
        expect(get(db) == text(2), "an old value was given")


def a_bare_fill_that_an_invalidation_overtakes_is_refused(options):
    with Cache("overtaken_bare") as cache:
        db = overtaken_fill(cache, "plain")
        expect(cache.redis.ask("EXISTS", "k") == 0, "an old bare value lies in Redis")
        expect(get(db, dialect="'plain'") == text(2), "an old value was given")
        expect(cache.redis.ask("GET", "k") == text(2).encode(), "a bare value was not stored")


def a_returned_commit_is_seen_while_redis_has_not_been_told(options):
    with Cache("untold") as cache:
        reader, writer = cache.session(), cache.session()
        keys = {"k": "cache_invalidate('k')", "shop:k": "cache_invalidate_pattern('shop:*')",
                "tagged": "cache_invalidate_tags('red')", "set": "cache_set('set', 'new')",
                "deleted": "cache_delete('deleted')"}
        for key in keys:
            warm(reader, key, tags="'{red}'" if key == "tagged" else "'{}'")
        with silenced(cache, writer):
            change(writer, 2, *keys.values())
            for key in keys:
                found = get(reader, key)
                expect(found == text(2), f"{key}: {found} after the commit had returned")
            expect(cache.redis.ask("EXISTS", "k") == 1, "Redis was told: nothing is tested")
        cache.delivered(writer)
        expect(get(reader) == text(2), "an old value after the delivery")
        expect(wait_for("the value that was set", lambda: get(reader, "set", None)) in ("new", text(2)),
               "the key that was set has another value")


def where_redis_is_known_to_have_been_told_nobody_looks(options):
    def scans(db):
        db.run("SELECT pg_stat_force_next_flush()")
        return db.value("SELECT seq_scan FROM pg_stat_all_tables WHERE relid = 'cache_ext_internal.outbox'::regclass")

    with Cache("known") as cache:
        reader, writer = cache.session(), cache.session()
        warm(reader)
        with silenced(cache, writer):
            change(writer, 1, "cache_invalidate('another')")     # a row to be found by whoever looks
            get(reader, "k", None)
            before = scans(reader)
            for _ in range(50):
                expect(get(reader, "k", None) == text(1), "no hit in Redis")
            expect(scans(reader) == before, f"{scans(reader) - before} looks at the outbox in 50 hits")
            get(reader, "another")
            expect(scans(reader) > before, "looks are not seen: nothing is tested")


def a_commit_that_is_still_to_come_is_not_taken_for_told(options):
    """While somebody may commit at any time, that nothing is pending says nothing; also after a restart."""
    for crash in (False, True):
        with Cache(f"to_come_{crash}") as cache:
            reader, writer, other = cache.session(), cache.session(), cache.session()
            warm(reader)
            writer.run("BEGIN; UPDATE t SET v = 2; SELECT cache_invalidate('k'); PREPARE TRANSACTION 'p'")
            if crash:
                cache.postgres.crash()
                cache.postgres.start()
                reader, other = cache.session(), cache.session()
            with silenced(cache, other):
                for _ in range(3):
                    expect(get(reader, "k", None) == text(1), "what is there until the commit is no hit")
                other.run("COMMIT PREPARED 'p'")
                expect(get(reader) == text(2), "an old value after COMMIT PREPARED had returned")
                expect(cache.redis.ask("EXISTS", "k") == 1, "Redis was told: nothing is tested")


def generation_of(database, kind, name):
    """Which counter of shared memory stands for a name in a database, as fence.cpp has it."""
    number = 0xcbf29ce484222325
    for byte in f"{kind}:{name}".encode():
        number = (number ^ byte) * 0x100000001b3 % 2**64
    mixed = database
    for shift, factor in ((16, 0x85ebca6b), (13, 0xc2b2ae35), (16, 1)):
        mixed = (mixed ^ mixed >> shift) * factor % 2**32
    return ((number ^ number >> 32) % 65536 + mixed) % 65536


def what_another_database_knows_says_nothing(options):
    """Databases share the counters: here all of an entry's are some of another database's as well."""
    with Cache("strangers") as cache:
        cache.create("other")
        reader, writer = cache.session(), cache.session()
        shop, other = (reader.value("SELECT oid FROM pg_database WHERE datname = %s", (name,)) for name in ("shop", "other"))
        wanted = {generation_of(shop, "k", "k"), generation_of(shop, "a", "")}
        same = [key for key in map(str, range(600000)) if generation_of(other, "k", key) in wanted]
        expect(wanted <= {generation_of(other, "k", key) for key in same}, "no such keys: nothing is tested")
        warm(reader)
        with silenced(cache, writer):
            change(writer, 2)
            with cache.postgres.session("other") as stranger:
                for key in same:
                    get(stranger, key)
            expect(get(reader) == text(2), "an old value after the commit had returned")
            expect(cache.redis.ask("EXISTS", "k") == 1, "Redis was told: nothing is tested")


def a_returned_commit_prepared_is_seen_at_once(options):
    with Cache("prepared") as cache:
        reader, writer, other = cache.session(), cache.session(), cache.session()
        warm(reader)
        writer.run("BEGIN; UPDATE t SET v = 2; SELECT cache_invalidate('k'); PREPARE TRANSACTION 'p'")
        expect(get(reader) == text(1), "what is not committed was seen")
        other.run("COMMIT PREPARED 'p'")
        for _ in range(20):
            expect(get(reader) == text(2), "an old value after COMMIT PREPARED")
        cache.delivered(other)
        warm(reader)
        writer.run("BEGIN; UPDATE t SET v = 3; SELECT cache_invalidate('k'); PREPARE TRANSACTION 'p'")
        other.run("ROLLBACK PREPARED 'p'")
        cache.delivered(other)
        expect(get(reader, "k", None) == text(2), "a rolled-back invalidation was delivered")


def a_long_statement_sees_what_was_committed_meanwhile(options):
    with Cache("long") as cache:
        reader, writer, holder = cache.session(), cache.session(), cache.session()
        warm(reader)
        holder.run("SELECT pg_advisory_lock(1)")
        reader.start("SELECT CASE WHEN i = 2 THEN pg_advisory_lock_shared(1) END, cache_get('k', %s)"
                     " FROM generate_series(1, 2) AS i", (QUERY,))
        wait_for("the statement waits", lambda: is_waiting(cache.postgres, reader))
        change(writer, 2)
        holder.run("SELECT pg_advisory_unlock(1)")
        rows = [row[1] for row in reader.finish()]
        expect(rows == [text(1), text(2)], f"the statement saw {rows}")
        expect(get(writer) == text(2), "a value from an old snapshot was stored")


def a_redis_restarted_with_older_data_is_not_believed(options):
    with Cache("older") as cache:
        db = cache.session()
        warm(db)
        cache.redis.ask("SET", "bare", "old")
        expect(get(db, "bare", None) == "old", "a bare value is not read")
        cache.redis.ask("SAVE")
        change(db, 2, "cache_invalidate('k', 'bare')")
        cache.delivered(db)
        expect(cache.redis.ask("EXISTS", "k", "bare") == 0, "the keys were not removed")
        # The worker stands still, so that what comes back is still there when we look.
        workers = cache.postgres.worker_pids("shop")
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            cache.redis.kill()
            cache.redis.start()
            expect(cache.redis.ask("EXISTS", "k", "bare") == 2, "nothing came back: nothing is tested")
            for _ in range(30):
                expect(get(db) == text(2), "an own value from before the restart was believed")
                expect(get(db, "bare", None) is None, "a bare value from before the restart was believed")
                time.sleep(0.02)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        wait_for("what came back is removed again", lambda: cache.redis.ask("EXISTS", "bare") == 0)
        wait_for("Redis is used again", lambda: get(db) and get(db, "k", None) == text(2))


def a_session_elsewhere_believes_and_stores_nothing(options):
    with Cache("elsewhere") as cache:
        db, stray = cache.session(), cache.session()
        other = Redis(work("elsewhere_other")).start()
        try:
            change(db, 1)
            cache.delivered(db)
            for setting, value, redis, prefix in (
                    ("redis_url", other.url, other, ""), ("redis_url", cache.redis.url + "?db=3", cache.redis, ""),
                    ("key_prefix", "p:", cache.redis, "p:")):
                before = db.value("SELECT v FROM t")
                stray.run(f"SET cache_ext.{setting} = '{value}'")
                expect(get(stray) == text(before), "the query does not answer")
                expect(get(stray, dialect="'plain'") == text(before), "the query does not answer")
                expect(redis.ask("EXISTS", prefix + "k") == 0 or redis is cache.redis and prefix == "",
                       f"stored with another {setting}")
                change(db, before + 1)
                cache.delivered(db)
                expect(get(stray) == text(before + 1), f"an old value with another {setting}")
                stray.run(f"RESET cache_ext.{setting}")
                warm(stray)
        finally:
            other.stop()


def an_address_used_again_is_not_believed(options):
    with Cache("again") as cache:
        db = cache.session()
        other = Redis(work("again_other")).start()

        def use(redis):
            redis.ask("UNLINK", "probe")    # sessions that had not yet heard of the other one left it
            cache.postgres.set(cache_ext__redis_url=f"'{redis.url}'")

            def used():
                db.run("SELECT cache_invalidate('something')")
                get(db, "probe")
                return redis.ask("EXISTS", "probe")

            wait_for("the other Redis is used", used)
            cache.delivered(db)
            redis.ask("UNLINK", "probe")

        try:
            change(db, 1)
            cache.delivered(db)
            warm(db)
            old = {key: cache.redis.ask("GET", key) for key in cache.redis.ask("KEYS", "*")}
            epoch = db.value("SELECT epoch FROM invalidation_status")
            use(other)
            change(db, 2)
            cache.delivered(db)
            use(cache.redis)
            # Exactly as it was left, as if nothing had been repeated.
            for key, value in old.items():
                cache.redis.ask("SET", key, value)
            expect(get(db, "k", None) is None, "an entry from before the change was believed")
            expect(get(db) == text(2), "an old value was given")
            expect(db.value("SELECT epoch FROM invalidation_status") >= epoch + 2, "no new epochs")
        finally:
            other.stop()


def a_value_never_outlives_a_commit_that_a_crash_undid(options):
    with Cache("undone", synchronous_commit="off", wal_writer_delay="'10s'") as cache:
        db, writer = cache.session(), cache.session()
        cache.postgres.expect("terminated by signal")
        db.run("CHECKPOINT")
        get(db)
        # With its writer stopped the log reaches the disk only when somebody needs it to.
        for pid in cache.postgres.pids("backend_type = 'walwriter'"):
            os.kill(pid, signal.SIGSTOP)
        writer.run("UPDATE t SET v = 2")
        expect(get(db, "fresh") == text(2), "the query does not see the commit")
        expect(cache.redis.ask("EXISTS", "fresh") == 1, "nothing was stored: nothing is tested")
        cache.postgres.crash()
        cache.postgres.start()
        db = cache.session()
        cached, true = get(db, "fresh", None), db.value("SELECT v FROM t")
        expect(cached in (None, text(true)), f"the cache says {cached}, the table {true}")


def forged_or_foreign_entries_are_misses(options):
    with Cache("forged") as cache:
        db = cache.session()
        warm(db, tags="'{red}'")
        good = cache.redis.ask("GET", "k")
        expect(good.startswith(b"\xffCXE\x01"), "this is not an envelope")
        fields = {"format": 4, "flags": 5, "namespace": 6, "incarnation": 22, "versions": 38,
                  "audience": 54, "length of the key": 89, "key": 90, "tag": 95,
                  "length of the payload": 99}
        for name, at in fields.items():
            bad = good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1:]
            cache.redis.ask("SET", "k", bad)
            expect(get(db, "k", None) is None, f"an entry with another {name} was believed")
        for bad in (good[:-1], good[:60], good + b"x", good[:5]):
            cache.redis.ask("SET", "k", bad)
            expect(get(db, "k", None) is None, "a damaged entry was believed")
        cache.redis.ask("SET", "other", good)
        expect(get(db, "other", None) is None, "an entry was believed under another key")
        cache.redis.ask("SET", "k", good)
        expect(get(db, "k", None) == text(1), "the good entry is not believed: nothing is tested")
        # A lost version is no version.
        for key in cache.redis.ask("KEYS", "v:*"):
            version = cache.redis.ask("GET", key)
            cache.redis.ask("UNLINK", key)
            used = get(db, "k", None) is None
            cache.redis.ask("SET", key, version)
            expect(get(db, "k", None) == text(1), "the version is not as it was")
            expect(used or key.decode() != "v:13637", "the entry does not depend on everything")


# ---------------------------------------------------------------------------
# Transactions
# ---------------------------------------------------------------------------

def a_writer_sees_its_own_and_shares_nothing(options):
    with Cache("writer") as cache:
        db, other = cache.session(), cache.session()
        warm(db)
        before = cache.redis.ask("GET", "k")
        db.run("BEGIN; UPDATE t SET v = 2")
        expect(get(db) == text(2), "an own write was not seen")
        expect(get(db, "unseen") == text(2), "an own write was not seen")
        expect(cache.redis.ask("GET", "k") == before, "an uncommitted value was stored")
        expect(cache.redis.ask("EXISTS", "unseen") == 0, "an uncommitted value was stored")
        expect(get(other) == text(1), "an uncommitted value was seen by others")
        db.run("ROLLBACK")
        expect(get(db) == text(1), "a rolled-back value was seen")

        db.run("BEGIN; SELECT cache_set('s', 'mine')")
        expect(get(db, "s", None) == "mine", "an own cache_set was not seen")
        db.run("SAVEPOINT a; SELECT cache_set('s', 'later')")
        expect(get(db, "s") == "later", "an own cache_set was not seen")
        db.run("ROLLBACK TO a")
        expect(get(db, "s") == "mine", "a rolled-back cache_set was seen")
        db.run("SELECT cache_delete('s')")
        expect(get(db, "s", None) is None, "an own cache_delete was not seen")
        expect(get(db, "s") == text(1), "the query did not answer for a deleted key")
        expect(cache.redis.ask("EXISTS", "s") == 0, "something was sent before the commit")
        db.run("ROLLBACK")
        cache.delivered(db)
        expect(cache.redis.ask("EXISTS", "s") == 0, "something was sent for a rollback")


def a_repeatable_read_transaction_keeps_its_snapshot(options):
    with Cache("repeatable") as cache:
        for level in ("REPEATABLE READ", "SERIALIZABLE"):
            reader, writer = cache.session(), cache.session()
            value = writer.value("SELECT v FROM t")
            reader.run(f"BEGIN ISOLATION LEVEL {level}")
            expect(reader.value("SELECT v FROM t") == value, "no snapshot")
            change(writer, value + 1)
            cache.delivered(writer)
            get(writer)
            expect(get(writer, "k", None) == text(value + 1), "the new value is not cached")
            expect(get(reader) == text(value), "newer than the snapshot")
            stored = cache.redis.ask("GET", "k")
            get(reader, "old")
            expect(cache.redis.ask("GET", "k") == stored and cache.redis.ask("EXISTS", "old") == 0,
                   "a value from an old snapshot was stored")
            reader.run("COMMIT")
            expect(get(reader) == text(value + 1), "the new value is not seen afterwards")


def a_set_takes_effect_at_commit_and_only_then(options):
    with Cache("set") as cache:
        db, other = cache.session(), cache.session()
        warm(other)
        db.run("BEGIN; SELECT cache_set('k', 'set', ttl => '100 s', tags => '{red}')")
        expect(get(other, "k", None) == text(1), "seen before the commit")
        db.run("COMMIT")
        expect(get(other, "k", None) in (None, "set"), "the old value after the commit")
        expect(wait_for("the new value", lambda: get(other, "k", None)) == "set", "another value")
        ttl = cache.redis.ask("PTTL", "k")
        expect(85000 < ttl <= 100000, f"it lives for {ttl} ms")
        expect(get(other) == "set", "a query replaced what was set")
        db.run("SELECT cache_invalidate_tags('red')")
        expect(get(other, "k", None) is None, "its tag did not remove it")
        db.run("SELECT cache_set('bare', '{\"a\": 1}', dialect => 'plain')")
        expect(wait_for("a bare value", lambda: cache.redis.ask("GET", "bare")) == b'{"a": 1}',
               "a bare value is not bare")
        expect(wait_for("its delivery is confirmed, and it is read", lambda: get(other, "bare", None)) == '{"a": 1}',
               "another value")
        db.run("SELECT cache_delete('bare')")
        expect(get(other, "bare", None) is None, "a deleted value was given")


def a_standby_reads_what_holds_and_stores_nothing(options):
    with Cache("primary") as cache:
        db = cache.session()
        warm(db)
        with judged(cache.postgres.copy(work("standby"))) as standby, standby.session("shop") as reader:
            expect(reader.value("SELECT pg_is_in_recovery()"), "this is no standby: nothing is tested")
            expect(get(reader, "k", None) == text(1), "the primary's entry is not believed")
            expect(get(reader, "new") == text(1), "the query does not answer")
            expect(cache.redis.ask("EXISTS", "new") == 0, "a standby stored something")
            cache.redis.ask("SET", "bare", "value")
            expect(get(reader, "bare", None) in (None, "value"), "wrong")
            change(db, 2)
            cache.delivered(db)
            expect(get(reader, "k", None) is None, "a void entry was believed")
            wait_for("the standby has replayed", lambda: get(reader) == text(2))
            # What Redis has not been told yet the standby knows by what it has replayed.
            warm(db)
            db.run("SELECT cache_invalidate('something')")
            workers = wait_for("a worker runs", lambda: cache.postgres.worker_pids("shop"))
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
            try:
                change(db, 3)
                wait_for("the standby has replayed", lambda: reader.value("SELECT v FROM t") == 3)
                expect(cache.redis.ask("EXISTS", "k") == 1, "Redis was told: nothing is tested")
                expect(get(reader, "k", None) is None, "older than the standby itself")
                expect(get(reader) == text(3), "older than the standby itself")
            finally:
                for pid in workers:
                    os.kill(pid, signal.SIGCONT)
            cache.delivered(db)
            for write in ("cache_set('k', 'x')", "cache_delete('k')", "cache_invalidate('k')",
                          "cache_invalidate_tags('k')", "cache_invalidate_pattern('k*')",
                          "cache_publish('k', 'x')"):
                reader.fails("25006", f"SELECT {write}")


def a_parallel_plan_gets_answers_and_shares_nothing(options):
    """Snapshots cannot be taken in a parallel query; cache_get says so, and a wrong declaration is no crash."""
    with Cache("parallel") as cache:
        db = cache.session()
        db.run("CREATE TABLE large AS SELECT generate_series(1, 20000) AS i; ANALYZE large;"
               "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
        calls = "SELECT DISTINCT cache_get('p' || i % 3, 'SELECT v FROM t') FROM large WHERE i % 100 = 0"
        plan = "\n".join(row[0] for row in db.rows("EXPLAIN " + calls))
        expect("Gather" not in plan, "cache_get went into a parallel plan:\n" + plan)
        expect(db.rows(calls) == [(text(1),)], "wrong")
        cache.redis.ask("FLUSHALL")
        db.run("ALTER FUNCTION cache_get PARALLEL SAFE")
        plan = "\n".join(row[0] for row in db.rows("EXPLAIN " + calls))
        expect("Gather" in plan, "the plan is not parallel: nothing is tested")
        expect(db.rows(calls) == [(text(1),)], "wrong in a parallel plan")
        expect(cache.redis.ask("EXISTS", "p0", "p1", "p2") == 0, "a parallel query stored something")


# ---------------------------------------------------------------------------
# Whose answer
# ---------------------------------------------------------------------------

def an_entry_is_for_its_role_and_settings_only(options):
    with Cache("audience") as cache:
        admin = cache.session()
        admin.run("""
            CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN;
            GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO ann, bob;
            GRANT SELECT ON t TO ann, bob;
            CREATE TABLE private (owner name, tenant text, v integer);
            INSERT INTO private VALUES ('ann', 'x', 10), ('bob', 'y', 20);
            GRANT SELECT ON private TO ann, bob;
            CREATE FUNCTION tenant() RETURNS text STABLE LANGUAGE sql
                AS $$SELECT current_setting('app.tenant', true)$$;
            CREATE TABLE secured (owner name, v integer);
            INSERT INTO secured VALUES ('ann', 10), ('bob', 20);
            GRANT SELECT ON secured TO ann, bob;
            ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own ON secured USING (owner = current_user)""")
        ann, bob = cache.session(user="ann"), cache.session(user="bob")

        own = "SELECT v FROM private WHERE owner = current_user"
        expect(get(ann, "own", own) == text(10), "wrong")
        expect(get(ann, "own", None) == text(10), "the own entry is not believed: nothing is tested")
        expect(get(bob, "own", None) is None, "another role's entry was given")
        expect(get(bob, "own", own) == text(20), "another role's entry was given")

        for query in ("SELECT v FROM private WHERE tenant = current_setting('app.tenant', true)",
                      "SELECT v FROM private WHERE tenant = tenant()"):
            ann.run("SET app.tenant = 'x'")
            expect(get(ann, "tenant", query) == text(10), "wrong")
            expect(get(ann, "tenant", None) == text(10), "the own entry is not believed")
            ann.run("SET app.tenant = 'y'")
            expect(get(ann, "tenant", None) is None, "another tenant's entry was given")
            expect(get(ann, "tenant", query) == text(20), "another tenant's entry was given")

        secured = "SELECT v FROM secured"
        expect(get(ann, "secured", secured) == text(10), "row security was passed over")
        expect(cache.redis.ask("EXISTS", "secured") == 0, "a result under row security was stored")
        expect(get(bob, "secured", secured) == text(20), "row security was passed over")

        ann.run("CREATE TEMPORARY TABLE mine AS SELECT 5 AS v")
        expect(get(ann, "temporary", "SELECT v FROM mine") == text(5), "wrong")
        expect(cache.redis.ask("EXISTS", "temporary") == 0, "a temporary table's rows were stored")

        ann.run("PREPARE mine AS SELECT 'secret'; SET work_mem = '77MB'")
        for query in ("SELECT setting AS v FROM pg_settings WHERE name = 'work_mem'", "SELECT name AS v FROM pg_prepared_statements",
                      "SELECT name AS v FROM pg_cursors", "SELECT pg_listening_channels() AS v", "SELECT pg_client_encoding() AS v"):
            get(ann, "of the session", query)
            expect(cache.redis.ask("EXISTS", "of the session") == 0, f"stored for other sessions: {query}")
        ann.fails("0A000", "SELECT cache_get('sample', 'SELECT v FROM private TABLESAMPLE bernoulli (50)')")

        when = "SELECT '2026-01-01 00:00+00'::timestamptz AS v"
        bob.run("SET TimeZone = 'UTC'")
        utc = get(bob, "when", when)
        bob.run("SET TimeZone = 'Asia/Tokyo'")
        expect(get(bob, "when", when) != utc, "the entry of another time zone was given")
        for setting in ("lc_monetary = 'POSIX'", "lc_numeric = 'POSIX'", "lc_time = 'POSIX'", "search_path = public, pg_catalog",
                        "DateStyle = German", "IntervalStyle = iso_8601", "extra_float_digits = 0", "bytea_output = escape",
                        "xmlbinary = hex", "xmloption = document", "array_nulls = off", "transform_null_equals = on",
                        "standard_conforming_strings = off", "default_text_search_config = 'pg_catalog.german'",
                        "row_security = off"):
            expect(get(bob, "when", None) is not None, "the own entry is not believed: nothing is tested")
            bob.run(f"SET {setting}")
            expect(get(bob, "when", None) is None, f"an entry was given to a session with {setting}")
            bob.run(f"RESET {setting.split()[0]}")


def large_values_are_returned_and_not_stored(options):
    with Cache("large", cache_ext__max_value_size="'100kB'") as cache:
        db = cache.session()
        for size, stored in ((90000, 1), (110000, 0), (3000000, 0)):
            value = get(db, f"s{size}", f"SELECT repeat('x', {size}) AS v")
            expect(len(value) == size + len('[{"v":""}]'), "the value is not whole")
            expect(cache.redis.ask("EXISTS", f"s{size}") == stored, f"wrong for {size} bytes")
        db.run("SET cache_ext.max_value_size = '8MB'")
        for _ in range(2):
            value = get(db, "big", "SELECT repeat('y', 5000000) AS v")
            expect(value == '[{"v":"' + "y" * 5000000 + '"}]', "a large value was damaged")
        expect(get(db, "big", None) == value, "a large value was not stored")
        db.run("RESET cache_ext.max_value_size; SELECT cache_set('big', repeat('z', 200000))")
        expect(get(db, "big", None) is None, "a set of something too large left the old value")


def awkward_keys_are_exactly_those_keys(options):
    with Cache("awkward", cache_ext__key_prefix="'p:'") as cache:
        db = cache.session()
        keys = ["a b", "a\r\nDEL b", "*", "a*b[c]?", "ü€𝄞", "%s%n", "'; --", "x" * 5000, ":", "a:b:c", "\t"]
        for number, key in enumerate(keys):
            expect(get(db, key, f"SELECT {number} AS v") == text(number), f"wrong for {key!r}")
            expect(cache.redis.ask("EXISTS", "p:" + key) == 1, f"{key!r} is not stored under its name")
        for number, key in enumerate(keys):
            expect(get(db, key, None) == text(number), f"wrong for {key!r}")
        db.run("SELECT cache_delete(VARIADIC %s)", (keys,))
        cache.delivered(db)
        for key in keys:
            expect(cache.redis.ask("EXISTS", "p:" + key) == 0, f"{key!r} was not deleted")


def entries_live_for_their_ttl_less_some_jitter(options):
    with Cache("ttl", cache_ext__default_ttl="50") as cache:
        db = cache.session()
        lives = []
        for number in range(40):
            get(db, f"k{number}")
            lives.append(cache.redis.ask("PTTL", f"k{number}"))
        expect(all(44000 < life <= 50000 for life in lives), f"lives of {lives}")
        expect(max(lives) - min(lives) > 1000, f"no jitter: {lives}")
        get(db, "short", ttl="'150 milliseconds'")
        wait_for("it ends", lambda: get(db, "short", None) is None)


# ---------------------------------------------------------------------------
# All at once
# ---------------------------------------------------------------------------

ROWS = 5


def no_reader_ever_gets_an_older_value_than_a_returned_commit(options):
    """Writers count up and invalidate; whoever reads must get at least what had been committed before it asked."""
    seconds = (options.seconds or 20) / 2
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    with Cache("storm") as cache:
        setup = cache.session()
        setup.run(f"CREATE TABLE c (id integer PRIMARY KEY, v integer);"
                  f"INSERT INTO c SELECT i, 0 FROM generate_series(1, {ROWS}) i")
        committed = [0] * (ROWS + 1)
        stop = threading.Event()
        failures, counts = [], {"reads": 0, "hits": 0, "writes": 0}
        lock = threading.Lock()

        def guarded(work_once, number):
            chance = random.Random(seed + number)
            db = cache.postgres.session("shop")
            try:
                while not stop.is_set():
                    work_once(db, chance)
            except Exception as error:  # reported by the main thread
                failures.append(error)
                stop.set()
            finally:
                db.close()

        def write(db, chance):
            row = chance.randint(1, ROWS)
            how = chance.choice([f"cache_invalidate('c:{row}')", f"cache_invalidate_tags('tag{row}')",
                                 "cache_invalidate_pattern('c:*')", f"cache_delete('c:{row}')"])
            keep = chance.random() < 0.7
            db.run("BEGIN")
            value = db.value("UPDATE c SET v = v + 1 WHERE id = %s RETURNING v", (row,))
            db.run(f"SELECT {how}")
            db.run("COMMIT" if keep else "ROLLBACK")
            if keep:
                with lock:
                    committed[row] = max(committed[row], value)
                    counts["writes"] += 1
            time.sleep(chance.random() * 0.05)

        def read(db, chance):
            row = chance.randint(1, ROWS)
            floor = committed[row]
            bare = chance.random() < 0.3
            if bare:
                found = get(db, f"c:{row}", None)
            else:
                found = get(db, f"c:{row}", f"SELECT v FROM c WHERE id = {row}", tags=f"'{{tag{row}}}'")
            with lock:
                counts["reads"] += 1
                counts["hits"] += bare and found is not None
            if found is not None and json.loads(found)[0]["v"] < floor:
                raise Failure(f"{found} although {floor} was committed before (bare: {bare})")

        threads = [threading.Thread(target=guarded, args=(write, n), daemon=True) for n in range(2)]
        threads += [threading.Thread(target=guarded, args=(read, 10 + n), daemon=True) for n in range(4)]
        for thread in threads:
            thread.start()
        chance = random.Random(seed)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stop.is_set():
            stop.wait(seconds / 8)
            disturbance = chance.randrange(4)
            try:
                if disturbance == 0:
                    cache.redis.ask("SAVE")
                elif disturbance == 1:
                    cache.redis.kill()
                    cache.redis.start()
                elif disturbance == 2:
                    cache.redis.ask("FLUSHALL")
                else:
                    for pid in cache.postgres.worker_pids("shop"):
                        setup.run("SELECT pg_terminate_backend(%s)", (pid,))
            except RedisGone:
                pass
        stop.set()
        for thread in threads:
            thread.join(30)
        if failures:
            raise Failure(f"{failures[0]!r} (repeat with --seed {seed})") from failures[0]
        print(f"        seed {seed}: {counts}")
        expect(counts["writes"] > seconds and counts["hits"] > seconds, f"too little happened: {counts}")


TESTS = [
    a_fill_that_an_invalidation_overtakes_is_void,
    a_bare_fill_that_an_invalidation_overtakes_is_refused,
    a_returned_commit_is_seen_while_redis_has_not_been_told,
    where_redis_is_known_to_have_been_told_nobody_looks,
    a_commit_that_is_still_to_come_is_not_taken_for_told,
    what_another_database_knows_says_nothing,
    a_returned_commit_prepared_is_seen_at_once,
    a_long_statement_sees_what_was_committed_meanwhile,
    a_redis_restarted_with_older_data_is_not_believed,
    a_session_elsewhere_believes_and_stores_nothing,
    an_address_used_again_is_not_believed,
    a_value_never_outlives_a_commit_that_a_crash_undid,
    forged_or_foreign_entries_are_misses,
    a_writer_sees_its_own_and_shares_nothing,
    a_repeatable_read_transaction_keeps_its_snapshot,
    a_set_takes_effect_at_commit_and_only_then,
    a_standby_reads_what_holds_and_stores_nothing,
    a_parallel_plan_gets_answers_and_shares_nothing,
    an_entry_is_for_its_role_and_settings_only,
    large_values_are_returned_and_not_stored,
    awkward_keys_are_exactly_those_keys,
    entries_live_for_their_ttl_less_some_jitter,
    no_reader_ever_gets_an_older_value_than_a_returned_commit,
]

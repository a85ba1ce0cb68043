"""The memory tier: hits without Redis or query, void with their commit, empty after a crash."""

import json
import time

import psycopg2
from harness import Redis, Servers, expect, is_waiting, wait_for, work

# The watched value and an unwatched one: a change of the latter shows whether the query has run.
QUERY = "SELECT v, n FROM t, unwatched"
WAITING = QUERY + ", (SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)) AS w"


class Tier(Servers):
    """Servers whose database has a watched one-row table t and an unwatched counter."""

    def __init__(self, name, redis=False, **settings):
        super().__init__(name, Redis(work(name + "_redis")).start() if redis else None, **settings)

    def create(self, dbname):
        super().create(dbname)
        with self.postgres.session(dbname) as db:
            db.run("CREATE TABLE t (v integer); INSERT INTO t VALUES (1);"
                   "CREATE TABLE unwatched (n integer); INSERT INTO unwatched VALUES (0);"
                   "SELECT cache_watch('t', keys => '{k}', tags => '{red}', patterns => '{shop:*}')")


def get(db, key="k", query=QUERY, **arguments):
    extra = "".join(f", {name} => {value}" for name, value in arguments.items())
    if query is None:
        return db.value(f"SELECT cache_get(%s{extra})", (key,))
    return db.value(f"SELECT cache_get(%s, %s{extra})", (key, query))


def v_of(answer):
    return None if answer is None else json.loads(answer)[0]["v"]


def is_hit(db, key="k", **arguments):
    """Does a read give what was cached before the unwatched counter moved?"""
    before = get(db, key, **arguments)
    db.run("UPDATE unwatched SET n = n + 1")
    return get(db, key, **arguments) == before


def expect_void(db, key="k", why=""):
    found = get(db, key, None)
    expect(found is None, f"{key}: {found} was believed {why}")


# ---------------------------------------------------------------------------
# What it is for
# ---------------------------------------------------------------------------

def a_hit_needs_neither_query_nor_redis(options):
    with Tier("plainly") as tier:
        db, other = tier.session(), tier.session()
        first = get(db)
        db.run("UPDATE unwatched SET n = 7")
        for session in (db, other):
            expect(get(session) == first and get(session, query=None) == first, "not a hit")
        expect(get(other, "empty", "SELECT 1 AS x WHERE false") == "[]", "no rows are no empty array")
        expect(get(other, "empty", None) == "[]", "that there is nothing was not cached")
        for key, change in (("k", "UPDATE t SET v = v + 1"), ("shop:1", "UPDATE t SET v = v + 1"),
                            ("by hand", "SELECT cache_invalidate('by hand')"),
                            ("deleted", "SELECT cache_delete('deleted')"),
                            ("cut", "TRUNCATE t; INSERT INTO t VALUES (1)")):
            tags = "ARRAY['red']" if key == "cut" else "'{}'"
            expect(is_hit(other, key, tags=tags), f"{key} is not cached")
            db.run(change)
            expect_void(other, key, f"after {change}")


def entries_live_no_longer_than_their_ttl(options):
    with Tier("ttl", redis=True) as tier:
        db = tier.session()
        get(db, "short", ttl="'300 ms'")
        expect(get(db, "short", None) is not None, "not cached at all")
        time.sleep(0.31)
        expect_void(db, "short", "after its time")
        # What comes from Redis lives in memory for as long as it would have there.
        get(db, "k", ttl="'10 s'")
        tier.postgres.restart()
        db = tier.session()
        tier.redis.ask("PEXPIRE", "k", "400")
        expect(get(db, "k", None) is not None, "Redis has it no more: nothing is tested")
        tier.redis.ask("DEL", "k")
        expect(get(db, "k", None) is not None, "a hit in Redis was not kept in memory")
        time.sleep(0.41)
        expect_void(db, "k", "after the time it had in Redis")


def what_redis_gave_is_void_with_its_commit_too(options):
    with Tier("promoted", redis=True) as tier:
        db = tier.session()
        for key, tags in (("k", "'{}'"), ("tagged", "'{red}'"), ("shop:1", "'{}'")):
            get(db, key, tags=tags)
        tier.postgres.restart()
        db, writer = tier.session(), tier.session()
        for key in ("k", "tagged", "shop:1"):
            expect(get(db, key, None) is not None, "nothing is tested")
            tier.redis.ask("DEL", key)
            expect(get(db, key, None) is not None, f"{key} was not kept in memory")
        writer.run("UPDATE t SET v = v + 1")
        for key in ("k", "tagged", "shop:1"):
            expect_void(db, key, "after the commit")


def bare_values_stay_where_applications_change_them(options):
    with Tier("bare", redis=True) as tier:
        db = tier.session()
        tier.redis.ask("SET", "app", "one")
        expect(get(db, "app", None) == "one", "a bare value was not read")
        tier.redis.ask("SET", "app", "two")
        expect(get(db, "app", None) == "two", "an application's value was kept in memory")
        get(db, "mine", "SELECT 1 AS x", dialect="'plain'")
        tier.redis.ask("SET", "mine", "theirs")
        expect(get(db, "mine", None) == "theirs", "a bare fill was kept in memory")


# ---------------------------------------------------------------------------
# Each step of the protocol
# ---------------------------------------------------------------------------

def a_fill_overtaken_by_a_commit_is_void(options):
    """Generations before the snapshot: a query that ends after somebody's commit stores nothing."""
    with Tier("overtaken") as tier:
        reader, writer, holder = tier.session(), tier.session(), tier.session()
        holder.run("SELECT pg_advisory_lock(1)")
        reader.start("SELECT cache_get('k', %s, ttl => '1 hour')", (WAITING,))
        wait_for("the fill's query waits", lambda: is_waiting(tier.postgres, reader))
        writer.run("UPDATE t SET v = 2")
        holder.run("SELECT pg_advisory_unlock(1)")
        expect(v_of(reader.finish()[0][0]) == 1, "the query did not see its own snapshot")
        expect_void(writer, why="although it is from before the commit")
        expect(v_of(get(writer)) == 2, "an old value was given")


def hold_commits(tier):
    """Commits wait from now on, visible to nobody, until the function that is returned is called."""
    probe = tier.session()
    tier.postgres.set(synchronous_standby_names="'nobody'")

    def held():
        """The checkpointer puts the setting into force, when it gets round to it."""
        if not probe.busy():
            probe.start("UPDATE unwatched SET n = n")
        return is_waiting(tier.postgres, probe, "SyncRep")

    def release():
        tier.postgres.set(synchronous_standby_names="''")
        probe.finish()

    wait_for("commits wait for a standby", held)
    return release


def a_fill_during_a_commit_is_not_kept(options):
    """The fence: between raising the generations and becoming visible, a commit may take its time."""
    with Tier("committing") as tier:
        reader, writer = tier.session(), tier.session()
        release = hold_commits(tier)
        writer.start("UPDATE t SET v = 2")
        wait_for("the commit waits for its standby", lambda: is_waiting(tier.postgres, writer, "SyncRep"))
        for _ in range(3):
            expect(v_of(get(reader)) == 1, "an unfinished commit is visible")
        expect_void(reader, why="while the commit was under way")
        release()
        writer.finish()
        expect_void(reader, why="after the commit")
        expect(v_of(get(reader)) == 2 and v_of(get(reader, query=None)) == 2, "the new value is not cached")


def a_prepared_transaction_keeps_its_names_uncached(options):
    """Nobody's callback runs at COMMIT PREPARED, and shared memory may be a new one by then."""
    for crash in (False, True):
        with Tier(f"prepared_{crash}") as tier:
            writer = tier.session()
            writer.run("BEGIN; UPDATE t SET v = 2; SELECT cache_set('s', 'set'); PREPARE TRANSACTION 'p'")
            if crash:
                tier.postgres.crash()
                tier.postgres.start()
            reader, other = tier.session(), tier.session()
            expect(v_of(get(reader)) == 1, "a prepared transaction is visible")
            expect_void(reader, why="while somebody may commit at any time")
            expect_void(reader, "s", "although its transaction has not committed")
            expect(is_hit(reader, "unrelated"), "an unrelated name is not cached")
            other.run("COMMIT PREPARED 'p'")
            expect(v_of(get(reader)) == 2, "an old value after COMMIT PREPARED had returned")
            expect(v_of(get(reader, query=None)) == 2, "the new value is not cached")
            expect(get(reader, "s", None) == (None if crash else "set"), "the value set is not there")


def a_rolled_back_transaction_frees_its_names(options):
    with Tier("freed") as tier:
        reader, writer = tier.session(), tier.session()
        for how in ("ROLLBACK", "PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p'", "SELECT 1/0"):
            writer.run("BEGIN; UPDATE t SET v = 99; SAVEPOINT s; SELECT cache_set('k', 'never'), cache_set('s', 'never')")
            expect(is_hit(reader), "an open transaction keeps readers from hits")
            try:
                for statement in how.split("; "):
                    writer.run(statement)
            except psycopg2.Error:
                writer.run("ROLLBACK")
            expect(v_of(get(reader)) == 1, "a rolled-back value")
            expect_void(reader, "s", "although rolled back")
            expect(is_hit(reader), f"after {how} the name is never cached again")
        writer.run("BEGIN; SAVEPOINT s; SELECT cache_invalidate('k'); ROLLBACK TO s; COMMIT")
        expect(is_hit(reader), "a savepoint's invalidation survived its rollback")


def a_long_statement_sees_what_was_committed_meanwhile(options):
    with Tier("long") as tier:
        reader, writer, holder = tier.session(), tier.session(), tier.session()
        holder.run("SELECT pg_advisory_lock(1)")
        get(reader)
        reader.start("SELECT cache_get('k', %s) FROM (SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)"
                     " OFFSET 0) AS w", (QUERY,))
        wait_for("the statement waits", lambda: is_waiting(tier.postgres, reader))
        writer.run("UPDATE t SET v = 2")
        holder.run("SELECT pg_advisory_unlock(1)")
        expect(v_of(reader.finish()[0][0]) == 2, "the statement went on with what it saw first")
        expect(v_of(get(writer, query=None)) == 2, "or stored it")


def a_writer_takes_and_leaves_nothing(options):
    with Tier("writer") as tier:
        writer, reader = tier.session(), tier.session()
        get(reader)
        writer.run("BEGIN; UPDATE t SET v = 5")
        expect(v_of(get(writer)) == 5, "own write missed")
        expect(v_of(get(writer, "fresh", QUERY)) == 5, "own write missed")
        expect_void(reader, "fresh", "although its writer has not committed")
        expect(v_of(get(reader)) == 1, "an uncommitted value is shared")
        writer.run("ROLLBACK")
        expect(v_of(get(writer)) == 1, "a rolled-back value")


def a_transaction_with_one_snapshot_gets_what_it_shows(options):
    with Tier("snapshot") as tier:
        reader, writer = tier.session(), tier.session()
        get(writer)
        reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT v FROM t")
        writer.run("UPDATE unwatched SET n = 50")
        expect(json.loads(get(reader, query=None))[0]["n"] == 0, "older entries are no hits under REPEATABLE READ")
        writer.run("UPDATE t SET v = 2")
        expect(v_of(get(writer)) == 2 and v_of(get(writer, query=None)) == 2, "not cached")
        for query in (QUERY, None):
            expect(v_of(get(reader, query=query)) in (1, None), "newer than the snapshot")
        reader.run("COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE")
        expect_void(reader, why="in a SERIALIZABLE transaction")
        expect(v_of(get(reader)) == 2, "wrong answer")
        reader.run("COMMIT")
        # By hand and without an xid: it stands for all that was committed before.
        reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT v FROM t")
        before = get(reader)
        writer.run("UPDATE unwatched SET n = 100")
        writer.run("SELECT cache_invalidate('k')")
        get(writer)
        expect(get(reader) == before, "newer than the snapshot, after an invalidation without changes")
        reader.run("COMMIT")
        expect(get(reader) != before, "nothing changed: nothing is tested")


def a_set_is_there_when_its_transaction_is(options):
    with Tier("sets") as tier:
        one, two, reader = tier.session(), tier.session(), tier.session()
        one.run("BEGIN; SELECT cache_set('s', 'first')")
        expect_void(reader, "s", "before its commit")
        one.run("COMMIT")
        expect(get(reader, "s", None) == "first", "a committed set is not there")
        one.run("BEGIN; SELECT cache_set('s', 'second'); SELECT cache_delete('s'); COMMIT")
        expect_void(reader, "s", "although deleted after it was set")
        one.run("SELECT cache_set('s', 'third', ttl => '200 ms')")
        time.sleep(0.21)
        expect_void(reader, "s", "after its ttl")
        one.run("SELECT cache_set('s', 'tagged', tags => '{red}')")
        two.run("UPDATE t SET v = v")
        expect_void(reader, "s", "after its tag's invalidation")
        one.run("SELECT cache_set('s', 'old')")
        two.run("SELECT cache_set('s', repeat('x', 2000000))")
        expect_void(reader, "s", "although a later value was too large to be kept")


def of_sets_at_the_same_time_the_later_commit_holds_or_none(options):
    with Tier("meeting") as tier:
        one, two, reader = tier.session(), tier.session(), tier.session()
        release = hold_commits(tier)
        for session, value in ((one, "one"), (two, "two")):
            session.start(f"SELECT cache_set('s', '{value}')")
            wait_for("the commit waits", lambda: is_waiting(tier.postgres, session, "SyncRep"))
        release()
        one.finish(), two.finish()
        # Nobody can say which of them became visible first.
        expect_void(reader, "s", "although its commit may have been the earlier one")
        two.run("SELECT cache_set('s', 'later')")
        expect(get(reader, "s", None) == "later", "a set alone is not kept")


# ---------------------------------------------------------------------------
# Whose entries
# ---------------------------------------------------------------------------

def databases_roles_and_installations_are_strangers(options):
    with Tier("strangers") as tier:
        tier.create("other")
        shop, other = tier.session(), tier.session("other")
        shop.run("UPDATE t SET v = 10"), other.run("UPDATE t SET v = 20")
        expect(v_of(get(shop)) == 10 and v_of(get(other)) == 20, "wrong answer")
        expect(v_of(get(shop, query=None)) == 10 and v_of(get(other, query=None)) == 20, "databases are mixed up")
        other.run("UPDATE t SET v = 21")
        expect(v_of(get(shop, query=None)) == 10, "another database's commit voids ours")
        shop.run("CREATE ROLE teller LOGIN; GRANT SELECT ON t, unwatched TO teller;"
                 "GRANT EXECUTE ON FUNCTION cache_get(text, text, interval, text[], text) TO teller")
        teller = tier.session(user="teller")
        expect_void(teller, why="by another role")
        shop.run("SELECT cache_set('for all', 'v')")
        expect(get(teller, "for all", None) == "v", "a value that was set is not for everybody")
        shop.run("SET cache_ext.key_prefix = 'p:'")
        expect_void(shop, why="under another prefix")
        shop.run("RESET cache_ext.key_prefix")
        # What is changed while the extension is away nobody notices.
        shop.run("DROP EXTENSION cache_ext CASCADE; UPDATE t SET v = 11; CREATE EXTENSION cache_ext")
        expect_void(shop, why="by an installation that does not know what happened before")
        expect(v_of(get(shop)) == 11, "an old value")


def what_changes_an_entry_at_once_keeps_no_older_value(options):
    with Tier("expired") as tier:
        db, other = tier.session(), tier.session()
        expirers = [tier.session() for _ in range(4)]
        for session in expirers:
            session.start("DO $$BEGIN FOR i IN 1..150000 LOOP PERFORM cache_expire('k', '1 hour'); END LOOP; END$$")
        for i in range(600):
            db.run("UPDATE t SET v = %s", (i,))
            found = v_of(get(other))
            expect(found == i, f"{found} was given after {i} had been committed")
        for session in expirers:
            session.finish(120)


def keys_of_uncommitted_sets_are_named_to_nobody(options):
    with Tier("unnamed", max_prepared_transactions="2") as tier:
        db, other = tier.session(), tier.session()
        db.run("BEGIN; SELECT cache_set('hidden', 'x'); PREPARE TRANSACTION 'p'")
        expect(other.rows("SELECT cache_keys('hidden')") == [], "a key that is not committed is named")
        other.run("ROLLBACK PREPARED 'p'")
        expect(other.rows("SELECT cache_keys('hidden')") == [], "a key that was rolled back is named")
        db.run("SELECT cache_set('shown', 'x')")
        expect(other.rows("SELECT cache_keys('shown')") == [("shown",)], "a key that is committed is not named")


def a_server_without_memory_tier_answers_as_well(options):
    with Tier("none", cache_ext__memory_size="0") as tier:
        db = tier.session()
        expect(not is_hit(db), "a hit without any tier")
        db.run("UPDATE t SET v = 3; SELECT cache_set('s', 'x')")
        expect(v_of(get(db)) == 3, "wrong answer")
        db.run("SET cache_ext.enabled = off")
        expect(v_of(get(db)) == 3, "wrong answer")
    with Tier("off") as tier:
        db = tier.session()
        get(db)
        db.run("SET cache_ext.enabled = off")
        expect_void(db, why="although the cache is off")
        db.run("UPDATE t SET v = 3; SET cache_ext.enabled = on")
        expect_void(db, why="although it was invalidated while the cache was off")


# ---------------------------------------------------------------------------
# Crashes
# ---------------------------------------------------------------------------

def a_killed_backend_leaves_it_empty_and_usable(options):
    with Tier("killed", cache_ext__memory_size="1MB") as tier:
        tier.postgres.expect("was terminated by signal 9", "terminating any other active")
        for round_number in range(2):
            victim, db = tier.session(), tier.session()
            expect(v_of(get(db)) == round_number + 1, "wrong answer")
            # It stores and evicts all the time, so some kill meets it half-way.
            victim.start("SELECT count(cache_get('fill:' || i, 'SELECT repeat(''x'', ' || 100 + i % 9000 || ') AS x'))"
                         "  FROM generate_series(1, 1000000) i")
            wait_for("the tier fills", lambda: get(db, "fill:50", None) is not None)
            tier.postgres.kill_process(victim.pid)
            try:
                victim.finish()
            except psycopg2.Error:
                pass
            db = wait_for("sessions are let in", tier.session)
            expect_void(db, why="after a crash")
            expect(is_hit(db), "after a crash nothing is cached")
            db.run("UPDATE t SET v = v + 1")
            expect_void(db, why="after the commit")


TESTS = [
    what_changes_an_entry_at_once_keeps_no_older_value,
    keys_of_uncommitted_sets_are_named_to_nobody,
    a_hit_needs_neither_query_nor_redis,
    entries_live_no_longer_than_their_ttl,
    what_redis_gave_is_void_with_its_commit_too,
    bare_values_stay_where_applications_change_them,
    a_fill_overtaken_by_a_commit_is_void,
    a_fill_during_a_commit_is_not_kept,
    a_prepared_transaction_keeps_its_names_uncached,
    a_rolled_back_transaction_frees_its_names,
    a_long_statement_sees_what_was_committed_meanwhile,
    a_writer_takes_and_leaves_nothing,
    a_transaction_with_one_snapshot_gets_what_it_shows,
    a_set_is_there_when_its_transaction_is,
    of_sets_at_the_same_time_the_later_commit_holds_or_none,
    databases_roles_and_installations_are_strangers,
    a_server_without_memory_tier_answers_as_well,
    a_killed_backend_leaves_it_empty_and_usable,
]

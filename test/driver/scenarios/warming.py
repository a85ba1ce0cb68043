"""Warming by the worker: what loaders name, each interval; what was asked for most, after a restart."""

import os
import time

from harness import Postgres, expect, program, run_as_server, wait_for
from scenarios.memory import Tier
from scenarios.operate import settle

WARMER = "backend_type = 'cache_ext warmer'"
HOTTEST = os.path.join("pg_stat", "cache_ext.hottest")


def define_tenants(db, query="SELECT $1::integer AS id", warm="SELECT id FROM tenant ORDER BY id"):
    db.run("CREATE TABLE IF NOT EXISTS tenant (id integer); TRUNCATE tenant; INSERT INTO tenant VALUES (1), (2), (3)")
    db.run("SELECT cache_define('tenant:{id}', %s, ttl => '1 hour', warm => %s)", (query, warm))


def interval(db, value, database="shop"):
    db.run(f"ALTER DATABASE {database} SET cache_ext.warm_interval = '{value}'")


def loads(db, key):
    return db.value("SELECT loads FROM cache_explain(%s)", (key,))


def log_lines(postgres, text):
    with open(postgres.log, errors="replace") as file:
        return [line for line in file if text in line]


# ---------------------------------------------------------------------------
# Each interval
# ---------------------------------------------------------------------------

def what_loaders_name_is_loaded_each_interval(options):
    with Tier("named") as tier:
        db = tier.session()
        define_tenants(db)
        db.run("SELECT cache_define('one', 'SELECT 1 AS v'); SELECT cache_define('n:{a}', 'SELECT $1 AS v')")
        time.sleep(0.5)
        expect(loads(db, "tenant:1") is None, "warmed although it is off")
        with tier.postgres.session() as other:      # from wherever it is set
            interval(other, "1s")
        wait_for("every key has been loaded more than once", lambda: all(
            (loads(db, key) or 0) > 1 for key in ("tenant:1", "tenant:2", "tenant:3", "one")))
        expect(db.rows("SELECT key FROM cache_keys() AS key ORDER BY 1") ==
               [("one",), ("tenant:1",), ("tenant:2",), ("tenant:3",)], "other keys than named")
        expect(len(log_lines(tier.postgres, "warmed 4 cache entries")) == 1, "not said once in the log")
        expect(db.rows("SELECT state, detail ~ '4 entries' FROM cache_health() WHERE component = 'warming'")
               == [("ok", True)], "cache_health does not show it")
        interval(db, "0")
        wait_for("nobody is warming", lambda: not tier.postgres.pids(WARMER))
        wait_for("the worker has seen it",
                 lambda: db.value("SELECT detail FROM cache_health() WHERE component = 'warming'").startswith("off"))
        before = [loads(db, key) for key in ("tenant:1", "one")]
        time.sleep(1.5)
        expect([loads(db, key) for key in ("tenant:1", "one")] == before, "warmed after it was switched off")


def a_worker_that_idles_is_started_for_it_and_goes_again(options):
    with Tier("idle") as tier:
        db = tier.session()
        define_tenants(db)
        interval(db, "6s")
        wait_for("it was warm once", lambda: (loads(db, "tenant:3") or 0) >= 1)
        wait_for("the worker has gone", lambda: not tier.postgres.worker_pids("shop"))
        wait_for("it was warmed again", lambda: loads(db, "tenant:3") >= 2, deadline=30)
        db.close()
        tier.sessions.remove(db)
        with tier.postgres.session() as other:
            other.run("DROP DATABASE shop")


def a_load_that_fails_is_tried_again_and_told_once(options):
    with Tier("failing", cache_ext__load_wait="50") as tier:
        db, holder = tier.session(), tier.session()
        db.run("CREATE TABLE switch (broken boolean); INSERT INTO switch VALUES (true)")
        define_tenants(db, "SELECT 1 / (CASE WHEN broken AND $1 = 2 THEN 0 ELSE 1 END) AS v FROM switch")
        db.run("SELECT cache_define('bad:{x}:{y}', 'SELECT $1, $2', warm => 'SELECT id FROM tenant')")
        interval(db, "1h")
        wait_for("the others are warm", lambda: loads(db, "tenant:1") == loads(db, "tenant:3") == 1)
        expect(loads(db, "tenant:2") is None, "nothing is tested")
        db.run("UPDATE switch SET broken = false; SELECT cache_undefine('bad:{x}:{y}')")
        wait_for("it was tried again", lambda: loads(db, "tenant:2") == 1)
        wait_for("that is told", lambda: log_lines(tier.postgres, "warmed 3 cache entries"))
        expect(loads(db, "tenant:1") == 1, "what had not failed was loaded again")
        db.run("UPDATE switch SET broken = true")
        interval(db, "1s")
        wait_for("the failure is told", lambda: log_lines(tier.postgres, "could not warm 1 of 3"), deadline=40)
        wait_for("and shown", lambda: db.rows(
            "SELECT state, detail ~ 'tenant:2.*division by zero' FROM cache_health() WHERE component = 'warming'")
            == [("degraded", True)])
        # Without a place among cache_ext.max_loads nothing is loaded.
        interval(db, "0")
        wait_for("nobody is warming", lambda: not tier.postgres.pids(WARMER))
        db.run("UPDATE switch SET broken = false")
        tier.postgres.set(cache_ext__max_loads="1")
        wait_for("the setting is there", lambda: holder.value("SHOW cache_ext.max_loads") == "1")
        db.run("SELECT pg_advisory_lock(1)")
        holder.start("SELECT cache_get('held', 'SELECT pg_advisory_lock(1)::text', '1 s')")
        wait_for("a load is under way", lambda: db.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1)
        before = loads(db, "tenant:1")
        interval(db, "1s")
        wait_for("it is told that there are too many", lambda: db.value(
            "SELECT detail FROM cache_health() WHERE component = 'warming'").find("too many") > 0, deadline=40)
        expect(loads(db, "tenant:1") == before, "loaded beyond max_loads")
        db.run("SELECT pg_advisory_unlock(1)")
        holder.finish()
        wait_for("it is warm again", lambda: loads(db, "tenant:1") > before, deadline=30)
        expect(len(log_lines(tier.postgres, "could not warm")) == 1, "told more than once")


def warming_runs_as_the_definer_and_under_the_definers_settings(options):
    with Tier("definer") as tier:
        db = tier.session()
        db.run("CREATE ROLE ann LOGIN; GRANT USAGE, CREATE ON SCHEMA public TO ann; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO ann;"
               "CREATE TABLE secret (id integer); INSERT INTO secret VALUES (1); CREATE TABLE plain (id integer); INSERT INTO plain VALUES (7)")
        db.run("GRANT SELECT ON plain TO ann")
        with tier.postgres.session("shop", user="ann") as ann:
            ann.run("SET DateStyle = 'German'")
            ann.run("SELECT cache_define('ann:{id}', 'SELECT current_user AS u, $1::integer AS id, date ''2026-11-21'' || '''' AS d', warm => 'SELECT id FROM plain');"
                    "SELECT cache_define('no:{id}', 'SELECT $1 AS id', warm => 'SELECT id FROM secret')")
        interval(db, "1h")
        wait_for("it is warm", lambda: loads(db, "ann:7") == 1)
        expect(db.value("SELECT cache_get('ann:7')") == '[{"u":"ann","id":7,"d":"21.11.2026"}]', "not as the definer")
        wait_for("that is shown", lambda: db.value(
            "SELECT detail FROM cache_health() WHERE component = 'warming'").find("permission denied for table secret") > 0)


def warming_holds_nothing_up_and_no_snapshot(options):
    with Tier("in the way") as tier:
        db, holder = tier.session(), tier.session()
        holder.run("SELECT pg_advisory_lock(7)")
        define_tenants(db, "SELECT pg_advisory_lock_shared(7)::text, pg_advisory_unlock_shared(7), $1 AS v")
        db.run("SELECT cache_watch('t', keys => '{k}')")
        interval(db, "1h")
        wait_for("the warmer waits in a query", lambda: tier.postgres.pids(WARMER + " AND wait_event_type = 'Lock'"))
        expect(len(tier.postgres.pids(WARMER)) == 1, "more than one process")
        # Statistics and invalidations go on.
        db.run("SELECT statistics_create('counted', 'SELECT count(*) FROM t'); INSERT INTO t VALUES (2)")
        wait_for("folded", lambda: db.value("SELECT pending FROM statistics_status") == 0)
        db.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE " + WARMER)
        wait_for("it goes on with the next", lambda: tier.postgres.pids(WARMER + " AND wait_event_type = 'Lock'"))
        for session in list(tier.sessions):
            session.close()
        tier.sessions.clear()
        with tier.postgres.session() as other:
            begun = time.monotonic()
            other.run("CREATE DATABASE copy TEMPLATE shop")
            other.run("DROP DATABASE shop")
            expect(time.monotonic() - begun < 10, "a database was held up")
        # While it pauses between attempts it holds no snapshot.
        with tier.postgres.session("copy") as copy:
            copy.run("SELECT cache_define('tenant:{id}', 'SELECT 1 / ($1 - 2)', warm => 'SELECT id FROM tenant')")
            interval(copy, "1h", "copy")
            wait_for("it pauses", lambda: copy.rows(
                f"SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE {WARMER} AND state = 'idle' AND wait_event = 'Extension'")
                == [(True,)])


# ---------------------------------------------------------------------------
# After a restart
# ---------------------------------------------------------------------------

def heat(db, count=40):
    """Keys of which the first are hot and the last are read once."""
    db.run("SELECT cache_define('hot:{n}', 'SELECT $1::integer AS n', '1 hour')")
    for n in range(count):
        for _ in range(1 if n >= count // 2 else 5):
            db.value("SELECT cache_get(%s)", (f"hot:{n}",))


def is_warm(db, number, what=range(20)):
    """All of these are in memory, with the loads of this life of the server."""
    return all(db.value("SELECT tier = 'memory' FROM cache_explain(%s)", (f"hot:{n}",)) for n in what)


def saved(tier):
    return os.path.exists(os.path.join(tier.postgres.data, HOTTEST))


def the_hottest_are_there_after_a_restart(options):
    for how in ("fast", "immediate"):
        with Tier("restart_" + how, redis=True) as tier:
            db = tier.session()
            settle(db)
            heat(db)
            db.run("SELECT cache_set('set', 'by hand', '1 hour')")
            wait_for("it is stored", lambda: tier.redis.ask("EXISTS", "set"))
            for _ in range(5):
                db.value("SELECT cache_get('set')")
            if how == "immediate":      # what has been saved from time to time has to do
                wait_for("the list is saved", lambda: saved(tier), deadline=30)
            # From Redis where that has it, from the loader where not.
            tier.redis.ask("DEL", *[f"hot:{n}" for n in range(10)])
            tier.postgres.restart(how)
            db = tier.session()
            wait_for("it is told", lambda: log_lines(tier.postgres, "hottest cache entries of before"))
            expect(is_warm(db, 20), "a hot key is not there")
            expect(db.value("SELECT tier FROM cache_explain('set')") == "memory", "what was set is not there")
            expect(not db.value("SELECT coalesce(bool_or(tier = 'memory'), false) FROM generate_series(20, 39) n,"
                                " LATERAL cache_explain('hot:' || n)"), "what was read once was loaded")
            expect(db.rows("SELECT hits, misses FROM cache_stats WHERE tier = 'memory'") == [(0, 0)], "counted as reads")
            expect(db.rows("SELECT hits FROM cache_stats WHERE tier = 'query'") == [(10,)], "loaded what Redis has")


def a_killed_backend_is_a_restart(options):
    with Tier("killed") as tier:
        db = tier.session()
        heat(db)
        wait_for("the list is saved", lambda: saved(tier), deadline=30)
        tier.postgres.expect("was terminated by signal 9", "terminating any other active")
        tier.postgres.kill_process(db.pid)
        db = tier.session()
        wait_for("the hottest are there", lambda: is_warm(db, 20))
        # Nobody has read them since: they are still those of before for another one.
        tier.postgres.kill_process(db.pid)
        db = tier.session()
        wait_for("the hottest are there again", lambda: is_warm(db, 20))


def the_list_is_names_only_and_its_owners(options):
    with Tier("secret") as tier:
        db = tier.session()
        tier.create("other")
        heat(db)
        db.run("SELECT cache_get('hot:key', 'SELECT ''TOPSECRET'' AS v'), cache_get('hot:key', 'SELECT ''TOPSECRET'' AS v')")
        tier.postgres.stop()
        path = os.path.join(tier.postgres.data, HOTTEST)
        with open(path, "rb") as file:
            content = file.read()
        expect(b"hot:3" in content and b"TOPSECRET" not in content, "more than names")
        expect(os.stat(path).st_mode & 0o077 == 0, "others may read it")
        # What is no list is no list, and what is damaged is none either.
        for damage in (content[:-5], b"", b"x" * 100, content.replace(b"hot:3", b"hot:4", 1)):
            with open(path, "wb") as file:
                file.write(damage)
            tier.postgres.start()
            with tier.postgres.session("shop") as db:
                expect(not is_warm(db, 1, range(1)), "read a damaged list")
            tier.postgres.stop()
        expect(len(log_lines(tier.postgres, "it is no list of cache keys")) >= 4, "not told")
        # Another database, and another installation of the extension, get nothing of it.
        with open(path, "wb") as file:
            file.write(content)
        tier.postgres.start()
        with tier.postgres.session("other") as other:
            other.run("SELECT cache_define('hot:{n}', 'SELECT $1 AS n')")
        with tier.postgres.session("shop") as db:
            wait_for("the hottest are there", lambda: is_warm(db, 20))
            db.run("DROP EXTENSION cache_ext CASCADE")
        with tier.postgres.session("other") as other:
            expect(other.rows("SELECT cache_keys()") == [], "another database's keys")
        tier.postgres.restart()
        with tier.postgres.session("shop") as db:
            db.run("CREATE EXTENSION cache_ext; SELECT cache_define('hot:{n}', 'SELECT $1 AS n')")
            tier.postgres.restart()
        with tier.postgres.session("shop") as db:
            time.sleep(1)
            expect(db.rows("SELECT cache_keys()") == [], "another installation's keys")


def a_load_that_ends_the_server_is_not_repeated_for_ever(options):
    with Tier("deadly") as tier:
        db = tier.session()
        heat(db, 4)
        db.run("CREATE TABLE victim AS SELECT false AS wanted")
        db.run("CREATE FUNCTION deadly() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN"
               " IF (SELECT wanted FROM victim) THEN PERFORM pg_sleep(60); END IF; RETURN 1; END $$;"
               "SELECT cache_define('deadly', 'SELECT deadly() AS v', '1 hour')")
        for _ in range(3):
            db.value("SELECT cache_get('deadly')")
        db.run("UPDATE victim SET wanted = true")
        tier.postgres.restart()
        tier.postgres.expect("was terminated by signal 9", "terminating any other active")
        for _ in range(3):
            pid = wait_for("the warmer runs the query", lambda: tier.postgres.pids(WARMER + " AND wait_event = 'PgSleep'"))[0]
            tier.postgres.kill_process(pid)
        wait_for("it is told", lambda: log_lines(tier.postgres, "the hottest cache keys of before are not loaded"))
        expect(not tier.postgres.pids(WARMER), "tried once more")


def a_standby_warms_when_it_is_promoted(options):
    with Tier("primary", redis=True) as tier:
        db = tier.session()
        heat(db)
        wait_for("the list is saved", lambda: saved(tier), deadline=30)
        standby = Postgres(os.path.join(os.environ["CACHE_EXT_WORK"], "warming_standby"), dict(tier.postgres.settings))
        standby.expect("exited with exit code 1", "terminating walreceiver")
        run_as_server([program("pg_basebackup"), "-h", tier.postgres.socket, "-U", "postgres",
                       "-D", standby.data, "-R", "-X", "stream", "-c", "fast"], standby.log)
        path = os.path.join(standby.data, HOTTEST)
        before = os.stat(path).st_mtime_ns
        try:
            standby.start()
            with standby.session("shop") as reader:
                reader.value("SELECT cache_get('hot:0')")
                time.sleep(1)
                expect(not standby.pids("backend_type LIKE 'cache_ext%'"), "processes of ours on a standby")
                expect(os.stat(path).st_mtime_ns == before, "a standby has written the list")
                tier.postgres.stop()
                reader.run("SELECT pg_promote()")
                wait_for("the hottest are there", lambda: is_warm(reader, 20))
            standby.stop()
            standby.check_log()
        finally:
            standby.stop("immediate")


TESTS = [
    what_loaders_name_is_loaded_each_interval,
    a_worker_that_idles_is_started_for_it_and_goes_again,
    a_load_that_fails_is_tried_again_and_told_once,
    warming_runs_as_the_definer_and_under_the_definers_settings,
    warming_holds_nothing_up_and_no_snapshot,
    the_hottest_are_there_after_a_restart,
    a_killed_backend_is_a_restart,
    the_list_is_names_only_and_its_owners,
    a_load_that_ends_the_server_is_not_repeated_for_ever,
    a_standby_warms_when_it_is_promoted,
]

"""Loaders: one load a miss, right for everybody, and something to fall back on."""

import contextlib
import json
import subprocess
import time

import psycopg2
from harness import Servers, expect, is_waiting, program, wait_for
from scenarios.cache import WAITING, Cache, get, text

class Counted(Cache):
    """A cache whose loads are counted: each writes a line into the server's log."""

    def create(self, dbname):
        super().create(dbname)
        with self.postgres.session(dbname) as db:
            db.run("""
                CREATE FUNCTION trace(what text) RETURNS boolean LANGUAGE plpgsql STABLE AS
                    $$BEGIN RAISE LOG 'load of %', what; RETURN true; END$$""")

    def loads(self, what):
        with open(self.postgres.log, errors="replace") as log:
            return log.read().count(f"load of {what}\n")


def define(db, pattern, query, **options):
    extra = "".join(f", {name} => {value}" for name, value in options.items())
    db.run(f"SELECT cache_define(%s, %s{extra})", (pattern, query))


def parallel(server, count, sql):
    """Run the statement in so many sessions at once; their results and how long the slowest took."""
    sessions = [server.session("shop") for _ in range(count)]
    for session in sessions:
        session.value("SELECT cache_get('nothing')")     # the library is loaded, Redis is connected
    begun = time.monotonic()
    for session in sessions:
        session.start(sql)
    results = [session.finish(60) for session in sessions]
    took = time.monotonic() - begun
    for session in sessions:
        session.close()
    return results, took


def one_load_for_all_who_miss(options):
    for memory in (True, False):
        with Counted("flight" if memory else "flight_redis", max_connections="100",
                     cache_ext__memory_size="'16MB'" if memory else "0") as cache:
            db = cache.session()
            define(db, "slow:{id}", "SELECT v, pg_sleep(0.5) IS NULL AS s, trace('slow') FROM t WHERE $1 <> ''",
                   ttl="'1 minute'")
            results, took = parallel(cache.postgres, 64, "SELECT cache_get('slow:1')")
            expect(all(json.loads(rows[0][0])[0]["v"] == 1 for rows in results), "a wrong answer")
            expect(cache.loads("slow") == 1, f"{cache.loads('slow')} loads of one entry (memory: {memory})")
            print(f"        64 sessions, one load of 500 ms: {took * 1000:.0f} ms (memory: {memory})")
            expect(took < 2, f"the last answer took {took:.2f} s")


def a_load_that_fails_is_cancelled_or_dies_frees_the_rest(options):
    with Counted("frees") as cache:
        db, holder = cache.session(), cache.session()
        db.run("""
            CREATE TABLE fate (what text); INSERT INTO fate VALUES ('ok');
            CREATE FUNCTION meet() RETURNS integer LANGUAGE plpgsql STABLE AS $$
            BEGIN
                PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1);
                IF (SELECT what FROM fate) = 'fail' THEN RAISE 'failed'; END IF;
                RETURN 5;
            END$$""")
        define(db, "fate:{n}", "SELECT meet() AS v, $1 AS n")
        for number, fate in enumerate(("fail", "cancel", "die")):
            sql = f"SELECT cache_get('fate:{number}')"
            db.run("UPDATE fate SET what = 'ok'")
            holder.run("SELECT pg_advisory_lock(1)")
            first = cache.session()
            if fate == "fail":
                db.run("UPDATE fate SET what = 'fail'")
            first.start(sql)
            wait_for("the load waits", lambda: is_waiting(cache.postgres, first))
            second = cache.session().start(sql)
            wait_for("another session waits for it", lambda: is_waiting(cache.postgres, second, "Extension"))
            db.run("UPDATE fate SET what = 'ok'")
            if fate == "cancel":
                db.run("SELECT pg_cancel_backend(%s)", (first.pid,))
            elif fate == "die":
                db.run("SELECT pg_terminate_backend(%s)", (first.pid,))
            else:
                db.run("UPDATE fate SET what = 'fail'")
            if fate == "fail":
                holder.run("SELECT pg_advisory_unlock(1)")
                wait_for("the load has failed", lambda: not first.busy())
            try:
                first.finish()
                expect(fate == "fail", "the load did not end")
            except psycopg2.Error:
                pass
            db.run("UPDATE fate SET what = 'ok'")
            if fate != "fail":
                holder.run("SELECT pg_advisory_unlock(1)")
            begun = time.monotonic()
            try:
                expect(second.finish()[0][0] == json.dumps([{"v": 5, "n": str(number)}], separators=(",", ":")),
                       "another answer")
            except psycopg2.Error as error:
                expect(fate == "fail" and "failed" in str(error), f"the second session failed: {error}")
            expect(time.monotonic() - begun < 2, "the second session went on waiting")


def waiting_obeys_cancel_and_has_a_bound(options):
    with Cache("bound", cache_ext__load_wait="300") as cache:
        db, holder, first = cache.session(), cache.session(), cache.session()
        define(db, "w", WAITING, ttl="'1 minute'")
        holder.run("SELECT pg_advisory_lock(1)")
        first.start("SELECT cache_get('w')")
        wait_for("the load waits", lambda: is_waiting(cache.postgres, first))
        second = cache.session()
        second.run("SET statement_timeout = '100ms'")
        second.fails("57014", "SELECT cache_get('w')")
        second.run("SET statement_timeout = 0")
        second.start("SELECT cache_get('w')")
        wait_for("the second runs the query itself", lambda: is_waiting(cache.postgres, second, "Lock"))
        holder.run("SELECT pg_advisory_unlock(1)")
        expect(json.loads(first.finish()[0][0]) == json.loads(second.finish()[0][0]), "different answers")


def what_cannot_be_stored_is_not_waited_for(options):
    with Counted("vain", cache_ext__max_value_size="'10kB'") as cache:
        db = cache.session()
        define(db, "large", "SELECT repeat('x', 20000) AS v, pg_sleep(0.3) IS NULL AS s", ttl="'1 minute'")
        db.value("SELECT cache_get('large')")
        _, took = parallel(cache.postgres, 6, "SELECT cache_get('large')")
        expect(took < 1.2, f"six loads that cannot be shared took {took:.2f} s")


class Neighbour(Cache):
    """Another server with the same Redis."""

    def __init__(self, name, redis):
        Servers.__init__(self, name, redis, cache_ext__memory_size="0")


def servers_take_turns_by_a_lease(options):
    """Bare values are for all servers that share a Redis, so one of them loads, and the others wait for that."""
    load = "SELECT v, pg_sleep(0.5) IS NULL AS s, gen_random_uuid() AS load FROM t"
    with Cache("lease") as cache, Neighbour("lease_2", cache.redis) as neighbour, cache.redis.client() as client:
        first, second = cache.session(), neighbour.session()
        for db in (first, second):
            define(db, "shared", load, ttl="'1 minute'", dialect="'plain'")
            define(db, "own", load, ttl="'1 minute'")
        first.start("SELECT cache_get('shared')")
        lease = wait_for("a lease", lambda: client("KEYS", "l:*"))[0]
        expect(0 < client("PTTL", lease) <= 5000, "the lease does not end")
        answer = second.value("SELECT cache_get('shared')")
        expect(first.finish() == [(answer,)], "both have loaded")
        expect(client("KEYS", "l:*") == [], "the lease is still there")

        # A server that dies while it loads: its lease ends by itself, and the next one loads.
        client("UNLINK", "shared")
        first.start("SELECT cache_get('shared')")
        wait_for("a lease", lambda: client("KEYS", "l:*"))
        cache.postgres.crash()
        with contextlib.suppress(psycopg2.Error):
            first.finish()
        client("PEXPIRE", lease, 300)
        expect(second.value("SELECT cache_get('shared')") != answer, "the lease of a dead server was not taken over")
        cache.postgres.start()

        # What is in an envelope is a server's own, so nobody waits for anybody.
        first = cache.session()
        first.start("SELECT cache_get('own')")
        second.start("SELECT cache_get('own')")
        while first.busy() or second.busy():
            expect(client("KEYS", "l:*") == [], "a lease for what cannot be shared")
        expect(first.finish() != second.finish(), "a server was given another's entry")


def not_more_loads_at_once_than_allowed(options):
    with Cache("cap", cache_ext__max_loads="2", cache_ext__load_wait="300") as cache:
        db, holder = cache.session(), cache.session()
        define(db, "w:{n}", WAITING.replace("FROM t", "FROM (SELECT $1 AS v) AS t"), ttl="'1 minute'")
        holder.run("SELECT pg_advisory_lock(1)")
        busy = [cache.session().start(f"SELECT cache_get('w:{n}')") for n in range(2)]
        for session in busy:
            wait_for("a load waits", lambda s=session: is_waiting(cache.postgres, s, "Lock"))
        db.fails("53400", "SELECT cache_get('w:3')")
        expect(get(db, "nothing", None) is None, "a miss without a load was refused")
        holder.run("SELECT pg_advisory_unlock(1)")
        for session in busy:
            session.finish()
        expect(json.loads(get(db, "w:3", None))[0]["v"] == "3", "no place after the others have ended")
        # A load within a load needs no second place.
        db.run("SET cache_ext.max_loads = 1")
        define(db, "outer", "SELECT cache_get('w:4') AS v", ttl="'1 minute'")
        expect("4" in get(db, "outer", None), "a load waits for itself")


def an_expired_value_is_given_while_the_source_fails(options):
    for memory in (True, False):
        with Cache("stale" if memory else "stale_redis", cache_ext__memory_size="'16MB'" if memory else "0") as cache:
            db = cache.session()
            db.run("""CREATE FUNCTION risky() RETURNS integer LANGUAGE plpgsql STABLE AS
                      $$BEGIN IF (SELECT v FROM t) = 13 THEN RAISE 'source is down'; END IF; RETURN (SELECT v FROM t); END$$""")
            define(db, "safe", "SELECT risky() AS v", ttl="'200 milliseconds'", stale_for="'1 hour'",
                   tags="'{red}'")
            define(db, "unsafe", "SELECT risky() AS v", ttl="'200 milliseconds'")
            expect(get(db, "safe", None) == text(1) and get(db, "unsafe", None) == text(1), "wrong")
            db.run("UPDATE t SET v = 13")            # a table that nobody watches
            time.sleep(0.25)
            db.fails("P0001", "SELECT cache_get('unsafe')")
            db.connection.notices.clear()
            expect(get(db, "safe", None) == text(1), "the expired value was not given")
            expect(any("an expired value is given" in notice for notice in db.connection.notices), "without a warning")
            expect(not db.value("SELECT cache_exists('safe')"), "an expired entry counts as present")
            db.run("BEGIN; SELECT cache_get('safe'); SELECT 1; COMMIT")
            # While it is not failing, an expired value is never given.
            db.run("UPDATE t SET v = 2")
            expect(get(db, "safe", None) == text(2), "an expired value although the source answers")
            # And never one that was invalidated.
            db.run("UPDATE t SET v = 13; SELECT cache_invalidate_tags('red')")
            db.fails("P0001", "SELECT cache_get('safe')")
            cache.delivered(db)
            db.fails("P0001", "SELECT cache_get('safe')")


def entries_are_renewed_before_their_end(options):
    with Counted("eager") as cache:
        db, holder, other = cache.session(), cache.session(), cache.session()
        define(db, "e", "SELECT v, trace('e') FROM t", ttl="'1 hour'", eager="0.00005")   # 0.18 s
        define(db, "lazy", "SELECT v, trace('lazy') FROM t", ttl="'1 hour'")
        get(db, "e", None)
        get(db, "lazy", None)
        time.sleep(0.3)
        db.run("UPDATE t SET v = 2")
        expect(json.loads(get(db, "e", None))[0]["v"] == 2, "not renewed")
        expect(json.loads(get(db, "lazy", None))[0]["v"] == 1, "renewed although nobody asked for it")
        expect(cache.loads("e") == 2 and cache.loads("lazy") == 1, "another number of loads")
        # Whoever comes while it is being renewed gets what is there; so does one whose renewal fails.
        define(db, "w", WAITING, ttl="'1 hour'", eager="0.00005")
        get(db, "w", None)
        time.sleep(0.3)
        holder.run("SELECT pg_advisory_lock(1)")
        db.start("SELECT cache_get('w')")
        wait_for("the renewal waits", lambda: is_waiting(cache.postgres, db, "Lock"))
        expect(json.loads(get(other, "w", None))[0]["v"] == 2, "another answer during a renewal")
        holder.run("SELECT pg_advisory_unlock(1)")
        db.finish()


def an_answer_of_no_rows_has_a_life_of_its_own(options):
    with Cache("negative") as cache:
        db = cache.session()
        define(db, "n:{id}", "SELECT v FROM t WHERE v = $1", ttl="'1 hour'", negative_ttl="'10 seconds'")
        expect(get(db, "n:1", None) == text(1) and get(db, "n:2", None) == "[]", "wrong")
        expect(db.value("SELECT cache_ttl('n:1') > '50 min' AND cache_ttl('n:2') <= '10 s'"), "wrong lives")


def a_slow_redis_costs_a_loader_no_more_than_it_allows(options):
    with Cache("soft", cache_ext__command_timeout="2000", cache_ext__memory_size="0") as cache:
        db = cache.session()
        define(db, "soft", "SELECT v FROM t", soft_timeout="'50 milliseconds'")
        expect(get(db, "soft", None) == text(1), "wrong")
        cache.redis.pause()
        try:
            begun = time.monotonic()
            expect(get(db, "soft", None) == text(1), "no answer")
            expect(time.monotonic() - begun < 1, "it waited longer than the loader allows")
        finally:
            cache.redis.resume()


def a_loader_is_right_for_everybody(options):
    with Cache("right") as cache:
        db = cache.session()
        db.run("""
            CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN; GRANT CREATE ON SCHEMA public TO ann;
            GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO ann, bob;
            SET ROLE ann; CREATE TABLE secret (tenant text, v integer, at timestamptz);
            INSERT INTO secret VALUES ('x', 1, '2026-01-01 00:00+00'), ('y', 2, '2026-01-01 00:00+00');
            SELECT cache_define('secret:{tenant}', 'SELECT v, at, current_user AS who FROM secret WHERE tenant = $1');
            SELECT cache_define('mine', 'SELECT v FROM secret WHERE tenant = current_setting(''app.tenant'', true)');
            SELECT cache_define('own', 'SELECT session_user AS v');
            RESET ROLE""")
        bob, bill = cache.session(user="bob"), cache.session(user="bob")
        expected = '[{"v":1,"at":"2026-01-01T00:00:00+00:00","who":"ann"}]'
        bob.run("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'")
        bob.fails("42501", "SELECT * FROM secret")
        expect(get(bob, "secret:x", None) == expected, "not as its definer, or under other settings")
        expect(cache.redis.ask("EXISTS", "secret:x") == 1, "not stored: nothing is tested")
        expect(get(db, "secret:x", None) == expected, "not shared")
        bob.run("CREATE TEMP TABLE secret AS SELECT 'z'::text AS tenant, 0 AS v, now() AS at")
        db.run("SELECT cache_delete('secret:x')")
        expect(get(bob, "secret:x", None) == expected, "a caller's temporary table was read")
        # What looks at the session is shared by those who would get the same.
        bob.run("SET app.tenant = 'x'")
        bill.run("SET app.tenant = 'y'")
        expect(get(bob, "mine", None) == text(1) and get(bill, "mine", None) == text(2), "another tenant's answer")
        expect(get(bob, "mine", None) == text(1) and get(bill, "mine", None) == text(2), "another tenant's answer")
        expect(get(bob, "own", None) == text("bob") and get(db, "own", None) == text("postgres"), "another user's answer")
        # Somebody else's loader cannot be changed, and one whose owner is gone does not run.
        bob.fails("42501", "SELECT cache_define('secret:{tenant}', 'SELECT 1')")
        bob.fails("42501", "SELECT cache_undefine('secret:{tenant}')")
        db.run("DROP OWNED BY ann; DROP ROLE ann; SELECT cache_clear()")
        cache.delivered(db)
        db.fails("42704", "SELECT cache_get('secret:x')")


def loaders_that_could_not_be_read_are_read_again(options):
    with Counted("unread") as cache:
        db, locker, reader = cache.session(), cache.session(), cache.session()
        define(db, "c:{id}", "SELECT v, $1 AS id FROM t")
        locker.run("BEGIN; LOCK TABLE cache_ext_internal.loader")
        reader.run("SET statement_timeout = '200ms'")
        reader.fails("57014", "SELECT cache_get('c:1')")
        locker.run("ROLLBACK")
        expect(reader.value("SELECT cache_get('c:1')") is not None, "a session that was cancelled has no loaders any more")
        # One that is closer to the key takes over what the wider one has answered.
        define(db, "c:1", "SELECT 'closer' AS v")
        expect("closer" in db.value("SELECT cache_get('c:1')"), "an answer of the loader before is given")


def loaders_come_back_from_a_dump(options):
    with Cache("dump") as cache:
        db = cache.session()
        db.run("CREATE ROLE ann; GRANT SELECT ON t TO ann; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO ann;"
               "SET ROLE ann; SET TimeZone = 'Asia/Tokyo'")
        define(db, "n:{a}:{b}", "SELECT v, $2::timestamptz AS at, current_user AS who FROM t WHERE v = $1",
               ttl="'1 minute'", tags="ARRAY['x:{b}']", stale_for="'1 h'", eager="0.5")
        db.run("RESET ROLE; RESET TimeZone")
        dump = subprocess.run([program("pg_dump"), "-h", cache.postgres.socket, "-U", "postgres", "shop"],
                              check=True, capture_output=True, text=True).stdout
        db.run("CREATE DATABASE copy")
        waiting = cache.postgres.session("copy")     # a session that has looked before
        subprocess.run([program("psql"), "-h", cache.postgres.socket, "-U", "postgres", "-d", "copy", "-q",
                        "-v", "ON_ERROR_STOP=1"], input=dump, check=True, capture_output=True, text=True)
        cache.sessions.append(waiting)
        key = "n:1:2026-01-01"
        expected = '[{"v":1,"at":"2026-01-01T00:00:00+09:00","who":"ann"}]'
        expect(get(db, key, None) == expected and get(waiting, key, None) == expected, "the copy answers otherwise")
        rows = "SELECT pattern, query, types::text, owner::text, settings, ttl, tags, stale_for, eager" \
               " FROM cache_ext_internal.loader"
        expect(db.rows(rows) == waiting.rows(rows), "the copy is not the same")
        waiting.run("SELECT cache_undefine('n:{a}:{b}')")
        expect(get(waiting, key, None) is None, "a loader that is gone answers")


TESTS = [
    loaders_that_could_not_be_read_are_read_again,
    one_load_for_all_who_miss,
    a_load_that_fails_is_cancelled_or_dies_frees_the_rest,
    waiting_obeys_cancel_and_has_a_bound,
    what_cannot_be_stored_is_not_waited_for,
    servers_take_turns_by_a_lease,
    not_more_loads_at_once_than_allowed,
    an_expired_value_is_given_while_the_source_fails,
    entries_are_renewed_before_their_end,
    an_answer_of_no_rows_has_a_life_of_its_own,
    a_slow_redis_costs_a_loader_no_more_than_it_allows,
    a_loader_is_right_for_everybody,
    loaders_come_back_from_a_dump,
]

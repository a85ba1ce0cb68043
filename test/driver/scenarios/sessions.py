"""Sessions that Express and SQL share, and rate limits that hold for all who share a Redis."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import psycopg2

from harness import (Failure, Postgres, Redis, Servers, expect, is_waiting, judged, server_user, wait_for, with_shop, work)

CLIENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "clients")
SHOWN = "left(encode(sha256(%s::bytea), 'hex'), 16)"
ENDED = "SELECT session_get(%s) IS NULL"


class Express:
    """The application, in Node."""

    def __init__(self, redis, prefix=""):
        node = shutil.which("node") or shutil.which("nodejs")
        expect(node, "there is no node")
        self.process = subprocess.Popen(
            [node, os.path.join(CLIENTS, "express_session.js"), redis.path, prefix],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *action):
        self.process.stdin.write(json.dumps(action) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if isinstance(answer, dict) and "error" in answer:
            raise Failure(f"Express cannot {action[0]}: {answer['error']}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def together(sessions, work_of):
    """Run work_of(number, session) in all sessions at once; returns what each has returned."""
    results, errors = [None] * len(sessions), []
    start = threading.Barrier(len(sessions))

    def run(number, session):
        try:
            start.wait()
            results[number] = work_of(number, session)
        except Exception as error:      # told below
            errors.append(error)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results


def workers_stand_still(server):
    """Stop the database's workers; returns how to let them go on."""
    workers = wait_for("a worker runs", lambda: server.worker_pids("shop"))
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)

    def go_on():
        for pid in workers:
            os.kill(pid, signal.SIGCONT)

    return go_on


def no_secret_in(server, *secrets):
    with open(server.log, errors="replace") as log:
        text = "".join(line for line in log if "STATEMENT:" not in line)     # what the client has typed
    for secret in secrets:
        expect(secret not in text, f"the log shows {secret}")


# ---------------------------------------------------------------------------
# Express
# ---------------------------------------------------------------------------

def what_express_stores_sql_reads_and_the_other_way_round(_):
    def body(server, redis):
        server.set(cache_ext__key_prefix="'shop:'")
        with server.session("shop") as db, Express(redis, "shop:") as express:
            wait_for("the prefix is there", lambda: db.value("SHOW cache_ext.key_prefix") == "shop:")
            # Express to SQL, text of all kinds included.
            data = {"userId": 7, "name": "Zoë 漢字 \U0001f600 \"quoted\" \\ \n", "cart": [{"n": 1.5}, None, True]}
            express("login", "sid-of-express", 3600000, data)
            found = db.value("SELECT session_get('sid-of-express')")
            expect({k: v for k, v in found.items() if k != "cookie"} == data, f"SQL reads {found}")
            expect(found["cookie"]["originalMaxAge"] == 3600000, f"SQL reads the cookie {found['cookie']}")
            # SQL to Express: the cookie goes on, and key and cookie say the same.
            db.run("SELECT session_set('sid-of-express', session_get('sid-of-express') || '{\"role\": \"admin\"}')")
            seen = express("request", "sid-of-express")
            expect(seen["data"] == dict(data, role="admin"), f"Express reads {seen}")
            express("save", "sid-of-express", {"visits": 2})
            expect(db.value("SELECT session_get('sid-of-express') ->> 'visits'") == "2", "SQL does not see Express's change")
            db.run("SELECT session_set('sid-of-express', session_get('sid-of-express'), '10 minutes')")
            ttl = redis.ask("PTTL", "shop:sess:sid-of-express")
            expect(590000 < ttl <= 600000, f"the key lives {ttl} ms")
            seen = express("request", "sid-of-express")
            expect(seen["cookie"]["originalMaxAge"] == 600000 and 590 < seen["ttl"] <= 600, f"Express gives it {seen}")
            # A touch by SQL is as one by Express, and writes nothing but the time.
            redis.ask("PEXPIRE", "shop:sess:sid-of-express", 5000)
            before = redis.ask("GET", "shop:sess:sid-of-express")
            expect(db.value("SELECT session_touch('sid-of-express')"), "it is not there")
            expect(590000 < redis.ask("PTTL", "shop:sess:sid-of-express") <= 600000, "no new life")
            after = redis.ask("GET", "shop:sess:sid-of-express")
            old, new = json.loads(before), json.loads(after)
            expect(new["cookie"].pop("expires") > old["cookie"].pop("expires") and old == new and len(before) == len(after),
                   f"a touch made {before} to {after}")
            # A cookie that ends with the browser stays one.
            express("login", "browser", None, {"passport": {"user": "u-1"}})
            db.run("SELECT session_set('browser', session_get('browser'), '10 minutes')")
            seen = express("request", "browser")
            expect(seen["cookie"]["expires"] is None and seen["ttl"] > 86000, f"Express gives the browser's session {seen}")
            # A new sid, with everything in it.
            fresh = db.value("SELECT session_regenerate('sid-of-express')")
            expect(express("request", "sid-of-express") is None and express("request", fresh)["data"]["visits"] == 2,
                   "the new sid has not what the old one had")
            expect(590000 < redis.ask("PTTL", f"shop:sess:{fresh}") <= 600000, "another life")
            # Each sees the other's end.
            expect(db.value("SELECT session_destroy('browser')") and express("request", "browser") is None, "destroyed and there")
            expect(express("logout", fresh) and db.value(ENDED, (fresh,)), "logged out and there")
            expect(not db.value("SELECT session_destroy(%s)", (fresh,)) and not db.value("SELECT session_touch(%s)", (fresh,)),
                   "what has ended is found")
            # What Express has let expire, and what is over when it is stored.
            db.run("""SELECT session_set('over', '{"cookie": {"expires": "2020-01-01T00:00:00.000Z"}}')""")
            expect(redis.ask("EXISTS", "shop:sess:over") == 0, "stored though its cookie is over")
            # What is no session of connect-redis's; and no error shows what it holds.
            redis.ask("HSET", "shop:sess:hash", "f", "v")
            redis.ask("SET", "shop:sess:text", "hunter2 {")
            redis.ask("SET", "shop:sess:zero", '{"token": "hunter2\\u0000"}')
            redis.ask("SET", "shop:sess:bytes", b'{"token": "hunter2\xff"}')
            for sid, state in (("hash", "22P02"), ("text", "22P02"), ("zero", "22P05"), ("bytes", "22021")):
                error = db.fails(state, "SELECT session_get(%s)", (sid,))
                expect("hunter2" not in str(error), f"an error shows the session: {error}")
            expect(db.value("SELECT session_touch('zero')"), "what jsonb cannot hold cannot be touched")
            redis.ask("SET", "shop:sess:ever", "{}")
            expect(db.value("SELECT session_touch('ever')") and redis.ask("TTL", "shop:sess:ever") == -1, "a life was cut short")
            expect(db.rows("SELECT kept_in, ttl, members FROM session_list WHERE session = " + SHOWN, ("ever",)) == [("redis", None, [])],
                   "the list does not have it")
            expect(db.value("SELECT count(*) FROM cache_keys()") == 0, "cache_keys shows sessions")
            db.run("SELECT cache_clear()")
            expect(db.value("SELECT session_get('ever')") == {}, "cache_clear ended a session")
            # A standby has the same sessions, and may change them; what ends with a commit needs one.
            with judged(server.copy(work("express_standby"))) as standby, standby.session("shop") as reader:
                expect(reader.value("SELECT session_get('ever')") == {}, "a standby does not find it")
                reader.run("SELECT session_set('there', '{\"v\": 1}')")
                expect(db.value("SELECT session_get('there')") == {"v": 1} and reader.value("SELECT session_touch('there')"),
                       "what a standby stores is not there")
                moved = reader.value("SELECT session_regenerate('there')")
                expect(reader.value("SELECT session_destroy(%s)", (moved,)), "a standby cannot end it")
                reader.fails("25006", "SELECT session_destroy_all('v', '1')")
            db.run("BEGIN READ ONLY")
            db.fails("25006", "SELECT session_set('ever', '{}')")
            db.run("ROLLBACK")
        # In a database that has not all characters.
        with server.session() as db:
            db.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        with server.session("latin") as db, Express(redis, "shop:") as express:
            db.run("CREATE EXTENSION cache_ext")
            express("login", "latin", None, {"name": "Zoë"})
            expect(db.value("SELECT session_get('latin') ->> 'name'") == "Zoë", "a name is not converted")
            db.run("SELECT session_set('latin', '{\"cookie\": {\"expires\": null}, \"name\": \"Æsop\"}')")
            expect(express("request", "latin")["data"] == {"name": "Æsop"}, "nor is it on the way back")
            expect(db.value("SELECT session_destroy_all('name', 'Æsop')") == 1, "nor when it is looked for")
            express("login", "kanji", None, {"name": "漢字"})
            db.fails("22P05", "SELECT session_get('kanji')")
        no_secret_in(server, "sid-of-express", "hunter2", fresh)

    with_shop("express", body)


# ---------------------------------------------------------------------------
# All sessions of somebody
# ---------------------------------------------------------------------------

def sessions_end_when_the_transaction_commits_and_not_before(_):
    def body(server, redis):
        with server.session("shop") as db, server.session("shop") as other, redis.client() as listener:
            def store():
                for n in range(300):
                    db.run("SELECT session_set(%s, %s)", (f"sid-{n}", json.dumps({"userId": n % 3, "n": n})))

            store()
            listener("SUBSCRIBE", "invalidate")
            # Rolled back, in whole and in part; its own transaction sees it meanwhile.
            db.run("BEGIN")
            expect(db.value("SELECT session_destroy_all('userId', '1')") == 100, "another number")
            expect(db.value(ENDED, ("sid-1",)) and not other.value(ENDED, ("sid-1",)), "seen by the wrong ones")
            expect(not db.value("SELECT session_touch('sid-1')") and db.value("SELECT session_regenerate('sid-1')") is None,
                   "its own transaction finds it")
            db.run("SAVEPOINT s")
            db.fails("55000", "SELECT session_set('sid-1', '{}')")
            db.run("ROLLBACK TO s; ROLLBACK")
            expect(not db.value(ENDED, ("sid-1",)), "a rollback ended sessions")
            db.run("BEGIN; SAVEPOINT s; SELECT session_destroy_all('userId', '1'); ROLLBACK TO s; COMMIT")
            db.run("SELECT cache_invalidate('something')")
            wait_for("delivered", lambda: db.value("SELECT pending = 0 FROM invalidation_status"))
            expect(redis.ask("EXISTS", "sess:sid-1") == 1, "a savepoint that was rolled back ended sessions")
            # Committed: ended at once on this server, while the worker stands still and Redis knows nothing.
            go_on = workers_stand_still(server)
            try:
                expect(db.value("SELECT session_destroy_all('userId', '1')") == 100, "another number")
                expect(redis.ask("EXISTS", "sess:sid-1") == 1, "Redis was told: nothing is tested")
                expect(other.value(ENDED, ("sid-1",)) and other.value(ENDED, ("sid-298",)), "a session outlives the commit")
                expect(not other.value(ENDED, ("sid-2",)), "another one has ended")
                expect(db.value("SELECT session_destroy_all('userId', '1')") == 0, "what has ended is ended again")
                expect(not other.value("SELECT session_touch('sid-1')") and not other.value("SELECT session_destroy('sid-4')") and
                       other.value("SELECT session_regenerate('sid-7')") is None, "what has ended is found")
                error = other.fails("08006", "SELECT session_set('sid-1', '{}')")
                expect("sid-1" not in str(error), "the sid is shown")
            finally:
                go_on()
            wait_for("all have gone from Redis", lambda: redis.ask("EXISTS", *[f"sess:sid-{n}" for n in range(1, 300, 3)]) == 0)
            expect(redis.ask("EXISTS", *[f"sess:sid-{n}" for n in range(0, 300, 3)]) == 100, "others have gone")
            db.run("SELECT session_set('sid-1', '{\"again\": true}')")
            expect(not other.value(ENDED, ("sid-1",)), "a session that came later was not stored")
            # COMMIT PREPARED by somebody else, and sync.
            db.run("BEGIN; SELECT session_destroy_all('userId', '2'); PREPARE TRANSACTION 'p'")
            expect(not other.value(ENDED, ("sid-2",)), "ended before the commit")
            other.run("COMMIT PREPARED 'p'")
            expect(db.value(ENDED, ("sid-2",)), "not ended by COMMIT PREPARED")
            db.run("SET cache_ext.invalidation = sync; SELECT session_destroy_all('userId', '0')")
            expect(redis.ask("EXISTS", "sess:sid-0", "sess:sid-3") == 0, "COMMIT has not waited")
            # Nobody was told any name.
            db.run("RESET cache_ext.invalidation; SELECT cache_invalidate('the end')")
            message = ""
            while "the end" not in message:
                message = listener.read()[2].decode()
                expect("sid-" not in message, f"everybody is told {message}")
            no_secret_in(server, "sid-1", "sid-2")

    with_shop("ended", body)


def what_has_ended_stays_so_when_redis_comes_back_older(_):
    def body(server, redis):
        with server.session("shop") as db:
            db.run("SELECT session_set('gone', '{\"userId\": 1}'), session_set('kept', '{\"userId\": 2}')")
            db.run("SELECT cache_invalidate('something')")
            wait_for("delivered", lambda: db.value("SELECT pending = 0 FROM invalidation_status"))
            files = os.path.join(redis.directory, "appendonlydir")
            subprocess.run(["cp", "-a", files, files + ".old"], check=True)
            db.run("SELECT session_destroy_all('userId', '1')")
            wait_for("delivered", lambda: db.value("SELECT pending = 0 FROM invalidation_status") and
                     redis.ask("EXISTS", "sess:gone") == 0)
            go_on = workers_stand_still(server)
            try:
                redis.kill()
                shutil.rmtree(files)
                os.rename(files + ".old", files)
                redis.start()
                expect(redis.ask("EXISTS", "sess:gone") == 1, "it has not come back: nothing is tested")
                expect(wait_for("Redis is found again", lambda: db.rows("SELECT session_get('kept')")) == [({"userId": 2},)],
                       "another session is lost")
                expect(db.value(ENDED, ("gone",)), "a session that had ended is back")
                expect(not db.value("SELECT session_touch('gone')"), "and can be touched")
            finally:
                go_on()
            wait_for("it has gone again", lambda: redis.ask("EXISTS", "sess:gone") == 0)
            expect(not db.value(ENDED, ("kept",)), "another session has gone, too")

    with_shop("older_sessions", body)


# ---------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------

def one_of_many_regenerates(_):
    def race(server, there):
        sessions = [server.session("shop") for _ in range(8)]
        for attempt in range(10):
            old = f"fixed-{attempt}"
            sessions[0].run("SELECT session_set(%s, '{\"userId\": 1}')", (old,))
            fresh = [sid for sid in together(sessions, lambda _, s: s.value("SELECT session_regenerate(%s)", (old,))) if sid]
            expect(len(fresh) == 1, f"{len(fresh)} sids were given for one session")
            expect(sessions[0].value(ENDED, (old,)) and not sessions[0].value(ENDED, (fresh[0],)), "not moved")
        expect(there() == 10, f"{there()} sessions are left of ten")
        # Touches, stores and ends meanwhile: at most one sid, and no session without one who ended it.
        sessions[0].run("SELECT session_set('busy', '{\"userId\": 1, \"cookie\": {\"originalMaxAge\": 60000, \"expires\": \"2099-01-01T00:00:00.000Z\"}}')")
        calls = ["session_regenerate('busy') IS NOT NULL"] + ["session_touch('busy')"] * 6 + ["session_destroy('busy')"]
        found = together(sessions, lambda n, s: s.value("SELECT " + calls[n]))
        expect(found[0] != found[7], f"moved: {found[0]}, ended: {found[7]}")
        expect(sessions[0].value(ENDED, ("busy",)), "a touch has brought a session back")
        for session in sessions:
            session.close()

    with_shop("regenerate", lambda server, redis: race(server, lambda: len(redis.ask("KEYS", "sess:*"))))

    def in_table(server, _):
        with server.session("shop") as db:
            race(server, lambda: db.value("SELECT count(*) FROM session_list"))

    with_shop("regenerate_table", in_table, redis=False)


def a_table_follows_the_transaction_and_survives_a_crash(_):
    def body(server, _):
        with server.session("shop") as db, server.session("shop") as other:
            # Among transactions, as rows are.
            db.run("SELECT session_set('s', '{\"v\": 1}')")
            db.run("BEGIN; SELECT session_set('s', '{\"v\": 2}')")
            expect(other.value("SELECT session_get('s')") == {"v": 1}, "uncommitted data are seen")
            other.start("SELECT session_touch('s')")
            wait_for("the touch waits", lambda: is_waiting(server, other))
            db.run("COMMIT")
            expect(other.finish() == [(True,)] and db.value("SELECT session_get('s')") == {"v": 2}, "a touch undid a change")
            other.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT session_get('s')")
            db.run("SELECT session_set('s', '{\"v\": 3}')")
            expect(other.value("SELECT session_get('s')") == {"v": 2}, "not the snapshot's")
            other.fails("40001", "SELECT session_touch('s')")
            other.run("ROLLBACK")
            db.run("BEGIN; SELECT session_set('p', '{\"v\": 1}'), session_destroy('s'); PREPARE TRANSACTION 'p'")
            expect(other.value(ENDED, ("p",)) and not other.value(ENDED, ("s",)), "a prepared transaction is seen")
            other.run("COMMIT PREPARED 'p'")
            expect(not other.value(ENDED, ("p",)) and other.value(ENDED, ("s",)), "COMMIT PREPARED has done nothing")
            # A standby reads and changes nothing.
            with judged(server.copy(work("sessions_standby"))) as standby, standby.session("shop") as reader:
                expect(reader.value("SELECT session_get('p')") == {"v": 1}, "a standby does not read")
                for call in ("session_set('p', '{}')", "session_touch('p')", "session_destroy('p')", "session_regenerate('p')",
                             "session_destroy_all('v', '1')"):
                    reader.fails("25006", "SELECT " + call)
                expect(reader.value("SELECT count(*) FROM session_list") == 1, "a standby lists none")
                expect([reader.value("SELECT allowed FROM rate_limit('k', 1, '1 h')") for _ in "ab"] == [True, False],
                       "a standby limits nothing")
            # Rows whose time is over go without anybody's doing; others stay, and so does what notices.
            db.run("SELECT session_set('short-' || i, '{}', '1 s') FROM generate_series(1, 2000) i")
            wait_for("what is over has been removed", lambda: db.value("SELECT count(*) = 1 FROM cache_ext_internal.session"))
            expect(not db.value(ENDED, ("p",)), "more than that has been removed")
            db.run("SELECT session_set('uncertain', '{}')")
            db.run("BEGIN; SELECT session_set('lost', '{}')")
        server.crash()
        server.start()
        with server.session("shop") as db:
            expect(db.value("SELECT session_get('p')") == {"v": 1} and db.value(ENDED, ("lost",)), "a crash has changed sessions")
            db.run("SELECT session_set('short', '{}', '1 s')")
            wait_for("the worker has come back", lambda: db.value("SELECT count(*) = 2 FROM cache_ext_internal.session"))
            dump = subprocess.run([os.path.join(os.environ["CACHE_EXT_BIN"], "pg_dump"), "-h", server.socket, "-U", "postgres", "shop"],
                                  stdout=subprocess.PIPE, text=True, check=True).stdout
            expect("cache_ext_internal.session" not in dump, "sessions are in a dump")
            # With a Redis the table is nobody's place any more, unless one says so.
            redis = Redis(work("late_redis")).start()
            try:
                server.set(cache_ext__redis_url=f"'{redis.url}'")
                wait_for("Redis is used", lambda: db.value(ENDED, ("p",)))
                expect(db.value("SELECT count(*) FROM cache_doctor() WHERE object = 'cache_ext.session_durability'") == 1,
                       "nobody says that sessions lie in the table")
                redis.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
                found = [row[0] for row in db.rows("SELECT problem FROM cache_doctor() WHERE object = 'Redis'")]
                expect(len(found) == 2 and "allkeys-lru" in found[0] and "appendonly is off" in found[1], f"{found}: what may be lost")
                redis.ask("CONFIG", "SET", "maxmemory", "0", "appendonly", "yes")
                expect(not db.rows("SELECT FROM cache_doctor() WHERE object = 'Redis'"), "it says that nothing may be lost")
                db.run("SET cache_ext.session_durability = 'table'")
                expect(db.value("SELECT session_get('p')") == {"v": 1}, "the table is not read")
                db.run("BEGIN; SELECT session_set('t', '{}'); ROLLBACK")
                expect(db.value(ENDED, ("t",)) and redis.ask("DBSIZE") == 0, "Redis is used for sessions")
            finally:
                redis.stop()
        # The worker that stays for them holds nothing up.
        with server.session() as db:
            db.run("DROP DATABASE shop")
        no_secret_in(server, "short-1", "uncertain")

    with_shop("session_table", body, redis=False)


# ---------------------------------------------------------------------------
# Rate limits
# ---------------------------------------------------------------------------

ALGORITHMS = ("gcra", "fixed_window", "sliding_window")


def hammer(sessions, key, algorithm, most, each):
    """All sessions ask as fast as they can; returns how many requests were allowed."""
    def ask(_, session):
        return session.value("SELECT count(*) FILTER (WHERE r.allowed) FROM generate_series(1, %s) i,"
                             " LATERAL (SELECT * FROM rate_limit(%s || (i * 0), %s, '1 year', algorithm => %s)) r",
                             (each, key, most, algorithm))

    return sum(together(sessions, ask))


def a_limit_holds_for_all_sessions_and_servers(_):
    redis = Redis(work("limits_redis")).start()
    settings = {"cache_ext__redis_url": f"'{redis.url}'", "cache_ext__rate_limit_on_failure": "error",
                "cache_ext__command_timeout": "'10 s'"}
    try:
        with Servers("limits_a", **settings) as first, Servers("limits_b", preload=False, **settings) as second:
            sessions = [servers.session() for servers in (first, second) for _ in range(4)]
            for algorithm in ALGORITHMS:
                allowed = hammer(sessions, "hot", algorithm, 100, 40)
                expect(allowed == 100, f"{algorithm}: {allowed} of 100 were allowed")
            # By weight, and one key's limits apart from another's.
            costs = together(sessions, lambda _, s: s.value("SELECT allowed FROM rate_limit('weight', 20, '1 hour', cost => 6)"))
            expect(costs.count(True) == 3, f"{costs.count(True)} requests of 6 fit into 20")
            expect(sessions[0].value("SELECT allowed FROM rate_limit('other', 20, '1 hour', cost => 20)"), "another key's limit is used up")
            # While it is given back: no more than the burst and the rate, and not much less.
            began = time.monotonic()

            def keep_asking(_, session):
                count = 0
                while time.monotonic() < began + 1.5:
                    count += session.value("SELECT allowed FROM rate_limit('rate', 100, '1 s', burst => 10)")
                return count

            allowed = sum(together(sessions, keep_asking))
            passed = time.monotonic() - began
            expect(0.7 * 100 * 1.5 <= allowed <= 10 + 100 * passed, f"{allowed} were allowed in {passed:.2f} s at 100 a second")
            # At once, whatever becomes of the transaction; nothing is left when it is over.
            sessions[0].run("BEGIN; SELECT rate_limit('now', 1, '1 s'); ROLLBACK")
            wait, left = sessions[1].rows("SELECT retry_after, remaining FROM rate_limit('now', 1, '1 s')")[0]
            expect(0 < wait.total_seconds() <= 1 and left == 0, f"to be tried again after {wait}")
            wait_for("Redis has forgotten it", lambda: redis.ask("EXISTS", "limit:gcra:1000000:now") == 0, 3)
            expect(sessions[0].value("SELECT count(*) FROM cache_keys('*')") == 0, "cache_keys shows limits")
            redis.ask("SET", "limit:gcra:3600000000:odd", "nonsense")
            redis.ask("HSET", "limit:gcra:3600000000:hash", "f", "v")
            expect(sessions[0].value("SELECT remaining FROM rate_limit('odd', 5, '1 hour')") == 4, "nonsense is no state")
            sessions[0].fails("08006", "SELECT rate_limit('hash', 5, '1 hour')")
    finally:
        redis.stop()


def a_limit_is_exact_in_the_memory_of_a_server(_):
    for preload in (True, False):
        with Servers("memory_limits", preload=preload) as servers:
            sessions = [servers.session() for _ in range(8)]
            for algorithm in ALGORITHMS:
                allowed = hammer(sessions, "hot", algorithm, 20000, 4000)
                expect(allowed == 20000, f"{algorithm}, preload {preload}: {allowed} of 20000 were allowed")
            room = sessions[0].value("SELECT room FROM rate_limit_stats")
            expect((room >= 32768) == preload, f"room for {room}")
            # Another database's are others.
            servers.create("second")
            expect(servers.session("second").value("SELECT allowed FROM rate_limit('hot0', 20000, '1 year')"), "databases share a limit")
            if preload:
                continue
            # More at once than there is room for: those that would have been over first are given up, or nobody is let in.
            db = sessions[0]
            db.run("SELECT count(rate_limit('many' || i, 1, '1 hour')) FROM generate_series(1, 2000) i")
            expect(db.value("SELECT forgotten >= 1000 AND in_memory = room FROM rate_limit_stats"), "nothing was given up")
            expect(db.value("SELECT count(*) FROM generate_series(1951, 2000) i, rate_limit('many' || i, 1, '1 hour') r WHERE r.allowed") == 0,
                   "the newest were given up")
            expect(db.value("SELECT state FROM cache_health() WHERE component = 'rate limits'") == "degraded", "nobody is told")
            db.run("SET cache_ext.rate_limit_on_failure = 'deny'")
            expect(db.rows("SELECT allowed, remaining FROM rate_limit('new', 1, '1 hour')") == [(False, None)], "let in without a count")
            db.run("SET cache_ext.rate_limit_on_failure = 'error'")
            db.fails("53400", "SELECT rate_limit('new', 1, '1 hour')")


def while_redis_is_away_limits_do_as_set_and_sessions_say_so(_):
    def body(server, redis):
        with server.session("shop") as db, server.session("shop") as other:
            def limit(key, most=2):
                return db.rows("SELECT allowed, remaining, retry_after IS NULL, reset_at IS NULL FROM rate_limit(%s, %s, '1 hour')", (key, most))[0]

            expect(limit("before")[:2] == (True, 1), "Redis does not count")
            db.run("SELECT session_set('s', '{\"v\": 1}')")
            # Silent, then dead: each call ends in time, and a cancel is obeyed.
            redis.pause()
            began = time.monotonic()
            expect(limit("before")[0], "a server's own count begins anew")
            db.fails("08006", "SELECT session_get('s')")
            db.run("SET statement_timeout = '50 ms'; SET cache_ext.command_timeout = '20 s'")
            wait_for("a call waits for Redis and is cancelled", lambda: cancelled(db))
            db.run("RESET statement_timeout; RESET cache_ext.command_timeout")
            expect(time.monotonic() - began < 10, "calls do not end in time")
            redis.resume()
            redis.kill()
            for sql in ("session_get('s')", "session_set('s', '{}')", "session_touch('s')", "session_destroy('s')",
                        "session_regenerate('s')", "session_destroy_all('v', '1')"):
                db.fails("08006", "SELECT " + sql)
            expect([limit("away")[0] for _ in range(3)] == [True, True, False], "this server does not count by itself")
            expect(other.value("SELECT allowed FROM rate_limit('away', 2, '1 hour')") is False, "each session counts for itself")
            for policy, wanted in (("allow", True), ("deny", False)):
                db.run(f"SET cache_ext.rate_limit_on_failure = '{policy}'")
                expect(all(limit("any", 1) == (wanted, None, True, True) for _ in range(3)), f"{policy} does otherwise")
            db.run("SET cache_ext.rate_limit_on_failure = 'error'")
            db.fails("08006", "SELECT rate_limit('any', 1, '1 hour')")
            db.run("RESET cache_ext.rate_limit_on_failure")
            health = dict(db.rows("SELECT component, state FROM cache_health()"))
            expect((health["sessions"], health["rate limits"]) == ("down", "degraded"), f"health says {health}")
            expect(db.value("SELECT undecided > 5 FROM rate_limit_stats"), "nobody counts what could not be decided")
            redis.start()
            wait_for("Redis counts again", lambda: limit("back", 1000) and redis.ask("EXISTS", "limit:gcra:3600000000:back"))
            expect(db.value("SELECT session_get('s')") == {"v": 1}, "a durable Redis has lost a session")
            expect(limit("before")[:2] == (True, 0), "the count of before is lost")
            # Full: nothing new is stored, and that is said.
            redis.ask("CONFIG", "SET", "maxmemory", "1")
            db.fails("08006", "SELECT session_set('full', '{}')")
            redis.ask("CONFIG", "SET", "maxmemory", "0")

    def cancelled(db):
        try:
            db.run("SELECT session_get('s')")
        except psycopg2.Error as error:
            return error.pgcode == "57014"
        return False

    with_shop("limits_away", body)


TESTS = [
    what_express_stores_sql_reads_and_the_other_way_round,
    sessions_end_when_the_transaction_commits_and_not_before,
    what_has_ended_stays_so_when_redis_comes_back_older,
    one_of_many_regenerates,
    a_table_follows_the_transaction_and_survives_a_crash,
    a_limit_holds_for_all_sessions_and_servers,
    a_limit_is_exact_in_the_memory_of_a_server,
    while_redis_is_away_limits_do_as_set_and_sessions_say_so,
]

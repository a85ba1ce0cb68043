"""The link to Redis: one deadline a call, cancel is obeyed, and no reply ever reaches another question."""

import os
import re
import threading
import time

import psycopg2
import harness
from harness import Failure, FakeRedis, Redis, expect, free_port, wait_for, work

LONG = "'30s'"      # a timeout that would fail the test by itself
QUERY = "'SELECT 1 AS answer'"
ANSWER = '[{"answer":1}]'


class Servers(harness.Servers):
    def __init__(self, name, redis, **settings):
        super().__init__(name, redis, cache_ext__memory_size="0", **settings)      # memory would answer for Redis


def bulk(text):
    data = text if isinstance(text, bytes) else text.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


class Script:
    """Answers the handshake as a Redis does, and MGET as the test says."""

    def __init__(self, mget):
        self.mget = mget
        self.asked = []     # keys asked for, in order

    def __call__(self, request):
        command = request[0].upper()
        if command == b"INFO":
            return bulk("run_id:1\r\n") if request[1] == b"server" else bulk("master_replid:2\r\n")
        if command == b"MGET":
            self.asked.append(request[1])
            return self.mget(request)
        return b"+OK\r\n"


def mget_reply(request, value):
    """The value for the key, nothing for the version keys: a bare value of an application."""
    return b"*%d\r\n" % (len(request) - 1) + bulk(value) + b"$-1\r\n" * (len(request) - 2)


def get(db, key="k"):
    return db.value(f"SELECT cache_get('{key}', {QUERY})")


def a_reply_that_comes_too_late_reaches_no_other_question(options):
    late = threading.Event()

    def mget(request):
        if request[1] == b"slow":
            late.wait(10)
        return mget_reply(request, b"value of " + request[1])

    fake = FakeRedis(work("late"), Script(mget))
    with Servers("late_pg", fake, cache_ext__command_timeout="'100ms'") as servers:
        with servers.session() as db:
            expect(get(db, "a") == "value of a", "the fake Redis does not answer")
            expect(get(db, "slow") == ANSWER, "the query did not answer when Redis was late")
            late.set()
            for key in ("b", "c", "d"):
                found = wait_for("Redis is asked again",
                                 lambda: (lambda v: v if v != ANSWER else None)(get(db, key)))
                expect(found == f"value of {key}", f"asked for {key}, got {found!r}")


def a_reply_cut_in_two_by_a_cancel_reaches_no_other_question(options):
    rest = []
    first = threading.Event()

    def mget(request):
        answer = mget_reply(request, b"value of " + request[1])
        if request[1] == b"cut":
            rest.append(answer[20:])
            first.set()
            return answer[:20]
        return answer

    fake = FakeRedis(work("cut"), Script(mget))
    with Servers("cut_pg", fake, cache_ext__command_timeout=LONG) as servers:
        with servers.session() as db, servers.session() as other:
            db.start(f"SELECT cache_get('cut', {QUERY})")
            first.wait(10)
            other.run("SELECT pg_cancel_backend(%s)", (db.pid,))
            started = time.monotonic()
            try:
                db.finish()
                raise Failure("a cancelled call returned")
            except psycopg2.errors.QueryCanceled:
                pass
            expect(time.monotonic() - started < 10, "cancel was not obeyed")
            try:
                fake.connections[0].sendall(rest[0])
            except OSError:
                pass
            expect(get(db, "next") == "value of next", "the next call got another one's reply")


def a_wait_obeys_statement_timeout_and_terminate(options):
    asked = threading.Event()

    def mget(request):
        asked.set()
        return None

    fake = FakeRedis(work("silent"), Script(mget))
    with Servers("silent_pg", fake, cache_ext__command_timeout=LONG) as servers:
        with servers.session() as db, servers.session() as other:
            db.run("SET statement_timeout = '100ms'")
            db.fails("57014", f"SELECT cache_get('k', {QUERY})")
            db.run("SET statement_timeout = 0")
            asked.clear()
            db.start(f"SELECT cache_get('k', {QUERY})")
            asked.wait(10)
            db.is_terminated_by(other)


def who_is_terminated_amid_connecting_leaves_no_place_behind(options):
    asked = threading.Event()

    def hello(request):
        asked.set()
        return None

    fake = FakeRedis(work("places"), hello)
    with Servers("places_pg", fake, cache_ext__connect_timeout=LONG, cache_ext__max_connections="2") as servers:
        with servers.session() as other:
            for _ in range(3):
                with servers.session() as db:
                    asked.clear()
                    db.start("SELECT cache_ping()")
                    expect(asked.wait(10), "no connection was begun: its place is not given back")
                    db.is_terminated_by(other)


def exchanges_that_never_sleep_obey_a_cancel(options):
    redis = Redis(work("awake"))
    redis.start()
    with Servers("awake_pg", redis) as servers:
        with servers.session() as db:
            db.run("SELECT cache_ping()")
            redis.ask("CONFIG", "RESETSTAT")
            for _ in range(20):
                try:
                    db.run("SELECT pg_cancel_backend(pg_backend_pid()), cache_ping()")
                    raise Failure("the cancel was overlooked")
                except psycopg2.errors.QueryCanceled:
                    db.run("SELECT cache_ping()")       # answered at once, so that the session stays awake for the next
            pings = re.search(r"cmdstat_ping:calls=(\d+)", redis.ask("INFO", "commandstats").decode())[1]
            expect(pings == "20", f"{pings} pings, 20 of them not cancelled")


def one_deadline_covers_a_call_however_slowly_bytes_come(options):
    def mget(request):
        def trickle():
            try:
                for byte in mget_reply(request, b"x" * 500):
                    fake.connections[-1].sendall(bytes([byte]))
                    time.sleep(0.05)
            except OSError:
                pass
        threading.Thread(target=trickle, daemon=True).start()

    fake = FakeRedis(work("trickle"), Script(mget))
    with Servers("trickle_pg", fake, cache_ext__command_timeout="'200ms'") as servers:
        with servers.session() as db:
            started = time.monotonic()
            expect(get(db) == ANSWER, "the query did not answer")
            expect(time.monotonic() - started < 5, "each byte began a new timeout")


def a_silent_redis_is_not_asked_on_every_call(options):
    script = Script(lambda request: None)
    fake = FakeRedis(work("hole"), script)
    with Servers("hole_pg", fake, cache_ext__command_timeout="'200ms'") as servers:
        with servers.session() as db:
            for _ in range(200):
                expect(get(db) == ANSWER, "the query did not answer")
            expect(len(script.asked) <= 3, f"asked {len(script.asked)} times in 200 calls")


def an_outage_is_told_once_and_costs_few_timeouts(options):
    redis = Redis(work("told"))
    redis.start()
    with Servers("told_pg", redis, cache_ext__command_timeout="'300ms'") as servers:
        sessions = [servers.session() for _ in range(8)]
        for db in sessions:
            get(db)
        redis.pause()
        started = time.monotonic()
        for db in sessions:
            expect(get(db) == ANSWER, "the query does not answer")
        took = time.monotonic() - started
        redis.resume()

        def all_hit():
            for db in sessions:
                get(db, "again")
            return all(db.value("SELECT cache_get('again')") for db in sessions)

        wait_for("everybody uses Redis again", all_hit, deadline=60)
        with open(servers.postgres.log) as log:
            lines = [line for line in log if redis.path in line and " LOG: " in line and "client backend" in line]
        gone = [line for line in lines if "did not answer in time" in line or "could not connect" in line]
        back = [line for line in lines if "reconnected to" in line]
        expect(len(gone) == 1 and len(back) == 1, "the log says:\n  " + "  ".join(lines))
        expect(took < 8 * 0.3, f"eight sessions waited for {took:.1f} s together")
        for db in sessions:
            db.close()


def a_redis_that_lies_costs_neither_the_answer_nor_the_backend(options):
    lies = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-7\r\n", b"*-7\r\n", b"$99999999999999999999\r\n",
        b"*2147483647\r\n", b"*4\r\n" * 100, b":1\r\n", b"+OK\r\n", b"$-1\r\n", b"*0\r\n", b"*1\r\n$1\r\nx\r\n",
        b"*3\r\n:1\r\n:2\r\n:3\r\n", b"-ERR %s%n \x1b[31m" + b"x" * 100000 + b"\r\n", b"-LOADING wait\r\n",
        b"-WRONGTYPE no\r\n", b"-NOAUTH Authentication required.\r\n", b"-READONLY replica\r\n",
        b"+OK\r\n+OK\r\n", b"*3\r\n$1\r\nx\r\n$-1\r\n$-1\r\n+extra\r\n", b"\x00\x00\x00", b"_\r\n", b",1.5\r\n",
        b"*3\r\n$4\r\n\xff\xfe\xfd\xfc\r\n$-1\r\n$-1\r\n", b"*3\r\n$3\r\na\x00b\r\n$-1\r\n$-1\r\n", False,
    ]
    current = {}
    fake = FakeRedis(work("liar"), Script(lambda request: current["lie"]))
    with Servers("liar_pg", fake, cache_ext__command_timeout="'200ms'") as servers:
        for lie in lies:
            current["lie"] = lie
            with servers.session() as db:
                for _ in range(3):
                    expect(get(db) == ANSWER, f"wrong answer after {lie[:40] if lie else lie!r}")
        with open(servers.postgres.log, "rb") as log:
            text = log.read()
        expect(b"\x1b[31m" not in text, "control bytes of a reply reached the log")
        expect(b"x" * 1000 not in text, "an endless error text reached the log")


def ten_thousand_connections_leave_nothing_open(options):
    # Another database is another endpoint, so that each call connects, whatever became of the one before.
    loop = """DO $$ BEGIN
        FOR i IN 1..%d LOOP
            PERFORM set_config('cache_ext.redis_url', '%s?db=' || i %% %d, false), cache_get('k');
        END LOOP;
    END $$"""
    redis = Redis(work("reconnects"))
    redis.start()
    fake = FakeRedis(work("closing"), Script(lambda request: False))
    with Servers("reconnects_pg", redis) as servers:
        with servers.session() as db:
            def descriptors():
                return len(os.listdir(f"/proc/{db.pid}/fd"))

            def connections():
                with redis.client() as client:
                    line = client("INFO", "stats").split(b"total_connections_received:")[1]
                    return int(line.split()[0])

            def connect(times):
                before, asked = connections(), fake.requests
                db.run(loop % (times, redis.url, 2))
                expect(connections() - before >= times, "the calls did not connect")
                db.run(loop % (times // 10, fake.url, 10000))
                expect(fake.requests - asked >= times // 10, "the calls that fail did not connect")

            connect(2000)       # as much as fills what a sanitizer keeps of freed memory
            before, memory = descriptors(), resident(db.pid)
            connect(10000)
            expect(descriptors() <= before, f"{before} descriptors became {descriptors()}")
            expect(resident(db.pid) < memory + 4 * 1024, f"{memory} kB became {resident(db.pid)} kB")
    fake.stop()


def resident(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def a_restarted_redis_is_found_again(options):
    redis = Redis(work("restart"))
    redis.start()
    with Servers("restart_pg", redis) as servers:
        with servers.session() as db:
            get(db, "k")
            expect(redis.ask("EXISTS", "k") == 1, "the value was not stored")
            redis.kill()
            expect(get(db, "k") == ANSWER, "the query did not answer without Redis")
            redis.start()

            def stored():
                get(db, "k")
                return redis.ask("EXISTS", "k")

            wait_for("values are stored again", stored)


def a_changed_address_moves_the_traffic_at_reload(options):
    old, new = Redis(work("old")), Redis(work("new"))
    old.start()
    new.start()
    try:
        with Servers("moving_pg", old) as servers:
            with servers.session() as db:
                get(db, "before")
                servers.postgres.set(cache_ext__redis_url=f"'{new.url}'")

                def moved():
                    get(db, "after")
                    return new.ask("EXISTS", "after")

                wait_for("the new Redis is used", moved)
                expect(old.ask("EXISTS", "before") == 1, "the old Redis was not used before")
                servers.postgres.set(cache_ext__redis_url="''")
                wait_for("no Redis is used",
                         lambda: db.value("SELECT current_setting('cache_ext.redis_url')") == "")
                expect(db.value("SELECT cache_get('after')") is None, "Redis was used though unset")
    finally:
        new.stop()


def an_address_may_have_host_port_user_password_and_database(options):
    port = free_port()
    redis = Redis(work("tcp"), options=["--port", str(port), "--bind", "127.0.0.1"])
    redis.start()
    redis.ask("ACL", "SETUSER", "shop", "on", ">p@ss", "~*", "&*", "+@all")
    with Servers("tcp_pg", redis) as servers:
        with servers.session() as db:
            for number, url in enumerate((f"redis://127.0.0.1:{port}", f"redis://localhost:{port}/1",
                                          f"redis://shop:p%40ss@127.0.0.1:{port}/2",
                                          f"unix://shop:p%40ss@{redis.path}?db=3")):
                db.run(f"SET cache_ext.redis_url = '{url}'")
                get(db, "k")
                with redis.client() as client:
                    client("SELECT", number)
                    expect(client("EXISTS", "k") == 1, f"nothing was stored by way of {url}")
                    expect("cache_ext" in client("CLIENT", "LIST").decode(), "the connection has no name")
            for url in (f"redis://shop:wrong@127.0.0.1:{port}", f"redis://127.0.0.1:{port}/99",
                        "redis://no-such-host.invalid", "unix:///nowhere/redis.sock"):
                db.run(f"SET cache_ext.redis_url = '{url}'")
                expect(get(db, "k") == ANSWER, f"the query does not answer with {url}")


def a_password_comes_from_a_file_that_nobody_else_may_read(options):
    redis = Redis(work("locked"))
    redis.start()
    secret = "hunter2-of-the-test"
    path = os.path.join(redis.directory, "password")
    with Servers("locked_pg", redis) as servers:
        with open(path, "w") as file:
            file.write(secret + "\n")
        os.chown(path, os.stat(redis.directory).st_uid, os.stat(redis.directory).st_gid)
        os.chmod(path, 0o644)
        redis.ask("CONFIG", "SET", "requirepass", secret)

        def stored(key):
            with servers.session() as db:
                get(db, key)
            with redis.client() as client:
                client("AUTH", secret)
                return client("EXISTS", key) == 1

        expect(not stored("no_password"), "stored without a password")
        servers.postgres.set(cache_ext__redis_password_file=f"'{path}'")
        wait_for("the log says what is wrong with the file",
                 lambda: not stored("open_file") and "with mode 0600" in servers.postgres.log_tail(200))
        os.chmod(path, 0o600)
        wait_for("the password is accepted", lambda: stored("closed_file"))
        with open(servers.postgres.log) as log:
            expect(secret not in log.read(), "the password reached the log")


def an_acl_user_of_the_readme_can_do_all_that_is_needed(options):
    readme = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "README.md")
    with open(readme) as file:
        rules = re.search(r"^ *ACL SETUSER cache_ext (.*)$", file.read(), re.M)[1].split()
    redis = Redis(work("acl"))
    redis.start()
    redis.ask("ACL", "SETUSER", "cache_ext", *rules)
    url = redis.url.replace("unix://", "unix://cache_ext:password@")
    with Servers("acl_pg", redis, cache_ext__redis_url=f"'{url}'", cache_ext__key_prefix="'shop:'") as servers:
        with servers.session() as db:
            db.run("CREATE TABLE orders (id integer, vendor integer)")
            db.run("SELECT cache_watch('orders', keys => ARRAY['order:{id}'], tags => ARRAY['vendor:{vendor}'],"
                   " patterns => '{list:*}', channels => '{changed}')")
            redis.ask("SADD", "shop:tag:vendor:1", "shop:order:1", "shop:order:2")
            redis.ask("SET", "shop:list:a", "x")
            for statement in (
                    f"SELECT cache_get('order:1', {QUERY}, tags => '{{vendor:1}}')",
                    "SELECT cache_get('order:1')", f"SELECT cache_get('plain', {QUERY}, dialect => 'plain')",
                    "SELECT cache_set('order:2', 'two', tags => '{vendor:1}')",
                    "SELECT cache_set('plain:2', 'two', dialect => 'plain')",
                    "SELECT cache_incr('counter', 2)", "SELECT cache_add('added', 'x')",
                    "SELECT cache_expire('counter', '1 minute')", "SELECT cache_ttl('counter')",
                    "SELECT cache_exists('counter')", "SELECT cache_keys('*')",
                    "SELECT session_set('s', '{}')", "SELECT session_get('s')", "SELECT session_touch('s')",
                    "SELECT session_regenerate('s')", "SELECT session_destroy('s')", "SELECT session_set('s', '{\"userId\": 1}')",
                    "SELECT session_destroy_all('userId', '1')", "SELECT * FROM session_list", "SELECT rate_limit('r', 5, '1 s')",
                    "SELECT cache_get_many('{order:1,order:2,counter}')", "SELECT cache_delete('plain')",
                    "SELECT cache_publish('said', 'word')", "SELECT cache_invalidate_tags('vendor:1')",
                    "SELECT cache_invalidate_pattern('order:*')", "INSERT INTO orders VALUES (1, 1)",
                    "TRUNCATE orders", "SELECT cache_clear()", "SELECT cache_ping()", "SELECT * FROM redis_status"):
                db.run(statement)
            wait_for("everything is delivered", lambda: db.value("SELECT pending FROM invalidation_status") == 0)
            expect(redis.ask("EXISTS", "shop:list:a") == 0, "the pattern was not emptied")
            expect(db.value("SELECT undecided = 0 FROM rate_limit_stats"), "a limit could not be counted")
            denied = redis.ask("ACL", "LOG")
            expect(not denied, f"denied: {denied}")

            # Had something been missing, this is how it would have been seen.
            redis.ask("ACL", "SETUSER", "cache_ext", "-unlink")
            db.run("SELECT cache_delete('order:1')")
            wait_for("the status tells what is missing",
                     lambda: "NOPERM" in (db.value("SELECT last_error FROM invalidation_status") or ""))
            expect(db.value("SELECT pending FROM invalidation_status") > 0, "an invalidation was forgotten")
            redis.ask("ACL", "SETUSER", "cache_ext", "+unlink")
            wait_for("it is delivered after all", lambda: db.value("SELECT pending FROM invalidation_status") == 0)


TESTS = [
    a_reply_that_comes_too_late_reaches_no_other_question,
    a_reply_cut_in_two_by_a_cancel_reaches_no_other_question,
    a_wait_obeys_statement_timeout_and_terminate,
    who_is_terminated_amid_connecting_leaves_no_place_behind,
    exchanges_that_never_sleep_obey_a_cancel,
    one_deadline_covers_a_call_however_slowly_bytes_come,
    a_silent_redis_is_not_asked_on_every_call,
    an_outage_is_told_once_and_costs_few_timeouts,
    a_redis_that_lies_costs_neither_the_answer_nor_the_backend,
    ten_thousand_connections_leave_nothing_open,
    a_restarted_redis_is_found_again,
    a_changed_address_moves_the_traffic_at_reload,
    an_address_may_have_host_port_user_password_and_database,
    a_password_comes_from_a_file_that_nobody_else_may_read,
    an_acl_user_of_the_readme_can_do_all_that_is_needed,
]

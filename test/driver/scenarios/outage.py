"""A Redis that is silent, dead or lying delays nobody for long and breaks nothing."""

import os
import signal
import threading
import time

from harness import FakeRedis, Failure, amid_writers, expect, wait_for, with_shop

COMMAND_TIMEOUT = 0.3      # seconds, as set below
PATIENCE = 3.0             # what a loaded machine may add to it


TIMEOUTS = {"cache_ext.command_timeout": f"'{int(COMMAND_TIMEOUT * 1000)}ms'",
            "cache_ext.connect_timeout": f"'{int(COMMAND_TIMEOUT * 1000)}ms'"}


def products(db):
    db.run("CREATE TABLE product (id integer PRIMARY KEY, price integer);"
           "INSERT INTO product VALUES (1, 10), (2, 20)")
    db.run("SELECT cache_watch('product', keys => ARRAY['product:{id}'])")


def with_server(name, body, **options):
    with_shop(name, body, settings=TIMEOUTS, setup=products, **options)


PRICE = "SELECT price FROM product WHERE id = 1"


def get_price(db):
    return db.value("SELECT cache_get('product:1', %s)", (PRICE,))


def timed(action):
    started = time.monotonic()
    result = action()
    return time.monotonic() - started, result


def a_silent_redis_costs_no_more_than_the_timeout(_):
    def body(server, redis):
        with server.session("shop") as db:
            expect("10" in get_price(db), "the query's answer is wrong")
            redis.pause()
            try:
                for attempt in range(3):
                    seconds, price = timed(lambda: get_price(db))
                    expect("10" in price, f"a wrong value without Redis: {price}")
                    expect(seconds < COMMAND_TIMEOUT + PATIENCE, f"cache_get {attempt} took {seconds:.2f} s")
                seconds, _ = timed(lambda: db.run("UPDATE product SET price = 11 WHERE id = 1"))
                expect(seconds < PATIENCE, f"a commit waited {seconds:.2f} s for Redis")
                expect("11" in get_price(db), "an old value after the commit, while Redis is silent")
                expect(db.value("SELECT pending > 0 FROM invalidation_status"), "nothing is queued")
            finally:
                redis.resume()
            wait_for("the invalidation arrives when Redis answers again",
                     lambda: db.value("SELECT pending = 0 FROM invalidation_status"), 30)
            expect("11" in get_price(db), "an old value after the outage")
            stored = redis.ask("GET", "product:1")
            expect(stored is None or b'"price":10' not in stored.replace(b" ", b""),
                   f"Redis keeps the old value: {stored!r}")

    with_server("silent", body)


def waiting_for_redis_obeys_cancel_and_statement_timeout(_):
    def body(server, redis):
        server.set(cache_ext__command_timeout="'30s'", cache_ext__connect_timeout="'30s'")
        with server.session("shop") as db, server.session("shop") as other:
            get_price(db)
            wait_for("the setting has arrived",
                     lambda: db.value("SHOW cache_ext.command_timeout") == "30s")
            redis.pause()
            try:
                db.start("SELECT cache_get('product:2', 'SELECT price FROM product WHERE id = 2')")
                wait_for("the session waits for Redis", lambda: other.value(
                    "SELECT wait_event_type IN ('Extension', 'Client', 'IO') FROM pg_stat_activity"
                    " WHERE pid = %s AND state = 'active'", (db.pid,)))
                started = time.monotonic()
                other.run("SELECT pg_cancel_backend(%s)", (db.pid,))
                try:
                    db.finish(10)
                    raise Failure("the cancelled cache_get returned")
                except Exception as error:
                    expect(getattr(error, "pgcode", None) == "57014", f"not cancelled but: {error}")
                expect(time.monotonic() - started < PATIENCE, "the cancel was not obeyed promptly")
                db.run("SET statement_timeout = '200ms'")
                seconds, _ = timed(lambda: db.fails("57014",
                    "SELECT cache_get('product:2', 'SELECT price FROM product WHERE id = 2')"))
                expect(seconds < PATIENCE, f"statement_timeout was obeyed after {seconds:.2f} s")
                db.run("RESET statement_timeout")
            finally:
                redis.resume()
            # The interrupted connection is gone: no answer of an earlier question is taken for ours.
            redis.ask("SET", "plain:1", "one")
            redis.ask("SET", "plain:2", "two")
            expect(db.value("SELECT cache_get('plain:1')") == "one", "an answer to another question")
            expect(db.value("SELECT cache_get('plain:2')") == "two", "an answer to another question")

    with_server("cancel", body)


def a_dead_redis_is_survived_and_hears_everything_later(_):
    def body(server, redis):
        with server.session("shop") as db:
            get_price(db)
            redis.ask("SET", "product:2", "an application's value")
            redis.kill()
            seconds, price = timed(lambda: get_price(db))
            expect("10" in price and seconds < COMMAND_TIMEOUT + PATIENCE, f"{price} after {seconds:.2f} s")
            for i in range(20):
                db.run("UPDATE product SET price = %s", (100 + i,))
                expect(str(100 + i) in get_price(db), "an old value after a commit")
            db.run("BEGIN")
            db.run("UPDATE product SET price = 0")
            db.run("ROLLBACK")
            expect(db.value("SELECT pending > 0 AND last_error IS NOT NULL FROM invalidation_status")
                   or wait_for("the worker notices", lambda: db.value(
                       "SELECT last_error IS NOT NULL FROM invalidation_status"), 30), "no sign of the outage")
            redis.start()
            wait_for("everything queued is delivered",
                     lambda: db.value("SELECT pending = 0 FROM invalidation_status"), 30)
            expect(redis.ask("EXISTS", "product:2") == 0, "an application's key survived its invalidation")
            expect("119" in get_price(db), "an old value after the outage")

    with_server("dead", body)


def a_backlog_leaves_a_small_outbox_behind(_):
    """Every reader looks at all of the outbox, so its file must not stay large, not even amid writers."""
    def body(server, redis):
        pages = "SELECT pg_relation_size('cache_ext_internal.outbox') / 8192"
        with server.session("shop") as db:
            get_price(db)
            redis.ask("SET", "name:4999", "old")
            redis.kill()
            db.run("DO $$ BEGIN FOR i IN 1..12000 LOOP PERFORM cache_invalidate('name:' || i); COMMIT; END LOOP; END $$")
            expect(db.value(pages) > 64, "the backlog is too small for this test")

            with amid_writers(server, "UPDATE product SET price = price + 1 WHERE id = 2"):
                redis.start()
                wait_for("the outbox is small again", lambda: db.value(pages) <= 64, 30)
            wait_for("all is delivered", lambda: db.value("SELECT pending = 0 FROM invalidation_status"), 30)
            expect(redis.ask("EXISTS", "name:4999") == 0, "a name of the backlog was forgotten")
            wait_for("Redis is trusted again", lambda: get_price(db) and redis.ask("EXISTS", "product:1") == 1, 10)

    with_server("backlog", body)


# What a broken, hostile or foreign peer may say.
LIES = {
    "an error": b"-ERR no\r\n",
    "an error with format characters": b"-ERR %s%n%d\x01\x02\r\n",
    "LOADING": b"-LOADING Redis is loading the dataset in memory\r\n",
    "READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "NOAUTH": b"-NOAUTH Authentication required.\r\n",
    "garbage": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "binary": bytes(range(256)) * 4,
    "a wrong type": b":42\r\n",
    "a negative length": b"$-7\r\nhello\r\n",
    "an absurd length": b"$99999999999\r\n",
    "an overflowing length": b"*99999999999999999999\r\n",
    "an endless array": b"*2147483647\r\n" + b":1\r\n" * 100,
    "deep nesting": b"*1\r\n" * 5000,
    "half an answer": b"$100\r\nabc",
    "two answers for one question": b"$3\r\nbad\r\n$3\r\nbad\r\n",
}


def wrong_replies_never_reach_the_user(_):
    def body(server, _):
        for what, answer in LIES.items():
            fake = FakeRedis(os.path.join(os.environ["CACHE_EXT_WORK"], "fake"),
                             lambda request, answer=answer: answer)
            try:
                server.set(cache_ext__redis_url=f"'{fake.url}'")
                with server.session("shop") as db:
                    wait_for("the setting has arrived",
                             lambda: db.value("SHOW cache_ext.redis_url") == fake.url)
                    for _ in range(2):
                        seconds, price = timed(lambda: get_price(db))
                        expect(price is not None and "10" in price and "bad" not in price,
                               f"{what}: cache_get gave {price!r}")
                        expect(seconds < 2 * COMMAND_TIMEOUT + PATIENCE, f"{what}: took {seconds:.2f} s")
                    db.run("UPDATE product SET price = price WHERE id = 2")
            except Exception as error:
                raise Failure(f"{what}: {error}") from error
            finally:
                fake.stop()

    with_server("lies", body, redis=False)


def a_trickling_redis_meets_one_deadline_a_call(_):
    def body(server, _):
        stop = threading.Event()
        holder = {}

        def trickle(request):
            connection = holder["fake"].connections[-1]
            try:
                connection.sendall(b"$1000\r\n")
                while not stop.wait(COMMAND_TIMEOUT / 6):
                    connection.sendall(b"x")
            except OSError:
                pass
            return False

        fake = holder["fake"] = FakeRedis(os.path.join(os.environ["CACHE_EXT_WORK"], "trickle"), trickle)
        try:
            server.set(cache_ext__redis_url=f"'{fake.url}'")
            with server.session("shop") as db:
                wait_for("the setting has arrived", lambda: db.value("SHOW cache_ext.redis_url") == fake.url)
                seconds, price = timed(lambda: get_price(db))
                expect("10" in price, f"cache_get gave {price!r}")
                expect(seconds < 2 * COMMAND_TIMEOUT + PATIENCE, f"a byte now and then held cache_get {seconds:.2f} s")
        finally:
            stop.set()
            fake.stop()

    with_server("trickle_server", body, redis=False)


def without_a_redis_everything_else_works(_):
    def body(server, _):
        with server.session("shop") as db:
            expect("10" in get_price(db), "cache_get without a Redis")
            db.run("UPDATE product SET price = 12 WHERE id = 1")
            expect("12" in get_price(db), "an old value without a Redis")
            db.run("SELECT cache_invalidate('product:1')")
            expect(db.value("SELECT pending FROM invalidation_status") == 0,
                   "invalidations are queued although no Redis is configured")

    with_server("none", body, redis=False)
    with_server("none_plain", body, redis=False, preload=False)


def a_client_killed_while_redis_is_silent_leaves_no_backend_behind(_):
    def body(server, redis):
        server.set(cache_ext__command_timeout="'60s'", cache_ext__connect_timeout="'60s'")
        with server.session("shop") as db, server.session("shop") as other:
            get_price(db)
            wait_for("the setting has arrived", lambda: db.value("SHOW cache_ext.command_timeout") == "1min")
            redis.pause()
            try:
                db.start("SELECT cache_get('product:2', 'SELECT price FROM product WHERE id = 2')")
                wait_for("the session is busy", lambda: other.value(
                    "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'", (db.pid,)) == 1)
                other.run("SELECT pg_terminate_backend(%s)", (db.pid,))
                wait_for("the backend is gone", lambda: other.value(
                    "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (db.pid,)) == 0, 10)
                started = time.monotonic()
                os.kill(server.process.pid, signal.SIGINT)
                server.process.wait(20)
                expect(time.monotonic() - started < 15, "a silent Redis held up the server's shutdown")
            finally:
                redis.resume()
            server.start()

    with_server("terminate", body)


TESTS = [
    a_silent_redis_costs_no_more_than_the_timeout,
    waiting_for_redis_obeys_cancel_and_statement_timeout,
    a_dead_redis_is_survived_and_hears_everything_later,
    a_backlog_leaves_a_small_outbox_behind,
    wrong_replies_never_reach_the_user,
    a_trickling_redis_meets_one_deadline_a_call,
    without_a_redis_everything_else_works,
    a_client_killed_while_redis_is_silent_leaves_no_backend_behind,
]

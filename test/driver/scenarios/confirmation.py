"""invalidation = sync: COMMIT returns when Redis has been told, or says that it has not."""

import threading
import time

from harness import expect, is_waiting, wait_for
from scenarios.delivery import drained, gone, with_servers


def warnings(db):
    found = [notice for notice in db.connection.notices if notice.startswith("WARNING")]
    del db.connection.notices[:]
    return found


def a_returned_commit_is_gone_from_redis(_):
    def body(server, redis, db):
        db.run("SET cache_ext.invalidation = sync")
        with redis.client() as client, server.session("shop") as other:
            for i in range(50):
                client("MSET", f"a:{i}", "x", f"m{i}", "x", f"p:{i}:1", "x")
                client("SADD", f"tag:v:{i}", f"m{i}")
                db.run("INSERT INTO orders VALUES (%s, %s)", (i, i))
                expect(client("EXISTS", f"a:{i}", f"m{i}", f"tag:v:{i}") == 0, "COMMIT returned too early")
                db.run(f"SELECT cache_invalidate_pattern('p:{i}:*')")
                expect(client("EXISTS", f"p:{i}:1") == 0, "COMMIT returned before the sweep was done")
            for i in range(10):
                client("SET", f"a:{i}", "x")
                db.run(f"BEGIN; UPDATE orders SET note = 'x' WHERE id = {i}; PREPARE TRANSACTION 'two'")
                other.run("SET cache_ext.invalidation = sync")
                other.run("COMMIT PREPARED 'two'")
                expect(client("EXISTS", f"a:{i}") == 0, "COMMIT PREPARED returned too early")
            client("SET", "kept", "x")
            db.run("BEGIN; SELECT cache_invalidate('kept'); ROLLBACK")
            expect(client("EXISTS", "kept") == 1, "a rolled-back invalidation was delivered")
        expect(not warnings(db), "a warning although Redis was there")

    with_servers("confirmed", body)


def many_that_wait_are_all_confirmed(_):
    def body(server, redis, _):
        early = []

        def work(number):
            with server.session("shop") as db, redis.client() as client:
                db.run("SET cache_ext.invalidation = sync")
                for i in range(100):
                    client("SET", f"a:{number}", "x")
                    db.run("INSERT INTO orders VALUES (%s, %s)", (number * 1000 + i, number))
                    early.extend([number] * client("EXISTS", f"a:{number}"))
                early.extend(warnings(db))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        expect(not early, f"COMMIT returned too early: {early[:5]}")

    with_servers("many_wait", body)


def a_wait_holds_no_lock_and_ends_without_undoing_the_commit(_):
    def body(server, redis, db):
        db.run("INSERT INTO orders VALUES (1, 1), (2, 2)")
        drained(db)
        redis.pause()
        try:
            db.run("SET cache_ext.invalidation = sync; SET cache_ext.invalidation_timeout = '60s'")
            db.start("UPDATE orders SET note = 'told' WHERE id = 1")
            with server.session("shop") as other:
                wait_for("it waits", lambda: is_waiting(server, db, "Extension"))
                expect(other.value("SELECT note FROM orders WHERE id = 1") == "told", "not visible while it waits")
                other.run("SET lock_timeout = '1s'; UPDATE orders SET note = 'after' WHERE id = 1")
                other.run("SELECT pg_cancel_backend(%s)", (db.pid,))
                db.finish(5)
                expect("canceling" in "".join(warnings(db)), "no word of the cancel")
                expect(other.value("SELECT note FROM orders WHERE id = 1") == "after", "the commit was undone")

                # The deadline, and then, as the outage is known, no waiting at all.
                db.run("SET cache_ext.invalidation_timeout = '300ms'")
                start = time.monotonic()
                db.run("UPDATE orders SET note = 'late' WHERE id = 2")
                expect(time.monotonic() - start < 3, "the deadline did not hold")
                expect("not confirmed" in "".join(warnings(db)), "no warning at the deadline")
                wait_for("the outage is noticed", lambda: db.value("SELECT last_error IS NOT NULL FROM invalidation_status"), 30)

                def fast():
                    begin = time.monotonic()
                    db.run("UPDATE orders SET note = 'away' WHERE id = 2")
                    expect("not confirmed" in "".join(warnings(db)), "no warning while Redis is away")
                    return time.monotonic() - begin < 0.1

                wait_for("nobody waits any more", fast)
                expect(other.value("SELECT note FROM orders WHERE id = 2") == "away", "the commit was undone")

                # A session that is told to end does so, although it waits.
                db.run("SET cache_ext.invalidation_timeout = '60s'")
        finally:
            redis.resume()
        redis.ask("SET", "a:2", "x")
        db.run("UPDATE orders SET note = 'told' WHERE id = 2")
        expect(redis.ask("EXISTS", "a:2") == 0, "COMMIT returned too early after the outage")
        gone(redis, "a:1", "a:2")
        warnings(db)
        db.run("SELECT cache_invalidate('z')")
        expect(not warnings(db), "a warning after the outage")

    with_servers("waits", body)


TESTS = [
    a_returned_commit_is_gone_from_redis,
    many_that_wait_are_all_confirmed,
    a_wait_holds_no_lock_and_ends_without_undoing_the_commit,
]

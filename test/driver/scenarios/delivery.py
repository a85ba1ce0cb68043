"""What reaches Redis, in which form, and that nothing committed is ever forgotten."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

from harness import Redis, RedisClient, RedisGone, Servers, expect, free_port, judged, wait_for, with_shop, work


def with_servers(name, body, redis_options=(), preload=True, durable=False, **settings):
    redis = Redis(work(name + "_redis"), durable=durable, options=redis_options).start()
    with Servers(name, redis, preload, **settings) as servers, servers.session() as db:
        db.run("CREATE TABLE orders (id integer PRIMARY KEY, vendor_id integer, note text)")
        db.run("SELECT cache_watch('orders', keys => ARRAY['a:{vendor_id}'],"
               " tags => ARRAY['orders', 'v:{vendor_id}'])")
        body(servers.postgres, redis, db)


def gone(redis, *keys):
    wait_for(f"{keys} are gone", lambda: redis.ask("EXISTS", *keys) == 0)


def pending(db):
    return db.value("SELECT pending FROM invalidation_status")


def drained(db):
    wait_for("everything is delivered", lambda: pending(db) == 0)


class Listener:
    """Everything that is published on the event channel."""

    def __init__(self, redis, *channels):
        self.client = redis.client(timeout=None)
        self.client.send("SUBSCRIBE", *channels)
        for _ in channels:
            self.client.read()
        self.messages = []
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self):
        try:
            while True:
                reply = self.client.read()
                self.messages.append((reply[1].decode(), reply[2].decode()))
        except (OSError, RedisGone):  # the connection ends with the test
            pass

    def events(self):
        return [json.loads(text) for channel, text in list(self.messages) if channel == "invalidate"]

    def close(self):
        self.client.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)


def tag_sets_are_emptied_with_their_members(_):
    def body(_, redis, db):
        with redis.client() as client:
            for i in range(3000):
                client("SADD", "tag:v:7", f"m{i}")
                client("SET", f"m{i}", "x")
            client("SET", "tag:v:8", "no set")
            client("SET", "other", "x")
        db.run("INSERT INTO orders VALUES (1, 7)")
        gone(redis, *[f"m{i}" for i in range(3000)], "tag:v:7")
        db.run("INSERT INTO orders VALUES (2, 8)")
        drained(db)
        expect(redis.ask("EXISTS", "other", "tag:v:8") == 2, "something else was removed")

    with_servers("tag_sets", body)


def libraries_keys_go_as_they_are_stored(_):
    def body(_, redis, db):
        with redis.client() as client:
            for key in (":1:v:7", "shop:2:v:7", "app:v:7", "bentocache:v:7", "v2:v:7", "v:7"):
                client("SET", key, "x")
            client("HSET", "i:v2:v:7", "data", "x")          # as .NET's IDistributedCache does
            client("SADD", "app:tag:t7", "v:1", "app:v:2")    # ioredis leaves members as they are
            client("MSET", "app:v:1", "x", "app:v:2", "x", "v:2", "x", "tag:t7", "no set of ours")
            client("SADD", "app:tag:t8", "v:3")
            client("SET", "app:v:3", "x")
        db.run("SELECT cache_target_create('dj', 'django'), cache_target_create('shop', 'django',"
               " '{\"key_prefix\": \"shop\", \"version\": 2}'), cache_target_create('node', 'ioredis',"
               " '{\"key_prefix\": \"app:\"}'), cache_target_create('bento', 'bentocache'),"
               " cache_target_create('fusion', 'fusioncache'), cache_target_create('net', 'fusioncache',"
               " '{\"instance\": \"i:\"}')")
        db.run("CREATE TABLE vendor (id integer)")
        for target in ("dj", "shop", "node", "bento", "fusion", "net"):
            db.run("SELECT cache_watch('vendor', keys => ARRAY['v:{id}'], tags => %s, target => %s)",
                   (["t{id}"] if target == "node" else [], target))
        db.run("INSERT INTO vendor VALUES (7)")
        gone(redis, ":1:v:7", "shop:2:v:7", "app:v:7", "bentocache:v:7", "v2:v:7", "i:v2:v:7",
             "app:v:1", "app:v:2", "app:tag:t7")
        drained(db)
        expect(redis.ask("EXISTS", "v:7", "tag:t7", "app:v:3") == 3, "somebody else's key was removed")
        db.run("TRUNCATE vendor")
        gone(redis, "app:v:3", "app:tag:t8")

    with_servers("targets", body)


def a_name_is_removed_once_more_after_a_while_also_across_a_crash(_):
    def body(server, redis, db):
        def fill():
            redis.ask("MSET", "late:1", "x", "q:1:a", "x")

        db.run("CREATE TABLE late (id integer)")
        db.run("SELECT cache_watch('late', keys => ARRAY['late:{id}'], patterns => ARRAY['q:{id}:*'],"
               " repeat_after => '1 s')")
        fill()
        db.run("INSERT INTO late VALUES (1)")
        gone(redis, "late:1", "q:1:a")
        drained(db)
        fill()                                  # a reader that was slow
        start = time.monotonic()
        gone(redis, "late:1", "q:1:a")
        expect(time.monotonic() - start > 0.3, "it was removed at once")
        wait_for("nothing is left", lambda: db.value("SELECT count(*) FROM cache_ext_internal.repeat") == 0)

        db.run("INSERT INTO late VALUES (1)")
        drained(db)
        wait_for("it is noted", lambda: db.value("SELECT count(*) FROM cache_ext_internal.repeat") > 0)
        db.close()
        server.crash()
        fill()
        server.start()
        gone(redis, "late:1", "q:1:a")
        with server.session("shop") as again:
            drained(again)

    with_servers("repeat", body)


def a_pattern_removes_what_it_matches_and_nothing_else(_):
    def body(_, redis, db):
        with redis.client() as client:
            for i in range(20000):
                client.send("SET", f"p:{i}", "x")
            for i in range(20000):
                client.read()
            for key in ("p", "pq:1", "q:p:1", "p*:1"):
                client("SET", key, "x")
        db.run("BEGIN; SELECT cache_invalidate_pattern('p:*'); ROLLBACK")
        db.run("SELECT cache_invalidate('z')")
        drained(db)
        expect(redis.ask("EXISTS", "p:0") == 1, "a rolled-back pattern was delivered")
        db.run("SELECT cache_invalidate_pattern('p:*')")
        # Others need not wait for the sweep, and the row stays until it is done.
        redis.ask("SET", "a:9", "x")
        db.run("INSERT INTO orders VALUES (1, 9)")
        gone(redis, "a:9")
        drained(db)
        left = [key.decode() for key in redis.ask("KEYS", "p*")]
        expect(sorted(left) == ["p", "p*:1", "pq:1"], f"left: {sorted(left)[:10]}")
        db.run("SELECT cache_invalidate_pattern('p\\*:?')")
        gone(redis, "p*:1")

    with_servers("pattern", body)


def truncate_takes_everything_that_rows_could_name(_):
    def body(_, redis, db):
        for i in range(5):
            redis.ask("SET", f"a:{i}", "x")
            redis.ask("SADD", f"tag:v:{i}", f"m{i}")
            redis.ask("SET", f"m{i}", "x")
        redis.ask("SET", "b:1", "x")
        db.run("SELECT cache_get('own', 'SELECT 1 AS x', tags => ARRAY['v:3'])")
        db.run("BEGIN; TRUNCATE orders; SAVEPOINT s; ROLLBACK TO s; COMMIT")
        gone(redis, *[f"a:{i}" for i in range(5)], *[f"m{i}" for i in range(5)])
        drained(db)
        expect(redis.ask("EXISTS", "b:1") == 1, "a key of somebody else was removed")
        expect(db.value("SELECT cache_get('own')") is None, "an entry of the tag family survived")

    with_servers("truncate", body)


def events_are_numbered_without_a_gap_and_say_what_is_gone(_):
    def body(_, redis, db):
        listener = Listener(redis, "invalidate", "news")
        try:
            for i in range(20):
                db.run("INSERT INTO orders VALUES (%s, %s)", (i, i))
                if i % 5 == 0:
                    drained(db)
            db.run("BEGIN; SELECT cache_publish('news', 'first'), cache_publish('news', 'second'),"
                   " cache_publish('news', 'first'); COMMIT")
            db.run("SELECT cache_invalidate_pattern('x:*')")
            drained(db)
            wait_for("the pattern's event", lambda: any(e["patterns"] for e in listener.events()))
            wait_for("the news", lambda: [m for c, m in listener.messages if c == "news"]
                     == ["first", "second", "first"])
            events = listener.events()
            numbers = [e["seq"] for e in events]
            expect(numbers == list(range(numbers[0], numbers[0] + len(numbers))),
                   f"numbers with gaps: {numbers}")
            first = events[0]
            expect(list(first) == ["v", "database", "epoch", "seq", "xid", "lsn", "at", "keys", "tags",
                                   "patterns", "all"] and first["v"] == 1, f"form: {first}")
            expect(first["database"] == "shop" and first["all"] is False
                   and first["epoch"] == db.value("SELECT epoch FROM invalidation_status"), f"{first}")
            keys = {k for e in events for k in e["keys"]}
            tags = {t for e in events for t in e["tags"]}
            expect(keys == {f"a:{i}" for i in range(20)}, f"keys: {keys}")
            expect(tags == {f"v:{i}" for i in range(20)} | {"orders"}, f"tags: {tags}")
            db.run("TRUNCATE orders")
            wait_for("a collapse says all", lambda: listener.events()[-1]["all"])
        finally:
            listener.close()

    with_servers("events", body)


def an_older_redis_is_told_again_what_it_has_forgotten(_):
    def body(_, redis, db):
        redis.ask("SET", "a:1", "old")
        redis.ask("SET", "kept", "x")
        files = os.path.join(redis.directory, "appendonlydir")
        if redis.durable:
            subprocess.run(["cp", "-a", files, files + ".old"], check=True)
        else:
            redis.ask("SAVE")
        db.run("INSERT INTO orders VALUES (1, 1)")
        gone(redis, "a:1")
        drained(db)
        redis.kill()
        if redis.durable:
            shutil.rmtree(files)
            os.rename(files + ".old", files)
        redis.start()
        gone(redis, "a:1")     # it had been kept, so it was back
        drained(db)
        expect(redis.ask("EXISTS", "kept") == 1, "something else was removed")

    with_servers("older", body)
    with_servers("older_file", body, durable=True)


AT_ONCE = ("--repl-diskless-sync-delay", "0")     # a replica is served without waiting for others


def a_replica_that_takes_over_is_told_what_it_has_missed(_):
    port = free_port()

    def body(server, redis, db):
        def epoch():
            return db.value("SELECT epoch FROM invalidation_status")

        def exists(*keys):
            with RedisClient(redis.path) as client:
                return client("EXISTS", *keys)

        work = os.environ["CACHE_EXT_WORK"]
        replica_port = free_port()
        replica = Redis(os.path.join(work, "follower"), options=("--port", str(replica_port), *AT_ONCE))
        try:
            replica.start()
            redis.ask("MSET", "a:1", "old", "a:2", "old", "kept", "x")
            db.run("INSERT INTO orders VALUES (9, 9)")      # so that this Redis is the known one
            own = "SELECT cache_get('own', 'SELECT count(*) FROM orders', tags => ARRAY['orders'])"
            drained(db)
            wait_for("an own entry", lambda: db.run(own) and redis.ask("EXISTS", "own"))
            replica.ask("REPLICAOF", "127.0.0.1", port)
            wait_for("the replica has it all", lambda: replica.ask("EXISTS", "a:1", "a:2", "kept", "own") == 4)
            replica.ask("REPLICAOF", "NO", "ONE")
            db.run("INSERT INTO orders VALUES (1, 1), (2, 2)")
            gone(redis, "a:1", "a:2")
            drained(db)
            before = epoch()
            redis.kill()
            expect(replica.ask("EXISTS", "a:1", "a:2") == 2, "the replica has heard of it after all")
            os.replace(replica.path, redis.path)            # it takes over the address
            wait_for("what it missed has gone", lambda: exists("a:1", "a:2") == 0)
            drained(db)
            expect(epoch() > before, "the epoch is the one of the server that died")
            expect(exists("kept") == 1, "something else was removed")
            found = db.value(own)
            expect('"count": 3' in found or '"count":3' in found, f"an own entry of the other server is believed: {found}")

            # A server that is made a replica by hand cuts no connection, and takes over what the other has.
            other = Redis(os.path.join(work, "older"), options=("--port", str(port), *AT_ONCE)).start()
            other.ask("MSET", "a:1", "old", "kept", "x")
            before = epoch()
            try:
                with RedisClient(redis.path) as client:
                    client("REPLICAOF", "127.0.0.1", port)
                    wait_for("it has what the other has", lambda: client("EXISTS", "a:1") == 1)
                    client("REPLICAOF", "NO", "ONE")
                wait_for("what came back has gone", lambda: exists("a:1") == 0)
                wait_for("the epoch has changed", lambda: epoch() > before)
                drained(db)
                expect(exists("kept") == 1, "something else was removed")
            finally:
                other.stop()
        finally:
            replica.stop()

    with_servers("takeover", body, redis_options=("--port", str(port), *AT_ONCE), cache_ext__memory_size="0")


def a_redis_configured_late_gets_a_new_epoch_and_everything_watched_goes(_):
    def body(server, redis, db):
        server.set(cache_ext__redis_url="''")
        wait_for("no Redis", lambda: db.value("SHOW cache_ext.redis_url") == "")
        epoch = db.value("SELECT epoch FROM invalidation_status")
        for key in ("a:1", "a:2", "b:1", "m"):
            redis.ask("SET", key, "x")
        redis.ask("SADD", "tag:orders", "m")
        db.run("INSERT INTO orders VALUES (1, 1)")
        db.run("UPDATE orders SET vendor_id = 2")
        expect(pending(db) == 0, "something was queued for no Redis")
        server.set(cache_ext__redis_url=f"'{redis.url}'")
        gone(redis, "a:1", "a:2", "m")
        drained(db)
        expect(redis.ask("EXISTS", "b:1") == 1, "a key that nobody watches was removed")
        expect(db.value("SELECT epoch FROM invalidation_status") == epoch + 1, "the epoch is the old one")

    with_servers("late", body)


def a_redis_without_memory_still_loses_what_is_invalid(_):
    def body(_, redis, db):
        redis.ask("SET", "a:1", "x")
        db.run("SELECT cache_get('own', 'SELECT 1 AS x', tags => ARRAY['v:1'])")
        expect(db.value("SELECT cache_get('own')") is not None, "nothing was stored")
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        db.run("INSERT INTO orders VALUES (1, 1)")
        gone(redis, "a:1")
        drained(db)
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        expect(db.value("SELECT cache_get('own')") is None, "an invalid entry is believed")

    with_servers("memory", body)


def a_name_that_redis_forbids_holds_up_no_other(_):
    def body(server, redis, db):
        allowed = ("~a:*", "~tag:*", "~v:*", "~floor", "~m*", "&*", "+@all")
        redis.ask("ACL", "SETUSER", "cache_ext", "on", ">secret", *allowed)
        server.set(cache_ext__redis_url=f"'unix://cache_ext:secret@{redis.path}'")
        wait_for("the address", lambda: "secret" in db.value("SHOW cache_ext.redis_url"))
        db.run("INSERT INTO orders VALUES (0, 0)")
        drained(db)
        worker = db.value("SELECT worker_pid FROM invalidation_status")
        for key in ["other:1"] + [f"a:{i}" for i in range(1, 61)]:
            redis.ask("SET", key, "x")
        os.kill(worker, signal.SIGSTOP)
        for i in range(1, 61):
            db.run("INSERT INTO orders VALUES (%s, %s)", (i, i))
            if i == 20:
                db.run("SELECT cache_invalidate('other:1')")
        os.kill(worker, signal.SIGCONT)
        gone(redis, *[f"a:{i}" for i in range(1, 61)])
        error = wait_for("the error", lambda: db.value("SELECT last_error FROM invalidation_status"))
        wait_for("it names the key", lambda: "other:1" in db.value("SELECT last_error FROM invalidation_status"))
        expect(pending(db) == 1 and redis.ask("EXISTS", "other:1") == 1, f"{pending(db)} wait; {error}")
        redis.ask("ACL", "SETUSER", "cache_ext", "~other:*")
        gone(redis, "other:1")
        drained(db)

    with_servers("forbidden", body)


def a_pattern_over_keys_that_redis_forbids_is_tried_now_and_then(_):
    """It takes what it may, does not sweep on for ever, and holds up neither other patterns nor keys."""
    def body(server, redis, db):
        allowed = ("~a:*", "~tag:*", "~v:*", "~floor", "~m*", "~p:*", "&*", "+@all")
        redis.ask("ACL", "SETUSER", "cache_ext", "on", ">secret", *allowed)
        server.set(cache_ext__redis_url=f"'unix://cache_ext:secret@{redis.path}'")
        wait_for("the address", lambda: "secret" in db.value("SHOW cache_ext.redis_url"))
        db.run("INSERT INTO orders VALUES (0, 0)")
        drained(db)
        with redis.client() as client:
            for i in range(3000):
                client.send("SET", f"p:{i}", "x")
            for i in range(3000):
                client.read()
        for key in ("other:1", "a:1", "a:2"):
            redis.ask("SET", key, "x")
        redis.ask("SADD", "tag:theirs", "other:1", "a:2")
        worker = db.value("SELECT worker_pid FROM invalidation_status")
        os.kill(worker, signal.SIGSTOP)      # so that all of it is one sweep
        for pattern in ("*:[0-9]*", "p:1*", "a:1"):
            db.run("SELECT cache_invalidate_pattern(%s)", (pattern,))
        os.kill(worker, signal.SIGCONT)
        gone(redis, "a:1", *[f"p:{i}" for i in range(3000)])
        wait_for("the others are confirmed", lambda: pending(db) == 1)
        wait_for("the error names the key", lambda: "other:1" in db.value("SELECT last_error FROM invalidation_status"))
        db.run("SELECT cache_invalidate_tags('theirs')")     # a set with a member that is forbidden
        wait_for("both wait", lambda: pending(db) == 2)

        def scans():
            found = [line for line in redis.ask("INFO", "commandstats").decode().splitlines() if line.startswith("cmdstat_scan:")]
            return int(found[0].split("calls=")[1].split(",")[0])

        before, delivered = scans(), db.value("SELECT delivered FROM invalidation_status")
        for i in range(5, 25):
            redis.ask("SET", f"a:{i}", "x")
            began = time.monotonic()
            db.run("INSERT INTO orders VALUES (%s, %s)", (i, i))
            gone(redis, f"a:{i}")
            expect(time.monotonic() - began < 2, "what is forbidden holds up what is not")
        wait_for("all but those two is confirmed", lambda: pending(db) == 2)
        expect(scans() - before < 40, f"{scans() - before} SCANs: it sweeps on")
        expect(db.value("SELECT delivered FROM invalidation_status") > delivered, "nothing else was delivered")
        redis.ask("ACL", "SETUSER", "cache_ext", "~other:*")
        wait_for("what is allowed now goes", lambda: redis.ask("EXISTS", "other:1") == 0, 40)
        wait_for("all is delivered", lambda: pending(db) == 0, 40)

    with_servers("forbidden_pattern", body)


def a_set_holds_unless_somebody_else_touched_its_buckets(_):
    def body(server, redis, db):
        db.run("SELECT cache_set('s1', 'one', tags => ARRAY['T'])")
        drained(db)
        expect(db.value("SELECT cache_get('s1')") == "one", "the value is not there")
        with server.session("shop") as other:
            worker = db.value("SELECT worker_pid FROM invalidation_status")
            os.kill(worker, signal.SIGSTOP)     # so that all of it is one batch
            try:
                db.run("SELECT cache_set('s2', 'two', tags => ARRAY['T2'])")
                other.run("SELECT cache_invalidate_tags('T2')")
                db.run("SELECT cache_set('s3', 'a')")
                other.run("SELECT cache_set('s3', 'b')")
                db.run("SELECT cache_set('s4', 'four')")
            finally:
                os.kill(worker, signal.SIGCONT)
            drained(db)
            expect(db.value("SELECT cache_get('s2')") is None, "a set outlived a later invalidation")
            expect(db.value("SELECT cache_get('s3')") in (None, "b"), "the earlier set won")
            expect(db.value("SELECT cache_get('s4')") == "four", "an undisturbed set is missing")

    with_servers("sets", body)


def bulk_changes_collapse_and_forget_nothing(_):
    def body(_, redis, db):
        for i in (1, 20000, 60000):
            redis.ask("SET", f"a:{i}", "x")
        db.run("INSERT INTO orders SELECT i, i FROM generate_series(1, 400000) i")
        with open(f"/proc/{db.pid}/status") as status:
            kilobytes = next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))
        expect(kilobytes < 48 * 1024, f"the writer holds {kilobytes} kB")
        expect(pending(db) < 25000, "more is queued than a watch may name")
        gone(redis, "a:1", "a:20000", "a:60000")
        drained(db)

    with_servers("bulk", body)


def a_long_outage_keeps_one_item_a_name(_):
    def body(_, redis, db):
        redis.kill()
        db.run("INSERT INTO orders VALUES (1, 1)")
        merged = "SELECT collapsed > 0 AND pending < 1000 FROM invalidation_status"

        # Not so fast that the queue is always long again when somebody looks.
        def write_and_look():
            for _ in range(200):
                db.run("UPDATE orders SET note = note")
            return db.value(merged)

        wait_for("the queue is merged", write_and_look, 40, interval=0.1)
        redis.start()
        redis.ask("SET", "a:1", "x")
        gone(redis, "a:1")
        drained(db)

    with_servers("outage", body, durable=True)


def an_outage_of_very_many_names_collapses_to_what_is_watched(_):
    def body(_, redis, db):
        redis.kill()
        for first in range(0, 63000, 4500):     # fewer than a transaction keeps by name
            db.run("INSERT INTO orders SELECT i, i FROM generate_series(%s, %s) i", (first, first + 4499))
        db.run("SELECT cache_invalidate('mine:1'), cache_publish('news', 'kept')")
        wait_for("the queue is short", lambda: db.value(
            "SELECT collapsed > 40000 AND pending < 60000 FROM invalidation_status"), 40)
        db.run("INSERT INTO orders VALUES (99999, 99999)")      # the next names are names again
        worker = db.value("SELECT worker_pid FROM invalidation_status")
        os.kill(worker, signal.SIGSTOP)
        redis.start()
        for key in ("a:1", "a:62999", "a:99999", "mine:1", "mine:2", "m1"):
            redis.ask("SET", key, "x")
        redis.ask("SADD", "tag:v:8", "m1")
        listener = Listener(redis, "invalidate", "news")
        os.kill(worker, signal.SIGCONT)
        try:
            gone(redis, "a:1", "a:62999", "a:99999", "mine:1", "m1")
            drained(db)
            expect(redis.ask("EXISTS", "mine:2") == 1, "a key that nobody named was removed")
            wait_for("the event says all", lambda: any(e["all"] for e in listener.events()))
            wait_for("the message", lambda: ("news", "kept") in listener.messages)
        finally:
            listener.close()

    with_servers("collapse", body, durable=True)


def asynchronous_commits_and_prepared_ones_are_delivered(_):
    def body(server, redis, db):
        redis.ask("SET", "a:1", "x")
        db.run("SET synchronous_commit = off; INSERT INTO orders VALUES (1, 1)")
        gone(redis, "a:1")
        redis.ask("SET", "a:2", "x")
        db.run("BEGIN; INSERT INTO orders VALUES (2, 2); PREPARE TRANSACTION 'two'")
        db.run("SELECT cache_invalidate('z')")
        drained(db)
        expect(redis.ask("EXISTS", "a:2") == 1, "a prepared transaction was delivered")
        with server.session("shop") as other:
            other.run("COMMIT PREPARED 'two'")
        gone(redis, "a:2")

    with_servers("async", body)


def the_worker_goes_when_the_database_is_wanted(_):
    def body(server, redis, _):
        server.create_database("old")
        with server.session("old") as db:
            redis.pause()
            db.run("SELECT cache_invalidate('a')")
            wait_for("a worker", lambda: db.value("SELECT worker_pid FROM invalidation_status"))
        with server.session() as admin:
            admin.run("CREATE DATABASE copy TEMPLATE old")
            admin.run("DROP DATABASE copy")
            admin.run("ALTER DATABASE old RENAME TO older")
            admin.run("DROP DATABASE older")
        redis.resume()

    with_servers("wanted", body)


def who_may_nothing_holds_up_no_delivery(_):
    def body(server, redis, db):
        db.run("CREATE ROLE bare LOGIN")
        with server.session("shop", user="bare") as bare:
            for number, command in enumerate(("DROP OWNED BY CURRENT_USER CASCADE", "DROP SCHEMA IF EXISTS nosuch CASCADE",
                                              "DROP EXTENSION IF EXISTS nosuch CASCADE")):
                bare.run(f"BEGIN; {command}")
                redis.ask("SET", f"a:{number}", "x")
                db.run("INSERT INTO orders VALUES (%s, %s)", (number, number))
                gone(redis, f"a:{number}")
                bare.run("ROLLBACK")
            for number in range(10, 20):
                bare.fails("42501", "CREATE DATABASE nope TEMPLATE shop")
                redis.ask("SET", f"a:{number}", "x")
                db.run("INSERT INTO orders VALUES (%s, %s)", (number, number))
                wait_for("delivered", lambda: redis.ask("EXISTS", f"a:{number}") == 0, 3)

    with_servers("bare", body)


def a_terminated_worker_leaves_its_work_to_the_next_one(_):
    def body(server, redis, db):
        db.run("INSERT INTO orders VALUES (1, 1)")
        drained(db)
        redis.ask("SET", "a:2", "x")
        redis.pause()
        db.run("INSERT INTO orders VALUES (2, 2)")
        pid = wait_for("a worker runs", lambda: server.worker_pids("shop"))[0]
        time.sleep(1)                        # it waits for the answer
        db.run("SELECT pg_terminate_backend(%s)", (pid,))
        wait_for("it has ended", lambda: pid not in server.worker_pids("shop"))
        redis.resume()
        # Nobody commits anything now.
        gone(redis, "a:2")

    with_servers("terminated", body)


def a_worker_whose_work_fails_holds_up_nobody(_):
    def body(server, redis, db):
        server.expect(r"cache_ext worker .* ERROR")
        db.run("ALTER TABLE cache_ext_internal.delivery RENAME TO mislaid")
        redis.ask("SET", "a:1", "x")
        db.run("INSERT INTO orders VALUES (1, 1)")
        wait_for("its error", lambda: "ERROR" in server.log_tail())
        server.create_database("other", extension=False)
        with server.session() as admin:
            admin.run("SET statement_timeout = '10s'")
            admin.run("DROP DATABASE other")        # waits until every process has let go of its files
        db.run("ALTER TABLE cache_ext_internal.mislaid RENAME TO delivery")
        gone(redis, "a:1")

    with_servers("failing", body)


def an_idle_worker_leaves_and_the_next_commit_brings_it_back(_):
    def body(server, redis, db):
        db.run("INSERT INTO orders VALUES (1, 1)")
        wait_for("a worker", lambda: server.worker_pids("shop"))
        wait_for("it has gone", lambda: not server.worker_pids("shop"), 30)
        redis.ask("SET", "a:2", "x")
        db.run("INSERT INTO orders VALUES (2, 2)")
        gone(redis, "a:2")

    with_servers("idle", body, preload=False)


def what_a_subscription_applies_is_invalidated(_):
    def body(server, redis, db):
        server.create_database("origin", extension=False)
        with server.session("origin") as origin:
            origin.run("CREATE TABLE orders (id integer PRIMARY KEY, vendor_id integer, note text)")
            origin.run("ALTER TABLE orders REPLICA IDENTITY FULL")
            origin.run("CREATE PUBLICATION all_orders FOR TABLE orders")
            origin.run("SELECT pg_create_logical_replication_slot('shop', 'pgoutput')")
            db.run(f"CREATE SUBSCRIPTION shop CONNECTION 'host={server.socket} user=postgres dbname=origin'"
                   " PUBLICATION all_orders WITH (create_slot = false, slot_name = 'shop')")
            for command, keys in (("INSERT INTO orders VALUES (1, 1), (2, 2)", ("a:1", "a:2")),
                                  ("UPDATE orders SET vendor_id = 3 WHERE id = 1", ("a:1", "a:3")),
                                  ("DELETE FROM orders WHERE id = 2", ("a:2",)),
                                  ("TRUNCATE orders", ("a:1", "a:7"))):
                for key in keys:
                    redis.ask("SET", key, "x")
                origin.run(command)
                gone(redis, *keys)
            db.run("ALTER SUBSCRIPTION shop DISABLE; ALTER SUBSCRIPTION shop SET (slot_name = NONE);"
                   " DROP SUBSCRIPTION shop")
            wait_for("the slot is free", lambda: not origin.value("SELECT active FROM pg_replication_slots"))
            origin.run("SELECT pg_drop_replication_slot('shop')")
        # and by a session that plays replica itself
        redis.ask("SET", "a:5", "x")
        db.run("SET session_replication_role = replica; INSERT INTO orders VALUES (5, 5)")
        gone(redis, "a:5")

    with_servers("apply", body, wal_level="logical", max_logical_replication_workers="8")


def a_promoted_standby_delivers_what_its_primary_could_not(_):
    def body(server, redis, db):
        db.run("INSERT INTO orders VALUES (1, 1)")
        drained(db)
        with judged(server.copy(work("promoted"))) as standby:
            os.kill(db.value("SELECT worker_pid FROM invalidation_status"), signal.SIGSTOP)
            redis.ask("SET", "a:2", "x")
            db.run("INSERT INTO orders VALUES (2, 2)")
            with standby.session("shop") as there:
                wait_for("it is replayed", lambda: pending(there) > 0)
                expect(not standby.worker_pids("shop"), "a worker on a standby")
                expect(redis.ask("EXISTS", "a:2") == 1, "a standby has delivered")
                db.close()
                server.stop("immediate")
                there.run("SELECT pg_promote()")
                gone(redis, "a:2")
                drained(there)

    with_servers("primary", body)


def dropping_the_extension_stops_the_worker_quietly(_):
    def body(server, redis, db):
        for _ in range(3):
            db.run("SELECT cache_invalidate('a')")
            db.run("DROP EXTENSION cache_ext CASCADE")
            wait_for("the worker has gone", lambda: not server.worker_pids("shop"))
            db.run("CREATE EXTENSION cache_ext")
        redis.ask("SET", "a", "x")
        db.run("SELECT cache_invalidate('a')")
        gone(redis, "a")

    with_servers("dropped", body)


def commands_that_change_rows_without_triggers_invalidate_what_is_watched(_):
    def body(server, redis):
        def sent(command, ends="COMMIT"):
            """Is what the watch could name gone after the command?"""
            redis.ask("MSET", "stock:1", "old", "stock:2", "old", "kept:1", "old")
            db.run(f"BEGIN; {command}; {ends}")
            db.run("SELECT cache_invalidate('marker')")
            wait_for("everything is delivered", lambda: db.value("SELECT pending = 0 FROM invalidation_status"))
            expect(redis.ask("GET", "kept:1") == b"old", f"{command}: more is gone than was watched")
            return redis.ask("EXISTS", "stock:1", "stock:2") == 0

        with server.session("shop") as db:
            db.run("CREATE TABLE stock (id integer PRIMARY KEY, n integer) PARTITION BY RANGE (id);"
                   "CREATE TABLE stock_1 PARTITION OF stock FOR VALUES FROM (0) TO (10);"
                   "INSERT INTO stock VALUES (1, 5)")
            db.run("SELECT cache_watch('stock', keys => ARRAY['stock:{id}'])")
            retype = "ALTER TABLE stock ALTER COLUMN n TYPE text USING (n * 2)::text"
            expect(not sent(retype, "ROLLBACK"), "a type was changed and back, and Redis was told")
            expect(sent(retype), "a column with other values is not told")
            expect(not sent("ALTER TABLE stock ALTER COLUMN n SET STATISTICS 10"), "nothing has changed, and Redis was told")
            expect(not sent("DROP TABLE stock", "ROLLBACK"), "a drop was undone, and Redis was told")
            expect(sent("DROP TABLE stock"), "a dropped table is not told")
            db.run("CREATE SCHEMA attic; CREATE TABLE attic.stock (id integer)")
            db.run("SELECT cache_watch('attic.stock', keys => ARRAY['stock:{id}'])")
            expect(sent("DROP SCHEMA attic CASCADE"), "a table dropped with its schema is not told")

    with_shop("commands", body)


TESTS = [
    who_may_nothing_holds_up_no_delivery,
    a_terminated_worker_leaves_its_work_to_the_next_one,
    commands_that_change_rows_without_triggers_invalidate_what_is_watched,
    tag_sets_are_emptied_with_their_members,
    libraries_keys_go_as_they_are_stored,
    a_name_is_removed_once_more_after_a_while_also_across_a_crash,
    a_pattern_removes_what_it_matches_and_nothing_else,
    truncate_takes_everything_that_rows_could_name,
    events_are_numbered_without_a_gap_and_say_what_is_gone,
    an_older_redis_is_told_again_what_it_has_forgotten,
    a_replica_that_takes_over_is_told_what_it_has_missed,
    a_redis_configured_late_gets_a_new_epoch_and_everything_watched_goes,
    a_redis_without_memory_still_loses_what_is_invalid,
    a_name_that_redis_forbids_holds_up_no_other,
    a_pattern_over_keys_that_redis_forbids_is_tried_now_and_then,
    a_set_holds_unless_somebody_else_touched_its_buckets,
    bulk_changes_collapse_and_forget_nothing,
    a_long_outage_keeps_one_item_a_name,
    an_outage_of_very_many_names_collapses_to_what_is_watched,
    asynchronous_commits_and_prepared_ones_are_delivered,
    the_worker_goes_when_the_database_is_wanted,
    a_worker_whose_work_fails_holds_up_nobody,
    an_idle_worker_leaves_and_the_next_commit_brings_it_back,
    what_a_subscription_applies_is_invalidated,
    a_promoted_standby_delivers_what_its_primary_could_not,
    dropping_the_extension_stops_the_worker_quietly,
]

"""What is very large is delivered in bounded steps, in bounded memory, and forgotten nowhere."""

import hashlib
import os
import signal
import threading
import time

from harness import expect, wait_for
from scenarios.delivery import Listener, drained, gone, pending, with_servers

MEMBERS = 1000 * 1000


def command(*arguments):
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in arguments)


def pipe(redis, commands):
    """Send many commands at once; each of them has to be answered by no error."""
    with redis.client(timeout=60) as client:
        threading.Thread(target=client.socket.sendall, args=(b"".join(commands),), daemon=True).start()
        for _ in commands:
            client.read()


def fill_set(redis, name, members):
    commands = []
    for first in range(0, members, 1000):
        names = [b"m:%d" % i for i in range(first, min(members, first + 1000))]
        commands.append(command(b"SADD", name, *names))
        commands.append(command(b"MSET", *[part for key in names for part in (key, b"x")]))
    pipe(redis, commands)


class Pinger:
    """How long Redis keeps others waiting."""

    def __init__(self, redis):
        self.client = redis.client(timeout=60)
        self.longest, self.running = 0.0, True
        self.thread = threading.Thread(target=self._ping, daemon=True)
        self.thread.start()

    def _ping(self):
        while self.running:
            start = time.monotonic()
            self.client("PING")
            self.longest = max(self.longest, time.monotonic() - start)
            time.sleep(0.001)

    def stop(self):
        self.running = False
        self.thread.join(10)
        self.client.close()
        return self.longest


def memory_of(pid):
    """The most that a process has held beside what it shares, in kB."""
    with open(f"/proc/{pid}/status") as status:
        values = dict(line.split(":", 1) for line in status)
    return int(values["RssAnon"].split()[0])


def a_tag_set_of_a_million_members_is_emptied_in_steps(_):
    def body(server, redis, db):
        redis.ask("CONFIG", "SET", "slowlog-log-slower-than", "100000")
        fill_set(redis, b"tag:v:7", MEMBERS)
        db.run("SELECT cache_invalidate('first')")
        drained(db)
        worker = db.value("SELECT worker_pid FROM invalidation_status")
        memory = memory_of(worker)
        expect(redis.ask("SCARD", "tag:v:7") == MEMBERS, "the set is not what it should be")
        redis.ask("SLOWLOG", "RESET")
        pinger = Pinger(redis)
        start = time.monotonic()
        db.run("INSERT INTO orders VALUES (1, 7)")

        # Meanwhile an application goes on adding, and others' commits are told as soon as ever.
        added, longest = 0, 0.0
        while redis.ask("SCARD", "tag:v:7") > MEMBERS // 10:
            redis.ask("SET", f"n:{added}", "x")
            redis.ask("SADD", "tag:v:7", f"n:{added}")
            added += 1
            redis.ask("SET", "other", "x")
            commit = time.monotonic()
            db.run("SELECT cache_invalidate('other')")
            gone(redis, "other")
            longest = max(longest, time.monotonic() - commit)
            memory = max(memory, memory_of(worker))
        wait_for("all members have gone", lambda: redis.ask("SCARD", "tag:v:7") < 1000, 30)
        drained(db)
        seconds, pause = time.monotonic() - start, pinger.stop()
        print(f"        {seconds:.1f} s, longest pause {pause * 1000:.0f} ms,"
              f" longest other commit {longest * 1000:.0f} ms, worker {memory} kB, {added} added")
        expect(added > 3, "nothing happened meanwhile")
        expect(longest < 1, f"another commit was told after {longest:.2f} s")
        expect(pause < 0.25, f"Redis kept others waiting for {pause:.3f} s")
        expect(not redis.ask("SLOWLOG", "GET", "10"), f"slow commands: {redis.ask('SLOWLOG', 'GET', '1')}")
        expect(memory < 40 * 1024, f"the worker holds {memory} kB")
        expect(not [i for i in range(0, MEMBERS, 997) if redis.ask("EXISTS", f"m:{i}")], "members are left")
        for i in range(added):
            if redis.ask("EXISTS", f"n:{i}"):
                expect(redis.ask("SISMEMBER", "tag:v:7", f"n:{i}"), f"n:{i} is there, and no tag knows it")

    with_servers("million", body)


def a_large_tag_set_is_emptied_across_a_crash(_):
    def body(server, redis, db):
        for i in range(3):
            fill_set(redis, b"tag:v:%d" % i, 150 * 1000)
        db.run("INSERT INTO orders SELECT i, i FROM generate_series(0, 2) i")
        wait_for("it has begun", lambda: redis.ask("SCARD", "tag:v:0") < 140 * 1000, interval=0.001)
        worker = db.value("SELECT worker_pid FROM invalidation_status")
        left = sum(redis.ask("SCARD", f"tag:v:{i}") for i in range(3))
        db.close()
        server.expect(r"was terminated by signal 9")
        server.kill_process(worker)
        expect(left > 0, "nothing was left for the second worker")
        gone(redis, "tag:v:0", "tag:v:1", "tag:v:2")
        with server.session("shop") as again:
            drained(again)
        expect(not [i for i in range(0, 150000, 97) if redis.ask("EXISTS", f"m:{i}")], "members are left")

    with_servers("halfway", body)


def with_sync_a_commit_returns_when_the_last_member_has_gone(_):
    def body(_, redis, db):
        fill_set(redis, b"tag:v:7", 200 * 1000)
        db.run("SET cache_ext.invalidation = sync; SET cache_ext.invalidation_timeout = '20s'")
        db.run("INSERT INTO orders VALUES (1, 7)")
        expect(redis.ask("EXISTS", "tag:v:7", "m:0", "m:199999") == 0, "COMMIT returned before they had gone")
        expect(not db.connection.notices, f"{db.connection.notices}")

    with_servers("confirmed_set", body)


def set_keys(redis, *keys):
    redis.ask("MSET", *[part for key in keys for part in (key, "x")])


def a_statement_over_a_million_rows_leaves_its_distinct_targets(_):
    def body(server, redis, db):
        set_keys(redis, "a:0", "a:99", "a:100", "m")
        redis.ask("SADD", "tag:v:7", "m")
        before = memory_of(db.pid)
        db.run("INSERT INTO orders SELECT i, i % 100 FROM generate_series(1, 1000000) i")
        grown = memory_of(db.pid) - before
        gone(redis, "a:0", "a:99", "m")
        drained(db)
        delivered = db.value("SELECT delivered FROM invalidation_status")
        expect(delivered < 1000, f"{delivered} items were delivered")
        expect(redis.ask("EXISTS", "a:100") == 1, "what no row names was removed")
        expect(grown < 16 * 1024, f"the session has grown by {grown} kB")

        db.run("UPDATE orders SET vendor_id = id WHERE id <= 200000")     # and where all of them differ, what they widen to
        gone(redis, "a:100")
        drained(db)
        delivered = db.value("SELECT delivered FROM invalidation_status") - delivered
        expect(delivered < 40000, f"{delivered} items were delivered")

    with_servers("rows", body)


def statements_of_one_row_each_leave_no_more_than_one_of_all(_):
    def body(_, redis, db):
        set_keys(redis, "a:1", "a:149999", "b:1")
        before = memory_of(db.pid)
        db.run("DO $$ BEGIN FOR i IN 1..150000 LOOP INSERT INTO orders VALUES (i, i); END LOOP; END $$")
        grown = memory_of(db.pid) - before
        gone(redis, "a:1", "a:149999")
        drained(db)
        delivered = db.value("SELECT delivered FROM invalidation_status")
        expect(delivered < 40000, f"{delivered} items were delivered")
        expect(grown < 32 * 1024, f"the session has grown by {grown} kB")
        expect(redis.ask("EXISTS", "b:1") == 1, "something else was removed")

    with_servers("loop", body)


def a_million_names_given_in_one_transaction_become_what_they_have_in_common(_):
    def body(_, redis, db):
        keys = ["user:1:name", "user:999999:name", "a:5", "few:1", "few:9", "plain"]
        others = ["user:1:cart", "user:1", "few:10", "b:1"]
        set_keys(redis, *keys, *others)
        before = memory_of(db.pid)
        db.run("BEGIN")
        db.run("SELECT cache_invalidate('few:' || i, 'plain') FROM generate_series(1, 9) i")
        db.run("SELECT cache_invalidate('user:' || i || ':name') FROM generate_series(1, 1000000) i")
        db.run("SELECT cache_invalidate('a:' || i) FROM generate_series(1, 200000) i")      # a watch's
        db.run("SAVEPOINT s")
        db.run("SELECT cache_invalidate('b:' || i) FROM generate_series(1, 300000) i")
        db.run("ROLLBACK TO s")
        grown = memory_of(db.pid) - before
        db.run("COMMIT")
        expect(pending(db) < 110000, f"{pending(db)} items wait")
        gone(redis, *keys)
        drained(db)
        delivered = db.value("SELECT delivered FROM invalidation_status")
        expect(delivered < 110000, f"{delivered} items were delivered")
        expect(grown < 64 * 1024, f"the session has grown by {grown} kB")
        expect(redis.ask("EXISTS", *others) == len(others), "what nobody named was removed")

    with_servers("given", body)


def an_outage_of_a_million_names_without_a_watch_stays_bounded(_):
    def body(_, redis, db):
        redis.kill()
        for first in range(0, 1000000, 50000):
            db.run("SELECT cache_invalidate('user:' || i || ':name') FROM generate_series(%s, %s) i",
                   (first, first + 49999))
        db.run("SELECT cache_invalidate('few:1'), cache_publish('news', 'kept')")
        db.run("SELECT cache_invalidate(md5(i::text)) FROM generate_series(1, 1000) i")     # nothing in common
        wait_for("the queue is short", lambda: pending(db) < 110000, 60, 0.1)
        memory = memory_of(db.value("SELECT worker_pid FROM invalidation_status"))
        worker = db.value("SELECT worker_pid FROM invalidation_status")
        os.kill(worker, signal.SIGSTOP)
        redis.start()
        keys = ["user:0:name", "user:999999:name", "few:1", hashlib.md5(b"1000").hexdigest()]
        set_keys(redis, *keys, "user:0:cart", "few:2", "x")
        listener = Listener(redis, "invalidate", "news")
        os.kill(worker, signal.SIGCONT)
        try:
            gone(redis, *keys)
            drained(db)
            expect(redis.ask("EXISTS", "user:0:cart", "few:2", "x") == 3, "what nobody named was removed")
            wait_for("the event says all", lambda: any(e["all"] for e in listener.events()))
            wait_for("the message", lambda: ("news", "kept") in listener.messages)
        finally:
            listener.close()
        expect(memory < 150 * 1024, f"the worker holds {memory} kB")

    with_servers("many_names", body, durable=True)


def many_patterns_share_their_passes_over_the_keys(_):
    def body(_, redis, db):
        db.run("SELECT cache_invalidate('first')")
        drained(db)
        pipe(redis, [command(b"MSET", *[part for i in range(first, first + 1000)
                                        for part in (b"p:%d:%d" % (i % 300, i), b"x")])
                     for first in range(0, 60000, 1000)])
        redis.ask("MSET", "p:0", "x", "q:0:1", "x", "p:*:1", "x")
        redis.ask("CONFIG", "RESETSTAT")
        db.run("BEGIN")
        db.run("SELECT cache_invalidate_pattern('p:' || i || ':*') FROM generate_series(0, 199) i")
        db.run(r"SELECT cache_invalidate_pattern('p:[2]99:*'), cache_invalidate_pattern('p:29\8:*'),"
               r" cache_invalidate_pattern('p:\*:*'), cache_invalidate_pattern('p:297:???97')")
        db.run("COMMIT")
        drained(db)
        stats = dict(line.split(":", 1) for line in redis.ask("INFO", "commandstats").decode().splitlines() if ":" in line)
        scans = int(stats["cmdstat_scan"].split("calls=")[1].split(",")[0])
        expect(scans < 500, f"{scans} steps over the keys")
        with redis.client() as client:
            for i in range(0, 60000, 7):
                number = i % 300
                named = number < 200 or number >= 298 or (number == 297 and i >= 10000 and i % 100 == 97)
                expect(client("EXISTS", f"p:{number}:{i}") == (0 if named else 1), f"p:{number}:{i}")
            expect(client("EXISTS", "p:0", "q:0:1") == 2 and client("EXISTS", "p:*:1") == 0, "a literal asterisk")

    with_servers("passes", body)


def very_many_sets_in_one_transaction_are_no_burden(_):
    def body(_, redis, db):
        start = time.monotonic()
        db.run("BEGIN")
        db.run("SELECT cache_set('s:' || i, 'one', tags => ARRAY['t:' || i]) FROM generate_series(1, 40000) i")
        db.run("SELECT cache_set('s:7', 'two'), cache_invalidate('s:8'), cache_invalidate_tags('t:9'),"
               " cache_invalidate_pattern('s:10')")
        db.run("COMMIT")
        seconds = time.monotonic() - start
        expect(seconds < 5, f"40,000 sets took {seconds:.1f} s")
        drained(db)
        found = [db.value(f"SELECT cache_get('s:{i}')") for i in (6, 7, 8, 9, 10, 40000)]
        wanted = ["one", "two", None, None, None, "one"]
        expect(all(f in (w, None) for f, w in zip(found, wanted)), f"{found} instead of {wanted}")
        expect(redis.ask("EXISTS", "s:8", "s:9", "s:10") == 0, "what was removed later is there")

    with_servers("sets", body)


TESTS = [
    a_tag_set_of_a_million_members_is_emptied_in_steps,
    a_large_tag_set_is_emptied_across_a_crash,
    with_sync_a_commit_returns_when_the_last_member_has_gone,
    a_statement_over_a_million_rows_leaves_its_distinct_targets,
    statements_of_one_row_each_leave_no_more_than_one_of_all,
    a_million_names_given_in_one_transaction_become_what_they_have_in_common,
    an_outage_of_a_million_names_without_a_watch_stays_bounded,
    many_patterns_share_their_passes_over_the_keys,
    very_many_sets_in_one_transaction_are_no_burden,
]

"""What is very large is delivered in bounded steps, in bounded memory, and forgotten nowhere."""

import os
import threading
import time

from harness import expect, wait_for
from scenarios.delivery import drained, gone, with_servers

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
        redis.ask("CONFIG", "SET", "slowlog-log-slower-than", "30000")
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


TESTS = [
    a_tag_set_of_a_million_members_is_emptied_in_steps,
    a_large_tag_set_is_emptied_across_a_crash,
    with_sync_a_commit_returns_when_the_last_member_has_gone,
]

"""What the processes of a server share about Redis: who asks after a failure, how many may be connected, what is shown."""

import os
import re
import threading
import time

from harness import FakeRedis, Redis, expect, free_port, wait_for, work
from scenarios.redis_link import ANSWER, QUERY, Script, Servers, get, mget_reply


def log_lines(servers, text):
    with open(servers.postgres.log) as log:
        return [line for line in log if text in line]


def a_black_hole_costs_one_timeout_a_pause_in_all(options):
    waiting = []
    most = []

    def mget(request):
        if not hole.is_set():
            return mget_reply(request, b"value")
        waiting.append(request)
        most.append(len(waiting))
        time.sleep(0.15)
        waiting.pop()
        time.sleep(0.2)
        return None

    hole = threading.Event()
    fake = FakeRedis(work("one_probe"), Script(mget))
    with Servers("one_probe_pg", fake, cache_ext__command_timeout="'200ms'") as servers:
        sessions = [servers.session() for _ in range(8)]
        for db in sessions:
            expect(get(db) == "value", "the fake Redis does not answer")
        hole.set()
        get(sessions[0])
        asked = len(most)
        slow, quick, ends = [], [], time.monotonic() + 3

        def load(db):
            while time.monotonic() < ends:
                began = time.monotonic()
                if get(db) != ANSWER:
                    slow.append("wrong")
                (slow if time.monotonic() - began > 0.15 else quick).append(time.monotonic() - began)

        threads = [threading.Thread(target=load, args=(db,)) for db in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect("wrong" not in slow, "a query did not answer")
        expect(1 <= len(most) - asked <= 8, f"{len(most) - asked} probes in 3 s")
        expect(max(most) == 1, f"{max(most)} asked at once")
        # a busy machine delays some calls, too
        expect(len(slow) <= len(most) - asked + 2 + len(quick) // 20,
               f"{len(slow)} of {len(slow) + len(quick)} calls waited for {len(most) - asked} probes")
        hole.clear()
        wait_for("everybody asks again", lambda: all(get(db) == "value" for db in sessions))
        for db in sessions:
            db.close()


def who_waits_already_when_the_first_loses_patience_waits_no_longer(options):
    hole = threading.Event()
    fake = FakeRedis(work("patience"), Script(lambda request: None if hole.is_set() else mget_reply(request, b"value")))
    with Servers("patience_pg", fake, cache_ext__command_timeout="2s") as servers:
        sessions = [servers.session() for _ in range(6)]
        for db in sessions:
            expect(get(db) == "value", "the fake Redis does not answer")
        hole.set()
        began, took = time.monotonic(), []

        def ask(db, delay):
            time.sleep(delay)
            start = time.monotonic()
            expect(get(db) == ANSWER, "the query did not answer")
            took.append(time.monotonic() - start)

        threads = [threading.Thread(target=ask, args=(db, 0.0 if i == 0 else 1.0)) for i, db in enumerate(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(len(took) == len(sessions), "somebody got no answer")
        expect(max(took) >= 1.9, "nobody waited for Redis at all")
        expect(time.monotonic() - began < 2.8, "one timeout after another")
        expect(sum(seconds > 1.8 for seconds in took) == 1, f"they waited for {sorted(took)} s, with a timeout of 2 s")
        hole.clear()
        wait_for("everybody asks again", lambda: all(get(db) == "value" for db in sessions))
        for db in sessions:
            db.close()


def a_cancelled_probe_leaves_the_turn_to_the_next(options):
    silent = threading.Event()
    fake = FakeRedis(work("turn"), Script(
        lambda request: None if silent.is_set() else mget_reply(request, b"value")))
    with Servers("turn_pg", fake, cache_ext__command_timeout="'100ms'") as servers:
        with servers.session() as db, servers.session() as other:
            get(db)
            silent.set()
            expect(get(db) == ANSWER, "no answer")
            db.run("SET cache_ext.command_timeout = '60s'")
            asked = fake.reply.asked
            before = len(asked)

            # Polls until it is the probe, and then waits as such.
            db.start(f"DO $$ BEGIN LOOP PERFORM cache_get('x', {QUERY}); END LOOP; END $$")
            wait_for("the probe is on its way", lambda: len(asked) > before)
            expect(other.value("SELECT breaker FROM redis_status") == "half-open", "the breaker is not half-open")
            expect(get(other) == ANSWER and len(asked) == before + 1, "two probes at once")
            silent.clear()
            other.run("SELECT pg_cancel_backend(%s)", (db.pid,))
            wait_for("the next one asks", lambda: get(other) == "value", deadline=10)


def a_wrong_password_is_not_tried_in_a_storm(options):
    redis = Redis(work("storm"))
    redis.start()
    redis.ask("CONFIG", "SET", "requirepass", "right")
    wrong = redis.url.replace("unix://", "unix://:wrong-one@")
    with Servers("storm_pg", redis, cache_ext__redis_url=f"'{wrong}'") as servers:
        sessions = [servers.session() for _ in range(6)]

        def attempts():
            with redis.client() as client:
                client("AUTH", "right")
                found = re.search(rb"errorstat_WRONGPASS:count=(\d+)", client("INFO", "errorstats"))
                return int(found[1]) if found else 0

        before = attempts()
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            for db in sessions:
                expect(get(db) == ANSWER, "the query does not answer")
        tried = attempts() - before
        expect(1 <= tried <= 6, f"{tried} attempts to log in within two seconds")
        row = sessions[0].rows("SELECT address, state, breaker, last_error FROM redis_status")[0]
        expect(row[0] == redis.url and row[1] == "failed" and "could not log in" in row[3], str(row))
        sessions[0].fails("28000", "SELECT cache_ping()")
        told = log_lines(servers, "LOG:  could not log in")
        expect(len(told) == 1, "the log says:\n" + "".join(told))
        expect(not log_lines(servers, "wrong-one"), "the password is in the log")

        # The right one is another endpoint: it is tried at once.
        servers.postgres.set(cache_ext__redis_url="'" + redis.url.replace("unix://", "unix://:right@") + "'")
        wait_for("everybody is in", lambda: all(
            db.value("SELECT state FROM redis_status") == "ready" for db in sessions), deadline=5)
        for db in sessions:
            db.close()


def the_status_says_what_happens_and_no_secret(options):
    redis = Redis(work("status"))
    redis.start()
    redis.ask("ACL", "SETUSER", "shop", "on", ">secret-word", "~*", "&*", "+@all")
    url = redis.url.replace("unix://", "unix://shop:secret-word@") + "?db=3"
    with Servers("status_pg", redis, cache_ext__redis_url=f"'{url}'") as servers:
        with servers.session() as db:
            db.run(f"SELECT cache_get('k', {QUERY})")
            rows = db.rows("SELECT * FROM redis_status")
            row = dict(zip([column.name for column in db.cursor.description], rows[0]))
            expect(len(rows) == 1 and list(row) == [
                "address", "role", "state", "breaker", "since", "server_version", "clients", "memory_bytes", "keys",
                "keyspace_hits", "keyspace_misses", "round_trip_ms", "reconnects", "last_error"], str(list(row)))
            with redis.client() as client:
                client("SELECT", 3)
                keys = client("DBSIZE")
                memory = int(re.search(rb"used_memory:(\d+)", client("INFO", "memory"))[1])
                expect(b"cache_ext" in client("CLIENT", "LIST"), "the connection has no name")
            expect(row["address"] == redis.url + "?db=3" and row["role"] == "master", str(row))
            expect((row["state"], row["breaker"], row["reconnects"]) == ("ready", "closed", 0), str(row))
            expect(row["keys"] == keys >= 1 and abs(row["memory_bytes"] - memory) < memory / 2, str(row))
            expect(row["clients"] >= 1 and 0 < row["round_trip_ms"] < 10000, str(row))
            expect(re.fullmatch(r"(redis|valkey) \d+\.\d+.*", row["server_version"]), str(row))
            expect(row["last_error"] is None, str(row))
            since = row["since"]

            redis.kill()
            get(db, "other")
            row = db.rows("SELECT state, breaker, since, clients, last_error FROM redis_status")[0]
            expect(row[0] in ("failed", "connecting") and row[1] != "closed", str(row))
            expect(row[2] > since and row[3] is None and "Redis server" in row[4], str(row))
            redis.start()
            redis.ask("ACL", "SETUSER", "shop", "on", ">secret-word", "~*", "&*", "+@all")
            row = wait_for("Redis is ready again", lambda: (lambda r: r if r[0] == "ready" else None)(
                db.rows("SELECT state, breaker, reconnects, last_error FROM redis_status")[0]))
            expect(row[1] == "closed" and row[2] == 1 and row[3], str(row))
            expect(len(log_lines(servers, "reconnected to Redis server")) == 1, "the log")
            expect(len(log_lines(servers, "connected to Redis server")) == 2, "the log")
            expect(not log_lines(servers, "secret-word"), "the password is in the log")


def connections_are_counted_for_the_server(options):
    redis = Redis(work("counted"))
    redis.start()
    with Servers("counted_pg", redis, cache_ext__max_connections="3") as servers:
        sessions = [servers.session() for _ in range(6)]

        def clients():
            return redis.ask("CLIENT", "LIST").decode().count("name=cache_ext")

        for _ in range(3):
            for db in sessions:
                expect(get(db) == ANSWER, "the query does not answer")
        wait_for("no more than three are connected", lambda: clients() == 3)
        sessions[5].fails("53300", "SELECT cache_ping()")
        expect(len(log_lines(servers, "all 3 connections to Redis are in use")) == 1, "the log says it once")
        expect(sessions[5].value("SELECT breaker FROM redis_status") == "closed", "Redis has not failed")
        sessions[0].close()
        wait_for("a place is free", lambda: sessions[5].value("SELECT cache_ping() IS NOT NULL"))
        sessions[4].fails("53300", "SELECT cache_ping()")

        # However a session ends, its place is given back.
        with servers.session() as other:
            other.run("SELECT pg_terminate_backend(%s)", (sessions[5].pid,))
        wait_for("the next one is in", lambda: sessions[4].value("SELECT cache_ping() IS NOT NULL"))
        for db in sessions:
            db.close()
        wait_for("nobody is connected", lambda: clients() == 0)


def an_idle_connection_is_given_back(options):
    redis = Redis(work("idle"))
    redis.start()
    with Servers("idle_pg", redis, cache_ext__idle_timeout="1", cache_ext__max_connections="2") as servers:
        with servers.session() as db, servers.session() as other, servers.session() as third:
            def clients():
                return redis.ask("CLIENT", "LIST").decode().count("name=cache_ext")

            db.run("SELECT cache_ping()")
            other.run("SELECT cache_ping()")
            other.fails("22012", "SELECT 1/0")      # which switches timers off
            third.fails("53300", "SELECT cache_ping()")
            wait_for("sleeping sessions are not connected", lambda: clients() == 0, deadline=10)
            third.run("SELECT cache_ping()")
            db.run("SELECT cache_ping()")
            expect(clients() == 2, "who comes back is connected again")
            expect(not log_lines(servers, "lost the connection"), "an idle end is no failure")

            # A long use is no idleness.
            db.run("DO $$ BEGIN FOR i IN 1..25 LOOP PERFORM cache_ping(), pg_sleep(0.1); END LOOP; END $$")
            expect(db.value("SELECT reconnects FROM redis_status") == 0, "a connection in use was closed")


def the_environment_stands_in_for_the_setting(options):
    port = free_port()
    redis = Redis(work("env"), options=["--port", str(port), "--bind", "127.0.0.1"])
    redis.start()
    redis.ask("CONFIG", "SET", "requirepass", "env-secret")
    cases = (
        ({"REDIS_URL": f"redis://:env-secret@127.0.0.1:{port}/2", "REDIS_HOST": "ignored.invalid"},
         f"redis://127.0.0.1:{port}/2", "ready"),
        ({"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port), "REDIS_PASSWORD": "env-secret"},
         f"redis://127.0.0.1:{port}", "ready"),
        ({"REDIS_URL": "redis://:env-secret@host:port"}, None, "off"),
        ({"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "env-secret"}, None, "off"),
        ({}, None, "off"),
    )
    with Servers("env_pg", None) as servers:
        for environment, address, state in cases:
            servers.postgres.environment = environment
            servers.postgres.restart()
            for _ in range(3):
                with servers.session() as db:
                    row = db.rows("SELECT address, state FROM redis_status")[0]
                    expect(row == (address, state), f"{environment} gave {row}")
                    expect(get(db) == ANSWER, "the query does not answer")
        told = log_lines(servers, "the server's environment names no usable Redis")
        expect(len(told) == 2, "once for each wrong environment:\n" + "".join(told))
        expect(not log_lines(servers, "env-secret"), "a secret of the environment is in the log")
        servers.postgres.environment = {"REDIS_URL": "redis://ignored.invalid"}
        servers.postgres.set(cache_ext__redis_url=f"'redis://:env-secret@127.0.0.1:{port}'")
        servers.postgres.restart()
        with servers.session() as db:
            expect(db.value("SELECT state FROM redis_status") == "ready", "the setting comes first")
            servers.postgres.set(cache_ext__redis_url="''")
            wait_for("the environment is back", lambda: "ignored.invalid" in db.value(
                "SELECT address FROM redis_status"))
    redis.stop()


GETENT = """#!/bin/sh
echo $$ >> "{directory}/asked"
cat "{directory}/answer" 2>/dev/null
exec sleep "$(cat "{directory}/delay")"
"""


def a_resolver_that_hangs_keeps_nobody(options):
    port = free_port()
    redis = Redis(work("names"), options=["--port", str(port), "--bind", "127.0.0.1"])
    redis.start()
    directory = redis.directory
    program = os.path.join(directory, "getent")
    with open(program, "w") as file:
        file.write(GETENT.format(directory=directory))
    os.chmod(program, 0o755)

    def behave(answer, delay):
        for name, text in (("answer", answer), ("delay", delay), ("asked", "")):
            with open(os.path.join(directory, name), "w") as file:
                file.write(text)
            os.chmod(os.path.join(directory, name), 0o666)

    def children():
        with open(os.path.join(directory, "asked")) as file:
            return [pid for pid in file.read().split() if os.path.exists(f"/proc/{pid}")]

    with Servers("names_pg", redis, cache_ext__connect_timeout="'300ms'") as servers:
        servers.postgres.environment = {"PATH": directory + ":" + os.environ["PATH"]}
        servers.postgres.restart()
        with servers.session() as db, servers.session() as other:
            behave("", "600")
            started = time.monotonic()
            db.run(f"SET cache_ext.redis_url = 'redis://hangs.example:{port}'")
            expect(get(db) == ANSWER, "the query does not answer")
            expect(time.monotonic() - started < 3, "connect_timeout did not hold")
            expect("not resolved in time" in db.value("SELECT last_error FROM redis_status"), "the reason")
            expect(not children(), "a child is left")

            db.run("SET cache_ext.connect_timeout = '60s'")
            db.run("SET statement_timeout = '200ms'")
            db.fails("57014", "SELECT cache_ping()")
            db.run("SET statement_timeout = 0")
            expect(not children(), "a child is left after a cancel")
            db.start("SELECT cache_ping()")
            wait_for("the resolver is asked", children)
            other.run("SELECT pg_terminate_backend(%s)", (db.pid,))
            wait_for("the child goes with the session", lambda: not children())

            behave("", "0")
            other.run(f"SET cache_ext.redis_url = 'redis://unknown.example:{port}'")
            error = other.fails("08006", "SELECT cache_ping()")
            expect("could not be resolved" in str(error), str(error))
            behave("garbage\n127.0.0.1 STREAM\n", "0")
            other.run(f"SET cache_ext.redis_url = 'redis://one.example:{port}'")
            expect(other.value("SELECT cache_ping() IS NOT NULL"), "an address is used")
            behave("127.0.0.77 STREAM x\n127.0.0.77 DGRAM\n127.0.0.1 STREAM\n", "0")
            other.run(f"SET cache_ext.redis_url = 'redis://two.example:{port}'")
            expect(other.value("SELECT cache_ping() IS NOT NULL"), "the second address is used")


TESTS = [
    a_black_hole_costs_one_timeout_a_pause_in_all,
    who_waits_already_when_the_first_loses_patience_waits_no_longer,
    a_cancelled_probe_leaves_the_turn_to_the_next,
    a_wrong_password_is_not_tried_in_a_storm,
    the_status_says_what_happens_and_no_secret,
    connections_are_counted_for_the_server,
    an_idle_connection_is_given_back,
    the_environment_stands_in_for_the_setting,
    a_resolver_that_hangs_keeps_nobody,
]

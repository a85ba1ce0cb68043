"""What an invalidation costs the writer, and how soon it arrives.

Three questions: a commit that invalidates one watched key against the same commit without; the time
from a returned COMMIT until the key is gone, against what a PUBLISH takes to reach a subscriber; and
how fast a backlog drains.
"""

import os
import signal
import statistics as arithmetic
import subprocess
import time

from harness import program, wait_for

INSERT = "\\set v random(1, 100000)\nINSERT INTO told (v) VALUES (:v);\n"
BACKLOG = "SELECT cache_invalidate(VARIADIC ARRAY(SELECT 'backlog:' || random() FROM generate_series(1, 20)));\n"
SAMPLES = 200
BACKLOG_TRANSACTIONS = 10_000
KEYS_EACH = 20


def databases(bench):
    for name in ("untold", "told"):
        with bench.server.session() as db:
            db.run(f"CREATE DATABASE {name}")
        with bench.server.session(name) as db:
            db.run("CREATE TABLE told (id bigserial PRIMARY KEY, v integer, note text DEFAULT 'some text of a row')")
            if name == "told":
                db.run("CREATE EXTENSION cache_ext; SELECT cache_watch('told', keys => ARRAY['v:{v}'])")


def round_trips(bench):
    """Seconds from PUBLISH to its arrival at a subscriber."""
    found = []
    with bench.redis.client() as subscriber, bench.redis.client() as publisher:
        subscriber("SUBSCRIBE", "bench")
        for _ in range(SAMPLES):
            started = time.perf_counter()
            publisher.send("PUBLISH", "bench", "x")
            subscriber.read()
            found.append(time.perf_counter() - started)
            publisher.read()
    return found


def delays(bench):
    """Seconds from a returned COMMIT until the key is gone."""
    found = []
    with bench.redis.client() as client, bench.server.session("told") as db:
        for i in range(SAMPLES):
            client("SET", f"gone:{i}", "x")
            db.run("SELECT cache_invalidate(%s)", (f"gone:{i}",))
            started = time.perf_counter()
            while client("EXISTS", f"gone:{i}"):
                pass
            found.append(time.perf_counter() - started)
    return found


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def arrival(bench, row):
    ratios, raws, gones, worst = [], [], [], []
    for _ in range(bench.options.pairs):
        raw, gone = arithmetic.median(round_trips(bench)), arithmetic.median(delays(bench))
        raws.append(raw)
        gones.append(gone)
        ratios.append(gone / raw)
    bench.note(row("invalidation", "commit to key gone / PUBLISH to subscriber", ratios, 3, at_most=True, unit="µs",
                   absolute=[1e6 * arithmetic.median(raws), 1e6 * arithmetic.median(gones)]))
    load = subprocess.Popen(
        [program("pgbench"), "-h", bench.server.socket, "-U", "postgres", "-n", "-M", "prepared", "-c", "4",
         "-R", "1000", "-T", "100000", "-f", bench.script(INSERT), "told"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)       # the rate is reached
        for _ in range(bench.options.pairs):
            worst.append(1000 * percentile(delays(bench), 0.99))
    finally:
        load.terminate()
        load.wait()
    bench.note(row("invalidation", "commit to key gone at 1,000 commits a second, p99 in ms", worst, 10, at_most=True))


def drain(bench, row):
    """A worker that is held back while a backlog is written; its pace when it is let go."""
    paces = []
    for _ in range(bench.options.pairs):
        with bench.server.session("told") as db:
            db.run("SELECT cache_invalidate('wake')")
            worker = wait_for("a worker", lambda: db.value("SELECT worker_pid FROM invalidation_status"))
            bench.settled("told")
            os.kill(worker, signal.SIGSTOP)
            try:
                subprocess.run(
                    [program("pgbench"), "-h", bench.server.socket, "-U", "postgres", "-n", "-M", "prepared", "-c", "4",
                     "-t", str(BACKLOG_TRANSACTIONS // 4), "-f", bench.script(BACKLOG), "told"],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            finally:
                os.kill(worker, signal.SIGCONT)
            started = time.perf_counter()
            wait_for("the backlog is gone", lambda: db.value("SELECT pending = 0 FROM invalidation_status"), 120)
            paces.append(BACKLOG_TRANSACTIONS * KEYS_EACH / (time.perf_counter() - started))
    bench.note(row("invalidation", "keys a second from a backlog, 20 a commit / 100,000",
                   [pace / 100_000 for pace in paces], 1))


def run(bench, row):
    databases(bench)
    for clients in bench.options.clients:
        bench.pairs("invalidation", f"one watched key, {clients} clients", "untold", "told", [INSERT], clients, 1, 0.93)
    arrival(bench, row)
    drain(bench, row)

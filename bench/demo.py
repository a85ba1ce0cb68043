"""The demo: a bag-tracking application's dashboard before and after cache_ext.

Everything happens in private servers inside a temporary directory; see demo.sh.
"""

import argparse
import json
import os
import random
import signal
import statistics as arithmetic
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "test", "driver"))
sys.path.insert(0, HERE)

import bagdata  # noqa: E402
import psycopg2  # noqa: E402
from harness import Failure, Postgres, Redis, load_application, wait_for  # noqa: E402

BOLD, DIM, GREEN, RED, RESET = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") \
    if sys.stdout.isatty() else ("",) * 5


def title(text):
    print(f"\n{BOLD}{text}{RESET}", flush=True)


def line(text=""):
    print("  " + text, flush=True)


def duration(seconds):
    if seconds < 0.001:
        return f"{seconds * 1e6:,.0f} µs"
    return f"{seconds * 1e3:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def timed(action):
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def check(ok, text):
    line(f"{GREEN}✓{RESET} {text}" if ok else f"{RED}✗ {text}{RESET}")
    if not ok:
        raise Failure("the demo saw a broken promise: " + text)


class Writers:
    """Dispatchers at work: a child bag arrives, is linked to a parent, scanned and completed."""

    def __init__(self, server, dbname, clients, bags):
        self.stopping = threading.Event()
        self.done = 0
        self.rolled_back = 0
        self.errors = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._work, args=(server, dbname, bags, i), daemon=True)
                        for i in range(clients)]

    def run(self, seconds):
        started = time.monotonic()
        for thread in self.threads:
            thread.start()
        self.stopping.wait(seconds)
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
        if self.errors:
            raise Failure(f"a writer failed: {self.errors[0]}")
        return self.done / (time.monotonic() - started)

    def _work(self, server, dbname, bags, number):
        rng = random.Random(f"{number} {time.time_ns()}")
        parents = max(bags // 10, 1)
        with server.session(dbname, autocommit=False) as db:
            while not self.stopping.is_set():
                try:
                    bag = db.value("INSERT INTO bag (qr_id, type, user_id, dispatch_area, weight_kg)"
                                   " VALUES (%s, 'child', %s, %s, %s) RETURNING id",
                                   (f"NEW-{number}-{rng.getrandbits(60)}", rng.randint(1, 200),
                                    rng.choice(bagdata.AREAS), rng.random() * 4))
                    if rng.random() < 0.8:
                        db.run("INSERT INTO link (parent_bag_id, child_bag_id) VALUES (%s, %s)",
                               (rng.randint(1, parents), bag))
                    db.run("INSERT INTO scan (child_bag_id, user_id) VALUES (%s, %s)", (bag, rng.randint(1, 200)))
                    db.run("UPDATE bag SET status = 'completed' WHERE id = %s", (bag,))
                    undo = rng.random() < 0.1
                    db.connection.rollback() if undo else db.connection.commit()
                    with self.lock:
                        self.done += 1
                        self.rolled_back += undo
                except psycopg2.Error as error:
                    self.errors.append(str(error))
                    return


def show_dashboard(db, when):
    title(f"The dashboard {when}: its own queries, and statistics_cache")
    db.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    answers, raw_total = {}, 0.0
    for column, query in bagdata.DASHBOARD.items():
        seconds, answers[column] = timed(lambda query=query: db.value(query))
        raw_total += seconds
    columns = ", ".join(bagdata.DASHBOARD)
    read_seconds, row = timed(lambda: db.rows(f"SELECT {columns} FROM statistics_cache")[0])
    db.run("COMMIT")
    line(f"{'':<20}{'raw query':>16}{'statistics_cache':>20}")
    for column, value in zip(bagdata.DASHBOARD, row):
        line(f"{column:<20}{answers[column]:>16,}{value:>20,}")
    times = [timed(lambda: db.rows(f"SELECT {columns} FROM statistics_cache"))[0] for _ in range(50)]
    read_seconds = arithmetic.median(times)
    line(f"{'time':<20}{duration(raw_total):>16}{duration(read_seconds):>20}"
         f"   {BOLD}{raw_total / read_seconds:,.0f} times faster{RESET}")
    check(list(row) == list(answers.values()), "equal in the same snapshot")


def show_other_relations(db):
    title("The other relations of the preset")
    for relation, query in (
            ("bill_statistics", "SELECT status, bills, round(total_weight_kg::numeric) FROM bill_statistics ORDER BY status"),
            ("scan_statistics", "SELECT user_id, scans, bags, last_scan::timestamp(0)::text FROM scan_statistics ORDER BY scans DESC LIMIT 3"),
            ("bag_statistics", "SELECT dispatch_area, type, bags FROM bag_statistics ORDER BY bags DESC LIMIT 3"),
            ("recent_scans", "SELECT scan_id, \"timestamp\"::timestamp(0)::text, username, qr_id FROM recent_scans LIMIT 3")):
        seconds, rows = timed(lambda query=query: db.rows(query))
        line(f"{relation} {DIM}({duration(seconds)}){RESET}")
        for row in rows:
            line("    " + "  ".join(str(value) for value in row))


def show_verify(db):
    for (relation,) in db.rows("SELECT relation::text FROM statistics_status ORDER BY 1"):
        found = db.rows("SELECT * FROM statistics_verify(%s)", (relation,))
        check(not found, f"statistics_verify('{relation}') finds no difference")


def show_invalidation(db, redis):
    title("Redis is told what a transaction changed, if and only if it commits")
    redis.ask("MSET", "bag:1", "what the application cached", "bag:2", "what the application cached")
    line("the application keeps bag:1 and bag:2 in Redis;")
    line("SELECT cache_watch('bag', keys => ARRAY['bag:{id}'])")
    db.run("SELECT cache_watch('bag', keys => ARRAY['bag:{id}'])")
    db.run("BEGIN")
    db.run("UPDATE bag SET weight_kg = weight_kg + 1 WHERE id = 2")
    db.run("ROLLBACK")
    db.run("BEGIN")
    db.run("UPDATE bag SET weight_kg = weight_kg + 1 WHERE id = 1")
    check(redis.ask("EXISTS", "bag:1") == 1, "bag:1 is still in Redis before the COMMIT")
    seconds, _ = timed(lambda: (db.run("COMMIT"), wait_for(
        "bag:1 leaves Redis", lambda: redis.ask("EXISTS", "bag:1") == 0, interval=0.0005)))
    check(True, f"bag:1 has left Redis {duration(seconds)} after COMMIT was sent")
    wait_for("delivery", lambda: db.value("SELECT pending = 0 FROM invalidation_status"))
    check(redis.ask("EXISTS", "bag:2") == 1, "bag:2, whose transaction was rolled back, is still in Redis")


def show_cache(db, redis):
    title("cache_get: the query once, then the cache")
    query = ("SELECT u.username, count(*) AS scans, count(DISTINCT s.child_bag_id) AS bags FROM scan s"
             " JOIN \"user\" u ON u.id = s.user_id GROUP BY u.username ORDER BY scans DESC LIMIT 5")
    get = "SELECT cache_get('dashboard:top', %s, ttl => '10 minutes', tags => ARRAY['scans'])"
    line(f"cache_get('dashboard:top', {DIM}{query[:60]}…{RESET}, tags => ARRAY['scans'])")
    miss, first = timed(lambda: db.value(get, (query,)))
    hits = []
    for _ in range(200):
        seconds, again = timed(lambda: db.value(get, (query,)))
        hits.append(seconds)
    hit = arithmetic.median(hits)
    where = "Redis" if redis else "without a Redis the query runs each time"
    line(f"miss {duration(miss):>12}")
    if redis:
        line(f"hit  {duration(hit):>12}   {BOLD}{miss / hit:,.0f} times faster{RESET} ({where})")
    else:
        line(f"again {duration(hit):>11}   ({where})")
    check(again == first, "the same value")
    db.run("INSERT INTO scan (child_bag_id, user_id) SELECT child_bag_id, 1 FROM scan WHERE child_bag_id IS NOT NULL LIMIT 1")
    fresh = db.value(get, (query,))
    total = {row["username"]: row["scans"] for row in json.loads(fresh)}
    truth = dict(db.rows("SELECT u.username, count(*) FROM scan s JOIN \"user\" u ON u.id = s.user_id GROUP BY 1"))
    check(all(truth[name] == scans for name, scans in total.items()),
          "after the next scan commits, cache_get gives the new figures at once")


def show_throughput(server, bags, seconds, clients):
    title("What it costs the writers")
    line(f"{clients} clients: insert a child bag, link it, scan it, update its status; {seconds:.0f} s in turns;")
    line("one glance at a small client; bench/ measures this with pairs and intervals")
    speeds = {"with cache_ext": [], "without": []}
    turns = [("without", "plain"), ("with cache_ext", "demo"), ("with cache_ext", "demo"), ("without", "plain")]
    for name, dbname in turns:
        speeds[name].append(Writers(server, dbname, clients, bags).run(seconds / len(turns)))
    before, after = (arithmetic.mean(speeds[name]) for name in ("without", "with cache_ext"))
    line(f"without the extension    {before:>8,.0f} transactions/s")
    line(f"with the whole preset    {after:>8,.0f} transactions/s   ({after / before:.2f} of it)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bags", type=int, default=200_000, help="how many bags (default 200,000)")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long writers run")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--no-redis", action="store_true", help="run without a Redis")
    options = parser.parse_args()

    work = os.environ["CACHE_EXT_WORK"]
    redis = None if options.no_redis else Redis(os.path.join(work, "redis"))
    settings = {"shared_buffers": "'512MB'", "fsync": "on", "max_wal_size": "'4GB'", "autovacuum_naptime": "'15s'",
                "log_min_messages": "warning"}
    if redis:
        redis.start()
        settings["cache_ext.redis_url"] = f"'{redis.url}'"
    server = Postgres(os.path.join(work, "postgres_data"), settings)
    try:
        server.start()
        title(f"A warehouse with {options.bags:,} bags, in a private PostgreSQL"
              + (" with a private Redis" if redis else " without a Redis"))
        server.create_database("plain", extension=False)
        with server.session("plain") as db:
            load_application(db)
            bagdata.fill(db, options.bags)
        with server.session() as db:
            db.run("CREATE DATABASE demo TEMPLATE plain")
        with server.session("demo") as db:
            db.run("CREATE EXTENSION cache_ext")
            title("SELECT bag_tracking_attach()")
            seconds, rows = timed(lambda: db.rows("SELECT r::text FROM bag_tracking_attach() r"))
            for (relation,) in rows:
                line(relation)
            line(f"{DIM}filled and attached in {duration(seconds)}{RESET}")
            show_dashboard(db, "before anybody writes")

        title(f"{options.clients} writers for {options.seconds:.0f} seconds")
        writers = Writers(server, "demo", options.clients, options.bags)
        speed = writers.run(options.seconds)
        line(f"{writers.done:,} transactions, {speed:,.0f} a second, {writers.rolled_back:,} of them rolled back")

        with server.session("demo") as db:
            show_dashboard(db, "afterwards")
            show_other_relations(db)
            show_verify(db)
            if redis:
                show_invalidation(db, redis)
            else:
                title("Without a Redis")
                db.run("SELECT cache_invalidate('bag:1')")
                line("invalidations have nobody to go to: nothing is queued, nothing fails")
                check(db.value("SELECT pending = 0 FROM invalidation_status"), "invalidation_status: pending 0")
            show_cache(db, redis)
        show_throughput(server, options.bags, options.seconds * 2, options.clients)
        server.stop()
        server.check_log()
        title("Done. The private servers are gone; nothing on this machine was changed.")
        return 0
    except Failure as failure:
        print(f"\n{RED}{failure}{RESET}", file=sys.stderr)
        return 1
    finally:
        server.stop("immediate")
        if redis:
            redis.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # lets 'finally' end the servers
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

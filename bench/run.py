"""Measures the claims of README.md: interleaved pairs, medians, 95 % intervals.

    bench/run.sh                                        every part, about 90 minutes
    bench/run.sh writes --clients 8 --pairs 20 --seconds 2
    bench/run.sh reads --sizes 10000,1800000
    bench/run.sh report                                 the table of all results so far

See README.md in this directory for the method.
"""

import argparse
import concurrent.futures
import contextlib
import io
import json
import math
import os
import re
import shutil
import signal
import statistics as arithmetic
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "test", "driver"))
sys.path.insert(0, HERE)

import bagdata  # noqa: E402
import invalidation  # noqa: E402
import growth  # noqa: E402
from harness import Failure, Postgres, Redis, load_application, make_directory, program, wait_for  # noqa: E402

PARTS = ("writes", "opposite", "bulk", "reads", "cache", "invalidation", "many", "growth", "steady")
WIDEST = 0.05       # a wider interval shows nothing
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

W1 = """\\set bag random(:parents + 1, :bags)
\\set user random(1, 200)
INSERT INTO scan (child_bag_id, user_id) VALUES (:bag, :user);
"""
W2 = """\\set parent random(1, :parents)
\\set user random(1, 200)
BEGIN;
INSERT INTO bag (qr_id, type, user_id, dispatch_area, weight_kg) VALUES (gen_random_uuid()::text, 'child', :user, 'Pune', 2.5) RETURNING id AS bag \\gset
INSERT INTO link (parent_bag_id, child_bag_id) VALUES (:parent, :bag);
INSERT INTO scan (child_bag_id, user_id) VALUES (:bag, :user);
UPDATE bag SET status = 'completed', updated_at = now() WHERE id = :bag;
COMMIT;
"""
# Two kinds of transaction that touch the same tables, and the same twenty hot bags, in opposite order.
FORTH = """\\set hot random(1, 20)
\\set user random(1, 200)
BEGIN;
INSERT INTO scan (parent_bag_id, user_id) VALUES (:hot, :user);
INSERT INTO bag (qr_id, type, user_id, dispatch_area) VALUES (gen_random_uuid()::text, 'child', :user, 'Pune') RETURNING id AS bag \\gset
INSERT INTO link (parent_bag_id, child_bag_id) VALUES (:hot, :bag);
INSERT INTO bill (bill_id, total_weight_kg) VALUES (gen_random_uuid()::text, 4.2);
COMMIT;
"""
BACK = """\\set hot random(1, 20)
\\set user random(1, 200)
BEGIN;
INSERT INTO bill (bill_id, total_weight_kg) VALUES (gen_random_uuid()::text, 4.2);
INSERT INTO bag (qr_id, type, user_id, dispatch_area) VALUES (gen_random_uuid()::text, 'child', :user, 'Pune') RETURNING id AS bag \\gset
INSERT INTO link (parent_bag_id, child_bag_id) VALUES (:hot, :bag);
INSERT INTO scan (parent_bag_id, user_id) VALUES (:hot, :user);
COMMIT;
"""
READ_KEY = "\\set bag random(1, :bags)\nSELECT id, qr_id, type, status, weight_kg FROM bag WHERE id = :bag;\n"
READ_STATISTICS = "SELECT * FROM statistics_cache;\n"
CACHE_GET = "SELECT cache_get('bench-value');\n"
SELECT_1 = "SELECT 1;\n"
TRIVIAL = "SELECT trivial_100_bytes('bench-value');\n"
CACHE_GET_2_KB = "SELECT cache_get('bench-2-kb');\n"
TRIVIAL_2_KB = "SELECT trivial_2_kb('bench-2-kb');\n"
BY_KEY = "\\set id random(1, 1)\nSELECT value FROM keyed WHERE id = :id;\n"


# ---------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------

def interval(values):
    """Median, and the order statistics that enclose the true median with at least 95 %."""
    values = sorted(values)
    n = len(values)
    k, tail = 0, 0.0
    while k < n // 2:
        tail += math.comb(n, k) / 2 ** n
        if 2 * tail > 0.05:
            break
        k += 1
    k = max(k, 1)
    return arithmetic.median(values), values[k - 1], values[n - k]


def row(part, name, ratios, target, at_most=False, **more):
    middle, low, high = interval(ratios)
    if len(ratios) < 20:
        verdict = f"only {len(ratios)} pairs"
    elif target is None:
        verdict = ""
    elif (low <= target < high) if at_most else (high - low > WIDEST):
        verdict = "not shown"
    elif (high <= target) if at_most else (middle >= target):
        verdict = "reached"
    else:
        verdict = "missed"
    return {"part": part, "name": name, "pairs": len(ratios), "median": round(middle, 4),
            "low": round(low, 4), "high": round(high, 4), "target": target, "at_most": at_most,
            "verdict": verdict, **more}


HEADER = ("| what | median | 95 % interval | goal | verdict | before → with | CPU µs | WAL bytes |\n"
          "| --- | --- | --- | --- | --- | --- | --- | --- |")


def as_markdown(found):
    def pair(name, form):
        values = found.get(name)
        return "" if not values else " → ".join(form.format(value) for value in values)

    sign = "" if found["target"] is None else "≤ " if found["at_most"] else "≥ "
    return (f"| {found['name']} | {found['median']:.3f} | {found['low']:.3f} – {found['high']:.3f} |"
            f" {sign}{found['target'] or ''} | {found['verdict']} | {pair('absolute', '{:,.0f}')}"
            f"{' ' + found['unit'] if found.get('unit') else ''} | {pair('cpu_us', '{:,.0f}')} |"
            f" {pair('wal', '{:,.0f}')} |")


# ---------------------------------------------------------------------------
# The bench
# ---------------------------------------------------------------------------

class Bench:
    def __init__(self, options):
        self.options = options
        work = os.environ["CACHE_EXT_WORK"]
        self.scripts = make_directory(os.path.join(work, "scripts"))
        self.redis = Redis(os.path.join(work, "redis"))
        self.server = Postgres(os.path.join(work, "bench"), {
            "cache_ext.redis_url": f"'{self.redis.url}'", "shared_buffers": "'2GB'", "fsync": "on",
            "max_wal_size": "'20GB'", "checkpoint_timeout": "'1h'", "autovacuum_naptime": "'1min'",
            "log_min_messages": "warning", "synchronous_commit": "on", "max_connections": "100",
            **{name: f"'{value}'" for name, value in (one.split("=", 1) for one in options.set)}})
        self.results = []

    def start(self):
        self.redis.start()
        self.server.start()

    def stop(self):
        self.server.stop("immediate")
        self.redis.stop()

    def database(self, name, bags, template=None, extension=True, watches=True):
        with self.server.session() as db:
            db.run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        with self.server.session(name) as db:
            if template is None:
                load_application(db)
                bagdata.fill(db, bags)
            if extension:
                db.run("CREATE EXTENSION cache_ext")
                db.run("SELECT count(*) FROM bag_tracking_attach()")
                if not watches:
                    for table in ("bag", "link", "bill", "bill_bag", "scan", '"user"'):
                        db.run("SELECT cache_unwatch(%s)", (table,))
            db.run("CHECKPOINT")
        return name

    def settled(self, name):
        """Nothing is left to fold or to deliver in this database."""
        with self.server.session(name) as db:
            if db.value("SELECT count(*) FROM pg_extension WHERE extname = 'cache_ext'") == 0:
                return
            wait_for("all partial rows are folded",
                     lambda: db.value("SELECT statistics_fold()") == 0, 120)
            wait_for("all invalidations are delivered",
                     lambda: db.value("SELECT pending = 0 FROM invalidation_status"), 120)

    def cpu(self):
        """CPU seconds of the server: its live processes, and those that it has already waited for."""
        total = 0
        root = self.server.process.pid
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(entry) == root:
                total += sum(map(int, fields[11:15]))
            elif int(fields[1]) == root:
                total += int(fields[11]) + int(fields[12])
        return total / CLOCK_TICKS

    def wal(self):
        with self.server.session() as db:
            return int(db.value("SELECT pg_current_wal_insert_lsn() - '0/0'"))

    def script(self, text):
        path = os.path.join(self.scripts, f"{abs(hash(text))}.sql")
        with open(path, "w") as file:
            file.write(text)
        return path

    def pgbench(self, dbname, scripts, clients, seconds, bags, log=None, variables=()):
        arguments = [program("pgbench"), "-h", self.server.socket, "-U", "postgres", "-n", "-M", "prepared",
                     "-c", str(clients), "-j", str(min(clients, os.cpu_count())), "-T", str(seconds),
                     "-D", f"bags={bags}", "-D", f"parents={bags // 10}"]
        for name in variables:
            arguments += ["-D", f"{name}={variables[name]}"]
        for script in scripts:
            arguments += ["-f", self.script(script)]
        if log:
            arguments += ["-l", f"--log-prefix={log}"]
        result = subprocess.run(arguments + [dbname], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if result.returncode != 0:
            raise Failure(f"pgbench failed: {result.stderr[-2000:]}")
        failed = re.search(r"number of failed transactions: (\d+)", result.stdout)
        return {"tps": float(re.search(r"tps = ([\d.]+)", result.stdout)[1]),
                "done": int(re.search(r"transactions actually processed: (\d+)", result.stdout)[1]),
                "failed": int(failed[1]) if failed else 0}

    def measure(self, dbname, scripts, clients, bags, variables=()):
        """One run, charged with all folding and delivery that it causes."""
        self.settled(dbname)
        cpu, wal = self.cpu(), self.wal()
        result = self.pgbench(dbname, scripts, clients, self.options.seconds, bags, variables=variables)
        with self.server.session() as db:
            wait_for("the clients have gone", lambda: db.value(
                "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = %s"
                " AND backend_type = 'client backend'", (dbname,)))
        self.settled(dbname)
        result["cpu"] = (self.cpu() - cpu) / max(result["done"], 1) * 1e6
        result["wal"] = (self.wal() - wal) / max(result["done"], 1)
        return result

    def pairs(self, part, name, plain, other, scripts, clients, bags, target, variables=()):
        for dbname in (plain, other):       # warm up
            self.pgbench(dbname, scripts, clients, 1, bags, variables=variables)
        runs = {plain: [], other: []}
        for number in range(self.options.pairs):
            for dbname in ((plain, other) if number % 2 == 0 else (other, plain)):
                runs[dbname].append(self.measure(dbname, scripts, clients, bags, variables))
        ratios = [b["tps"] / a["tps"] for a, b in zip(runs[plain], runs[other])]

        def medians(field):
            return [arithmetic.median(run[field] for run in runs[d]) for d in (plain, other)]

        failed = sum(run["failed"] for run in runs[other])
        self.note(row(part, name + (f" ({failed} failed)" if failed else ""), ratios, target,
                      absolute=medians("tps"), unit="tps", cpu_us=medians("cpu"), wal=medians("wal"),
                      failed=failed))

    def note(self, found):
        if not self.results:
            print(HEADER)
        self.results.append(found)
        print(as_markdown(found), flush=True)
        save(self.options.output, [found])

    # ---- parts ----

    W2 = W2
    many, growth, steady = growth.many, growth.growth, growth.steady

    def writing_databases(self):
        bags = self.options.bags
        if not getattr(self, "written", False):
            self.database("plain", bags, extension=False)
            self.database("statistics", bags, template="plain", watches=False)
            self.database("complete", bags, template="plain")
            self.written = True
        return bags

    def writes(self):
        bags = self.writing_databases()
        goals = {"W1": (W1, 0.95, 0.90), "W2": (W2, 0.90, 0.85)}
        for clients in self.options.clients:
            for name, (script, alone, complete) in goals.items():
                self.pairs("writes", f"{name}, {clients} clients, statistics", "plain", "statistics",
                           [script], clients, bags, alone)
                self.pairs("writes", f"{name}, {clients} clients, statistics + watches + Redis", "plain",
                           "complete", [script], clients, bags, complete)

    def opposite(self):
        bags = self.writing_databases()
        self.pairs("opposite", "opposite order, 20 hot bags, 8 clients", "plain", "statistics",
                   [FORTH, BACK], 8, bags, 0.95)

    def bulk(self):
        bags = self.writing_databases()
        inserted = (f"SELECT {bags // 10 + 1} + i * 13 %% {bags // 2}, 1 + i %% 200"
                    " FROM generate_series(1, {rows}) i")
        for rows, goal in ((10_000, 0.95), (100_000, 0.90)):
            at = {"rows": rows, "last": rows - 1}
            within = "BETWEEN %(low)s AND %(low)s + {last}".format(**at)
            self.statement(f"INSERT of {rows:,} scans", goal, rows,
                           "INSERT INTO scan (child_bag_id, user_id) " + inserted.format(**at))
            self.statement(f"UPDATE of {rows:,} bags that changes their group", goal, rows,
                           f"UPDATE bag SET dispatch_area = 'Area ' || %(low)s %% 7 WHERE id {within}")
            self.statement(f"UPDATE of {rows:,} bags, column without statistics", 0.98 if rows > 10_000 else goal, rows,
                           f"UPDATE bag SET status = 'completed', updated_at = now() WHERE id {within}")
        self.statement("DELETE of 100,000 scans", 0.90, 100_000,
                       "DELETE FROM scan WHERE id IN (SELECT id FROM scan ORDER BY id DESC LIMIT 100000)",
                       before="INSERT INTO scan (child_bag_id, user_id) " + inserted.format(rows=100_000).replace("%%", "%"))
        lines = "".join(f"{bags // 10 + 1 + i * 13 % (bags // 2)}\t{1 + i % 200}\n" for i in range(100_000))
        self.statement("COPY of 100,000 scans", 0.90, 100_000, copy=("scan", ("child_bag_id", "user_id"), lines))

    def statement(self, name, goal, rows, sql=None, before=None, copy=None):
        """One bulk statement in both databases by turns."""
        times = {"plain": [], "statistics": []}
        with self.server.session("plain") as plain, self.server.session("statistics") as other:
            sessions = {"plain": plain, "statistics": other}
            for number in range(self.options.pairs + 2):        # the first two warm up
                low = 1 + number * rows % max(self.options.bags - rows, 1)
                for dbname in (("plain", "statistics") if number % 2 == 0 else ("statistics", "plain")):
                    if before:
                        sessions[dbname].run(before)
                        self.settled(dbname)
                    started = time.perf_counter()
                    if copy:
                        sessions[dbname].cursor.copy_from(io.StringIO(copy[2]), copy[0], columns=copy[1])
                    else:
                        sessions[dbname].run(sql, {"low": low})
                    times[dbname].append(time.perf_counter() - started)
                    self.settled(dbname)
        for found in times.values():
            del found[:2]
        ratios = [a / b for a, b in zip(times["plain"], times["statistics"])]
        self.note(row("bulk", name, ratios, goal, unit="ms", absolute=[
            1000 * arithmetic.median(times[d]) for d in ("plain", "statistics")]))

    def latency(self, dbname, script, bags, seconds, variables=()):
        """p50 in microseconds at one client."""
        folder = make_directory(os.path.join(self.scripts, "log"))
        prefix = os.path.join(folder, "run")
        self.pgbench(dbname, [script], 1, seconds, bags, log=prefix, variables=variables)
        times = []
        for file in os.listdir(folder):
            with open(os.path.join(folder, file)) as lines:
                times += [int(line.split()[2]) for line in lines]
        shutil.rmtree(folder)
        return arithmetic.median(times)

    def read_pairs(self, name, dbname, bags, target):
        ratios, keys, reads = [], [], []
        seconds = max(1, self.options.seconds // 2)
        self.latency(dbname, READ_KEY, bags, 1)
        self.latency(dbname, READ_STATISTICS, bags, 1)
        for number in range(self.options.pairs):
            if number % 2 == 0:
                key = self.latency(dbname, READ_KEY, bags, seconds)
                read = self.latency(dbname, READ_STATISTICS, bags, seconds)
            else:
                read = self.latency(dbname, READ_STATISTICS, bags, seconds)
                key = self.latency(dbname, READ_KEY, bags, seconds)
            keys.append(key)
            reads.append(read)
            ratios.append(read / key)
        self.note(row("reads", name, ratios, target, at_most=True, unit="µs",
                      absolute=[arithmetic.median(keys), arithmetic.median(reads)]))
        return arithmetic.median(reads)

    def reads(self):
        quiet, busy = {}, {}
        for bags in self.options.sizes:
            dbname = self.database(f"reads_{bags}", bags)
            self.settled(dbname)
            quiet[bags] = self.read_pairs(f"statistics_cache / primary key, folded, {bags:,} bags", dbname, bags, 2.5)
            load = subprocess.Popen(
                [program("pgbench"), "-h", self.server.socket, "-U", "postgres", "-n", "-M", "prepared", "-c", "8",
                 "-j", "2", "-T", "100000", "-D", f"bags={bags}", "-D", f"parents={bags // 10}", "-f", self.script(W2), dbname],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                busy[bags] = self.read_pairs(f"statistics_cache / primary key, 8 writers, {bags:,} bags",
                                             dbname, bags, 8)
            finally:
                load.terminate()
                load.wait()
        small, large = min(quiet), max(quiet)
        if small != large:
            for name, found in (("folded", quiet), ("8 writers", busy)):
                print(f"\nstatistics_cache p50, {name}: {found[small]:.0f} µs at {small:,} bags,"
                      f" {found[large]:.0f} µs at {large:,} ({found[large] / found[small]:.2f})\n")

    def invalidation(self):
        invalidation.run(self, row)

    def cache(self):
        with self.server.session() as db:
            db.run("CREATE DATABASE cached")
        with self.server.session("cached") as db:
            db.run("CREATE EXTENSION cache_ext")
            db.run("SELECT cache_get('bench-value', $q$SELECT repeat('x', 100) AS value$q$, ttl => '1 day')")
            for _ in range(3):
                db.run("SELECT cache_get('bench-value')")
            db.run("SELECT cache_get('bench-2-kb', $q$SELECT repeat('x', 2000) AS value$q$, ttl => '1 day')")
            module = self.compiled("trivial.cpp", "-fPIC", "-shared", "-I" + subprocess.run(
                [program("pg_config"), "--includedir-server"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
            for name in ("trivial_100_bytes", "trivial_2_kb"):
                db.run(f"CREATE FUNCTION {name}(key text, query text DEFAULT NULL, ttl interval DEFAULT NULL, tags text[] DEFAULT '{{}}',"
                       f" dialect text DEFAULT NULL) RETURNS text AS '{module}' LANGUAGE C")
            db.run("CREATE TABLE keyed (id integer PRIMARY KEY, value text)")
            db.run("INSERT INTO keyed VALUES (1, repeat('x', 100))")
            db.run("VACUUM keyed")
        for name, other, goal in (("trivial C function", TRIVIAL, 0.95), ("primary-key SELECT", BY_KEY, 1.0)):
            for clients in (1, 8, 32):
                self.in_turns(f"cache_get hit in memory / {name}, {clients} clients", clients, other, CACHE_GET, goal)
        self.in_turns("cache_get hit in memory / trivial C function, 2 KB, 8 clients", 8, TRIVIAL_2_KB, CACHE_GET_2_KB, None)
        self.misses("memory and Redis")
        # What follows is about Redis: a hit there would be one in memory the next time.
        self.server.settings["cache_ext.memory_size"] = "0"
        self.server.restart()
        self.misses("Redis alone")
        sums, gets, hits = {SELECT_1: [], TRIVIAL: []}, [], []
        seconds = max(1, self.options.seconds // 2)
        raw_get = self.compiled("raw_get.cpp", "-lhiredis")
        with self.redis.client() as client:
            client("SET", "bench-raw", "x" * 160)
        for _ in range(self.options.pairs):
            gets.append(float(subprocess.run([raw_get, self.redis.path, "bench-raw", "40000"], stdout=subprocess.PIPE, text=True,
                                             check=True).stdout))
            for script, found in sums.items():
                found.append(self.latency("cached", script, 1, seconds) + gets[-1])
            hits.append(self.latency("cached", CACHE_GET, 1, seconds))
        for name, found in (("SELECT 1", sums[SELECT_1]), ("trivial C function", sums[TRIVIAL])):
            self.note(row("cache", f"cache_get hit in Redis / ({name} + raw GET)", [a / b for a, b in zip(hits, found)], 1.1,
                          at_most=True, unit="µs", absolute=[arithmetic.median(found), arithmetic.median(hits)]))

        ratios, sequences, hits = [], [], []
        for _ in range(self.options.pairs):
            one = self.pgbench("cached", [TRIVIAL], 8, seconds, 1)["tps"]
            raw = self.raw_gets(8)
            hits.append(self.pgbench("cached", [CACHE_GET], 8, seconds, 1)["tps"])
            sequences.append(1 / (1 / one + 1 / raw))
            ratios.append(hits[-1] / sequences[-1])
        self.note(row("cache", "cache_get hit in Redis / trivial C function, then raw GET, 8 clients", ratios, 0.7, unit="tps",
                      absolute=[arithmetic.median(sequences), arithmetic.median(hits)]))

    def compiled(self, source, *flags):
        """One of the bench's own programs or modules."""
        made = os.path.join(self.scripts, source.replace(".cpp", ".so" if "-shared" in flags else ""))
        subprocess.run(["g++", "-std=c++17", "-O2", "-o", made, os.path.join(os.path.dirname(__file__), source), *flags], check=True)
        return made

    def raw_gets(self, clients):
        """What Redis does by itself: GETs a second."""
        csv = subprocess.run(["redis-benchmark", "-s", self.redis.path, "-c", str(clients), "-n", "20000", "--csv",
                              "GET", "bench-raw"], stdout=subprocess.PIPE, text=True, check=True).stdout
        return float(csv.strip().splitlines()[-1].split(",")[1].strip('"'))

    def misses(self, tiers, sessions=64, load_s=0.5):
        """Sessions that miss one key at once: how long until the last has its answer, in loads."""
        times = []
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(self.server.session("cached")) for _ in range(sessions)]
            for db in crowd:
                db.run("SELECT 1 FROM cache_get('nothing')")
            for number in range(self.options.pairs):
                barrier = threading.Barrier(sessions)
                loads = f"SELECT count(*) AS n FROM pg_sleep({load_s})"

                def miss(db):
                    barrier.wait()
                    started = time.perf_counter()
                    db.run("SELECT cache_get(%s, %s, ttl => '1 minute')", (f"miss:{tiers}:{number}", loads))
                    return started, time.perf_counter()

                with concurrent.futures.ThreadPoolExecutor(sessions) as pool:
                    spans = list(pool.map(miss, crowd))
                times.append((max(end for _, end in spans) - min(start for start, _ in spans)) / load_s)
        self.note(row("cache", f"64 sessions that miss one key, {tiers} / a load of 500 ms", times, 1.2, at_most=True,
                      unit="ms", absolute=[1000 * load_s, 1000 * load_s * arithmetic.median(times)]))

    def in_turns(self, name, clients, other, script, goal):
        """Throughput of a script against that of another one, in the same database."""
        seconds = max(1, self.options.seconds // 4)
        runs = {other: [], script: []}
        for number in range(self.options.pairs):
            for each in ((other, script) if number % 2 == 0 else (script, other)):
                runs[each].append(self.pgbench("cached", [each], clients, seconds, 1)["tps"])
        self.note(row("cache", name, [b / a for a, b in zip(runs[other], runs[script])], goal, unit="tps",
                      absolute=[arithmetic.median(runs[each]) for each in (other, script)]))


def load(path):
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return []


def save(path, fresh):
    """Add results to the file; a new result replaces the old one of that name."""
    kept = [old for old in load(path) if old["name"].split(" (")[0] not in {f["name"].split(" (")[0] for f in fresh}]
    with open(path, "w") as file:
        json.dump(kept + fresh, file, indent=1)


def report(path):
    found = load(path)
    print(HEADER)
    for part in PARTS:
        for one in found:
            if one["part"] == part:
                print(as_markdown(one))


def integers(text):
    return [int(one) for one in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="all, report, or some of " + ", ".join(PARTS))
    parser.add_argument("--clients", type=integers, default=[1, 8, 32])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=4, help="length of one run")
    parser.add_argument("--bags", type=int, default=200_000, help="size of the tables that are written")
    parser.add_argument("--sizes", type=integers, default=[10_000, 1_800_000], help="sizes for reads")
    parser.add_argument("--rows", type=integers, default=[10_000, 100_000, 1_000_000, 10_000_000], help="sizes for growth")
    parser.add_argument("--minutes", type=float, default=10, help="length of each half of steady")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    parser.add_argument("--output", default=os.path.join(os.environ.get("CACHE_EXT_BUILD", "."), "bench.json"))
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if parts == ["all"]:
        parts = list(PARTS)
    if parts == ["report"]:
        report(options.output)
        return 0
    unknown = set(parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    bench = Bench(options)
    try:
        bench.start()
        for part in parts:
            getattr(bench, part)()
        bench.server.stop()
        bench.server.check_log()
        print(f"\nresults are kept in {options.output}")
        return 0
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        bench.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # lets 'finally' end the servers
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""How statistics behave as tables, groups, statistics and time grow."""

import math
import os
import subprocess
import statistics as arithmetic
import time

import plot
from harness import Failure, program

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs")

INSERT_ORDER = """\\set vendor random(1, :groups)
INSERT INTO orders (vendor, quantity, total) VALUES (:vendor, :vendor % 7, :vendor * 1.25);
"""
READ_VENDOR = """\\set vendor random(1, :groups)
SELECT * FROM vendor_orders WHERE vendor = :vendor;
"""
READ_ALL = "SELECT * FROM all_orders;\n"


def orders(bench, name, rows, groups, statistics=True):
    with bench.server.session() as db:
        db.run(f"CREATE DATABASE {name}")
    with bench.server.session(name) as db:
        db.run("CREATE TABLE orders (id bigserial PRIMARY KEY, vendor integer NOT NULL, quantity integer,"
               " total numeric(12, 2), placed timestamptz DEFAULT now()) WITH (autovacuum_enabled = off)")
        db.run(f"INSERT INTO orders (vendor, quantity, total) SELECT 1 + i * 7919::bigint % {groups}, i % 7, i % 1000"
               f" FROM generate_series(1, {rows}) i")
        db.run("CREATE EXTENSION cache_ext")
        started = time.perf_counter()
        if statistics:
            db.run("SELECT statistics_create('vendor_orders', 'SELECT vendor, count(*) AS orders, sum(total) AS revenue,"
                   " max(quantity) AS largest, count(DISTINCT quantity) AS sizes FROM orders GROUP BY vendor')")
            db.run("SELECT statistics_create('all_orders', 'SELECT count(*) AS orders, sum(total) AS revenue,"
                   " max(total) AS dearest FROM orders')")
        created = time.perf_counter() - started
        db.run("VACUUM ANALYZE")
        db.run("CHECKPOINT")
    return created


def drop(bench, name):
    with bench.server.session() as db:
        db.run(f"DROP DATABASE {name} WITH (FORCE)")


def point(bench, name, groups):
    """CPU of a one-row transaction with its fold, and read times, in microseconds."""
    variables = {"groups": groups}
    bench.pgbench(name, [INSERT_ORDER], 1, 1, 1, variables=variables)
    writes = [bench.measure(name, [INSERT_ORDER], 2, 1, variables=variables)["cpu"]
              for _ in range(bench.options.pairs // 4 + 1)]
    bench.settled(name)
    return (arithmetic.median(writes), bench.latency(name, READ_VENDOR, 1, bench.options.seconds, variables=variables),
            bench.latency(name, READ_ALL, 1, bench.options.seconds, variables=variables))


def draw(name, *arguments, **options):
    os.makedirs(DOCS, exist_ok=True)
    path = os.path.join(DOCS, name)
    with open(path, "w") as file:
        file.write(plot.chart(*arguments, **options))
    print(f"drawn: docs/{name}", flush=True)


def growth(bench):
    for what, points in (("rows", [(rows, 1000) for rows in bench.options.rows]),
                         ("groups", [(1_000_000, groups) for groups in (1, 100, 10_000, 1_000_000)])):
        lines = {"write, CPU": [], "read one group": [], "read totals": []}
        for rows, groups in points:
            created = orders(bench, "growing", rows, groups)
            found = point(bench, "growing", groups)
            drop(bench, "growing")
            for line, value in zip(lines.values(), found):
                line.append((rows if what == "rows" else groups, value))
            print(f"{rows:,} rows in {groups:,} groups: created in {created:.1f} s; write {found[0]:.0f} µs of CPU,"
                  f" one group {found[1]:.0f} µs, totals {found[2]:.0f} µs", flush=True)
        draw(f"growth-{what}.svg", f"Two statistics by {what} of the table", f"{what} in the table", "µs", lines,
             logarithmic=(True, True))


def many(bench):
    """One-row inserts under 0, 1, 5 and 20 statistics of the table."""
    orders(bench, "many_0", 100_000, 1000, statistics=False)
    variables = {"groups": 1000}
    for count in (1, 5, 20):
        orders(bench, f"many_{count}", 100_000, 1000, statistics=False)
        with bench.server.session(f"many_{count}") as db:
            for number in range(count):
                db.run(f"SELECT statistics_create('s{number}', 'SELECT vendor % {10 + number} AS g, count(*) AS orders,"
                       f" sum(total) AS revenue FROM orders GROUP BY vendor % {10 + number}')")
    for count in (1, 5, 20):
        bench.pairs("many", f"one-row INSERT, {count} statistics, 8 clients", "many_0", f"many_{count}", [INSERT_ORDER], 8, 1,
                    None, variables=variables)


def steady(bench):
    """Size of the internal tables and read time under a steady load, without and with an old snapshot."""
    seconds = bench.options.minutes * 60
    lines_size, lines_read = {}, {}
    for held in (False, True):
        name = f"steady_{'held' if held else 'free'}"
        bags = bench.options.bags
        bench.database(name, bags, watches=False)
        label = "snapshot held" if held else "no old snapshot"
        sizes, reads = lines_size.setdefault(label, []), lines_read.setdefault(label, [])
        holder = bench.server.session(name)
        if held:
            holder.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
            holder.rows("SELECT 1 FROM bag LIMIT 1")
        load = subprocess.Popen(
            [program("pgbench"), "-h", bench.server.socket, "-U", "postgres", "-n", "-M", "prepared", "-c", "4", "-j", "2",
             "-T", str(math.ceil(seconds)), "-R", "500", "-D", f"bags={bags}", "-D", f"parents={bags // 10}", "-f",
             bench.script(bench.W2), name], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        started = time.monotonic()
        released = not held
        with bench.server.session(name) as db:
            while (now := time.monotonic() - started) < seconds * 1.2:
                if not released and now >= seconds:
                    holder.run("ROLLBACK")
                    released = True
                size = db.value("SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relkind = 'r' AND relnamespace ="
                                " 'cache_ext_internal'::regnamespace AND relname ~ '^(log|totals)_'")
                before = time.perf_counter()
                for _ in range(20):
                    db.rows("SELECT * FROM statistics_cache")
                reads.append((now, (time.perf_counter() - before) / 20 * 1e6))
                sizes.append((now, float(size) / 1024))
                time.sleep(seconds / 120)
        if load.wait() != 0:
            raise Failure(f"the load failed: {load.stderr.read().decode()[-2000:]}")
        holder.close()
        third = len(reads) // 6
        print(f"{label}: read {arithmetic.median(y for _, y in reads[:third]):.0f} µs in the first sixth,"
              f" {arithmetic.median(y for _, y in reads[-third:]):.0f} µs in the last; logs and totals"
              f" {max(y for _, y in sizes):,.0f} KB at most, {sizes[-1][1]:,.0f} KB at the end", flush=True)
    draw("steady-size.svg", "Logs and totals under 500 transactions a second", "seconds", "KB", lines_size)
    draw("steady-read.svg", "Reading statistics_cache meanwhile", "seconds", "µs", lines_read)

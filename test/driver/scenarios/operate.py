"""The cache beside other programs: figures, warming, readers in other languages, a pooler, no Redis at all."""

import json
import os
import re
import shutil
import subprocess
import threading
import time

import psycopg2
from harness import Servers, expect, judged, make_directory, popen, wait_for, work
from scenarios.cache import QUERY, Cache, change, get, text, warm

CLIENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients")


def figures(db, tier, *columns):
    return db.rows(f"SELECT {', '.join(columns)} FROM cache_stats WHERE tier = %s", (tier,))[0]


def settle(db, key="k", **arguments):
    """Read until memory has it: a server that has just met its Redis begins a new epoch, which voids what was there."""
    def in_memory():
        warm(db, key, **arguments)
        return db.value("SELECT tier FROM cache_explain(%s)", (key,)) == "memory"

    wait_for(f"{key} is in memory", in_memory)


def figures_add_up_over_sessions_that_come_and_go(options):
    with Cache("figures", cache_ext__memory_size="'16MB'") as cache:
        db = cache.session()
        settle(db)
        db.run("SELECT cache_stats_reset()")

        def read():
            with cache.postgres.session("shop") as session:
                for _ in range(50):
                    session.value("SELECT cache_get('k')")

        threads = [threading.Thread(target=read) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        wait_for("all reads are counted", lambda: figures(db, "memory", "hits") == (300,))
        hits, misses, rate = figures(db, "memory", "hits", "misses", "hit_rate")
        expect((hits, misses, float(rate)) == (300, 0, 100.0), f"{hits} hits, {misses} misses, {rate} %")
        get(db, "absent", None)
        expect(figures(db, "memory", "misses") == (1,) and figures(db, "redis", "hits", "misses") == (0, 1) and
               figures(db, "query", "hits", "misses") == (0, 1), "a miss is counted elsewhere")
        cache.postgres.create_database("other")
        with cache.postgres.session("other") as other:
            expect(figures(other, "memory", "hits", "misses") == (0, 0), "another database's figures")
        average, p99 = figures(db, "memory", "avg_ms", "p99_ms")
        expect(0 < average and 0 < p99, "no times")
        db.run("SELECT cache_stats_reset()")
        expect(len(db.rows("SELECT * FROM cache_get_many('{k,absent,k}')")) == 2 and
               db.value("SELECT cache_exists('k') AND cache_ttl('k') > '0' AND NOT cache_exists('absent')"), "nothing is tested")
        expect(figures(db, "memory", "hits", "misses") == (2, 1) and figures(db, "redis", "hits", "misses") == (0, 1) and
               figures(db, "query", "hits", "misses") == (0, 0), "reads of many keys are counted otherwise")
        # What a crash of the server has lost is not there, and nothing else is wrong.
        cache.postgres.kill_process(db.pid)
        with cache.postgres.session("shop") as session:
            expect(figures(session, "memory", "hits") == (0,), "figures from before a crash")
        cache.postgres.expect("was terminated by signal 9", "terminating any other active")


def parse_metrics(text):
    """Prometheus text format 0.0.4, strictly: {name: (kind, {labels: value})}; anything odd is a Failure."""
    name = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
    pair = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
    metrics, current, helped = {}, None, set()
    expect(text.endswith("\n") and not text.endswith("\n\n"), "no newline, or more, at the end")
    for line in text[:-1].split("\n"):
        if match := re.fullmatch(rf"# HELP ({name}) (.+)", line):
            expect(match[1] not in helped, f"two HELP for {match[1]}")
            helped.add(match[1])
            current = match[1]
        elif match := re.fullmatch(rf"# TYPE ({name}) (counter|gauge|histogram|summary|untyped)", line):
            expect(match[1] == current and match[1] not in metrics, f"TYPE of {match[1]} at a wrong place")
            expect(match[2] != "counter" or match[1].endswith("_total"), f"{match[1]} is a counter")
            metrics[match[1]] = (match[2], {})
        else:
            match = re.fullmatch(rf"({name})(?:\{{({pair}(?:,{pair})*)\}})? (\S+)", line)
            expect(match and match[1] == current and match[1] in metrics, f"a sample at a wrong place: {line!r}")
            labels = tuple((key, re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], value))
                           for key, value in re.findall(pair, match[2] or ""))
            expect(len(dict(labels)) == len(labels), f"a label twice: {line!r}")
            expect(labels not in metrics[match[1]][1], f"a sample twice: {line!r}")
            expect(re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]Inf|NaN", match[match.lastindex]),
                   f"no number: {line!r}")
            metrics[match[1]][1][labels] = float(match[match.lastindex])
    expect(all(samples for _, samples in metrics.values()), "a metric without samples")
    return metrics


def figures_are_what_monitoring_reads(options):
    with Cache("metrics", cache_ext__memory_size="'16MB'") as cache:
        awkward = 'we"ird\\ {x="1"},\nüß'
        with cache.postgres.session() as db:
            db.run('CREATE DATABASE "' + awkward.replace('"', '""') + '"')
        for name in ("shop", awkward):
            with cache.postgres.session(name) as db:
                if name != "shop":
                    db.run("CREATE EXTENSION cache_ext; CREATE TABLE t (v integer); INSERT INTO t VALUES (1)")
                settle(db)
                db.run("SELECT cache_stats_reset()")
                for _ in range(7):
                    db.value("SELECT cache_get('k')")
                db.fails("22012", "SELECT cache_get('failing', 'SELECT 1/0')")
                db.run("SELECT cache_delete('k')")
                metrics = parse_metrics(db.value("SELECT cache_metrics()"))

                def sample(metric, **labels):
                    found = metrics[metric][1]
                    return found[tuple({"database": name, **labels}.items())]

                expect((sample("cache_ext_hits_total", tier="memory"), sample("cache_ext_errors_total", tier="query"),
                        sample("cache_ext_deletes_total", tier="memory"), sample("cache_ext_redis_up")) == (7, 1, 1, 1),
                       f"other figures: {metrics}")
                expect(0 < sample("cache_ext_latency_seconds_p99", tier="memory") < 1, "no seconds")
                # The shapes that applications' endpoints give, by their own names and types.
                express, nextjs, django = (db.value("SELECT cache_stats_json(%s)", (style,))
                                           for style in ("express", "nextjs", "django"))
                data = express["data"]
                expect(express["success"] is True and data["hits"] == 7 and data["misses"] == 0 and
                       data["hitRate"] == 100 and data["errors"] == 1 and data["connected"] is True, f"{express}")
                expect(nextjs["status"] == "degraded" and nextjs["cache"]["totalRequests"] == 7 and
                       nextjs["redis"]["connected"] is True and
                       re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", nextjs["timestamp"]), f"{nextjs}")
                expect(django["hits"] == 7 and django["hit_rate"] == 100 and django["redis_connected"] is True, f"{django}")


def the_log_tells_figures_each_so_often(options):
    with Cache("log_every", cache_ext__memory_size="'16MB'") as cache:
        db = cache.session()

        def lines(text):
            with open(cache.postgres.log, errors="replace") as file:
                return [line for line in file if text in line]

        settle(db)
        expect(len(lines("connected to Redis server")) == 1, "a connection is not told once")
        expect(not lines('cache of database'), "told although it is off")
        with cache.postgres.session() as other:
            other.run("ALTER DATABASE shop SET cache_ext.log_every = '2s'")
        wait_for("what was read before is told", lambda: len(lines('cache of database "shop"')) == 1)
        for _ in range(50):
            db.value("SELECT cache_get('k')")
        db.fails("22012", "SELECT cache_get('failing', 'SELECT 1/0')")
        wait_for("it is told", lambda: [line for line in lines("cache of database") if
                                        re.search(r" 50 from memory, 0 from Redis, 0 by queries, 0 not there, 1 errors", line)])
        told = len(lines("cache of database"))
        time.sleep(2.5)
        expect(len(lines("cache of database")) == told, "told although nothing was read")
        cache.postgres.set(cache_ext__log_level="debug1")
        wait_for("the setting is there", lambda: db.value("SHOW cache_ext.log_level") == "debug1")
        cache.redis.stop()
        db.value("SELECT cache_get('k')")
        db.value("SELECT cache_get('elsewhere')")
        time.sleep(2.5)
        expect(len(lines("cache of database")) == told and not lines("could not connect"), "told although it is hidden")


def an_entry_explains_itself(options):
    with Cache("explain", cache_ext__memory_size="'16MB'") as cache:
        db = cache.session()
        settle(db, "shop:k", tags="'{red}'")
        tier, tags, reason = db.rows("SELECT tier, tags, reason FROM cache_explain('shop:k')")[0]
        expect((tier, tags, reason) == ("memory", ["red"], "valid"), f"{tier}, {tags}, {reason}")
        db.run("SELECT cache_define('counted', 'SELECT v FROM t')")
        for loads in (1, 2, 3):
            for _ in range(4):
                db.value("SELECT cache_get('counted')")
            shown = db.rows("SELECT loads, hits, bytes FROM cache_explain('counted')")[0]
            expect(shown == (loads, 3 * loads, len('[{"v":1}]')), f"loads, hits and bytes are {shown}")
            db.run("SELECT cache_invalidate('counted')")
            expect(db.rows("SELECT tier, loads, bytes FROM cache_explain('counted')") == [(None, loads, len('[{"v":1}]'))],
                   "what is void explains itself otherwise")
        cache.redis.ask("SET", "bare", "x")
        expect(db.rows("SELECT tier, reason FROM cache_explain('bare')") == [("redis", "another application's value")], "wrong")
        for call, by in (("cache_invalidate('shop:k')", "key"), ("cache_invalidate_pattern('shop:*')", "pattern"),
                         ("cache_clear()", "clear")):
            settle(db, "shop:k", tags="'{red}'")
            xid = db.rows(f"BEGIN; SELECT {call}; SELECT pg_current_xact_id()::text")[0][0]
            db.run("COMMIT")
            removed = db.rows("SELECT tier, removed_by, removed_xid::text, now() - removed_at < '1 min'"
                              " FROM cache_explain('shop:k')")[0]
            expect(removed == (None, by, xid, True), f"{call}: {removed}, transaction {xid}")
            cache.delivered(db)


def warming_loads_what_loaders_name(options):
    with Cache("warming") as cache:
        db = cache.session()
        db.run("CREATE TABLE tenant (id integer); INSERT INTO tenant VALUES (1), (2), (3);"
               "SELECT cache_define('tenant:{id}', 'SELECT 6 / ($1 - 2) AS v', warm => 'SELECT id FROM tenant ORDER BY id');"
               "SELECT cache_define('one', 'SELECT v FROM t'); SELECT cache_define('n:{a}', 'SELECT $1 AS v')")
        rows = db.rows("SELECT key, ok, elapsed > '0', error FROM cache_warm()")
        expect(sorted(rows) == [("one", True, True, None), ("tenant:1", True, True, None),
                                ("tenant:2", False, True, "division by zero"), ("tenant:3", True, True, None)], f"{rows}")
        expect(cache.redis.ask("EXISTS", "one", "tenant:1", "tenant:3") == 3, "not in Redis")
        db.run("SELECT cache_stats_reset()")
        expect(get(db, "tenant:3", None) == text(6) and figures(db, "query", "hits") == (0,), "it was not warm")
        db.run("SELECT cache_define('many:{n}', 'SELECT $1 AS v', warm => 'SELECT generate_series(1, 100001)')")
        rows = db.rows("SELECT key, ok, error FROM cache_warm('many*')")
        expect(rows == [("many:{n}", False, "query gives more than 100000 rows")], f"{rows}")
        db.run("SELECT cache_undefine('many:{n}')")
        db.run("SELECT cache_define('long:{n}', 'SELECT 1 AS v', warm => 'SELECT repeat(''x'', 10000)')")
        expect(db.rows("SELECT ok, error FROM cache_warm('long*')") == [(False, "cache key is too long")], "another error")
        db.run("SELECT cache_undefine('long:{n}')")
        db.run("UPDATE t SET v = 7")       # a table that nobody watches: only loading anew shows it
        expect(db.rows("SELECT key, ok FROM cache_warm('on*')") == [("one", True)], "another key than asked")
        expect(get(db, "one", None) == text(7), "not loaded anew")


def another_language_reads_an_entry_and_knows_whether_it_holds(options):
    node = shutil.which("node") or shutil.which("nodejs")
    expect(node, "there is no node")
    with Cache("node", cache_ext__key_prefix="'p:'") as cache:
        db = cache.session()

        def read(key):
            output = subprocess.run([node, os.path.join(CLIENTS, "envelope.js"), cache.redis.path, key, "p:"],
                                    check=True, capture_output=True, text=True, timeout=30).stdout
            return json.loads(output)

        warm(db, "shop:ü", tags="'{red,blue}'")
        entry = read("shop:ü")
        expect(entry["payload"] == text(1) and entry["valid"] and entry["key"] == "p:shop:ü" and
               sorted(entry["tags"]) == ["blue", "red"], f"node read {entry}")
        db.run("SELECT cache_set('set', 'väl')")
        wait_for("the value is stored", lambda: cache.redis.ask("EXISTS", "p:set"))
        expect(read("set")["payload"] == "väl" and read("set")["valid"], "node cannot read what was set")
        stored = cache.redis.ask("GET", "p:shop:ü")
        change(db, 2, "cache_invalidate_tags('red')")
        cache.delivered(db)
        cache.redis.ask("SET", "p:shop:ü", stored)      # as a late fill would
        expect(read("shop:ü")["valid"] is False, "node believes what was invalidated")
        expect(read("absent") is None, "node found something")


def a_pooler_may_change_servers_between_transactions(options):
    pooler = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    expect(pooler, "there is no pgbouncer")
    with Cache("pooled") as cache:
        db = cache.session()
        directory = make_directory(work("pooler"))
        config = os.path.join(directory, "pgbouncer.ini")
        with open(config, "w") as file:
            file.write(f"""[databases]
shop = host={cache.postgres.socket} dbname=shop user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {directory}
unix_socket_mode = 0777
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 3
ignore_startup_parameters = extra_float_digits
""")
        os.chmod(config, 0o644)
        process = popen([pooler, config], os.path.join(directory, "log"))
        try:
            def connect():
                connection = psycopg2.connect(host=directory, port=6432, dbname="shop", user="postgres")
                connection.autocommit = True
                return connection

            wait_for("the pooler answers", lambda: connect().close() or True)
            db.run("SELECT cache_define('pooled:{n}', 'SELECT v FROM t WHERE $1 <> ''''')")
            failures = []

            def client(number):
                connection = connect()
                cursor = connection.cursor()
                try:
                    for i in range(30):
                        cursor.execute("SELECT cache_get(%s)", (f"pooled:{number}",))
                        if cursor.fetchone()[0] is None:
                            failures.append("a loader did not answer")
                        cursor.execute("BEGIN")
                        cursor.execute("SELECT cache_set(%s, %s)", (f"own:{number}", str(i)))
                        cursor.execute("SELECT cache_get(%s)", (f"own:{number}",))
                        if cursor.fetchone()[0] != str(i):
                            failures.append("a transaction did not see its own")
                        cursor.execute("ROLLBACK" if i % 2 else "COMMIT")
                        cursor.execute("SELECT cache_get(%s)", (f"own:{number}",))
                        if cursor.fetchone()[0] not in (None, str(i - i % 2)):
                            failures.append("a rolled-back or older value was given")
                except psycopg2.Error as error:
                    failures.append(str(error))
                connection.close()

            threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            expect(not failures, f"{failures[:3]}")
            expect(db.value("SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE datname = 'shop'"
                            " AND backend_type = 'client backend'") < 8, "not pooled: nothing is tested")
        finally:
            process.terminate()
            process.wait(10)


def without_redis_memory_serves(options):
    with Servers("no_redis") as servers:
        with servers.session() as db, servers.session() as other:
            db.run("CREATE TABLE t (v integer); INSERT INTO t VALUES (1)")
            expect(get(db) == text(1) and get(other, "k", None) == text(1), "not shared")
            db.run("SELECT cache_set('s', 'x', '1 hour')")
            expect(get(other, "s", None) == "x", "a set is not there")
            expect(other.value("SELECT cache_ttl('s') BETWEEN '50 min' AND '1 h'"), "a wrong life")
            expect(db.value("SELECT cache_add('a', '1')") and not other.value("SELECT cache_add('a', '2')"), "added twice")
            sessions = [servers.session() for _ in range(4)]
            for session in sessions:
                session.start("SELECT count(cache_incr('n')) FROM generate_series(1, 100)")
            for session in sessions:
                session.finish()
                session.close()
            expect(db.value("SELECT cache_incr('n', 0)") == 400, "counts were lost")
            uses = db.value("SELECT hits FROM cache_explain('n')")
            db.run("SELECT cache_incr('n', 0)")
            expect(db.value("SELECT hits FROM cache_explain('n')") == uses + 1, "one use is not one hit")
            db.fails("22P02", "SELECT cache_incr('s')")
            expect(db.value("SELECT cache_expire('a', '100 milliseconds')"), "no entry")
            wait_for("it ends", lambda: not other.value("SELECT cache_exists('a')"))
            expect([r[0] for r in db.rows("SELECT cache_keys() ORDER BY 1")] == ["k", "n", "s"], "other names")
            expect(db.rows("SELECT * FROM cache_get_many('{s,zz,n}')") == [("s", "x"), ("n", "400")], "wrong")
            db.run("SELECT cache_delete('n')")
            expect(db.value("SELECT cache_incr('n')") == 1, "an earlier delete came later")
            db.run("SELECT cache_clear()")
            expect(db.rows("SELECT * FROM cache_get_many('{s,n,k}')") == [], "a clear left something")


def a_standby_changes_nothing_at_once(options):
    with Cache("read_only") as cache:
        db = cache.session()
        db.run("SELECT cache_define('l', 'SELECT v FROM t', stale_for => '1 h', eager => 0.5)")
        with judged(cache.postgres.copy(work("read_only_standby"))) as standby, standby.session("shop") as reader:
            for write in ("cache_add('k', 'x')", "cache_expire('k', '1 s')", "cache_incr('k')", "cache_clear()",
                          "cache_set_many('{\"k\": 1}')", "cache_define('x', 'SELECT 1')", "cache_warm()"):
                reader.fails("25006", f"SELECT {write}")
            expect(get(reader, "l", None) == text(1), "a loader does not answer")
            expect(cache.redis.ask("EXISTS", "l") == 0, "a standby stored something")
            expect(reader.rows("SELECT * FROM cache_get_many('{l}')") == [], "a standby found something")
            expect(reader.rows("SELECT * FROM cache_query(%s) AS t (v integer)", (QUERY,)) == [(1,)], "wrong")
            expect(reader.value("SELECT state FROM cache_health() LIMIT 1") in ("ok", "degraded"), "not healthy")
            expect(reader.value("SELECT count(*) FROM cache_stats") == 3, "no figures")


TESTS = [
    figures_add_up_over_sessions_that_come_and_go,
    figures_are_what_monitoring_reads,
    the_log_tells_figures_each_so_often,
    an_entry_explains_itself,
    warming_loads_what_loaders_name,
    another_language_reads_an_entry_and_knows_whether_it_holds,
    a_pooler_may_change_servers_between_transactions,
    without_redis_memory_serves,
    a_standby_changes_nothing_at_once,
]

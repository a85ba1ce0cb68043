"""Consistency: readers that check every value they get, amid writers, outages and evictions.

The short form is part of the suite.  The long one is `./test.sh --reads 1000000 driver consistency`.
"""

import os
import random
import threading
import time

from harness import Failure, Postgres, Redis, RedisGone, expect, program, run_as_server

# Row functions check inside the server, so that a value is compared with what had been committed
# before it was asked for and with what is committed when it has come.
READS = """
CREATE FUNCTION checked_reads(n integer, rows integer, OUT reads bigint, OUT hits bigint) LANGUAGE plpgsql AS $$
DECLARE
    i integer; least integer; most integer; found integer; answer text; bare boolean;
BEGIN
    reads := 0; hits := 0;
    FOR step IN 1 .. n LOOP
        i := ceil(rows * random() ^ 2);
        bare := random() < 0.3;
        SELECT v INTO least FROM c WHERE id = i;
        IF bare THEN
            answer := cache_get('c:' || i);
        ELSE
            answer := cache_get('c:' || i, 'SELECT v, pad FROM c WHERE id = ' || i, tags => ARRAY['row' || i % 7]);
        END IF;
        CONTINUE WHEN answer IS NULL;
        found := answer::json -> 0 ->> 'v';
        SELECT v INTO most FROM c WHERE id = i;
        reads := reads + 1;
        hits := hits + bare::integer;
        IF found < least THEN
            RAISE EXCEPTION 'row %: % was read after % had been committed (bare: %)', i, found, least, bare;
        END IF;
        IF found > most OR NOT EXISTS (SELECT FROM committed WHERE v = found) THEN
            RAISE EXCEPTION 'row %: % was never committed, or not yet (bare: %)', i, found, bare;
        END IF;
    END LOOP;
END $$;

-- one snapshot: exactly what it shows
CREATE FUNCTION repeated_reads(n integer, rows integer, OUT reads bigint, OUT hits bigint) LANGUAGE plpgsql AS $$
DECLARE
    i integer; shown integer; answer text;
BEGIN
    reads := 0; hits := 0;
    FOR step IN 1 .. n LOOP
        i := ceil(rows * random() ^ 2);
        SELECT v INTO shown FROM c WHERE id = i;
        answer := cache_get('c:' || i);
        CONTINUE WHEN answer IS NULL;
        reads := reads + 1;
        hits := hits + 1;
        IF (answer::json -> 0 ->> 'v')::integer <> shown THEN
            RAISE EXCEPTION 'row %: % under REPEATABLE READ, where the snapshot shows %', i, answer, shown;
        END IF;
    END LOOP;
END $$;

-- on a standby: never older than what it shows itself; Redis may be ahead of it
CREATE FUNCTION standby_reads(n integer, rows integer, OUT reads bigint, OUT hits bigint) LANGUAGE plpgsql AS $$
DECLARE
    i integer; least integer; answer text;
BEGIN
    reads := 0; hits := 0;
    FOR step IN 1 .. n LOOP
        i := ceil(rows * random() ^ 2);
        SELECT v INTO least FROM c WHERE id = i;
        answer := cache_get('c:' || i);
        CONTINUE WHEN answer IS NULL;
        reads := reads + 1;
        hits := hits + 1;
        IF (answer::json -> 0 ->> 'v')::integer < least THEN
            RAISE EXCEPTION 'row %: % on a standby that shows %', i, answer, least;
        END IF;
    END LOOP;
END $$
"""
ROWS = 300


def storm_schema(db):
    db.run("CREATE TABLE c (id integer PRIMARY KEY, v integer, pad text);"
           "CREATE TABLE committed (v integer PRIMARY KEY);"
           "CREATE SEQUENCE s; INSERT INTO c SELECT i, nextval('s'), repeat('x', 40 * i % 5000) FROM"
           f" generate_series(1, {ROWS}) i; INSERT INTO committed SELECT v FROM c;"
           "SELECT cache_watch('c', keys => ARRAY['c:{id}'], columns => '{v}')")
    db.run(READS)


def storm_write(db, chance):
    """One transaction of some kind; values are drawn from a sequence, so no two are equal."""
    row = int(ROWS * chance.random() ** 2) + 1
    ending = chance.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK", "savepoint", "prepare", "drop prepared"])
    update = (f"WITH u AS (UPDATE c SET v = nextval('s') WHERE id = {row} RETURNING v)"
              " INSERT INTO committed SELECT v FROM u")
    if chance.random() < 0.3:   # a statement at its place in the order of commits
        db.run("SET synchronous_commit = " + chance.choice(["on", "off"]))
    db.run("BEGIN")
    if ending == "savepoint":
        db.run("SAVEPOINT a; " + update + "; ROLLBACK TO a")
        ending = "COMMIT"
    db.run(update)
    if chance.random() < 0.2:
        db.run(chance.choice([f"SELECT cache_invalidate_tags('row{row % 7}')",
                              "SELECT cache_invalidate_pattern('c:*')", f"SELECT cache_delete('c:{row}')"]))
    if ending in ("COMMIT", "ROLLBACK"):
        db.run(ending)
        return
    name = f"p{db.pid}"
    db.run(f"PREPARE TRANSACTION '{name}'")
    time.sleep(chance.random() * 0.01)
    db.run(("COMMIT" if ending == "prepare" else "ROLLBACK") + f" PREPARED '{name}'")


def disturb(chance, redis, servers):
    kind = chance.randrange(5)
    try:
        if kind == 0:
            redis.ask("SAVE")
        elif kind == 1:     # with what was last saved, or with nothing
            redis.kill()
            redis.start()
        elif kind == 2:
            redis.ask("FLUSHALL")
        elif kind == 3:
            redis.pause()
            time.sleep(0.3)
            redis.resume()
        else:
            for server in servers:
                with server.session("shop") as db:
                    for pid in server.worker_pids("shop"):
                        db.run("SELECT pg_terminate_backend(%s)", (pid,))
    except RedisGone:
        pass


def standby_of(primary, directory):
    standby = Postgres(directory, dict(primary.settings))
    standby.expect("exited with exit code 1", "terminating walreceiver")
    run_as_server([program("pg_basebackup"), "-h", primary.socket, "-U", "postgres", "-D", standby.data, "-R",
                   "-X", "stream", "-c", "fast"], standby.log)
    return standby.start()


class Storm:
    """Servers on one Redis or on none, sessions that read, reread and write, and what they have counted."""

    def __init__(self, name, options):
        self.name = name
        self.seed = options.seed if options.seed is not None else random.randrange(2 ** 32)
        self.reads_wanted = options.reads
        self.seconds = options.seconds
        self.counts = {"reads": 0, "hits": 0, "repeated": 0, "writes": 0}
        self.lock, self.stop, self.failures = threading.Lock(), threading.Event(), []
        self.servers, self.threads, self.redis = [], [], None

    def work(self, name):
        return os.path.join(os.environ["CACHE_EXT_WORK"], f"{self.name}_{name}")

    # ---- servers ----

    def start(self, servers, redis, standby):
        settings = {"cache_ext.memory_size": "'512kB'"}     # less than all values need
        if redis:
            self.redis = Redis(self.work("redis")).start()
            settings["cache_ext.redis_url"] = f"'{self.redis.url}'"
        for number in range(servers):
            server = Postgres(self.work(str(number)), settings)
            # Workers are ended on purpose; a Redis that is away in the middle of a delivery is no crash.
            self.servers.append(server.expect("exited with exit code 1"))
            server.start()
            server.create_database("shop")
            with server.session("shop") as db:
                storm_schema(db)
        for number, server in enumerate(self.servers):
            for kind, what in enumerate((self.read, self.read, self.reread, self.write, self.write)):
                self.begin(server, what, 10 * number + kind)
        if standby:
            self.counts["on a standby"] = 0
            self.servers.append(standby_of(self.servers[0], self.work("standby")))
            self.begin(self.servers[-1], self.read_on_standby, 100)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        for server in self.servers:
            server.stop("immediate")
        if self.redis:
            self.redis.stop()

    # ---- sessions ----

    def begin(self, server, once, number):
        thread = threading.Thread(target=self.guarded, args=(server, once, number), daemon=True)
        self.threads.append(thread)
        thread.start()

    def guarded(self, server, once, number):
        chance = random.Random(self.seed + number)
        db = server.session("shop")
        try:
            db.run(f"SELECT setseed({chance.random()})")
            while not self.stop.is_set():
                once(db, chance)
        except Exception as error:  # reported by the main thread
            self.failures.append(error)
            self.stop.set()
        finally:
            db.close()

    def count(self, **more):
        with self.lock:
            for name, number in more.items():
                self.counts[name.replace("_", " ")] += number

    def read(self, db, _):
        reads, hits = db.rows(f"SELECT * FROM checked_reads(300, {ROWS})")[0]
        self.count(reads=reads, hits=hits)

    def reread(self, db, chance):
        db.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM c")
        for _ in range(2):
            reads, _ = db.rows(f"SELECT * FROM repeated_reads(100, {ROWS})")[0]
            self.count(repeated=reads)
            time.sleep(chance.random() * 0.01)
        db.run("COMMIT")

    def write(self, db, chance):
        storm_write(db, chance)
        self.count(writes=1)
        time.sleep(chance.random() * 0.01)

    def read_on_standby(self, db, _):
        reads, _ = db.rows(f"SELECT * FROM standby_reads(100, {ROWS})")[0]
        self.count(on_a_standby=reads)

    # ---- the whole ----

    def rage(self, seconds):
        chance = random.Random(self.seed)
        begun = time.monotonic()
        end = begun + (self.seconds or seconds)

        def is_over():
            if self.reads_wanted:
                return self.counts["reads"] + self.counts["repeated"] >= self.reads_wanted
            return time.monotonic() >= end

        while not is_over() and not self.stop.is_set():
            self.stop.wait(min((self.seconds or seconds) / 8, 3))
            if self.redis:
                disturb(chance, self.redis, [server for server in self.servers if not self.is_standby(server)])
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        if self.failures:
            raise Failure(f"{self.failures[0]!r} (repeat with --seed {self.seed})") from self.failures[0]
        return time.monotonic() - begun

    def is_standby(self, server):
        return "on a standby" in self.counts and server is self.servers[-1]

    def evictions(self):
        total = 0
        for server in self.servers:
            with server.session("shop") as db:
                total += db.value("SELECT evictions FROM cache_stats WHERE tier = 'memory'") or 0
        return total

    def run(self, seconds, servers=1, redis=False, standby=False):
        try:
            self.start(servers, redis, standby)
            lasted = self.rage(seconds)
            self.counts["evictions"] = self.evictions()
            print(f"        seed {self.seed}: {self.counts} in {lasted:.0f} s, none stale, none invented")
            expect(min(self.counts.values()) > 0 and self.counts["reads"] > 10 * seconds,
                   f"too little happened: {self.counts}")
            for server in reversed(self.servers):
                server.stop()
                server.check_log()
        finally:
            self.end()


def no_read_is_stale_or_invented_in_memory_alone(options):
    Storm("storm_memory", options).run(6)


def no_read_is_stale_or_invented_with_two_servers_on_one_redis(options):
    Storm("storm_redis", options).run(10, servers=2, redis=True, standby=True)


TESTS = [
    no_read_is_stale_or_invented_in_memory_alone,
    no_read_is_stale_or_invented_with_two_servers_on_one_redis,
]

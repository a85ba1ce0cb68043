"""Crashes of the server, a backend, the worker and Redis lose nothing and invent nothing.

Every transaction of the journal writes its number into a table and invalidates the key of that
number.  In the end the table says which transactions committed, whatever their sessions were told;
exactly their keys must be gone.
"""

import os
import random
import signal
import sys
import threading
import traceback

import psycopg2

import workload
from harness import Failure, Redis, RedisError, RedisGone, Servers, expect, expect_equal, wait_for, with_shop, work

ROUNDS = 3
KILLED = (r"was terminated by signal 9", r"terminating any other active server processes",
          r"background worker .* exited with exit code")


class Journal:
    """Sessions that invalidate a key a transaction and note what must come of it."""

    def __init__(self, server, dbname, redis, sessions=3):
        self.server = server
        self.dbname = dbname
        self.redis = redis
        self.numbers = iter(range(1, 10**9))
        self.lock = threading.Lock()
        self.started = []
        self.prepared = {}      # by session: what it may have left prepared
        self.paused = threading.Event()
        self.stopping = threading.Event()
        self.errors = []
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(sessions)]

    SETUP = """
        CREATE TABLE journal (number bigint PRIMARY KEY, how text NOT NULL);
        CREATE TABLE item (id integer PRIMARY KEY, shelf integer, n integer);
        INSERT INTO item SELECT i, i % 10, 0 FROM generate_series(1, 100) i;
    """
    STATISTIC = "SELECT how, count(*) AS entries, max(number) AS latest FROM journal GROUP BY how"
    SHELVES = "SELECT shelf, count(*) AS items, sum(n) AS total FROM item GROUP BY shelf"

    @classmethod
    def create(cls, db):
        db.run(cls.SETUP)
        db.run("SELECT statistics_create('journal_statistics', %s)", (cls.STATISTIC,))
        db.run("SELECT statistics_create('shelves', %s)", (cls.SHELVES,))
        db.run("SELECT cache_watch('journal', keys => ARRAY['watched:{number}'])")

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
            if kind is None and thread.is_alive():
                where = "".join(traceback.format_stack(sys._current_frames()[thread.ident]))
                raise Failure("a session does not end:\n" + where)
        if kind is None and self.errors:
            raise Failure("\n".join(self.errors[:3]))

    def count(self):
        with self.lock:
            return len(self.started)

    def _run(self, session):
        rng = random.Random(session)
        while not self.stopping.is_set():
            db = redis = None
            try:
                redis = self.redis.client()
                db = self.server.session(self.dbname, autocommit=False)
                self._finish_prepared(db, session)
                while not self.stopping.is_set():
                    self._transaction(db, redis, rng, session)
            except (psycopg2.OperationalError, psycopg2.InterfaceError, RedisGone, RedisError):
                self.stopping.wait(0.05)  # a server is down: that is what this scenario is about
            except psycopg2.Error as error:
                # Without a code it is the connection that broke, in whatever class libpq found.
                if error.pgcode is not None and not error.pgcode.startswith(("57P", "08")):
                    self.errors.append(f"{error.pgcode} {error}")
                    return
                self.stopping.wait(0.05)
            finally:
                for one in (db, redis):
                    if one is not None:
                        one.close()

    def _finish_prepared(self, db, session):
        """A crash between PREPARE and its end leaves locks that this session would wait for."""
        number = self.prepared.get(session)
        db.connection.autocommit = True
        if number is not None and db.rows("SELECT 1 FROM pg_prepared_xacts WHERE gid = %s", (f"journal {number}",)):
            db.run(f"COMMIT PREPARED 'journal {number}'")
        db.connection.autocommit = False

    def _transaction(self, db, redis, rng, session):
        with self.lock:
            number = next(self.numbers)
        kind = rng.choice(["plain", "plain", "plain", "prepared", "savepoint"])
        # A key that the transaction names, and one that the watch on the table names.
        redis("MSET", f"named:{number}", "old", f"watched:{number}", "old",
              f"kept:{number}", "old")
        with self.lock:
            self.started.append(number)
        db.run("INSERT INTO journal VALUES (%s, %s)", (number, kind))
        db.run("SELECT cache_invalidate(%s)", (f"named:{number}",))
        db.run("SAVEPOINT s")
        db.run("SELECT cache_invalidate(%s)", (f"kept:{number}",))
        db.run("INSERT INTO journal VALUES (%s, 'undone')", (-number,))
        db.run("ROLLBACK TO s")
        db.run("UPDATE item SET n = n + 1, shelf = %s WHERE id = %s",
               (rng.randint(0, 9), session * 30 + rng.randint(1, 30)))
        if kind == "prepared":
            self.prepared[session] = number
            db.run(f"PREPARE TRANSACTION 'journal {number}'")
            db.connection.rollback()
            db.connection.autocommit = True
            db.run(("COMMIT" if rng.random() < 0.6 else "ROLLBACK") + f" PREPARED 'journal {number}'")
            db.connection.autocommit = False
        elif rng.random() < 0.7:
            db.connection.commit()
        else:
            db.connection.rollback()


def judge(server, redis, journal, trusted_from=0):
    """Wait until everything is delivered, then compare keys and statistics with the tables.

    Keys of transactions before number trusted_from were lost by Redis itself: that they are gone
    proves nothing, but none that must be gone may be there.
    """
    with server.session("shop") as db:
        for (gid,) in db.rows("SELECT gid FROM pg_prepared_xacts WHERE database = 'shop' ORDER BY gid"):
            db.run(f"COMMIT PREPARED '{gid}'")
        wait_for("every committed invalidation is delivered",
                 lambda: db.value("SELECT pending = 0 FROM invalidation_status"), 30)
        committed = {row[0] for row in db.rows("SELECT number FROM journal")}
        for name, query in (("journal_statistics", journal.STATISTIC), ("shelves", journal.SHELVES)):
            expect_equal(db, name, query, "after the crash")
            expect(not db.rows("SELECT * FROM statistics_verify(%s)", (name,)), f"verify finds errors in {name}")
        db.run("SELECT statistics_fold()")
        for name, query in (("journal_statistics", journal.STATISTIC), ("shelves", journal.SHELVES)):
            expect_equal(db, name, query, "after the crash and a fold")
    with redis.client() as client:
        for number in journal.started:
            named, watched, kept = client("MGET", f"named:{number}", f"watched:{number}", f"kept:{number}")
            if number in committed:
                expect(named is None and watched is None,
                       f"transaction {number} committed and its keys remain: {named!r}, {watched!r}")
                if number >= trusted_from:
                    expect(kept == b"old", f"transaction {number}: a savepoint's rollback was delivered")
            elif number >= trusted_from:
                expect(named == b"old" and watched == b"old",
                       f"transaction {number} did not commit and was delivered: {named!r}, {watched!r}")
    expect(not any(number < 0 for number in committed), "a rolled-back row is in the table")
    return len(committed)


def let_through(journal, many=300):
    """Wait until that many more transactions have begun."""
    goal = journal.count() + many
    wait_for("sessions write", lambda: journal.count() >= goal, 60)


def with_servers(body, name, preload=True, durable=True):
    redis = Redis(work(name + "_redis"), durable=durable).start()
    with Servers(name, redis, preload, restart_after_crash="on") as servers:
        with servers.postgres.session("shop") as db:
            Journal.create(db)
        body(servers.postgres, redis)


def immediate_shutdown_loses_and_invents_nothing(_):
    def body(server, redis):
        with Journal(server, "shop", redis) as journal:
            for _ in range(ROUNDS):
                let_through(journal)
                server.crash()
                server.start()
            let_through(journal, 20)
        expect(judge(server, redis, journal) > 50, "too few transactions committed")

    with_servers(body, "kill_server")


def a_killed_backend_loses_and_invents_nothing(_):
    def body(server, redis):
        server.expect(*KILLED)
        with Journal(server, "shop", redis) as journal:
            for _ in range(ROUNDS):
                let_through(journal)
                victims = server.pids("datname = 'shop' AND backend_type = 'client backend'"
                                      " AND state <> 'idle'")
                server.kill_process((victims or server.pids("datname = 'shop'"))[0])
            let_through(journal, 20)
        expect(judge(server, redis, journal) > 50, "too few transactions committed")

    with_servers(body, "kill_backend")


def a_killed_worker_loses_and_repeats_harmlessly(_):
    def body(server, redis):
        server.expect(*KILLED)
        with Journal(server, "shop", redis) as journal:
            for _ in range(ROUNDS):
                let_through(journal)
                pid = wait_for("a worker runs", lambda: server.worker_pids("shop"), 30)[0]
                server.kill_process(pid)
            for _ in range(ROUNDS):
                let_through(journal)
                pid = wait_for("a worker runs", lambda: server.worker_pids("shop"), 30)[0]
                os.kill(pid, signal.SIGTERM)
                wait_for("another worker runs",
                         lambda: [p for p in server.worker_pids("shop") if p != pid], 30)
            let_through(journal, 20)
        judge(server, redis, journal)

    with_servers(body, "kill_worker")


def a_killed_redis_that_keeps_its_data_hears_everything_later(_):
    def body(server, redis):
        with Journal(server, "shop", redis) as journal:
            for _ in range(ROUNDS):
                let_through(journal)
                redis.kill()
                with server.session("shop") as db:  # writers go on without Redis
                    number = next(journal.numbers)
                    db.run("INSERT INTO journal VALUES (%s, 'alone')", (number,))
                redis.start()
            let_through(journal, 20)
        judge(server, redis, journal)

    with_servers(body, "kill_redis")


def a_redis_that_comes_back_empty_stays_coherent(_):
    def body(server, redis):
        trusted_from = 1
        with Journal(server, "shop", redis) as journal:
            for _ in range(ROUNDS):
                let_through(journal)
                redis.kill()
                redis.forget()
                redis.start()
                # Transactions that were under way set their keys before the restart.
                trusted_from = journal.count() + 10
            let_through(journal, 40)
        judge(server, redis, journal, trusted_from)

    with_servers(body, "empty_redis")


def prepared_transactions_survive_a_crash_and_count_when_they_commit(_):
    def body(server, redis):
        with Journal(server, "shop", redis, sessions=0) as journal:
            pass
        with server.session("shop", autocommit=False) as db:
            for number, gid in ((1001, "yes"), (1002, "no")):
                redis.ask("MSET", f"named:{number}", "old", f"watched:{number}", "old", f"kept:{number}", "old")
                journal.started.append(number)
                db.run("INSERT INTO journal VALUES (%s, 'prepared')", (number,))
                db.run("SELECT cache_invalidate(%s)", (f"named:{number}",))
                db.run(f"PREPARE TRANSACTION '{gid}'")
                db.connection.rollback()
        server.crash()
        server.start()
        with server.session("shop") as db:
            redis.ask("SET", "named:1", "old")
            db.run("SELECT cache_invalidate('named:1')")
            wait_for("a later invalidation is delivered", lambda: redis.ask("EXISTS", "named:1") == 0)
            expect(redis.ask("EXISTS", "named:1001", "watched:1001") == 2,
                   "a prepared transaction was delivered before its commit")
            expect_equal(db, "journal_statistics", journal.STATISTIC, "with transactions prepared")
            db.run("COMMIT PREPARED 'yes'")
            db.run("ROLLBACK PREPARED 'no'")
            expect_equal(db, "journal_statistics", journal.STATISTIC, "at once after COMMIT PREPARED")
        wait_for("the prepared transaction's invalidation is delivered",
                 lambda: redis.ask("EXISTS", "named:1001", "watched:1001") == 0)
        judge(server, redis, journal)

    with_servers(body, "prepared")


def statistics_stay_exact_through_crashes_in_a_storm(options):
    """The storm of the statistics scenario, with the server crashing under it."""
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)

    def body(server, _):
        server.expect(*KILLED)
        with workload.Storm(server, "shop", seed, writers=3, checkers=1, tolerate_loss=True) as run:
            for i in range(4):
                goal = run.transactions + 60
                wait_for("sessions write", lambda: run.errors or run.transactions >= goal, 60)
                if i % 2 == 0:
                    server.crash()
                    server.start()
                else:
                    victims = server.pids("datname = 'shop' AND backend_type = 'client backend'")
                    server.kill_process(random.Random(seed).choice(victims))
        workload.settle(server, "shop")

    try:
        with_shop("storm_crash", body, redis=False, setup=workload.create)
    except Failure as failure:
        raise Failure(f"{failure}\n(repeat with --seed {seed})") from failure


TESTS = [
    immediate_shutdown_loses_and_invents_nothing,
    a_killed_backend_loses_and_invents_nothing,
    a_killed_worker_loses_and_repeats_harmlessly,
    a_killed_redis_that_keeps_its_data_hears_everything_later,
    a_redis_that_comes_back_empty_stays_coherent,
    prepared_transactions_survive_a_crash_and_count_when_they_commit,
    statistics_stay_exact_through_crashes_in_a_storm,
]

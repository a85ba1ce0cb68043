"""Statistics are filled while others write, and whatever happens in the middle leaves nothing broken."""

import threading
import time

import psycopg2

from harness import Failure, Session, expect, expect_equal, is_waiting, load_application, wait_for, with_shop

QUERY = ("SELECT kind, count(*) AS n, sum(amount) AS total, max(amount) AS most, count(DISTINCT who) AS people"
         " FROM item WHERE gate(id) GROUP BY kind")

# A row with number 0 stops whoever evaluates it as long as somebody holds the advisory lock.
SETUP = """
    CREATE FUNCTION gate(id integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        IF id = 0 THEN
            WHILE NOT pg_try_advisory_lock_shared(42) LOOP
                PERFORM pg_sleep(0.01);
            END LOOP;
            PERFORM pg_advisory_unlock_shared(42);
        END IF;
        RETURN true;
    END $$;
    CREATE TABLE item (id integer, kind integer, amount numeric, who integer);
    INSERT INTO item SELECT i, i % 5, i, i % 31 FROM generate_series(1, 2000) i;
    INSERT INTO item VALUES (0, 0, 0, 0);
"""


class Gate:
    """While it is closed, a filling does not get past row 0."""

    def __init__(self, server):
        self.session = server.session("shop")
        self.session.run("SELECT pg_advisory_lock(42)")

    def wait_for_worker(self, server):
        def evaluates():
            with server.session("shop") as db:
                return db.value("SELECT wait_event = 'PgSleep' FROM pg_stat_activity"
                                " WHERE backend_type = 'cache_ext filler' AND datname = 'shop'")
        wait_for("the worker is at row 0", evaluates)

    def open(self):
        self.session.close()


class Writers:
    """Sessions that change items all the time; what they do takes how long at most?"""

    WRITES = ["INSERT INTO item VALUES (%(i)s, %(i)s %% 7, %(i)s, %(i)s %% 40)",
              "UPDATE item SET kind = kind + 1, amount = amount + 1 WHERE id %% 97 = %(i)s %% 97 AND id > 0",
              "DELETE FROM item WHERE id %% 101 = %(i)s %% 101 AND id > 0"]

    def __init__(self, server, count=3):
        self.longest, self.done, self.error, self.ended = 0.0, 0, None, False
        self.threads = [threading.Thread(target=self._write, args=(server, n)) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def _write(self, server, number):
        i = number * 1000000
        try:
            with server.session("shop") as db:
                while not self.ended:
                    i += 1
                    started = time.monotonic()
                    db.run(self.WRITES[i % 3] if i % 17 else self.WRITES[0], {"i": i})
                    self.longest = max(self.longest, time.monotonic() - started)
                    self.done += 1
        except psycopg2.Error as error:
            self.error = error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True
        for thread in self.threads:
            thread.join()
        expect(self.error is None, f"a writer failed: {self.error}")


def with_items(name, body, preload=True):
    with_shop(name, body=lambda server, _: body(server), preload=preload, redis=False, setup=lambda db: db.run(SETUP))


def state_of(db, name="items"):
    return db.value("SELECT state FROM statistics_status WHERE relation = %s::regclass", (name,))


def settle(db, name="items", query=QUERY):
    expect(db.value("SELECT statistics_wait(%s, '20 s')", (name,)), f"{name} is {state_of(db, name)}")
    expect_equal(db, name, query, "once filled")
    db.run("UPDATE item SET kind = kind + 1 WHERE id BETWEEN 1 AND 50")
    expect_equal(db, name, query, "after a change")
    db.run("SELECT statistics_fold()")
    expect_equal(db, name, query, "after a fold")


def writers_go_on_while_it_is_filled(_):
    def body(server):
        with server.session("shop") as db, server.session("shop") as reader, Writers(server) as writers:
            for turn in range(4):
                wait_for("writers are at work", lambda: writers.done > 50 * turn)
                writers.longest = 0.0
                gate = Gate(server)
                if turn == 0:
                    db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
                else:
                    db.run("SELECT statistics_refresh('items', concurrently => true)")
                gate.wait_for_worker(server)
                before = writers.done
                wait_for("writers write while it is filled", lambda: writers.done > before + 100)
                expect(state_of(reader) == "filling", "it is not filling")
                gate.open()
                expect_equal(reader, "items", QUERY, "while it is filled")
                wait_for("ready", lambda: state_of(reader) == "ready")
                for _ in range(5):
                    expect_equal(reader, "items", QUERY, "amid writers")
                found = reader.rows("SELECT * FROM statistics_verify('items')")
                expect(not found, f"verify found {found}")
                expect(writers.longest < 3, f"a write took {writers.longest:.1f} s")
        with server.session("shop") as db:
            settle(db)
    with_items("filling_writers", body)


def open_transactions_count_once(_):
    def body(server):
        writer, db = server.session("shop"), server.session("shop")
        with writer, db:
            db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
            settle(db)
            writer.run("BEGIN; INSERT INTO item VALUES (-1, 1, 10, 1); SAVEPOINT a;"
                       " DELETE FROM item WHERE id = 5; ROLLBACK TO a; UPDATE item SET kind = 2 WHERE id = 6")
            with server.session("shop") as prepared:
                prepared.run("BEGIN; INSERT INTO item VALUES (-2, 1, 20, 1), (-3, 3, 5, 5)")
                prepared.run("PREPARE TRANSACTION 'p'")
            db.run("SELECT statistics_refresh('items', concurrently => true)")
            expect(db.value("SELECT statistics_wait('items', '20 s')"), "an open transaction stops a refresh")
            expect_equal(db, "items", QUERY, "beside open transactions")
            expect_equal(writer, "items", QUERY, "in the open transaction")
            writer.run("COMMIT")
            expect_equal(db, "items", QUERY, "after the commit")
            server.crash()
            server.start()
        with server.session("shop") as db:
            expect_equal(db, "items", QUERY, "after a crash")
            db.run("COMMIT PREPARED 'p'")
            expect_equal(db, "items", QUERY, "after COMMIT PREPARED")
            settle(db)
    with_items("filling_open", body)


def waiting_says_why_it_would_last_forever(_):
    def body(server):
        with server.session("shop") as db:
            db.run("BEGIN")
            db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
            expect_equal(db, "items", QUERY, "in the transaction that made it")
            db.fails("55000", "SELECT statistics_wait('items')")
            db.run("ROLLBACK")
            gate = Gate(server)
            db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
            gate.wait_for_worker(server)
            expect(db.value("SELECT statistics_wait('items', '100 ms')") is False, "the time was not over")
            expect(db.value("SELECT progress < 1 AND groups IS NULL FROM statistics_status"), "progress of a filling")
            gate.open()
            settle(db)
            expect(db.value("SELECT progress = 1 AND groups > 0 FROM statistics_status"), "progress when ready")
    with_items("filling_wait", body)


def the_worker_ends_in_the_middle(_):
    def body(server):
        with server.session("shop") as db:
            gate = Gate(server)
            db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
            gate.wait_for_worker(server)
            first = server.worker_pids("shop")
            db.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cache_ext filler'")
            wait_for("another worker is at it",
                     lambda: set(server.worker_pids("shop")) - set(first) and not gate.wait_for_worker(server))
            db.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cache_ext filler'")
            gate.wait_for_worker(server)
            db.run("INSERT INTO item VALUES (-9, 9, 9, 9)")
        server.kill_process(server.worker_pids("shop")[-1])
        gate.open()
        with server.session("shop") as db:
            settle(db)
            db.run("SELECT statistics_refresh('items', concurrently => true)")
            server.crash()
            server.start()
        with server.session("shop") as db:
            settle(db)
    server_log = ["was terminated by signal 9", "57014", "57P01"]
    with_items("filling_ends", lambda server: body(server.expect(*server_log)))


def things_are_dropped_in_the_middle(_):
    def body(server):
        with server.session("shop") as db:
            for number, command in enumerate(("DROP VIEW items", "DROP TABLE item CASCADE")):
                gate = Gate(server)
                db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
                gate.wait_for_worker(server)
                with server.session("shop") as other:
                    other.start(command)
                    db.run("INSERT INTO item VALUES (77, 7, 7, 7)")    # writers do not wait behind the DROP
                    expect(other.busy(), "a DROP did not wait for the filling")
                    gate.open()
                    other.finish()
                left = db.rows("SELECT relname FROM pg_class WHERE relnamespace = 'cache_ext_internal'::regnamespace"
                               " AND relname ~ '[0-9]$'")
                expect(not left, f"{command} left {left}")
            db.run("DROP FUNCTION gate")
            db.run(SETUP)
            db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
            settle(db)
    with_items("filling_drops", body)


def an_expression_that_raises_breaks_one_statistic_alone(_):
    def body(server):
        bad = "SELECT kind, sum(100 / (amount - 103)) AS n FROM item WHERE id > 100 GROUP BY kind"
        with server.session("shop") as db:
            db.run("SELECT statistics_create('broken', %s, concurrently => true)", (bad,))
            db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
            settle(db)
            wait_for("broken", lambda: state_of(db, "broken") == "broken")
            expect("division by zero" in db.value("SELECT detail FROM statistics_status WHERE state = 'broken'"),
                   "the reason is not told")
            db.fails("22012", "SELECT * FROM broken")
            db.fails("55000", "SELECT statistics_wait('broken')")
            db.fails("22012", "INSERT INTO item VALUES (3000, 1, 103, 3)")
            db.run("ALTER TABLE item DISABLE TRIGGER USER")
            db.run("UPDATE item SET amount = 104 WHERE amount = 103")
            db.run("ALTER TABLE item ENABLE TRIGGER USER")
            db.run("SELECT statistics_refresh('broken', concurrently => true)")
            settle(db, "broken", bad)
            settle(db)
    with_items("filling_broken", body)


def the_preset_is_attached_amid_writers(_):
    def body(server):
        with server.session("shop") as db:
            load_application(db)
            db.run("INSERT INTO bag (qr_id, type) SELECT 'q' || i, CASE WHEN i %% 4 = 0 THEN 'parent' ELSE 'child' END"
                   " FROM generate_series(1, 3000) i", ())
            ended = threading.Event()

            def write():
                with Session(server, "shop") as session:
                    i = 0
                    while not ended.is_set():
                        i += 1
                        session.run("INSERT INTO bag (qr_id, type) VALUES (%s, 'child')", (f"w{i}",))
                        session.run("DELETE FROM bag WHERE qr_id = %s", (f"q{i}",))

            thread = threading.Thread(target=write)
            thread.start()
            db.run("SELECT bag_tracking_attach(concurrently => true)")
            db.run("SELECT statistics_wait(relation, '20 s') FROM statistics_status")
            check = ("SELECT c.total_bags = b.n AND c.child_bags = b.children AND c.unlinked_children = b.children"
                     " FROM statistics_cache c, (SELECT count(*) AS n, count(*) FILTER (WHERE type = 'child')"
                     " AS children FROM bag) b")
            for _ in range(20):
                expect(db.value(check), "the dashboard's row is not exact")
            ended.set()
            thread.join()
            expect(db.value(check), "the dashboard's row is not exact in the end")
            expect(db.value("SELECT count(*) FROM bag_tracking_attach(concurrently => true)") == 5, "attached twice")
    with_items("filling_preset", body, preload=False)


def verification_in_the_background_finds_what_is_wrong(_):
    def body(server):
        server.set(cache_ext__verify_interval="'1s'")
        server.expect("differs from its query")
        with server.session("shop") as db:
            db.run("SELECT statistics_create('items', %s)", (QUERY,))

            def verdict():
                db.run("UPDATE item SET amount = amount + 1 WHERE id = 1")    # verified is what changes
                return db.value("SELECT verified_ok FROM statistics_status WHERE verified_at > now() - interval '5 s'")
            wait_for("it is found right", lambda: verdict() is True)
            table = db.value("SELECT min(relname) FROM pg_class WHERE relname ~ '^totals_[0-9]+$'")
            db.run(f"UPDATE cache_ext_internal.{table} SET c1 = c1 + 1")
            wait_for("it is found wrong", lambda: verdict() is False)
            db.run("SELECT statistics_refresh('items')")
            wait_for("it is found right again", lambda: verdict() is True)
            settle(db)
    with_items("filling_verify", body)


def an_old_snapshot_disables_triggers(_):
    """What a command does to a statistic does not depend on what its transaction's snapshot sees."""
    def body(server):
        commands = ["ALTER TABLE item DISABLE TRIGGER USER", 'DROP TRIGGER "0_cache_ext_insert" ON item']
        for command in commands:
            with server.session("shop") as old, server.session("shop") as db:
                old.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
                old.run("SELECT 1 FROM pg_class LIMIT 1")
                db.run("SELECT statistics_create('items', %s)", (QUERY,))
                old.run(command)
                old.run("INSERT INTO item VALUES (-5, 5, 5, 5)")
                expect_equal(old, "items", QUERY, f"in the transaction of {command}")
                old.run("COMMIT")
                expect_equal(db, "items", QUERY, f"after {command}")
                expect(state_of(db) == "stale", f"{command} went unnoticed")
                db.run("ALTER TABLE item ENABLE TRIGGER USER")
                if "DROP" in command:
                    db.run("SELECT statistics_refresh('items', concurrently => true)")
                settle(db)
                old.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
                old.run("SELECT 1 FROM pg_class LIMIT 1")
                db.run("SELECT statistics_drop('items')")
                db.run("SELECT statistics_create('items', %s)", (QUERY,))
                old.run("DROP VIEW items")
                old.run("COMMIT")
                left = db.rows("SELECT relname FROM pg_class WHERE relnamespace ="
                               " 'cache_ext_internal'::regnamespace AND relname ~ '[0-9]$'")
                expect(not left, f"DROP VIEW left {left}")
    with_items("filling_old", body)


def deliveries_do_not_wait_for_a_filling(_):
    def body(server, redis):
        with server.session("shop") as db:
            gate = Gate(server)
            db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
            gate.wait_for_worker(server)
            redis.ask("SET", "key", "value")
            db.run("SELECT cache_invalidate('key')")
            wait_for("the key is gone", lambda: redis.ask("EXISTS", "key") == 0)
            expect(state_of(db) == "filling", "it is not filling any more")
            with server.session() as other:    # the command asks worker and filler to go
                db.close()
                gate.open()
                other.run("CREATE DATABASE copy TEMPLATE shop")
        with server.session("copy") as db:
            settle(db)
    with_shop("filling_delivery", body, setup=lambda db: db.run(SETUP))


def others_fold_while_one_is_filled(_):
    queries = {
        "items": QUERY,
        "counted": "SELECT kind, count(*) AS n, max(amount) AS most FROM item GROUP BY kind",
        "tied": "SELECT (SELECT count(*) FROM item) AS items, (SELECT sum(n) FROM near) AS near",
        "near_sum": "SELECT count(*) AS n, count(DISTINCT n) AS distinct_n FROM near",
        "far_sum": "SELECT n % 3 AS k, count(*) AS n, sum(n) AS total, max(n) AS most FROM far GROUP BY 1",
    }

    def pending(db, name):
        return db.value("SELECT pending FROM statistics_status WHERE relation = %s::regclass", (name,))

    def compare(db, when):
        for name, query in queries.items():
            expect_equal(db, name, query, when)

    def body(server, _):
        with server.session("shop") as db:
            db.run("CREATE TABLE near (n integer); CREATE TABLE far (n integer)")
            for name in list(queries)[1:]:
                db.run("SELECT statistics_create(%s, %s)", (name, queries[name]))
            gate = Gate(server)
            db.run("SELECT statistics_create('items', %s, concurrently => true)", (QUERY,))
            gate.wait_for_worker(server)
            for i in range(3):
                db.run("INSERT INTO far SELECT generate_series(1, 20)")
                db.run("DELETE FROM far WHERE n = %s", (20 - i,))
                db.run("INSERT INTO near SELECT generate_series(1, 10)")
                db.run("INSERT INTO item SELECT i, i %% 5, i, i FROM generate_series(%s, %s) i", (5000 + 10 * i, 5009 + 10 * i))
                wait_for("a far table's statistic is folded", lambda: pending(db, "far_sum") == 0)
                for name in ("far_sum", "near_sum"):
                    expect_equal(db, name, queries[name], "during the filling")
            # Its tables may have changes of the filling that are not committed.
            expect(pending(db, "near_sum") > 0 and pending(db, "counted") > 0, "neighbours were folded")
            expect(state_of(db) == "filling", "it is not filling any more")
            with server.session("shop") as command:      # whoever could drop our tables waits, and nobody's fold for it
                command.start("ALTER TABLE far ADD COLUMN note text")
                wait_for("the command waits", lambda: is_waiting(server, command))
                db.run("INSERT INTO near VALUES (1)")
                gate.open()
                command.finish()
            settle(db)
            wait_for("all is folded", lambda: db.value("SELECT sum(pending) = 0 FROM statistics_status"))
            compare(db, "after the filling")
    with_shop("others_fold", body, redis=False, setup=lambda db: db.run(SETUP))


def one_younger_than_the_snapshot_is_not_shown(_):
    """Its view has no text there: statistics_status passes it over."""
    def body(server, _redis):
        with server.session("shop") as db, server.session("shop") as other:
            other.run("CREATE TABLE young (n integer)")
            db.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
            before = db.value("SELECT count(*) FROM statistics_status")
            other.run("SELECT statistics_create('of_young', 'SELECT count(*) FROM young')")
            expect(len(db.rows("SELECT relation, query FROM statistics_status")) == before, "it is shown")
            db.run("COMMIT")
            expect(len(db.rows("SELECT relation, query FROM statistics_status")) == before + 1, "it is not shown")
    with_shop("young", body, redis=False)


def made_and_dropped_at_once(_):
    """Whoever fills, takes up or verifies meets statistics and tables that are just being dropped; nobody hears of it."""
    def body(server, _redis):
        errors = []

        def make_and_drop(number):
            try:
                make_and_drop_all(number)
            except (Failure, psycopg2.Error) as error:
                errors.append(error)

        def make_and_drop_all(number):
            with server.session("shop") as db:
                for i in range(25):
                    name = f"made_{number}_{i}"
                    db.run(f"CREATE TABLE {name} (id integer, n integer)")
                    db.run(f"INSERT INTO {name} SELECT i, i FROM generate_series(1, 200) i")
                    db.run("SELECT statistics_create(%s, %s, concurrently => true)",
                           (f"of_{name}", f"SELECT n % 3 AS k, max(id), count(DISTINCT n) FROM {name} GROUP BY 1"))
                    db.run("SELECT cache_watch(%s, tags => '{all}')", (name,))
                    if i % 3 == 0:
                        db.run("SELECT statistics_wait(%s)", (f"of_{name}",))
                    if i % 2 == 0:
                        db.run(f"DROP VIEW of_{name}")
                    db.run(f"DROP TABLE {name} CASCADE")

        def look(done):
            try:
                with server.session("shop") as db:
                    while not done.wait(0.001):
                        db.rows("SELECT relation, state, detail FROM statistics_status")
            except psycopg2.Error as error:
                errors.append(error)

        done = threading.Event()
        looking = threading.Thread(target=look, args=(done,))
        threads = [threading.Thread(target=make_and_drop, args=(n,)) for n in range(3)]
        for thread in [looking] + threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        looking.join()
        expect(not errors, f"{errors}")
        with server.session("shop") as db:
            left = db.rows("SELECT relname FROM pg_class WHERE relnamespace = 'cache_ext_internal'::regnamespace"
                           " AND relname ~ '[0-9]$'")
            expect(not left, f"the drops left {left}")
            expect(not db.value("SELECT count(*) FROM cache_ext_internal.failure"), "a failure was noted")
    with_shop("made_and_dropped", body, redis=False, settings={"cache_ext.verify_interval": "1s"})


TESTS = [writers_go_on_while_it_is_filled, open_transactions_count_once, waiting_says_why_it_would_last_forever,
         the_worker_ends_in_the_middle, things_are_dropped_in_the_middle, made_and_dropped_at_once,
         one_younger_than_the_snapshot_is_not_shown,
         others_fold_while_one_is_filled,
         an_expression_that_raises_breaks_one_statistic_alone, deliveries_do_not_wait_for_a_filling,
         an_old_snapshot_disables_triggers, verification_in_the_background_finds_what_is_wrong,
         the_preset_is_attached_amid_writers]

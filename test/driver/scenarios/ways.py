"""Ways to change and to read a table that need more than one session or server."""

import threading

import psycopg2
import psycopg2.errors

from harness import Failure, Session, expect, expect_equal, judged, wait_for, with_shop, work

STATISTICS = {
    "parts": "SELECT region, count(*) AS n, sum(size) AS size, max(size) AS largest, count(DISTINCT name) AS names"
             " FROM part GROUP BY region",
    "things": "SELECT kind, count(*) AS n, min(price) AS cheapest, sum(price) AS total FROM thing GROUP BY kind",
    "overview": "SELECT (SELECT count(*) FROM thing t WHERE NOT EXISTS (SELECT FROM part p WHERE p.id = t.id)) AS alone,"
                " (SELECT sum(size) FROM part) AS size",
}

TABLES = """
    CREATE TABLE part (id integer, region integer, size numeric, name text, PRIMARY KEY (id, region))
        PARTITION BY LIST (region);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
    CREATE TABLE part_2 (name text, size numeric, region integer NOT NULL, id integer NOT NULL);
    ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2);
    CREATE TABLE part_3 PARTITION OF part FOR VALUES IN (3, 4);
    CREATE TABLE thing (id integer PRIMARY KEY, kind text, price numeric);
"""

ROWS = """
    INSERT INTO part SELECT i, 1 + i % 4, i * 1.5, 'n' || i % 9 FROM generate_series(1, 200) i;
    INSERT INTO thing SELECT i, 'k' || i % 3, i FROM generate_series(100, 300) i;
"""


def create(db):
    for name, query in STATISTICS.items():
        db.run("SELECT statistics_create(%s, %s)", (name, query))


def compare(db, when):
    for name, query in STATISTICS.items():
        expect_equal(db, name, query, when)


def with_database(name, body, settings=None, rows=True):
    def setup(db):
        db.run(TABLES)
        create(db)
        if rows:
            db.run(ROWS)

    def with_session(server, _):
        with server.session("shop") as db:
            body(server, db)

    with_shop(name, with_session, redis=False, settings=settings, setup=setup)


# A subscription within one server needs a slot that was made before.
def what_a_subscription_applies_is_counted(_):
    def body(server, subscriber):
        server.create_database("origin", extension=False)
        with server.session("origin") as origin:
            origin.run(TABLES)
            origin.run(ROWS)
            origin.run("ALTER TABLE part_2 REPLICA IDENTITY FULL")
            origin.run("CREATE PUBLICATION leaves FOR TABLE part, thing")
            origin.run("SELECT pg_create_logical_replication_slot('shop', 'pgoutput')")
            subscriber.run(f"CREATE SUBSCRIPTION shop CONNECTION 'host={server.socket} user=postgres dbname=origin'"
                           " PUBLICATION leaves WITH (create_slot = false, slot_name = 'shop')")

            def caught_up():
                wait_for("the subscription has caught up", lambda: subscriber.value(
                    "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel") and origin.value(
                    "SELECT confirmed_flush_lsn >= pg_current_wal_insert_lsn() FROM pg_replication_slots"))
                for table in ("part", "thing"):
                    rows = f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {table} t"
                    expect(origin.value(rows) == subscriber.value(rows), f"{table} was not replicated")

            caught_up()
            compare(subscriber, "after the initial copy")
            for command in ("INSERT INTO part SELECT i, 1 + i % 4, i, 'new' FROM generate_series(201, 300) i",
                            "UPDATE part SET size = size + 1, region = 1 + region % 3 WHERE id % 2 = 0",
                            "UPDATE thing SET kind = NULL, id = id + 1000 WHERE id % 5 = 0",
                            "DELETE FROM part WHERE id % 7 = 0; DELETE FROM thing WHERE id % 7 = 0",
                            "BEGIN; DELETE FROM thing; ROLLBACK; INSERT INTO thing VALUES (5, 'k5', 'NaN')",
                            "TRUNCATE part_1",
                            "BEGIN; INSERT INTO part VALUES (1, 1, 1, 'x'); TRUNCATE part, thing;"
                            " INSERT INTO part VALUES (2, 2, 2, 'y'); COMMIT",
                            "INSERT INTO thing SELECT i, 'late', i FROM generate_series(1, 50) i"):
                origin.run(command)
                caught_up()
                compare(subscriber, f"after {command}")
                subscriber.run("SELECT statistics_fold()")
                subscriber.run("INSERT INTO thing VALUES (-1, 'own', 1); DELETE FROM thing WHERE id = -1")
                compare(subscriber, f"after {command} and a fold")
            subscriber.run("ALTER SUBSCRIPTION shop DISABLE; ALTER SUBSCRIPTION shop SET (slot_name = NONE);"
                           " DROP SUBSCRIPTION shop")
            wait_for("the slot is free", lambda: not origin.value("SELECT active FROM pg_replication_slots"))
            origin.run("SELECT pg_drop_replication_slot('shop')")
    with_database("ways_apply", body, {"wal_level": "logical", "max_logical_replication_workers": "8"}, rows=False)


def everything_may_be_published(_):
    """A publication of all tables has our internals, too; folds and refreshes go on."""
    def body(_, db):
        db.run("CREATE PUBLICATION everything FOR ALL TABLES")
        db.run("INSERT INTO thing VALUES (9000, 'k0', 1)")
        db.run("SELECT statistics_fold()")
        for name in STATISTICS:
            db.run("SELECT statistics_refresh(%s)", (name,))
        compare(db, "after folds and refreshes")
        db.run("SELECT statistics_refresh('things', concurrently => true)")
        expect(db.value("SELECT statistics_wait('things', '20 s')"), "things is not filled")
        db.run("ALTER TABLE part DETACH PARTITION part_1; DROP TABLE part_1")
        compare(db, "after DETACH")
        db.run("SELECT statistics_drop('things')")
    with_database("ways_publish", body, {"wal_level": "logical"})


def partitions_come_and_go_amid_writers(_):
    def body(server, db):
        ended, errors, done = threading.Event(), [], [0, 0, 0]

        def write(number, table):
            i = (number + 1) * 100000
            try:
                with Session(server, "shop") as session:
                    while not ended.is_set():
                        i += 1
                        region = 1 if number == 0 else (2 if table == "part_2" else 3 + i % 2)
                        session.run(f"INSERT INTO {table} (id, region, size, name) VALUES (%s, %s, %s, %s)",
                                    (i, region, i, f"w{i % 50}"))
                        if i % 3 == 0:
                            session.run(f"DELETE FROM {table} WHERE id = %s", (i - 2,))
                        done[number] += 1
            except psycopg2.Error as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=arguments)
                   for arguments in ((0, "part_1"), (1, "part_2"), (2, "part"))]
        for thread in threads:
            thread.start()
        db.fails("0A000", "ALTER TABLE part DETACH PARTITION part_2 CONCURRENTLY")
        for turn in range(8):
            wait_for("writers are at work", lambda: min(done) > 20 * turn or errors)
            db.run("ALTER TABLE part DETACH PARTITION part_2")
            compare(db, "after DETACH")
            db.run("BEGIN; ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2)")
            compare(db, "before the ATTACH commits")
            db.run("ROLLBACK" if turn % 3 == 0 else "COMMIT")
            compare(db, "after ATTACH")
            if turn % 3 == 0:
                db.run("ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2)")
            if turn % 2 == 0:
                db.run("SELECT statistics_refresh('parts', concurrently => true)")
            compare(db, "amid writers")
        ended.set()
        for thread in threads:
            thread.join()
        expect(not errors, f"a writer failed: {errors[:1]}")
        compare(db, "in the end")
        expect(not db.rows("SELECT * FROM statistics_verify('parts')"), "verify found differences")
    with_database("ways_partitions", body)


def a_standby_reads_exactly(_):
    def body(server, db):
        with judged(server.copy(work("ways_standby"))) as standby:
            def caught_up():
                here = db.value("SELECT pg_current_wal_insert_lsn()")
                with standby.session("shop") as there:
                    wait_for("the standby has caught up",
                             lambda: there.value("SELECT pg_last_wal_replay_lsn() >= %s", (here,)))
            for turn in range(3):
                db.run(f"UPDATE part SET region = 1 + region % 4 WHERE id % 3 = {turn}")
                db.run(f"DELETE FROM thing WHERE id % 10 = {turn}")
                if turn == 1:
                    db.run("SELECT statistics_fold()")
                if turn == 2:
                    db.run("ALTER TABLE thing DISABLE TRIGGER USER")    # answers from the table there, too
                    db.run("DELETE FROM thing WHERE id % 10 = 5")
                caught_up()
                with standby.session("shop") as there:
                    there.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
                    compare(there, "on a standby")
                    db.run(f"INSERT INTO thing VALUES ({turn}, 'later', 1)")
                    compare(there, "on a standby, in an old snapshot")
                    states = there.rows("SELECT relation::text, state FROM statistics_status")
                    expect(len(states) == 3 and (turn == 2) == ("stale" in dict(states).values()), f"{states}")
                    expect(not there.rows("SELECT * FROM statistics_verify('parts')"), "verify on a standby")
                    there.run("ROLLBACK")
                    there.fails("25006", "SELECT statistics_fold()")
            with standby.session("shop") as there:
                there.run("SELECT pg_promote()")
                there.run("ALTER TABLE thing ENABLE TRIGGER USER")
                there.run("INSERT INTO thing VALUES (77777, 'promoted', 1)")
                compare(there, "after promotion")
                expect(there.value("SELECT statistics_wait('things', '20 s')"), "filled after promotion")
                there.run("DELETE FROM thing WHERE id = 77777")
                compare(there, "after promotion and filling")
    with_database("ways_standby", body)


def parallel_plans_give_the_same(_):
    def body(_, db):
        major = db.connection.server_version // 10000
        db.run(f"SET {'debug_parallel_query' if major >= 16 else 'force_parallel_mode'} = on;"
               " SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
        for turn in range(3):
            db.run(f"UPDATE part SET size = size + 1, region = 1 + region % 4 WHERE id % 4 = {turn}")
            compare(db, "in parallel mode")
            db.run("BEGIN ISOLATION LEVEL SERIALIZABLE")
            db.run("DELETE FROM thing WHERE id % 11 = 1")
            compare(db, "in parallel mode, before the commit")
            db.run("COMMIT")
            for name in STATISTICS:
                expect(not db.rows("SELECT * FROM statistics_verify(%s)", (name,)), f"verify {name} in parallel mode")
            db.run("SELECT statistics_fold(); SELECT count(*) FROM statistics_status")
            db.run("SELECT statistics_refresh('overview')")
    with_database("ways_parallel", body)


def serializable_writers_fail_no_more_than_without(_):
    """Blind writers of the same groups never conflict, readers of the statistic beside them neither."""
    def failures(server, reads, first, seconds=1.5):
        ended, failed, done = threading.Event(), [0] * 4, [0] * 4

        def work(number):
            i = first + number * 1000000
            with Session(server, "shop") as session:
                session.run("SET default_transaction_isolation = 'serializable'")
                while not ended.is_set():
                    i += 1
                    try:
                        session.run("BEGIN")
                        session.run("INSERT INTO thing VALUES (%s, %s, 1)", (i, f"k{i % 3}"))
                        session.run("INSERT INTO part VALUES (%s, %s, 1, %s)", (i, 1 + i % 4, f"n{i % 5}"))
                        session.run("COMMIT")
                        done[number] += 1
                    except psycopg2.errors.SerializationFailure:
                        failed[number] += 1
                        session.run("ROLLBACK")
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        with server.session("shop") as db:
            db.run("SET default_transaction_isolation = 'serializable'; SET default_transaction_read_only = on")
            timer = threading.Timer(seconds, ended.set)
            timer.start()
            while not ended.is_set():
                if reads:
                    try:
                        compare(db, "amid serializable writers")
                    except psycopg2.errors.SerializationFailure:
                        raise Failure("a reader failed") from None
                else:
                    ended.wait(0.1)
        for thread in threads:
            thread.join()
        expect(sum(done) > 100, f"only {done} transactions")
        return sum(failed)

    def body(server, db):
        expect(failures(server, reads=True, first=1000000) == 0, "blind writers failed with 40001")
        compare(db, "after serializable writers")
        for name in STATISTICS:
            db.run("SELECT statistics_drop(%s)", (name,))
        without = failures(server, reads=False, first=9000000)
        expect(without == 0, f"{without} failures without statistics: the test proves nothing")
    with_database("ways_serializable", body)


def a_decision_on_a_statistic_is_serializable(_):
    """Two sessions that both number by the statistic's count cannot both commit at SERIALIZABLE."""
    def body(server, db):
        taken = 0
        for _ in range(10):
            with server.session("shop") as one, server.session("shop") as two:
                for session in (one, two):
                    session.run("BEGIN ISOLATION LEVEL SERIALIZABLE")
                numbers = [session.value("SELECT n FROM things WHERE kind = 'k1'") for session in (one, two)]
                committed = 0
                for session, number in zip((one, two), numbers):
                    try:
                        session.run("INSERT INTO thing VALUES (%s, 'k1', 0)", (100000 + number * 2 + committed,))
                        session.run("COMMIT")
                        committed += 1
                    except psycopg2.errors.SerializationFailure:
                        session.run("ROLLBACK")
                expect(committed == 1, f"{committed} of two sessions with the same number committed")
                taken += committed
        expect(taken == 10, f"{taken}")
        compare(db, "in the end")
    with_database("ways_decision", body)


def generated_columns_are_followed_or_refused(_):
    """What later versions can do with them; what all do is in changes.sql and statistics.sql."""
    def body(server, db):
        major = db.connection.server_version // 10000
        query = "SELECT twice, count(*) AS n FROM doubled GROUP BY twice"
        db.run("CREATE TABLE doubled (id integer, twice integer GENERATED ALWAYS AS (id * 2) STORED)")
        db.run("INSERT INTO doubled (id) SELECT generate_series(1, 20)")
        db.run("SELECT statistics_create('doubles', %s)", (query,))
        if major >= 17:
            db.run("ALTER TABLE doubled ALTER COLUMN twice SET EXPRESSION AS (id % 3)")
        expect_equal(db, "doubles", query, "with another expression")
        db.run("INSERT INTO doubled (id) VALUES (21), (22)")
        wait_for("it is filled", lambda: db.value("SELECT state = 'ready' FROM statistics_status WHERE relation = 'doubles'::regclass"))
        expect_equal(db, "doubles", query, "filled anew")
        if major >= 18:
            db.run("ALTER TABLE doubled ADD COLUMN shown integer GENERATED ALWAYS AS (id * 3) VIRTUAL")
            db.fails("0A000", "SELECT statistics_create('shown', 'SELECT shown, count(*) FROM doubled GROUP BY 1')")
            db.fails("0A000", "SELECT cache_watch('doubled', keys => ARRAY['k:{shown}'])")
    with_database("ways_generated", body)


TESTS = [what_a_subscription_applies_is_counted, everything_may_be_published, partitions_come_and_go_amid_writers,
         a_standby_reads_exactly, parallel_plans_give_the_same, serializable_writers_fail_no_more_than_without,
         a_decision_on_a_statistic_is_serializable, generated_columns_are_followed_or_refused]

"""Scripted interleavings: stale fills, write skew, and writers that must not meet."""

import itertools
import json
import threading

from harness import Failure, expect, expect_equal, is_waiting, load_application, wait_for, with_shop


# ---------------------------------------------------------------------------
# Stale fills
# ---------------------------------------------------------------------------

# Reads the price under its snapshot, then waits until the test lets it go on.
SLOW = "SELECT price, pg_advisory_xact_lock_shared(7) IS NULL AS waited FROM product WHERE id = 1"


def price_of(answer):
    return json.loads(answer)[0]["price"]


def stale_fill(server, redis, change, after, tags="'{}'"):
    """A cache_get whose query runs across `change` must not leave the old value behind."""
    with server.session("shop") as keeper, server.session("shop") as loader, \
            server.session("shop") as writer, server.session("shop") as reader:
        keeper.run("DROP TABLE IF EXISTS product; CREATE TABLE product (id integer PRIMARY KEY, price integer);"
                   "INSERT INTO product VALUES (1, 10)")
        keeper.run("SELECT cache_watch('product', keys => ARRAY['product:{id}'], tags => ARRAY['products'])")
        keeper.run("SELECT cache_invalidate('product:1')")
        wait_for("what the last change left in memory is void",
                 lambda: keeper.value("SELECT pending = 0 FROM invalidation_status"))
        redis.ask("FLUSHALL")
        keeper.run("SELECT pg_advisory_lock(7)")
        get = f"SELECT cache_get('product:1', $q${SLOW}$q$, ttl => '1 hour', tags => {tags})"
        loader.start(get)
        wait_for("the loader's query has read the old price", lambda: is_waiting(server, loader, "advisory"))
        change(writer)
        keeper.run("SELECT pg_advisory_unlock(7)")
        loader.finish()
        # At once, whether Redis has been told or not, and again when it has.
        expect(price_of(reader.value(get)) == after, "the old value came back right after the commit")
        wait_for("the invalidation is delivered",
                 lambda: reader.value("SELECT pending = 0 FROM invalidation_status"))
        for session in (reader, loader, writer):
            found = price_of(session.value(get))
            expect(found == after, f"cache_get gives {found} for {after} after delivery")


def updates(writer):
    writer.run("UPDATE product SET price = 11 WHERE id = 1")


def prepares_and_commits_elsewhere(writer):
    writer.connection.autocommit = False
    writer.run("UPDATE product SET price = 11 WHERE id = 1")
    writer.run("PREPARE TRANSACTION 'elsewhere'")
    writer.connection.rollback()
    writer.connection.autocommit = True
    writer.run("COMMIT PREPARED 'elsewhere'")


def invalidates_by_hand(writer):
    writer.run("BEGIN")
    writer.run("SET LOCAL session_replication_role = replica")
    writer.run("UPDATE product SET price = 11 WHERE id = 1")
    writer.run("SET LOCAL session_replication_role = origin")
    writer.run("SELECT cache_invalidate('product:1')")
    writer.run("COMMIT")


def changes_twice_with_savepoints(writer):
    writer.run("BEGIN; SAVEPOINT a; UPDATE product SET price = 99; ROLLBACK TO a;"
               "UPDATE product SET price = 11; COMMIT")


CHANGES = [updates, prepares_and_commits_elsewhere, invalidates_by_hand, changes_twice_with_savepoints]


def a_slow_load_across_a_commit_leaves_no_old_value(_):
    def body(server, redis):
        for change in CHANGES:
            try:
                stale_fill(server, redis, change, 11)
            except Failure as failure:
                raise Failure(f"{change.__name__}: {failure}") from failure

    for preload in (True, False):
        with_shop(f"fill_{preload}", body, preload=preload)


def a_slow_load_across_a_tags_invalidation_leaves_no_old_value(_):
    def body(server, redis):
        def by_tag(writer):
            writer.run("BEGIN")
            writer.run("SET LOCAL session_replication_role = replica")
            writer.run("UPDATE product SET price = 11 WHERE id = 1")
            writer.run("SELECT cache_invalidate_tags('shelf')")
            writer.run("COMMIT")

        stale_fill(server, redis, by_tag, 11, tags="ARRAY['shelf']")

    with_shop("fill_tag", body)


def a_rolled_back_change_is_neither_cached_nor_delivered(_):
    def body(server, redis):
        get = "SELECT cache_get('product:1', 'SELECT price FROM product WHERE id = 1')"
        with server.session("shop") as writer, server.session("shop") as reader:
            writer.run("CREATE TABLE product (id integer PRIMARY KEY, price integer);"
                       "INSERT INTO product VALUES (1, 10)")
            writer.run("SELECT cache_watch('product', keys => ARRAY['product:{id}', 'app:{id}'])")
            redis.ask("SET", "app:1", "old")
            expect(price_of(reader.value(get)) == 10, "first load")
            writer.run("BEGIN")
            writer.run("UPDATE product SET price = 66 WHERE id = 1")
            expect(price_of(writer.value(get)) == 66, "a transaction does not see its own write")
            expect(price_of(reader.value(get)) == 10, "another session sees an uncommitted value")
            writer.run("SELECT cache_set('mine', 'v')")
            expect(writer.value("SELECT cache_get('mine')") == "v", "a transaction does not see its own cache_set")
            writer.run("ROLLBACK")
            for session in (reader, writer):
                expect(price_of(session.value(get)) == 10, "a rolled-back value is served")
                expect(session.value("SELECT cache_get('mine')") is None, "a rolled-back cache_set is served")
            writer.run("SELECT cache_invalidate('other')")
            wait_for("a later invalidation is delivered",
                     lambda: reader.value("SELECT pending = 0 FROM invalidation_status"))
            expect(redis.ask("GET", "app:1") == b"old", "a rolled-back invalidation was delivered")
            expect(redis.ask("EXISTS", "mine") == 0, "a rolled-back cache_set reached Redis")

    with_shop("rolled_back", body)


def no_older_value_is_served_once_commit_has_returned(_):
    """A writer counts up and says how far it has committed; readers must never see less."""
    def body(server, redis):
        with server.session("shop") as db:
            db.run("CREATE TABLE counter (id integer PRIMARY KEY, n bigint);"
                   "INSERT INTO counter VALUES (1, 0)")
            db.run("SELECT cache_watch('counter', keys => ARRAY['counter:{id}'])")
        committed = [0]
        stopping = threading.Event()
        errors = []
        reads = [0]

        def read():
            try:
                with server.session("shop") as db:
                    last = 0
                    while not stopping.is_set():
                        floor = committed[0]
                        value = json.loads(db.value(
                            "SELECT cache_get('counter:1', 'SELECT n FROM counter WHERE id = 1')"))[0]["n"]
                        reads[0] += 1
                        if value < floor:
                            errors.append(f"{value} was read after the commit of {floor} had returned")
                        if value < last:
                            errors.append(f"one session read {last} and later {value}")
                        last = value
                        if errors:
                            return
            except Exception as error:
                errors.append(repr(error))

        readers = [threading.Thread(target=read, daemon=True) for _ in range(3)]
        for thread in readers:
            thread.start()
        with server.session("shop") as db:
            n = 0
            while not errors and (n < 400 or reads[0] < 2000):
                n += 1
                db.run("UPDATE counter SET n = %s WHERE id = 1", (n,))
                committed[0] = n
        stopping.set()
        for thread in readers:
            thread.join(20)
        expect(not errors, "; ".join(errors[:3]))

    for preload in (True, False):
        with_shop(f"monotonic_{preload}", body, preload=preload)


def repeatable_read_never_gets_a_newer_value(_):
    def body(server, redis):
        get = "SELECT cache_get('product:1', 'SELECT price FROM product WHERE id = 1')"
        with server.session("shop") as old, server.session("shop") as writer, server.session("shop") as reader:
            writer.run("CREATE TABLE product (id integer PRIMARY KEY, price integer);"
                       "INSERT INTO product VALUES (1, 10)")
            writer.run("SELECT cache_watch('product', keys => ARRAY['product:{id}'])")
            for level in ("REPEATABLE READ", "SERIALIZABLE"):
                writer.run("UPDATE product SET price = 10")
                old.run(f"BEGIN ISOLATION LEVEL {level}")
                expect(old.value("SELECT price FROM product WHERE id = 1") == 10, "the snapshot's own price")
                writer.run("UPDATE product SET price = 11 WHERE id = 1")
                expect(price_of(reader.value(get)) == 11, "an old value after a commit")
                expect(price_of(reader.value(get)) == 11, "an old value after a commit")
                expect(price_of(old.value(get)) == 10, f"{level}: a value newer than the snapshot")
                old.run("COMMIT")
                for session in (reader, old):
                    expect(price_of(session.value(get)) == 11, "a value loaded under an old snapshot was stored")

    with_shop("repeatable", body)


# ---------------------------------------------------------------------------
# Write skew: what two sessions do to one key before either sees the other
# ---------------------------------------------------------------------------

UNLINKED = """SELECT count(*) FROM bag b WHERE type = 'child'
    AND NOT EXISTS (SELECT 1 FROM link l WHERE l.child_bag_id = b.id)"""
LINKED = """SELECT count(*) AS linked FROM bag b WHERE type = 'child'
    AND EXISTS (SELECT 1 FROM link l WHERE l.child_bag_id = b.id)"""


def two_sessions_touch_the_links_of_one_child_in_every_order(_):
    """Both insert the first link, both delete one of the last two, or one inserts while one deletes."""
    moves = {
        "insert": "INSERT INTO link (parent_bag_id, child_bag_id) VALUES ({parent}, 10)",
        "delete": "DELETE FROM link WHERE parent_bag_id = {parent} AND child_bag_id = 10",
        "move away": "UPDATE link SET child_bag_id = 11 WHERE parent_bag_id = {parent} AND child_bag_id = 10",
        "delete the child": "DELETE FROM bag WHERE id = 12",
    }
    pairs = [("insert", "insert"), ("delete", "delete"), ("delete", "insert"), ("move away", "delete"),
             ("insert", "delete the child")]
    endings = ("COMMIT", "ROLLBACK", "PREPARE")

    def body(server, _):
        with server.session("shop") as db:
            load_application(db)
            db.run("SELECT count(*) FROM bag_tracking_attach()")
            db.run("SELECT statistics_create('linked_children', %s)", (LINKED,))

        def check(db, when):
            expect_equal(db, "(SELECT unlinked_children FROM statistics_cache) s", UNLINKED, when)
            expect_equal(db, "linked_children", LINKED, when)

        with server.session("shop") as a, server.session("shop") as b, server.session("shop") as db:
            for pair, level, ends, order in itertools.product(
                    pairs, ("READ COMMITTED", "REPEATABLE READ"), itertools.product(endings, endings), (0, 1)):
                script = f"{pair} at {level}, ending {ends}, order {order}"
                db.run("DELETE FROM link; DELETE FROM bag;"
                       "INSERT INTO bag (id, qr_id, type) VALUES (1, 'p1', 'parent'), (2, 'p2', 'parent'),"
                       " (10, 'c10', 'child'), (11, 'c11', 'child'), (12, 'c12', 'child')")
                for number, move in enumerate(pair, 1):
                    if move in ("delete", "move away"):
                        db.run(f"INSERT INTO link (parent_bag_id, child_bag_id) VALUES ({number}, 10)")
                for number, (session, move) in enumerate(zip((a, b), pair), 1):
                    session.run(f"BEGIN ISOLATION LEVEL {level}")
                    session.run("SET LOCAL lock_timeout = '5s'")
                    session.value("SELECT unlinked_children FROM statistics_cache")
                    session.run(moves[move].format(parent=number))
                    check(session, f"after the own write: {script}")
                if level == "READ COMMITTED":
                    db.run("SELECT statistics_fold()")
                for number in ((0, 1) if order == 0 else (1, 0)):
                    session, end = (a, b)[number], ends[number]
                    session.run(f"PREPARE TRANSACTION 'skew {number}'" if end == "PREPARE" else end)
                    check(db, f"after one has ended: {script}")
                db.run("SELECT statistics_fold()")
                check(db, f"after a fold: {script}")
                for number, end in enumerate(ends):
                    if end == "PREPARE":
                        db.run(f"COMMIT PREPARED 'skew {number}'")
                        check(db, f"after COMMIT PREPARED: {script}")
                db.run("SELECT statistics_fold()")
                check(db, f"at the end: {script}")

    with_shop("skew", body, redis=False)


def writers_do_not_wait_for_one_another_because_of_a_statistic(_):
    """Sessions that write to the same groups, keys and tables in opposite order, all still open."""
    def body(server, _):
        with server.session("shop") as db:
            load_application(db)
            db.run("INSERT INTO bag (qr_id, type) SELECT 'b' || i, 'child' FROM generate_series(1, 20) i;"
                   "INSERT INTO \"user\" (username) VALUES ('one')")
            db.run("SELECT count(*) FROM bag_tracking_attach()")
        sessions = [server.session("shop") for _ in range(6)]
        statements = ["INSERT INTO scan (child_bag_id, user_id) VALUES (1, 1)",
                      "INSERT INTO bag (qr_id, type, dispatch_area) VALUES ('n' || {n}, 'child', 'same')",
                      "INSERT INTO bill (bill_id, status, total_weight_kg) VALUES ('i' || {n}, 'new', 1.5)"]
        for level in ("READ COMMITTED", "REPEATABLE READ"):
            for session in sessions:
                session.run(f"BEGIN ISOLATION LEVEL {level}")
                session.run("SET LOCAL statement_timeout = '5s'")
                session.run("SELECT 1")
            for number, session in enumerate(sessions):
                ordered = statements if number % 2 == 0 else statements[::-1]
                for statement in ordered:   # none may wait: all transactions are open
                    session.run(statement.format(n=f"{number} || '{level}'"))
            with server.session("shop") as folder:
                folder.run("SET statement_timeout = '5s'")
                folder.run("SELECT statistics_fold()")
            for session in sessions:
                session.run("COMMIT")
        for session in sessions:
            session.close()
        with server.session("shop") as db:
            expect_equal(db, "(SELECT status, bills, total_weight_kg FROM bill_statistics) s",
                         "SELECT status, count(*), sum(total_weight_kg) FROM bill GROUP BY status")
            expect_equal(db, "(SELECT total_scans, total_bags FROM statistics_cache) s",
                         "SELECT (SELECT count(*) FROM scan), (SELECT count(*) FROM bag)")

    with_shop("waiting", body, redis=False)


def an_old_snapshot_sees_the_same_across_folds(_):
    def body(server, _):
        query = "SELECT kind, count(*) AS n, sum(v) AS total, max(v) AS top, count(DISTINCT v) AS d FROM t GROUP BY kind"
        with server.session("shop") as db, server.session("shop") as old, server.session("shop") as own:
            db.run("CREATE TABLE t (kind integer, v integer);"
                   "INSERT INTO t SELECT i % 5, i FROM generate_series(1, 50) i")
            db.run("SELECT statistics_create('t_statistics', %s)", (query,))
            for session in (old, own):
                session.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
                session.run("SELECT count(*) FROM t")
            before = old.rows("SELECT * FROM t_statistics ORDER BY kind")
            own.run("INSERT INTO t VALUES (1, 1000)")
            for i in range(20):
                db.run("INSERT INTO t VALUES (%s, %s); DELETE FROM t WHERE v = %s", (i % 7, 100 + i, 50 - i))
                db.run("SELECT statistics_fold()")
                for session in (old, own):
                    expect_equal(session, "t_statistics", query, f"in an old snapshot after fold {i}")
            expect(old.rows("SELECT * FROM t_statistics ORDER BY kind") == before, "a snapshot's answer changed")
            for session in (old, own):
                session.run("COMMIT")
            db.run("SELECT statistics_fold()")
            expect_equal(db, "t_statistics", query, "at the end")

    with_shop("old_snapshot", body, redis=False)


TESTS = [
    a_slow_load_across_a_commit_leaves_no_old_value,
    a_slow_load_across_a_tags_invalidation_leaves_no_old_value,
    a_rolled_back_change_is_neither_cached_nor_delivered,
    no_older_value_is_served_once_commit_has_returned,
    repeatable_read_never_gets_a_newer_value,
    two_sessions_touch_the_links_of_one_child_in_every_order,
    writers_do_not_wait_for_one_another_because_of_a_statistic,
    an_old_snapshot_sees_the_same_across_folds,
]

"""Dumps carry definitions, and what is restored is exact from the first read and maintained without further steps."""

import os
import subprocess

from harness import (Failure, Postgres, expect, expect_equal, judged, load_application, program, server_user,
                     wait_for, work)

STATISTICS = {
    "by_owner": 'SELECT owner, count(*) AS n, sum(price) AS total, max(price) AS dearest,'
                ' count(DISTINCT label) AS labels FROM thing GROUP BY owner',
    "regions": "SELECT region, count(*) AS n, min(name) AS first FROM part GROUP BY region",
    '"Zo\u00f6 %I"': "SELECT legs, count(*) AS n FROM animal GROUP BY legs",
    "unlinked": "SELECT (SELECT count(*) FROM thing t WHERE NOT EXISTS"
                " (SELECT FROM part p WHERE p.id = t.id)) AS n, (SELECT count(*) FROM animal) AS animals",
}

SCHEMA = """
    CREATE TABLE thing (id integer PRIMARY KEY, owner integer, price numeric, label text,
                        parent integer REFERENCES thing);
    CREATE TABLE part (id integer, region integer, name text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
    CREATE TABLE part_2 (name text, region integer NOT NULL, id integer NOT NULL);
    ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2);
    CREATE TABLE part_3 PARTITION OF part FOR VALUES IN (3, 4) PARTITION BY LIST (region);
    CREATE TABLE part_34 PARTITION OF part_3 FOR VALUES IN (3, 4);
    CREATE TABLE animal (id integer, legs integer);
    CREATE TABLE dog (tag text) INHERITS (animal);
"""

DATA = """
    INSERT INTO thing SELECT i, i % 7, i * 0.1, 'l' || i % 5, nullif(i - 1, 0) FROM generate_series(1, 500) i;
    INSERT INTO part SELECT i, 1 + i % 4, 'n' || i FROM generate_series(1, 200) i;
    INSERT INTO animal SELECT i, i % 3 FROM generate_series(1, 20) i;
    INSERT INTO dog SELECT i, 4, 'x' FROM generate_series(21, 40) i;
"""

CHANGES = """
    UPDATE thing SET owner = owner + 1, price = price * 2 WHERE id %% 3 = 0;
    DELETE FROM part WHERE id < 30;
    UPDATE part SET region = 1 + region %% 4 WHERE id %% 5 = 0;
    INSERT INTO dog VALUES (%s, 4, 'y');
    DELETE FROM animal WHERE legs = 2;
"""


def tool(name, server, *arguments):
    options = {"user": server_user()} if server_user() else {}
    result = subprocess.run([program(name), "-h", server.socket, "-U", "postgres", *arguments], cwd="/",
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                            env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}, **options)
    if result.returncode != 0 or "ERROR" in result.stdout:
        raise Failure(f"{name} {' '.join(arguments)}:\n{result.stdout[-3000:]}")


def compare(db, when):
    for name, query in STATISTICS.items():
        expect_equal(db, name, query, when)


def create(db):
    db.run(SCHEMA)
    for name, query in STATISTICS.items():
        db.run("SELECT statistics_create(%s, %s)", (name, query))
    db.run("CREATE VIEW above AS SELECT sum(n) AS n FROM by_owner")
    db.run(DATA)


def check_restored(server, name, number):
    """Exact at once, maintained, ready without a command of ours, and gone with DROP VIEW."""
    with server.session(name) as db:
        compare(db, "right after the restore")
        db.run(CHANGES % number)
        compare(db, "after changes")
        wait_for("all statistics are ready", lambda: db.value(
            "SELECT count(*) = %s FROM statistics_status WHERE state = 'ready'", (len(STATISTICS),)))
        db.run(CHANGES % (number + 1))
        compare(db, "once filled")
        db.run("SELECT statistics_fold()")
        db.run("CREATE TABLE part_5 PARTITION OF part FOR VALUES IN (5)")
        db.run("INSERT INTO part VALUES (1, 5, 'five'), (2, 5, 'six')")
        compare(db, "after a fold and a new partition")
        found = [row for relation in STATISTICS for row in
                 db.rows("SELECT * FROM statistics_verify(%s)", (relation,))]
        expect(not found, f"verify found {found}")
        expect(db.value("SELECT n FROM above") == db.value("SELECT count(*) FROM thing"), "a view over a statistic")
        db.run('DROP VIEW by_owner, regions, "Zo\u00f6 %I", unlinked CASCADE', None)
        left = db.rows("SELECT c.relname FROM pg_class c WHERE relnamespace = 'cache_ext_internal'::regnamespace"
                       " AND relname ~ '[0-9]$' UNION ALL SELECT tgname FROM pg_trigger WHERE tgname ~ 'cache_ext'"
                       " UNION ALL SELECT id::text FROM cache_ext_internal.source")
        expect(not left, f"DROP VIEW left {left}")


def with_origin(name, body):
    with judged(Postgres(work(name))) as server:
        server.create_database("origin")
        with server.session("origin") as db:
            create(db)
            db.run(CHANGES % 99)
            db.run("INSERT INTO thing VALUES (1000, 1, 'NaN', NULL)")    # stays in the log for a while
        body(server, os.path.join(server.directory, "dump"))


def a_plain_dump_comes_back(_):
    def body(server, path):
        tool("pg_dump", server, "-d", "origin", "-f", path)
        with open(path) as dump:
            text = dump.read()
        expect("cache_ext_internal.totals_" not in text and "cache_ext_internal.log_" not in text,
               "the dump carries folded state")
        server.create_database("copy", extension=False)
        tool("psql", server, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "copy", "-f", path)
        check_restored(server, "copy", 100)
        server.create_database("again", extension=False)
        tool("psql", server, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", "again", "-f", path)
        check_restored(server, "again", 100)
    with_origin("restore_plain", body)


def a_parallel_restore_comes_back(_):
    def body(server, path):
        tool("pg_dump", server, "-d", "origin", "-Fc", "-f", path)
        server.create_database("copy", extension=False)
        with server.session("copy") as db:    # a worker is about while tables appear
            db.run("CREATE EXTENSION cache_ext")
            db.run("SELECT cache_invalidate('x')")
        tool("pg_restore", server, "-j", "2", "-d", "copy", path)
        check_restored(server, "copy", 100)
    with_origin("restore_parallel", body)


def schema_first_and_data_later(_):
    def body(server, path):
        for copy, options in (("live", []), ("disabled", ["--disable-triggers"])):
            tool("pg_dump", server, "-d", "origin", "-Fc", "-f", path + copy)
            server.create_database(copy, extension=False)
            tool("pg_restore", server, "--schema-only", "-d", copy, path + copy)
            with server.session(copy) as db:
                compare(db, "of an empty schema")
                db.run("INSERT INTO animal VALUES (7777, 1)")
                compare(db, "before the data")
                if options:    # with triggers on, the rows of a table that references itself need their order
                    wait_for("ready", lambda: db.value(
                        "SELECT bool_and(state = 'ready') FROM statistics_status"))
                tool("pg_restore", server, "--data-only", *options, "-d", copy, path + copy)
            check_restored(server, copy, 100)
    with_origin("restore_sections", body)


def dropped_before_it_is_taken_up(_):
    def body(server, path):
        tool("pg_dump", server, "-d", "origin", "-Fc", "--section=pre-data", "--section=data", "-f", path)
        server.create_database("copy", extension=False)
        tool("pg_restore", server, "-d", "copy", path)
        with server.session("copy") as db:    # no triggers yet, so nothing is taken up
            compare(db, "without triggers")
            states = db.rows("SELECT state, detail FROM statistics_status")
            expect(len(states) == len(STATISTICS) and all("restored" in d for _, d in states), f"{states}")
            db.run("SELECT statistics_refresh('regions')")
            compare(db, "after a refresh that made the triggers")
            db.run("INSERT INTO part VALUES (4444, 1, 'x')")
            compare(db, "after a refresh and an insert")
            db.run('DROP VIEW by_owner, "Zo\u00f6 %I" CASCADE')
            db.run("DROP TABLE part, thing CASCADE")
            left = db.rows("SELECT relname FROM pg_class WHERE relnamespace = 'cache_ext_internal'::regnamespace"
                           " AND relname ~ '[0-9]$'")
            expect(not left, f"the drops left {left}")
    with_origin("restore_dropped", body)


def the_preset_comes_back(_):
    with judged(Postgres(work("restore_preset"))) as server:
        server.create_database("origin")
        with server.session("origin") as db:
            load_application(db)
            db.run("SELECT bag_tracking_attach(concurrently => true)")
            db.run("SELECT statistics_wait(relation) FROM statistics_status")
            db.run("INSERT INTO bag (qr_id, type) SELECT 'q' || i, CASE WHEN i % 4 = 0 THEN 'parent' ELSE 'child' END"
                   " FROM generate_series(1, 100) i")
        path = os.path.join(server.directory, "dump")
        tool("pg_dump", server, "-d", "origin", "-Fc", "-f", path)
        server.create_database("copy", extension=False)
        tool("pg_restore", server, "-j", "2", "-d", "copy", path)
        with server.session("copy") as db:
            expect(db.value("SELECT total_bags FROM statistics_cache") == 100, "bags right after the restore")
            db.run("DELETE FROM bag WHERE qr_id < 'q5'")
            wait_for("ready", lambda: db.value("SELECT bool_and(state = 'ready') FROM statistics_status"))
            db.run("INSERT INTO bag (qr_id, type) VALUES ('new', 'child')")
            expect(db.value("SELECT total_bags = (SELECT count(*) FROM bag) AND child_bags ="
                            " (SELECT count(*) FROM bag WHERE type = 'child') FROM statistics_cache"), "bags once filled")
            db.run("SELECT bag_tracking_detach()")
            expect(db.value("SELECT count(*) FROM cache_ext_internal.source") == 0, "sources after detach")


TESTS = [a_plain_dump_comes_back, a_parallel_restore_comes_back, schema_first_and_data_later,
         dropped_before_it_is_taken_up, the_preset_comes_back]

"""A new major version of PostgreSQL, and a new version of the extension, keep everything."""

import os
import random
import re
import shutil
import subprocess

import psycopg2

import workload
from harness import Postgres, Redis, expect, program, run_as_server, wait_for

DBNAME = "shop"


def filled_database(server):
    """Every kind of statistic, the preset with its watches, a watch, a target and a loader of one's own."""
    server.create_database(DBNAME)
    with server.session(DBNAME) as db:
        workload.create(db)
        db.run("CREATE TABLE shelf (id integer PRIMARY KEY, label text)")
        db.run("INSERT INTO shelf SELECT i, 'shelf ' || i FROM generate_series(1, 9) i")
        db.run("SELECT statistics_create('shelves', 'SELECT count(*) AS n, max(label) AS last FROM shelf')")
        db.run("SELECT cache_target_create('shop', 'django', '{\"key_prefix\": \"shop\", \"version\": 1}')")
        db.run("SELECT cache_watch('shelf', keys => ARRAY['shelf:{id}'], target => 'shop')")
        db.run("SELECT cache_define('shelf:{id}', 'SELECT label FROM shelf WHERE id = $1::integer')")
        db.run("CREATE VIEW above AS SELECT coalesce(sum(readings), 0) AS n FROM reading_by_kind")
        writes = workload.Writes(db, random.Random(4))
        for _ in range(60):
            writes.insert_several()
            writes.bag()


def facts(db):
    """What must be the same afterwards, whatever the numbers of the relations are."""
    return {
        "statistics": db.rows("SELECT relation::text, query, state FROM statistics_status ORDER BY 1"),
        "watches": db.rows("SELECT relation::text, watch, keys, tags, target FROM cache_ext_internal.watch"
                           " ORDER BY 1, 2"),
        "targets": db.rows("SELECT * FROM cache_ext_internal.target"),
        "loaders": db.rows("SELECT pattern, query, owner::text FROM cache_ext_internal.loader"),
        "outbox": db.rows("SELECT pending, epoch FROM invalidation_status"),
    }


def folded(db):
    """Begins at zero when a statistic is filled anew."""
    return dict(db.rows("SELECT relation::text, folded FROM statistics_status"))


def expect_same(before, after):
    for name, value in before.items():
        expect(after[name] == value, f"{name} were {value}, are {after[name]}")


# What pg_upgrade to PostgreSQL 17 and later does beyond earlier ones: row types become members with their tables.
ADOPT_ROW_TYPES = """
    INSERT INTO pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype)
    SELECT 'pg_type'::regclass, t.oid, 0, 'pg_extension'::regclass, e.oid, 0, 'e'
    FROM pg_extension e, pg_class c, pg_type t
    WHERE e.extname = 'cache_ext' AND c.relnamespace = 'cache_ext_internal'::regnamespace AND c.relkind = 'r'
      AND (t.oid = c.reltype OR t.typelem = c.reltype)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
"""


def expect_alive(server, redis):
    """Exact, maintained, delivered, and gone with what it belongs to."""
    with workload.Storm(server, DBNAME, 7, writers=2, checkers=1) as storm:
        storm.run_for(2)
    workload.settle(server, DBNAME)
    with server.session(DBNAME) as db:
        expect(db.value("SELECT n = (SELECT count(*) FROM reading) FROM above"), "a view over a statistic")
        wait_for("all is delivered", lambda: db.value("SELECT pending = 0 FROM invalidation_status"))
        expect(redis.ask("EXISTS", "shop:1:shelf:3") == 0, "a key of before the upgrade was not removed")
        expect("shelf 3" in db.value("SELECT cache_get('shelf:3')"), "the loader does not answer")
        db.fails("2BP01", "DROP TABLE reviewer")
        db.run("DROP TABLE reading CASCADE")
        expect(db.value("SELECT to_regclass('reading_by_kind') IS NULL AND to_regclass('above') IS NULL"),
               "DROP TABLE ... CASCADE left views")
        db.run("SELECT bag_tracking_detach()")
        db.run("DROP TABLE measure, site, reviewer, shelf CASCADE")
        left = db.rows("SELECT c.relname FROM pg_class c WHERE relnamespace = 'cache_ext_internal'::regnamespace"
                       " AND relname ~ '[0-9]$' UNION ALL SELECT tgname FROM pg_trigger WHERE tgname ~ 'cache_ext'"
                       " UNION ALL SELECT relation::text FROM cache_ext_internal.source")
        expect(not left, f"the drops left {left}")


def pg_upgrade_keeps_everything(_):
    work = os.environ["CACHE_EXT_WORK"]
    redis = Redis(os.path.join(work, "upgrade_redis"), durable=True).start()
    old = Postgres(os.path.join(work, "upgrade_old"), {"cache_ext.redis_url": f"'{redis.url}'"})
    new = Postgres(os.path.join(work, "upgrade_new"), {"cache_ext.redis_url": f"'{redis.url}'"})
    try:
        old.start()
        filled_database(old)
        with old.session(DBNAME) as db, old.session(DBNAME) as holder:
            wait_for("all is delivered", lambda: db.value("SELECT pending = 0 FROM invalidation_status"))
            redis.ask("SET", "shop:1:shelf:3", "old")
            redis.pause()
            db.run("UPDATE shelf SET label = label || '!' WHERE id = 3")
            holder.run("BEGIN")
            holder.run("ALTER TABLE shelf ALTER label SET STATISTICS 50")   # keeps folds away
            db.run("INSERT INTO reading (id, region, kind, n) VALUES (999, 0, 'z', -999)")
            db.run("DELETE FROM measure WHERE id % 2 = 0")
            before, folded_before = facts(db), folded(db)
            expect(db.value("SELECT sum(pending) > 2 FROM statistics_status"), "nothing is pending")
        old.stop()
        old.check_log()
        redis.resume()
        redis.kill()      # nothing is delivered before the facts are compared
        new.init()
        new.write_settings()
        run_as_server([program("pg_upgrade"), "-b", os.environ["CACHE_EXT_BIN"], "-B", os.environ["CACHE_EXT_BIN"],
                       "-d", old.data, "-D", new.data, "-s", new.directory, "-U", "postgres"],
                      os.path.join(new.directory, "pg_upgrade.log"), new.directory)
        new.write_settings()
        new.start()
        with new.session(DBNAME) as db:
            wrong = workload.compare(db, False)
            expect(not wrong, f"right after pg_upgrade: {wrong[:5]}")
            expect_same(before, facts(db))
            for name, count in folded(db).items():
                expect(count >= folded_before[name], f"{name} was filled anew")
            db.run(ADOPT_ROW_TYPES)
        redis.start()
        expect_alive(new, redis)
        new.stop()
        new.check_log()
    finally:
        old.stop("immediate")
        new.stop("immediate")
        redis.stop()


# ---------------------------------------------------------------------------
# New versions of the extension
# ---------------------------------------------------------------------------

MARKS = {"library": b"cache_ext library ", "oldest": b"cache_ext works with objects from "}

GUARD = '\\echo Use "ALTER EXTENSION cache_ext UPDATE" to load this file. \\quit\n'

# What updates do: new and changed functions, tables and views of ours.
UPDATES = {
    "1.0--1.1": """
        SELECT cache_ext_internal.begin_update('1.1');
        CREATE TABLE cache_ext_internal.novelty (id integer PRIMARY KEY);
        INSERT INTO cache_ext_internal.novelty SELECT id FROM cache_ext_internal.statistic;
        SELECT pg_catalog.pg_extension_config_dump('cache_ext_internal.novelty', '');
        CREATE FUNCTION cache_novelty() RETURNS integer LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
            AS 'SELECT count(*)::integer FROM cache_ext_internal.novelty';
        CREATE OR REPLACE VIEW statistics_status AS SELECT * FROM cache_ext_internal.status();
        ALTER TABLE cache_ext_internal.outbox SET (fillfactor = 90);
        ALTER TABLE cache_ext_internal.failure ALTER COLUMN message TYPE varchar;
        CREATE OR REPLACE FUNCTION statistics_wait(relation regclass, timeout interval DEFAULT NULL) RETURNS boolean
            AS 'MODULE_PATHNAME', 'cache_ext_statistics_wait' LANGUAGE C VOLATILE;
    """,
    "1.1--2.0": """
        SELECT cache_ext_internal.begin_update('2.0');
        DROP FUNCTION cache_novelty();
        ALTER EXTENSION cache_ext DROP TABLE cache_ext_internal.novelty;
        DROP TABLE cache_ext_internal.novelty;
    """,
}


class Installation:
    """A PostgreSQL of one's own, made of links, whose cache_ext may become another version."""

    def __init__(self, directory):
        parts = {part: subprocess.check_output([program("pg_config"), "--" + part], text=True).strip()
                 for part in ("bindir", "pkglibdir", "sharedir")}
        prefix = os.path.commonpath(list(parts.values()))
        for part, path in parts.items():
            target = os.path.join(directory, os.path.relpath(path, prefix))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            # The server finds its files by where its program really is.
            subprocess.check_call(["cp", "-r" if part == "bindir" else "-rs", path, target])
            setattr(self, part, target)
        self.library = os.path.join(self.pkglibdir, "cache_ext.so")
        self.original = os.path.realpath(self.library)
        self.extension = os.path.join(self.sharedir, "extension")

    def __enter__(self):
        self.before = os.environ["CACHE_EXT_BIN"]
        os.environ["CACHE_EXT_BIN"] = self.bindir
        return self

    def __exit__(self, *_):
        os.environ["CACHE_EXT_BIN"] = self.before

    def scripts(self, version):
        """As a package does: the control file names the new version, and there is a way to it."""
        control = os.path.join(self.extension, "cache_ext.control")
        with open(os.path.realpath(control)) as file:
            text = re.sub(r"default_version = '[^']*'", f"default_version = '{version}'", file.read())
        os.unlink(control)
        with open(control, "w") as file:
            file.write(text)
        for step, script in UPDATES.items():
            with open(os.path.join(self.extension, f"cache_ext--{step}.sql"), "w") as file:
                file.write(GUARD + script)

    def library_of(self, version, oldest="1.0"):
        """The library, with other numbers in it."""
        with open(self.original, "rb") as file:
            code = file.read()
        for mark, number in (("library", version), ("oldest", oldest)):
            old = MARKS[mark] + b"1.0\0"
            expect(code.count(old) == 1, f"the library does not say its version once: {code.count(old)}")
            code = code.replace(old, MARKS[mark] + number.encode() + b"\0")
        new = self.library + ".new"
        with open(new, "wb") as file:
            file.write(code)
        os.chmod(new, 0o755)
        os.replace(new, self.library)    # servers that run keep what they have loaded


def update(db):
    """Others use the objects: one that loses a race for locks tries again, as an administrator would."""
    for _ in range(20):
        try:
            db.run("ALTER EXTENSION cache_ext UPDATE")
            return
        except (psycopg2.errors.DeadlockDetected, psycopg2.errors.LockNotAvailable):
            continue
    db.run("ALTER EXTENSION cache_ext UPDATE")


def an_update_keeps_everything(_):
    work = os.environ["CACHE_EXT_WORK"]
    redis = Redis(os.path.join(work, "update_redis"), durable=True).start()
    root = os.path.join(work, "update_installation")
    with Installation(root) as installation:
        server = Postgres(os.path.join(work, "update"), {"cache_ext.redis_url": f"'{redis.url}'"})
        try:
            server.start()
            filled_database(server)
            with server.session(DBNAME) as db:
                wait_for("all is delivered", lambda: db.value("SELECT pending = 0 FROM invalidation_status"))
                redis.ask("SET", "shop:1:shelf:3", "old")
                redis.kill()
                db.run("UPDATE shelf SET label = label || '!' WHERE id = 3")
                before, folded_before = facts(db), folded(db)

                # The package is there, and the server still runs the library of before.
                installation.scripts("1.1")
                installation.library_of("1.1")
                error = db.fails("55000", "ALTER EXTENSION cache_ext UPDATE")
                expect("too old" in str(error) and "restart the server" in str(error), f"no hint: {error}")
                expect_same(before, facts(db))
            server.restart()

            # The library is new, the objects are old, then new; writers and readers all the while.
            with workload.Storm(server, DBNAME, 11, writers=2, checkers=1) as storm:
                storm.run_for(1)
                with server.session(DBNAME) as db:
                    db.run("SET lock_timeout = '5s'")
                    expect(db.value("SELECT extversion = '1.0' FROM pg_extension WHERE extname = 'cache_ext'"),
                           "the objects are not old")
                    update(db)
                    expect(db.value("SELECT cache_novelty() > 20"), "the script's work")
                storm.run_for(1)
            workload.settle(server, DBNAME)
            with server.session(DBNAME) as db:
                for name, count in folded(db).items():
                    expect(count >= folded_before[name] or name in workload.statistics(), f"{name} was filled anew")
                expect_same({k: v for k, v in before.items() if k != "outbox"}, facts(db))
                expect(db.value("SELECT pending >= %s FROM invalidation_status", before["outbox"][0][:1]),
                       "the outbox has lost rows")

            refuses(server, installation, "2.0", "2.0", "ALTER EXTENSION cache_ext UPDATE")
            installation.scripts("2.0")
            with server.session(DBNAME) as db:
                db.run("ALTER EXTENSION cache_ext UPDATE")
                db.fails("42883", "SELECT cache_novelty()")
                wrong = workload.compare(db, True)
                expect(not wrong, f"after the second update: {wrong[:5]}")
            refuses(server, installation, "1.0", "1.0", "Install the library")
            server.stop()
            installation.library_of("2.0", "2.0")
            server.start()
            redis.start()
            expect_alive(server, redis)
            server.stop()
            server.check_log()
        finally:
            server.stop("immediate")
            redis.stop()
            shutil.rmtree(root, ignore_errors=True)


def the_versions_agree(_):
    tree = os.environ["CACHE_EXT_TREE"]

    def found(pattern, *path):
        with open(os.path.join(tree, *path)) as file:
            return re.search(pattern, file.read(), re.M)[1]

    version = found(r"^default_version = '([0-9.]+)'", "cache_ext.control")
    library = subprocess.check_output([program("pg_config"), "--pkglibdir"], text=True).strip() + "/cache_ext.so"
    with open(library, "rb") as file:
        code = file.read()
    expect(MARKS["library"] + version.encode() + b"\0" in code, "the library is of another version")
    for name, pattern in (("META.json", r'"version": "([0-9.]+)"'), ("CHANGELOG.md", r"^## ([0-9.]+) ")):
        release = found(pattern, name)
        expect(release == version or release.startswith(version + "."), f"{name} says {release}, not {version}")


def refuses(server, installation, library, oldest, hint):
    """Nothing is counted wrongly by a library that does not know the objects: it does nothing, and says what to do."""
    server.stop()
    installation.library_of(library, oldest)
    server.start()
    with server.session(DBNAME) as db:
        for statement in ("INSERT INTO shelf VALUES (100, 'x')", "SELECT * FROM shelves", "TABLE statistics_status",
                          "SELECT statistics_fold()", "SELECT cache_get('shelf:1')", "DROP TABLE shelf CASCADE",
                          "SELECT cache_invalidate('a')"):
            error = db.fails("55000", statement)
            expect(hint in str(error), f"{statement}: {error}")
        expect(db.value("SELECT count(*) = 9 FROM shelf"), "a table of ours cannot be read any more")
        wait_for("the worker has left", lambda: not db.value(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'cache_ext worker'"))


TESTS = [pg_upgrade_keeps_everything, an_update_keeps_everything, the_versions_agree]

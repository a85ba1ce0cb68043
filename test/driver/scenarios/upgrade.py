"""A new major version of PostgreSQL, and a new version of the extension, keep everything."""

import os
import random

import workload
from harness import Failure, Postgres, Redis, expect, program, run_as_server, wait_for

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


def expect_alive(server, redis):
    """Exact, maintained, delivered, and gone with what it belongs to."""
    with workload.Storm(server, DBNAME, 7, writers=2, checkers=1) as storm:
        storm.run_for(2)
    workload.settle(server, DBNAME)
    with server.session(DBNAME) as db:
        expect(db.value("SELECT bool_and(state = 'ready') FROM statistics_status"), "a statistic is not ready")
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
        redis.start()
        expect_alive(new, redis)
        new.stop()
        new.check_log()
    finally:
        old.stop("immediate")
        new.stop("immediate")
        redis.stop()


TESTS = [pg_upgrade_keeps_everything]

"""A password of Redis is shown nowhere: no log, no view, no message, no dump, no process title."""

import glob
import subprocess

import psycopg2

from harness import Failure, Redis, Servers, expect, program, wait_for, work

SECRET = "hunter2-%s-of-the-test"       # as in a format string, on purpose
ENCODED = SECRET.replace("%", "%25")


def everything_shown(db):
    """All rows of the extension's views and of its functions without arguments, as text."""
    seen = []

    def look(name, source):
        try:
            seen.extend(db.rows(f"SELECT '{name}', r::text FROM {source} r"))
        except psycopg2.Error as error:     # session_list, and functions that ask Redis
            seen.append((name, f"{error} {error.diag.message_detail} {error.diag.context}"))

    for (name,) in db.rows("""
            SELECT c.oid::regclass::text FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
            WHERE d.deptype = 'e' AND c.relkind IN ('v', 'r')
              AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cache_ext')"""):
        look(name, name)
    for (name,) in db.rows("""
            SELECT p.oid::regproc::text FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
            WHERE d.deptype = 'e' AND p.pronargs = p.pronargdefaults AND p.pronamespace = 'public'::regnamespace
              AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND p.proname !~ '^bag_tracking|clear|reset'
              AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cache_ext')"""):
        look(name, f"{name}()")
    seen += db.rows("SELECT 'pg_stat_activity', a::text FROM pg_stat_activity a WHERE pid <> pg_backend_pid()")
    return seen


def process_titles(server):
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                title = file.read().decode(errors="replace")
        except OSError:
            continue
        if "postgres" in title and "cache_ext" in title:
            yield path, title


def check(server, when):
    def reject(where, text):
        for form in (SECRET, ENCODED):
            if form in text:
                raise Failure(f"{when}: {where} shows the password: {text[:300]}")

    with server.session("shop") as db:
        for where, text in everything_shown(db):
            reject(where, text or "")
    for where, text in process_titles(server):
        reject(where, text)
    with open(server.log, errors="replace") as log:
        reject("the log", log.read())
    dump = subprocess.run([program("pg_dump"), "-h", server.socket, "-U", "postgres", "shop"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(dump.returncode == 0, dump.stdout[-1000:])
    reject("the dump", dump.stdout)


def use(db):
    """What asks Redis, and what an error of Redis could reach."""
    db.run("SELECT cache_get('k', 'SELECT n FROM t', '1 minute')")
    db.run("INSERT INTO t VALUES (1)")
    db.run("SELECT cache_set('s', 'v'), cache_invalidate_pattern('x*'), cache_publish('c', 'm')")
    for call in ("cache_incr('n')", "cache_ping()"):
        try:
            db.run(f"SELECT {call}")
        except psycopg2.Error as error:
            if error.pgcode != "42883":         # not there in this version
                text = f"{error} {error.diag.message_detail} {error.diag.message_hint} {error.diag.context}"
                expect(SECRET not in text and ENCODED not in text, f"an error shows the password: {text}")


def a_password_in_the_address_is_shown_nowhere(_):
    redis = Redis(work("secrets_redis")).start()
    redis.ask("CONFIG", "SET", "requirepass", SECRET)
    url = f"unix://:{ENCODED}@{redis.path}"
    with Servers("secrets", redis, cache_ext__redis_url=f"'{url}'", log_min_messages="debug1",
                 log_error_verbosity="verbose", debug_print_plan="off") as servers:
        server = servers.postgres.expect("Redis")       # the outages below are meant
        with server.session("shop") as db:
            db.run("CREATE TABLE t (n integer)")
            db.run("SELECT cache_watch('t', keys => ARRAY['t:{n}'])")
            use(db)
            wait_for("a delivery", lambda: db.value("SELECT delivered FROM invalidation_status") > 0)
        check(server, "while all is well")

        redis.stop()
        with server.session("shop") as db:
            use(db)
            wait_for("an error is kept", lambda: db.value("SELECT last_error FROM invalidation_status") is not None)
        check(server, "while Redis is away")

        redis.start()
        with redis.client() as client:      # ours is refused from now on
            client("ACL", "SETUSER", "default", "resetpass", ">another")
            client("CLIENT", "KILL", "TYPE", "normal")
        with server.session("shop") as db:
            use(db)
            wait_for("the refusal is kept", lambda: db.value(
                "SELECT last_error FROM invalidation_status WHERE last_error LIKE 'could not log in%'"))
        check(server, "while the password is wrong")

        with server.session("shop") as db:
            db.run("CREATE ROLE nobody_special")
            db.run("SET ROLE nobody_special")
            for name in ("redis_url", "redis_password_file"):
                db.fails("42501", f"SHOW cache_ext.{name}")
                db.fails("42501", f"SELECT current_setting('cache_ext.{name}')")
                expect(db.value("SELECT coalesce(max(setting), '') FROM pg_settings WHERE name = %s",
                                (f"cache_ext.{name}",)) == "", f"pg_settings shows {name} to everyone")


TESTS = [a_password_in_the_address_is_shown_nowhere]

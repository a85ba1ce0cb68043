"""Keys and sessions as libraries store them: the library writes, the database invalidates or changes, the library sees it."""

import json
import os
import subprocess

from harness import Failure, expect, wait_for
from scenarios.delivery import drained, with_servers

# Where tools/cache_libraries.sh has put them; without them there is nothing to run.
FOLDER = os.environ.get("CACHE_EXT_LIBRARIES")
CLIENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "clients")

NODE = {
    "ioredis": ("ioredis", {"key_prefix": "app:"}),
    "ioredis tags": ("ioredis", {"key_prefix": "app:"}),
    "cache-manager": ("keyv", {}),
    "keyv": ("keyv", {"namespace": "shop", "key_prefix": ""}),
    "bentocache": ("bentocache", {}),
    "bentocache users": ("bentocache", {"namespace": "users"}),
    "connect-redis": ("connect", {}),
}
DJANGO = {
    "default": ("django", {}),
    "django-redis": ("django", {}),
    "django-redis shop": ("django", {"key_prefix": "shop", "version": 2}),
}


def answer(arguments, **options):
    result = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, **options)
    if result.returncode != 0:
        raise Failure(f"the library failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout)


def with_node(redis, *mode, script="cache_libraries.mjs"):
    with open(os.path.join(CLIENTS, script)) as text:
        return answer(["node", "--input-type=module", "--eval", text.read(), redis.path, *mode], cwd=FOLDER)


def with_django(redis, mode):
    environment = dict(os.environ, PYTHONPATH=os.path.join(FOLDER, "usr/lib/python3/dist-packages"))
    return answer(["/usr/bin/python3", os.path.join(CLIENTS, "django_caches.py"), redis.path, mode], env=environment)


def check(name, libraries, ask):
    def body(_, redis, db):
        db.run("CREATE TABLE thing (id integer)")
        for library, (dialect, options) in libraries.items():
            db.run("SELECT cache_target_create(%s, %s, %s)", (library, dialect, json.dumps(options)))
            if library == "ioredis tags":
                db.run("SELECT cache_watch('thing', tags => ARRAY['of:thing:{id}'], target => %s)", (library,))
            else:
                db.run("SELECT cache_watch('thing', keys => ARRAY['thing:{id}'], target => %s)", (library,))
        stored = ask(redis, "set")
        both = ["thing:7", "thing:8"]
        expect(set(libraries) <= set(stored) and all(stored[l] == both for l in libraries), f"not stored: {stored}")
        db.run("INSERT INTO thing VALUES (7)")
        drained(db)
        left = ask(redis, "get")
        wrong = {library: left[library] for library in libraries if left[library] != ["thing:8"]}
        expect(not wrong, f"after thing:7 was invalidated the libraries have {wrong}")
        db.run("TRUNCATE thing")
        wait_for("everything has gone", lambda: not any(ask(redis, "get")[library] for library in libraries))

    with_servers(name, body)


def what_libraries_for_node_store_is_invalidated(_):
    check("node_libraries", NODE, with_node)


def what_django_stores_is_invalidated(_):
    check("django_libraries", DJANGO, with_django)


def sessions_of_connect_redis_are_the_same_in_sql(_):
    def body(_, redis, db):
        def connect(mode):
            return with_node(redis, mode, "sid", script="connect_sessions.mjs")

        versions = sorted(connect("store"))
        expect(versions == ["7", "8", "9"], f"there is only connect-redis {versions}")
        for version in versions:
            sid = f"{version}-sid"
            found = db.value("SELECT session_get(%s)", (sid,))
            expect((found["userId"], found["of"], found["cookie"]["originalMaxAge"]) == (7, version, 3600000), f"SQL reads {found}")
            db.run("SELECT session_set(%s, session_get(%s) || '{\"role\": \"admin\"}', '10 minutes')", (sid, sid))
        seen = connect("load")
        for version in versions:
            expect(seen[version] and (seen[version]["role"], seen[version]["cookie"]["originalMaxAge"]) == ("admin", 600000) and
                   590 < seen[version]["ttl"] <= 600, f"connect-redis {version} reads {seen[version]}")
        expect(db.value("SELECT session_touch('7-sid')") and db.value("SELECT session_destroy_all('userId', '7')") == 3, "SQL finds them not")
        drained(db)
        expect(not any(connect("load").values()), "sessions that have ended are there")

    with_servers("connect_sessions", body)


TESTS = [
    sessions_of_connect_redis_are_the_same_in_sql,
    what_libraries_for_node_store_is_invalidated,
    what_django_stores_is_invalidated,
] if FOLDER else []

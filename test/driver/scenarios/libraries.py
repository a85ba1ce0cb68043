"""Keys as cache libraries store them: the library writes, the database invalidates, the library sees it no longer."""

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


def with_node(redis, mode):
    with open(os.path.join(CLIENTS, "cache_libraries.mjs")) as script:
        return answer(["node", "--input-type=module", "--eval", script.read(), redis.path, mode], cwd=FOLDER)


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


TESTS = [
    what_libraries_for_node_store_is_invalidated,
    what_django_stores_is_invalidated,
] if FOLDER else []

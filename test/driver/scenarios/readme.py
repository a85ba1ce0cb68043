"""What README.md shows works, and versions agree."""

import json
import os
import re

from harness import Postgres, Redis, Servers, expect, expect_equal, judged, load_application, wait_for, work

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")


def text_of(name):
    with open(os.path.join(TOP, name), encoding="utf-8") as file:
        return file.read()


BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)


def sections(first, last):
    text = text_of("README.md")
    return text[text.index(f"## {first}"):text.index(f"## {last}")]


def every_sql_example_of_the_readme_runs(_):
    blocks = re.findall(r"^```sql\n(.*?)^```", text_of("README.md"), re.M | re.S)
    expect(len(blocks) >= 2, "README.md has lost its examples")
    for with_redis in (True, False):
        redis = Redis(work("readme_redis")).start() if with_redis else None
        server = Postgres(work("readme"), {"cache_ext.redis_url": f"'{redis.url}'"} if redis else {}, preload=with_redis)
        with judged(server, redis):
            server.create_database("readme", extension=False)
            with server.session("readme") as db:
                for block in blocks:
                    # One statement at a time, as psql sends them: dollar quotes may hold semicolons.
                    for statement in re.split(r";[^\n;]*\n(?=(?:[^$]*\$\$[^$]*\$\$)*[^$]*\Z)", block + "\n"):
                        if re.sub(r"--[^\n]*", "", statement).strip():
                            db.run(statement)
                expect_equal(db, "(SELECT orders, idle_vendors FROM overview) s",
                             "SELECT 3::bigint, (SELECT count(*) FROM vendor v WHERE NOT EXISTS"
                             " (SELECT 1 FROM orders o WHERE o.vendor_id = v.id))", "at the end of README.md")


def every_setting_and_function_that_the_readme_names_exists(_):
    with Servers("names") as servers, servers.session() as db:
        functions, settings = sections("Functions", "Settings"), sections("Settings", "Monitoring")
        known = {row[0] for row in db.rows(
            "SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass"
            " AND d.deptype = 'e' AND p.pronamespace = 'public'::regnamespace")}
        named = set(re.findall(r"`((?:cache|statistics|session|rate|bag_tracking)_\w+)\(", functions)) | \
            set(re.findall(r"[`, ]((?:cache|statistics|session|rate|bag_tracking)_\w+)\(", functions))
        expect(named <= known, f"README.md names functions that do not exist: {named - known}")
        missing = known - named - {"bag_tracking_ignore_write"}
        expect(not missing, f"README.md does not name {missing}")
        have = {row[0] for row in db.rows("SELECT name FROM pg_settings WHERE name LIKE 'cache_ext.%'")}
        shown = set(re.findall(r"^\| `(cache_ext\.\w+)`", settings, re.M))
        expect(shown == have, f"README.md and the server differ in settings: {shown ^ have}")


PROVIDED = """
    CREATE TABLE orders (id integer, vendor_id integer);
    CREATE TABLE campaign (id integer, name text, tenant_id integer);
    INSERT INTO campaign VALUES (1, 'spring', 7);
    CREATE ROLE app;
"""


def statements_within_the_text_run(_):
    spans = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text_of("README.md")))
    statements = [span for span in spans if re.match(r"(SELECT|GRANT|ALTER EXTENSION) ", span)]
    statements += [f"SELECT {span}" for span in spans if re.match(r"cache_\w+\([^()]*'[^()]*\)$", span)]
    expect(len(statements) > 8, f"README.md has lost its statements: {statements}")
    redis = Redis(work("spans_redis")).start()
    with Servers("spans", redis) as servers, servers.session() as db:
        db.run(PROVIDED)
        load_application(db)
        for statement in statements:
            db.run(statement)
        redis.ask("SET", "shop:2:vendor:7", "x")
        db.run("INSERT INTO orders VALUES (1, 7)")
        wait_for("the target's key is gone", lambda: redis.ask("EXISTS", "shop:2:vendor:7") == 0)
        expect(db.value("SELECT cache_get('campaigns:7')") == '[{"id":1,"name":"spring"}]', "the loader does not answer")
        expect(db.value("SELECT has_function_privilege('app', oid, 'EXECUTE') FROM pg_proc WHERE proname = 'cache_get'"), "nothing was granted")


SIGNATURE = re.compile(r"`(\w+)\(([\w, ]*)\)(?: → (setof )?(\(?[\w, ]+\)?))?`")


def signatures_are_as_the_readme_says(_):
    with Servers("signatures") as servers, servers.session() as db:
        rows = re.findall(r"^\| (`.*?) \|", sections("Functions", "Settings"), re.M)
        found = [each for row in rows for each in SIGNATURE.findall(row)]
        expect(len(found) > 30, f"README.md has lost its functions: {found}")
        for name, arguments, is_set, result in found:
            names, modes, returns, returns_set = db.rows(
                "SELECT coalesce(proargnames, '{}'), proargmodes::text[], format_type(prorettype, NULL), proretset"
                " FROM pg_proc WHERE proname = %s AND pronamespace = 'public'::regnamespace", (name,))[0]
            modes = modes or ["i"] * len(names)
            takes = [f"VARIADIC {n}" if m == "v" else n for n, m in zip(names, modes) if m in "ivb"]
            gives = [n for n, m in zip(names, modes) if m in "ot"]
            told = [each.strip() for each in arguments.split(",") if each.strip()]
            expect(takes == told, f"{name} takes {takes}, not {told}")
            if result:
                shown = f"({', '.join(gives)})" if gives else returns.replace("timestamp with time zone", "timestamptz")
                expect((result, bool(is_set)) == (shown, returns_set), f"{name} gives {shown}, not {result}")


def one_version_number_everywhere(_):
    control = re.search(r"default_version = '([\d.]+)'", text_of("cache_ext.control"))[1]
    meta = json.loads(text_of("META.json"))
    change = re.search(r"^## ([\d.]+) \(", text_of("CHANGELOG.md"), re.M)[1]
    expect(meta["version"] == change == meta["provides"]["cache_ext"]["version"] == control + ".0",
           f"versions differ: control {control}, META.json {meta['version']}, CHANGELOG.md {change}")
    expect(os.path.exists(os.path.join(TOP, "sql", f"cache_ext--{control}.sql")), "the install script is missing")


TESTS = [every_sql_example_of_the_readme_runs, statements_within_the_text_run, signatures_are_as_the_readme_says,
         every_setting_and_function_that_the_readme_names_exists, one_version_number_everywhere]

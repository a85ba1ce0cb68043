"""What README.md shows works, and versions agree."""

import json
import os
import re

from harness import Postgres, Redis, Servers, expect, expect_equal, judged, work

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")


def text_of(name):
    with open(os.path.join(TOP, name), encoding="utf-8") as file:
        return file.read()


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
        text = text_of("README.md")
        functions = text[text.index("## Functions"):text.index("## Settings")]
        settings = text[text.index("## Settings"):text.index("## Monitoring")]
        known = {row[0] for row in db.rows(
            "SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass"
            " AND d.deptype = 'e' AND p.pronamespace = 'public'::regnamespace")}
        named = set(re.findall(r"`((?:cache|statistics|bag_tracking)_\w+)\(", functions)) | \
            set(re.findall(r"[`, ]((?:cache|statistics|bag_tracking)_\w+)\(", functions))
        expect(named <= known, f"README.md names functions that do not exist: {named - known}")
        missing = known - named - {"bag_tracking_ignore_write"}
        expect(not missing, f"README.md does not name {missing}")
        have = {row[0] for row in db.rows("SELECT name FROM pg_settings WHERE name LIKE 'cache_ext.%'")}
        shown = set(re.findall(r"^\| `(cache_ext\.\w+)`", settings, re.M))
        expect(shown == have, f"README.md and the server differ in settings: {shown ^ have}")


def one_version_number_everywhere(_):
    control = re.search(r"default_version = '([\d.]+)'", text_of("cache_ext.control"))[1]
    meta = json.loads(text_of("META.json"))
    change = re.search(r"^## ([\d.]+) \(", text_of("CHANGELOG.md"), re.M)[1]
    expect(meta["version"] == change == meta["provides"]["cache_ext"]["version"] == control + ".0",
           f"versions differ: control {control}, META.json {meta['version']}, CHANGELOG.md {change}")
    expect(os.path.exists(os.path.join(TOP, "sql", f"cache_ext--{control}.sql")), "the install script is missing")


TESTS = [every_sql_example_of_the_readme_runs, every_setting_and_function_that_the_readme_names_exists,
         one_version_number_everywhere]

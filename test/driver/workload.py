"""Sessions that write in every way PostgreSQL knows, and an oracle that recomputes statistics.

Tables are small and hot on purpose: sessions meet on the same rows, groups and keys all the time.
Two tables have the same columns and get the same kinds of writes: `reading` is plain, `measure` is
partitioned by region.
"""

import io
import math
import random
import threading
import time
import traceback
from fractions import Fraction

import psycopg2

from harness import Failure, difference, difference_query, load_application, wait_for

SCHEMA = """
CREATE TABLE site (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE reviewer (id integer PRIMARY KEY, name text);

CREATE TABLE reading (
    id          integer NOT NULL,
    region      integer NOT NULL,
    kind        text,
    site_id     integer REFERENCES site ON DELETE CASCADE ON UPDATE CASCADE,
    reviewer_id integer REFERENCES reviewer ON DELETE SET NULL,
    val         double precision,
    num         numeric,
    n           integer,
    flag        boolean,
    tag         text,
    at          timestamptz DEFAULT now() - random() * interval '1 day',
    PRIMARY KEY (region, id)
);
-- These serve min(n) and max(n) of `reading`; the partitions of `measure` keep the values.
CREATE INDEX ON reading (kind, n);
CREATE INDEX ON reading (n DESC);
CREATE INDEX ON reading (at);
CREATE TABLE measure (
    LIKE reading INCLUDING DEFAULTS,
    PRIMARY KEY (region, id),
    FOREIGN KEY (site_id) REFERENCES site ON DELETE CASCADE ON UPDATE CASCADE,
    FOREIGN KEY (reviewer_id) REFERENCES reviewer ON DELETE SET NULL
) PARTITION BY LIST (region);
CREATE INDEX ON measure (at);
CREATE TABLE measure_0 PARTITION OF measure FOR VALUES IN (0);
CREATE TABLE measure_1 PARTITION OF measure FOR VALUES IN (1);
CREATE TABLE measure_2 PARTITION OF measure FOR VALUES IN (2) PARTITION BY HASH (id);
CREATE TABLE measure_2_0 PARTITION OF measure_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE measure_2_1 PARTITION OF measure_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);

INSERT INTO site SELECT i, 'site ' || i FROM generate_series(1, 12) i;
INSERT INTO reviewer SELECT i, 'reviewer ' || i FROM generate_series(1, 6) i;

INSERT INTO "user" (username) SELECT 'user ' || i FROM generate_series(1, 8) i;
INSERT INTO bag (qr_id, type, user_id, dispatch_area, weight_kg)
    SELECT 'first ' || i, CASE WHEN i % 4 = 0 THEN 'parent' ELSE 'child' END, 1 + i % 8,
           'area ' || i % 3, i
      FROM generate_series(1, 40) i;
INSERT INTO bill (bill_id, status, total_weight_kg)
    SELECT 'bill ' || i, 'new', i FROM generate_series(1, 5) i;
"""

# The statistics of `table`; those in FLOATS have columns whose truth the oracle computes itself.
QUERIES = {
    "{t}_by_kind": """SELECT kind, count(*) AS readings, count(val) AS vals, sum(num) AS total,
        min(n) AS lowest, max(n) AS highest, count(DISTINCT tag) AS tags,
        count(*) FILTER (WHERE flag) AS flagged, sum(n) FILTER (WHERE n > 0) AS positive,
        avg(n) AS mean FROM {t} GROUP BY kind""",
    "{t}_by_site": """SELECT site_id, tag, count(*) AS readings, sum(n) AS total FROM {t}
        WHERE flag AND n > 0 GROUP BY site_id, tag""",
    "{t}_in_all": """SELECT count(*) AS readings, count(DISTINCT site_id) AS sites,
        max(num) AS highest, min(tag) AS first_tag, sum(n) AS total, max(val) AS top,
        min(val) AS bottom, count(reviewer_id) AS reviewed FROM {t} WHERE flag IS NOT TRUE""",
    "{t}_spread": """SELECT kind, bool_and(flag) AS every, bool_or(n > 10) FILTER (WHERE tag <> 'red') AS some,
        variance(n) AS var_n, stddev_pop(num) AS dev_num, avg(num) AS mean_num, sum(DISTINCT num) AS distinct_num,
        avg(DISTINCT n) AS distinct_n, stddev(DISTINCT n) AS dev_n FROM {t} GROUP BY kind""",
    "{t}_joined": """SELECT s.name, count(*) AS readings, sum(r.n) AS total, max(r.n) AS highest,
        count(DISTINCT r.tag) AS tags, avg(r.num) AS mean, sum(s.id) AS ids, min(s.id) AS first,
        count(*) FILTER (WHERE r.flag) AS flagged, bool_or(r.n > 10) AS some
        FROM {t} r JOIN site s ON s.id = r.site_id WHERE s.id <> 3 GROUP BY s.name""",
    "{t}_in_circles": """SELECT r.kind, v.name, count(*) AS readings, sum(m.n) AS total, min(r.tag) AS tag
        FROM {t} r JOIN reviewer v ON v.id = r.reviewer_id JOIN measure m ON m.id = r.id AND m.region = r.region
        WHERE EXISTS (SELECT FROM site s WHERE s.id = r.site_id) GROUP BY r.kind, v.name""",
    "{t}_under_conditions": """SELECT kind, count(*) AS readings, sum(num) AS total, max(n) AS highest,
        count(DISTINCT tag) AS tags FROM {t} r
        WHERE NOT EXISTS (SELECT FROM site s WHERE s.id = r.site_id AND s.name LIKE 'new%')
          AND tag IN (SELECT o.tag FROM reading o WHERE o.flag AND o.n > 5)
          AND NOT EXISTS (SELECT FROM measure o WHERE o.kind = r.kind AND o.n = r.n AND o.flag IS NULL) GROUP BY kind""",
    "{t}_lately": """SELECT kind, count(*) AS readings, sum(n) AS total, bool_and(flag) AS every FROM {t}
        WHERE at >= now() - interval '12 hours' AND at < now() AND flag IS NOT NULL GROUP BY kind""",
    "{t}_lately_values": """SELECT kind, count(*) AS readings, max(n) AS highest, min(tag) AS tag, count(DISTINCT tag) AS tags,
        sum(DISTINCT n) AS distinct_n, sum(num) AS total, avg(num) AS mean, min(num) FILTER (WHERE flag) AS lowest
        FROM {t} WHERE at >= now() - interval '7 hours' AND at < now() - interval '20 minutes' GROUP BY kind""",
    "{t}_lately_joined": """SELECT s.name, count(*) AS readings, sum(r.n) AS total, max(r.n) AS highest, min(s.id) AS first,
        count(DISTINCT r.tag) AS tags FROM site s JOIN {t} r ON s.id = r.site_id
        WHERE r.at > now() - interval '9 hours' AND NOT EXISTS
            (SELECT FROM reviewer v WHERE v.id = r.reviewer_id AND v.name LIKE '%3%') GROUP BY s.name""",
    "{t}_modulus": "SELECT n % 3 AS modulus, count(*) AS readings, max(n * 2) AS twice FROM {t} GROUP BY n % 3",
}
FLOATS = {
    "{t}_floats": """SELECT kind, count(*) AS readings, sum(val) AS total, avg(val) AS mean,
        var_samp(val) AS var, stddev_pop(val) AS dev, sum(DISTINCT val) AS total_distinct FROM {t} GROUP BY kind""",
}
OVERVIEW = """SELECT (SELECT count(*) FROM reading) AS readings,
    (SELECT count(*) FROM measure WHERE flag) AS measures,
    (SELECT count(*) FROM site s WHERE NOT EXISTS (SELECT 1 FROM reading r WHERE r.site_id = s.id)) AS unread,
    (SELECT count(*) FROM site s WHERE EXISTS (SELECT 1 FROM measure m WHERE m.site_id = s.id)) AS measured,
    (SELECT max(n) FROM reading) AS highest,
    (SELECT min(s.name) FROM site s WHERE NOT EXISTS (SELECT 1 FROM reading r WHERE r.site_id = s.id)) AS first_unread,
    (SELECT count(*) FROM site WHERE id NOT IN (SELECT region FROM measure)) AS no_region,
    (SELECT count(*) FROM scan WHERE "timestamp" >= now() - interval '200 minutes') AS recent_scans,
    (SELECT sum(n) FROM reading WHERE at > date_trunc('hour', now()) - interval '20 minutes') AS recent_sum,
    (SELECT count(*) FROM scan JOIN "user" u ON u.id = user_id JOIN bag b ON b.id = child_bag_id
        WHERE b.type = 'child' AND u.username > 'user 2') AS known_scans"""

PRESET = {
    "(SELECT total_bags, parent_bags, child_bags, unlinked_children, total_scans, total_bills,"
    " total_users FROM statistics_cache) s":
        """SELECT (SELECT count(*) FROM bag), (SELECT count(*) FROM bag WHERE type = 'parent'),
        (SELECT count(*) FROM bag WHERE type = 'child'),
        (SELECT count(*) FROM bag b WHERE type = 'child'
            AND NOT EXISTS (SELECT 1 FROM link l WHERE l.child_bag_id = b.id)),
        (SELECT count(*) FROM scan), (SELECT count(*) FROM bill), (SELECT count(*) FROM "user")""",
    "(SELECT status, bills, min_weight_kg, max_weight_kg FROM bill_statistics) s":
        """SELECT status, count(*), min(total_weight_kg), max(total_weight_kg) FROM bill GROUP BY status""",
    "(SELECT dispatch_area, type, bags FROM bag_statistics) s":
        "SELECT dispatch_area, type, count(*) FROM bag GROUP BY dispatch_area, type",
    "(SELECT user_id, scans, bags, last_scan FROM scan_statistics) s":
        """SELECT user_id, count(*), count(DISTINCT coalesce(child_bag_id, parent_bag_id)),
        max("timestamp") FROM scan GROUP BY user_id""",
}

TABLES = 'reading, measure, site, reviewer, bag, link, scan, bill, bill_bag, "user"'


def statistics():
    """Every statistic that the workload maintains, as name -> query."""
    found = {"overview": OVERVIEW}
    for table in ("reading", "measure"):
        for name, query in {**QUERIES, **FLOATS}.items():
            found[name.format(t=table)] = query.format(t=table)
    return found


def create(db, with_statistics=True):
    load_application(db)
    db.run(SCHEMA)
    if with_statistics:
        for name, query in statistics().items():
            db.run("SELECT statistics_create(%s, %s)", (name, query))
        db.run("SELECT count(*) FROM bag_tracking_attach()")


# ---------------------------------------------------------------------------
# The oracle
# ---------------------------------------------------------------------------

def special(values):
    """NaN or an infinity when the values make one of every sum, else None."""
    if any(math.isnan(v) for v in values) or (math.inf in values and -math.inf in values):
        return math.nan
    return math.inf if math.inf in values else -math.inf if -math.inf in values else None


def exact_sum(values):
    """What IEEE arithmetic of unlimited precision, rounded once, gives; and the same for the mean."""
    values = [v for v in values if v is not None]
    if not values:
        return None, None
    if special(values) is not None:
        return special(values), special(values)
    total = sum(map(Fraction, values), Fraction(0))
    return float(total), float(total / len(values))


def square_root(square):
    """The root of a Fraction, rounded once."""
    shift = max(0, 300 - square.numerator.bit_length() + square.denominator.bit_length()) // 2 + 1
    scaled = (square.numerator << 2 * shift) // square.denominator
    root = math.isqrt(scaled)
    exact = root * root == scaled and scaled * square.denominator == square.numerator << 2 * shift
    return float(Fraction(2 * root + (not exact), 2 << shift))


def exact_spread(values):
    """Sample variance and population standard deviation, likewise."""
    values = [v for v in values if v is not None]
    if not values:
        return None, None
    if special(values) is not None:
        return math.nan if len(values) > 1 else None, math.nan
    exact = list(map(Fraction, values))
    mean = sum(exact) / len(exact)
    squares = sum((v - mean) ** 2 for v in exact)
    return float(squares / (len(exact) - 1)) if len(exact) > 1 else None, square_root(squares / len(exact))


def same_float(one, other):
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


def compare_floats(db, table):
    """Compare sum and avg of double precision with the oracle.  The caller holds one snapshot."""
    groups = {}
    for kind, value in db.rows(f"SELECT kind, val FROM {table}"):
        groups.setdefault(kind, []).append(value)
    truth = {kind: (len(values), *exact_sum(values), *exact_spread(values),
                    exact_sum(set(map(lambda v: math.nan if v is not None and math.isnan(v) else v, values)))[0])
             for kind, values in groups.items()}
    answer = {row[0]: row[1:] for row in db.rows(
        f"SELECT kind, readings, total, mean, var, dev, total_distinct FROM {table}_floats")}
    wrong = []
    for kind in truth.keys() | answer.keys():
        one, other = truth.get(kind), answer.get(kind)
        if one is None or other is None or one[0] != other[0] or not all(map(same_float, one[1:], other[1:])):
            wrong.append(f"{table}_floats, kind {kind!r}: should be {one}, is {other}")
    return wrong


def compare(db, one_snapshot, preset=True):
    """Every difference between statistics and the truth, seen by this session now."""
    wrong = []
    for name, query in statistics().items():
        if not name.endswith("_floats"):
            wrong += [f"{name}: {kind} {row}" for kind, row in difference(db, name, query)]
    if one_snapshot:
        for table in ("reading", "measure"):
            wrong += compare_floats(db, table)
        if preset:
            bills = {}
            for status, weight in db.rows("SELECT status, total_weight_kg FROM bill"):
                bills.setdefault(status, []).append(weight)
            for status, weight in db.rows("SELECT status, total_weight_kg FROM bill_statistics"):
                if not same_float(weight, exact_sum(bills.get(status, []))[0]):
                    wrong.append(f"bill_statistics, {status!r}: total_weight_kg is {weight}")
    if preset:
        for relation, query in PRESET.items():
            wrong += [f"{relation}: {kind} {row}" for kind, row in difference(db, relation, query)]
    return wrong


# ---------------------------------------------------------------------------
# The ways to write
# ---------------------------------------------------------------------------

KINDS = ["a", "b", "c", None]
TAGS = ["red", "green", "blue", "", "ünïcode", None]
# (The plain avg() overflows where squares do, so nothing larger than 1e140.)
FLOAT_VALUES = [None, math.nan, math.inf, -math.inf, 1e15, -1e15, 1e-9, 0.1, -0.3, 1e140, 5e-324]
NUM_VALUES = [None, "NaN", "Infinity", "-Infinity", "1e15", "1e-9", "-4.2", "0", "12.50", "3.333"]
IDS = 60


def merge_is_right(db):
    """Does this server tell triggers what a MERGE has updated in a partitioned table?

    Some minor versions, 15.18 among them, show a row that it has inserted instead (README.md, Limitations).
    """
    db.run("""
        CREATE TEMP TABLE p (id integer, n integer) PARTITION BY LIST (id);
        CREATE TEMP TABLE p_default PARTITION OF p DEFAULT;
        CREATE TEMP TABLE seen (n integer);
        CREATE FUNCTION pg_temp.see() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO seen SELECT n FROM changed; RETURN NULL; END';
        CREATE TRIGGER see AFTER UPDATE ON p REFERENCING NEW TABLE AS changed
            FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.see();
        INSERT INTO p VALUES (2, 0);
        ANALYZE p;
        MERGE INTO p USING (VALUES (1), (2)) AS s (id) ON p.id = s.id
            WHEN MATCHED THEN UPDATE SET n = 2 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1)""")
    right = db.value("SELECT array_agg(n) FROM seen") == [2]
    db.connection.rollback()
    return right


class Writes:
    """One method a way to write; each runs in the session's open transaction."""

    def __init__(self, db, rng):
        self.db = db
        self.rng = rng
        self.merge_is_right = merge_is_right(db)

    def table(self):
        return self.rng.choice(["reading", "measure", "measure"])

    def float_value(self):
        rng = self.rng
        # NaN and infinities are rare, or every sum would be NaN all the time.
        return rng.choice(FLOAT_VALUES) if rng.random() < 0.15 else rng.choice(
            [None, 1e15, 1e-9, rng.gauss(0, 100), -rng.random(), rng.randint(-5, 5) / 10])

    def num_value(self):
        rng = self.rng
        return rng.choice(NUM_VALUES) if rng.random() < 0.15 else f"{rng.uniform(-99, 99):.{rng.randint(0, 9)}f}"

    def row(self):
        rng = self.rng
        return (rng.randint(1, IDS), rng.randint(0, 2), rng.choice(KINDS),
                rng.choice([None, *range(1, 13)]), rng.choice([None, *range(1, 7)]),
                self.float_value(), self.num_value(), rng.choice([None, *range(-20, 20)]),
                rng.choice([True, False, None]), rng.choice(TAGS))

    def insert(self):
        self.db.run(f"INSERT INTO {self.table()} VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)"
                    " ON CONFLICT DO NOTHING", self.row())

    def insert_several(self):
        rows = [self.row() for _ in range(self.rng.randint(2, 12))]
        values = ",".join(self.db.cursor.mogrify("(%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)", row).decode()
                          for row in rows)
        self.db.run(f"INSERT INTO {self.table()} VALUES {values} ON CONFLICT DO NOTHING")

    def insert_select(self):
        base = 1000 + self.rng.randint(0, 10**6)
        self.db.run(f"INSERT INTO {self.table()} SELECT %s + i, i %% 3, chr(97 + i %% 3), 1 + i %% 12,"
                    " NULL, i / 8.0, i / 3.0, i, i %% 2 = 0, NULL FROM generate_series(1, %s) i"
                    " ON CONFLICT DO NOTHING", (base, self.rng.randint(0, 30)))

    def copy(self):
        lines = []
        base = 10**7 + self.rng.randint(0, 10**8)
        for i in range(self.rng.choice([0, 1, 5, 20])):
            row = (base + i,) + self.row()[1:]
            lines.append("\t".join("\\N" if v is None else str(v) for v in row))
        self.db.cursor.copy_expert(f"COPY {self.table()} (id, region, kind, site_id, reviewer_id, val, num, n, flag, tag) FROM STDIN",
                                   io.StringIO("".join(line + "\n" for line in lines)))

    def update_filter(self):
        self.db.run(f"UPDATE {self.table()} SET flag = %s, n = %s WHERE id %% 7 = %s",
                    (self.rng.choice([True, False, None]), self.rng.choice([None, 3, -3]),
                     self.rng.randint(0, 6)))

    def update_groups(self):
        self.db.run(f"UPDATE {self.table()} SET kind = %s, tag = %s, val = val * 2 - 1 WHERE id %% 9 = %s",
                    (self.rng.choice(KINDS), self.rng.choice(TAGS), self.rng.randint(0, 8)))

    def update_moves_in_time(self):
        self.db.run(f"UPDATE {self.table()} SET at = %s::timestamptz - random() * interval '1 day' WHERE id %% 8 = %s",
                    (self.rng.choice([None, "now", "now", "infinity"]), self.rng.randint(0, 7)))

    def update_moves_rows(self):
        table = self.table()
        self.db.run(f"UPDATE {table} t SET region = %s WHERE id = %s AND NOT EXISTS"
                    f" (SELECT 1 FROM {table} o WHERE o.id = t.id AND o.region = %s)",
                    (region := self.rng.randint(0, 2), self.rng.randint(1, IDS), region))

    def update_from(self):
        self.db.run(f"UPDATE {self.table()} t SET tag = s.name, n = t.n + 1 FROM site s"
                    " WHERE s.id = t.site_id AND s.id = %s", (self.rng.randint(1, 12),))

    def update_nothing_changes(self):
        self.db.run(f"UPDATE {self.table()} SET kind = kind WHERE id %% 5 = %s", (self.rng.randint(0, 4),))

    def on_conflict_update(self):
        table = self.table()
        where = self.rng.choice(["", " WHERE t.n IS DISTINCT FROM 0", " WHERE false"])
        self.db.run(f"INSERT INTO {table} AS t VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)"
                    " ON CONFLICT (region, id) DO UPDATE SET kind = excluded.kind, val = excluded.val,"
                    f" num = excluded.num, n = excluded.n, flag = excluded.flag{where}", self.row())

    def merge(self):
        table = self.table() if self.merge_is_right else "reading"
        self.db.run(f"""MERGE INTO {table} t USING (
                SELECT id, id %% 3 AS region, chr(97 + id %% 3) AS kind, id %% 4 AS arm
                  FROM generate_series(%s, %s) id) s
            ON t.id = s.id AND t.region = s.region
            WHEN MATCHED AND s.arm = 0 THEN DELETE
            WHEN MATCHED AND s.arm = 1 THEN DO NOTHING
            WHEN MATCHED THEN UPDATE SET kind = s.kind, n = t.n - 1
            WHEN NOT MATCHED THEN INSERT (id, region, kind, n, flag) VALUES (s.id, s.region, s.kind, s.id, true)""",
                    (low := self.rng.randint(1, IDS), low + self.rng.randint(0, 10)))

    def delete(self):
        self.db.run(f"DELETE FROM {self.table()} WHERE id %% 11 = %s", (self.rng.randint(0, 10),))

    def delete_using(self):
        self.db.run(f"DELETE FROM {self.table()} t USING site s WHERE s.id = t.site_id AND s.id = %s"
                    " AND t.id > 1000", (self.rng.randint(1, 12),))

    def rename(self):
        self.db.run("UPDATE site SET name = %s WHERE id %% 5 = %s",
                    (self.rng.choice(["new name", "site 1", "site 2"]), self.rng.randint(0, 4)))
        self.db.run("UPDATE reviewer SET name = %s WHERE id = %s",
                    (self.rng.choice(["one", "two", None]), self.rng.randint(1, 6)))

    def cascade(self):
        site = self.rng.randint(1, 12)
        choice = self.rng.random()
        if choice < 0.4:
            self.db.run("DELETE FROM site WHERE id = %s", (site,))
            self.db.run("INSERT INTO site VALUES (%s, 'again') ON CONFLICT DO NOTHING", (site,))
        elif choice < 0.7:
            self.db.run("UPDATE site SET id = -id WHERE id = %s", (site,))
            self.db.run("UPDATE site SET id = -id WHERE id = %s", (-site,))
        else:
            reviewer = self.rng.randint(1, 6)
            self.db.run("DELETE FROM reviewer WHERE id = %s", (reviewer,))
            self.db.run("INSERT INTO reviewer VALUES (%s) ON CONFLICT DO NOTHING", (reviewer,))

    def truncate(self):
        self.db.run(self.rng.choice([
            "TRUNCATE reading", "TRUNCATE measure", "TRUNCATE measure_1", "TRUNCATE reading, measure",
            "TRUNCATE site CASCADE", "TRUNCATE measure_2 RESTART IDENTITY"]))
        if self.rng.random() < 0.7:
            self.db.run("INSERT INTO site SELECT i, 'new' FROM generate_series(1, 12) i ON CONFLICT DO NOTHING")
            self.insert_several()

    def leaf(self):
        if self.rng.random() < 0.5:
            row = self.row()
            self.db.run("INSERT INTO measure_1 VALUES (%s,1,%s,%s,%s,%s,%s,%s,%s,%s) ON CONFLICT DO NOTHING",
                        row[:1] + row[2:])
        else:
            self.db.run("UPDATE measure_2 SET n = n + 2 WHERE id %% 4 = %s", (self.rng.randint(0, 3),))

    def writing_with(self):
        self.db.run("""WITH gone AS (DELETE FROM reading WHERE id %% 13 = %s RETURNING *),
                moved AS (INSERT INTO measure SELECT * FROM gone ON CONFLICT DO NOTHING RETURNING id),
                touched AS (UPDATE bag SET weight_kg = weight_kg + 1 WHERE id %% 8 = 0 RETURNING id)
            SELECT count(*) FROM moved""", (self.rng.randint(0, 12),))

    def current_of(self):
        self.db.run("DECLARE walk CURSOR FOR SELECT id FROM reading WHERE id < 30 FOR UPDATE")
        try:
            if self.db.rows("FETCH 1 FROM walk"):
                self.db.run(self.rng.choice(["UPDATE reading SET kind = 'b' WHERE CURRENT OF walk",
                                             "DELETE FROM reading WHERE CURRENT OF walk"]))
        finally:
            if self.db.connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS:
                self.db.run("CLOSE walk")

    def cursor_over_writes(self):
        """A cursor sees the statistic and the tables as they were when it was opened."""
        name = self.rng.choice(["reading_by_kind", "reading_in_all", "overview"])
        # DECLARE takes its snapshot before it locks partitions, and TRUNCATE is not MVCC-safe.
        self.db.run("LOCK TABLE reading, measure, site IN ACCESS SHARE MODE")
        self.db.run(f"DECLARE earlier CURSOR FOR {difference_query(name, statistics()[name])}")
        self.db.run("INSERT INTO reading (id, region, kind, n) VALUES (%s, 0, 'a', 99)",
                    (2 * 10**8 + self.rng.randint(0, 10**8),))
        self.db.run("UPDATE reading SET tag = 'later' WHERE id %% 5 = %s", (self.rng.randint(0, 4),))
        found = self.db.rows("FETCH ALL FROM earlier")
        if found:
            raise Failure(f"a cursor over {name} sees what was written after it was opened: {found[:3]}")
        self.db.run("CLOSE earlier")

    def replica_role(self):
        self.db.run("SET LOCAL session_replication_role = replica")
        try:
            self.insert()
            self.db.run("UPDATE reading SET n = coalesce(n, 0) + 1 WHERE id %% 6 = %s", (self.rng.randint(0, 5),))
            self.db.run("DELETE FROM measure WHERE id = %s", (self.rng.randint(1, IDS),))
        finally:
            if self.db.connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS:
                self.db.run("SET LOCAL session_replication_role = origin")

    def exception_block(self):
        self.db.run("""DO $$
            BEGIN
                INSERT INTO reading (id, region, kind, n) VALUES (%s, 0, 'a', 1) ON CONFLICT DO NOTHING;
                BEGIN
                    UPDATE reading SET n = n + 5, val = 7 WHERE id < 20;
                    PERFORM 1 / 0;
                EXCEPTION WHEN division_by_zero THEN
                    DELETE FROM measure WHERE id = %s;
                END;
            END $$""", (self.rng.randint(1, IDS), self.rng.randint(1, IDS)))

    def many_subtransactions(self):
        self.db.run("""DO $$
            BEGIN
                FOR i IN 1 .. 100 LOOP
                    BEGIN
                        INSERT INTO reading (id, region, kind, n) VALUES (%s + i, 1, 'c', i);
                        IF i %% 3 = 0 THEN RAISE EXCEPTION 'undo'; END IF;
                    EXCEPTION WHEN raise_exception OR unique_violation THEN NULL;
                    END;
                END LOOP;
            END $$""", (3 * 10**8 + 200 * self.rng.randint(0, 10**6),))

    # The application's tables

    def bag(self):
        rng = self.rng
        self.db.run("INSERT INTO bag (qr_id, type, user_id, dispatch_area, weight_kg)"
                    " SELECT %s || i, %s, %s, %s, %s FROM generate_series(1, %s) i",
                    (f"qr {rng.getrandbits(48)} ", rng.choice(["parent", "child"]),
                     rng.choice([None, *range(1, 9)]), rng.choice(["area 0", "area 1", None]),
                     self.float_value(), rng.choice([1, 1, 3])))

    def link(self):
        self.db.run("""INSERT INTO link (parent_bag_id, child_bag_id)
            SELECT p.id, c.id FROM (SELECT id FROM bag WHERE type = 'parent' ORDER BY random() LIMIT 1) p,
                   (SELECT id FROM bag WHERE type = 'child' ORDER BY random() LIMIT %s) c
            ON CONFLICT DO NOTHING""", (self.rng.choice([1, 1, 4]),))

    def unlink(self):
        self.db.run("DELETE FROM link WHERE id IN (SELECT id FROM link ORDER BY random() LIMIT %s)",
                    (self.rng.choice([1, 1, 4]),))

    def relink(self):
        self.db.run("UPDATE link SET child_bag_id = (SELECT id FROM bag WHERE type = 'child' ORDER BY random() LIMIT 1)"
                    " WHERE id = (SELECT min(id) FROM link)")

    def bag_changes_type(self):
        self.db.run("UPDATE bag SET type = CASE type WHEN 'parent' THEN 'child' ELSE 'parent' END,"
                    " dispatch_area = %s WHERE id = (SELECT id FROM bag ORDER BY random() LIMIT 1)",
                    (self.rng.choice(["area 1", "area 2", None]),))

    def bag_vanishes(self):
        self.db.run("""WITH victim AS (SELECT id FROM bag WHERE NOT EXISTS (
                SELECT 1 FROM scan WHERE bag.id IN (parent_bag_id, child_bag_id)) ORDER BY random() LIMIT 1)
            DELETE FROM bag WHERE id IN (TABLE victim)""")

    def scan(self):
        self.db.run("""INSERT INTO scan ("timestamp", parent_bag_id, child_bag_id, user_id)
            SELECT now() - %s * interval '1 minute', CASE type WHEN 'parent' THEN id END,
                   CASE type WHEN 'child' THEN id END, %s
              FROM bag ORDER BY random() LIMIT %s""",
                    (self.rng.randint(0, 500), self.rng.choice([None, 1, 2, 3]), self.rng.choice([1, 1, 5])))

    def unscan(self):
        self.db.run("DELETE FROM scan WHERE id = (SELECT id FROM scan ORDER BY \"timestamp\" DESC LIMIT 1)")

    def user_leaves(self):
        user = self.rng.randint(4, 8)
        self.db.run('DELETE FROM "user" WHERE id = %s', (user,))
        self.db.run("INSERT INTO \"user\" (id, username) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    (user, f"user {user}"))

    def bill(self):
        rng = self.rng
        if rng.random() < 0.5:
            self.db.run("INSERT INTO bill (bill_id, status, total_weight_kg) VALUES (%s, %s, %s)",
                        (f"bill {rng.getrandbits(48)}", rng.choice(["new", "processing"]), self.float_value()))
        else:
            self.db.run("UPDATE bill SET status = %s, total_weight_kg = %s WHERE id %% 3 = %s",
                        (rng.choice(["new", "processing", "completed"]), self.float_value(), rng.randint(0, 2)))

    RARE = {"truncate": 0.25, "cascade": 0.6, "many_subtransactions": 0.5}

    @classmethod
    def names(cls):
        hidden = {"names", "table", "row", "float_value", "num_value", "pick"}
        return [name for name, value in vars(cls).items()
                if callable(value) and not name.startswith("_") and name not in hidden]

    def pick(self):
        while True:
            name = self.rng.choice(WRITE_NAMES)
            if self.rng.random() < self.RARE.get(name, 1.0):
                return name


WRITE_NAMES = Writes.names()

# What ordinary PostgreSQL may answer to such a mix, without any extension.
ORDINARY_ERRORS = {
    "40001",  # serialization failure
    "40P01",  # deadlock among the users' own statements
    "55P03",  # lock timeout
    "23503", "23505",  # a key that another session took or removed
    "55006",  # TRUNCATE while a cursor of the same session is open
    "21000",  # MERGE or ON CONFLICT touches a row twice
    "27000",  # a tuple changed by the same command's trigger
}
GONE_ERRORS = {"57P01", "57P02", "57P03", "08006", "08000", "08001", "57014", None}


class Storm:
    """Writers, folders, checkers and a resolver of prepared transactions, all at once."""

    def __init__(self, server, dbname, seed, writers=4, checkers=2, fold=True, tolerate_loss=False,
                 isolation=("READ COMMITTED", "READ COMMITTED", "REPEATABLE READ")):
        self.server = server
        self.dbname = dbname
        self.seed = seed
        self.counts = {}
        self.comparisons = 0
        self.transactions = 0
        self.errors = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.prepared = []
        self.tolerate_loss = tolerate_loss
        self.isolation = isolation
        self.threads = []
        roles = [(self._write, i) for i in range(writers)] + [(self._check, i) for i in range(checkers)]
        roles.append((self._resolve, 0))
        if fold:
            roles += [(self._fold, 0), (self._refill, 0)]
        for role, number in roles:
            self.threads.append(threading.Thread(target=self._guarded, args=(role, number), daemon=True))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stop(check=kind is None)

    def run_for(self, seconds):
        self.stopping.wait(seconds)
        return self

    def stop(self, check=True):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
            if thread.is_alive() and check:
                raise Failure("a session hangs")
        if check and self.errors:
            raise Failure(f"seed {self.seed}: " + "\n".join(self.errors[:5]))

    def report(self, text):
        with self.lock:
            self.errors.append(text)
        self.stopping.set()

    def _guarded(self, role, number):
        while not self.stopping.is_set():
            db = None
            try:
                db = self.server.session(self.dbname, autocommit=False)
                db.run("SET lock_timeout = '3s'")
                db.connection.commit()
                role(db, number)
            except psycopg2.Error as error:
                lost = db is None or db.connection.closed or error.pgcode in GONE_ERRORS
                if not (lost and self.tolerate_loss):
                    self.report(f"{role.__name__} {number}: {error.pgcode} {error}\n{traceback.format_exc()}")
                    return
                self.stopping.wait(0.05)
            except Failure as failure:
                self.report(str(failure))
                return
            except Exception:
                self.report(traceback.format_exc())
                return
            finally:
                if db is not None:
                    db.close()

    def _write(self, db, number):
        rng = random.Random(f"{self.seed}/{number}/{time.monotonic()}" if self.tolerate_loss
                            else f"{self.seed}/{number}")
        writes = Writes(db, rng)
        while not self.stopping.is_set():
            isolation = rng.choice(self.isolation)
            name = "begin"
            done = []
            try:
                db.run(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
                exact = isolation != "READ COMMITTED"
                if exact:
                    # TRUNCATE is not MVCC-safe: no snapshot may be older than one that commits.
                    db.run(f"LOCK TABLE {TABLES} IN ACCESS SHARE MODE")
                for _ in range(rng.choice([1, 1, 2, 4, 8])):
                    name = writes.pick()
                    nested = rng.random() < 0.3
                    if nested:
                        db.run("SAVEPOINT s")
                    try:
                        getattr(writes, name)()
                        done.append(name)
                    except psycopg2.Error as error:
                        if not nested or error.pgcode not in ORDINARY_ERRORS - {"40P01"}:
                            raise
                        db.run("ROLLBACK TO s")
                    else:
                        if nested and rng.random() < 0.4:
                            db.run("ROLLBACK TO s")
                        elif nested:
                            db.run("RELEASE s")
                    if exact and rng.random() < 0.15:
                        self._compare(db, True, f"after own {done[-3:]}")
                ending = rng.random()
                if ending < 0.2:
                    db.connection.rollback()
                elif ending < 0.32:
                    gid = f"storm {number} {rng.getrandbits(60)}"
                    db.run(f"PREPARE TRANSACTION '{gid}'")
                    with self.lock:
                        self.prepared.append(gid)
                    db.connection.rollback()
                else:
                    db.connection.commit()
                with self.lock:
                    self.transactions += 1
                    for one in done:
                        self.counts[one] = self.counts.get(one, 0) + 1
            except psycopg2.Error as error:
                if error.pgcode not in ORDINARY_ERRORS or db.connection.closed:
                    error.args = (f"in {name}: {error}",)
                    raise
                db.connection.rollback()

    def _compare(self, db, one_snapshot, when):
        wrong = compare(db, one_snapshot)
        with self.lock:
            self.comparisons += 1
        if wrong:
            raise Failure(f"seed {self.seed}: statistics differ {when}:\n  " + "\n  ".join(wrong[:8]))

    def _check(self, db, number):
        while not self.stopping.is_set():
            try:
                db.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                db.run(f"LOCK TABLE {TABLES} IN ACCESS SHARE MODE")
                if number == 1:
                    db.run("SET LOCAL force_parallel_mode = on" if db.connection.server_version < 160000
                           else "SET LOCAL debug_parallel_query = on")
                self._compare(db, True, f"in checker {number}")
                # The same snapshot again, after others have committed and folded.
                self._compare(db, True, f"later in the same snapshot of checker {number}")
                db.connection.rollback()
                self._compare(db, False, f"under READ COMMITTED in checker {number}")
                db.connection.rollback()
            except psycopg2.Error as error:
                if error.pgcode not in ORDINARY_ERRORS or db.connection.closed:
                    raise
                db.connection.rollback()

    def _fold(self, db, _):
        db.connection.autocommit = True
        while not self.stopping.wait(0.02):
            try:
                db.run("SELECT statistics_fold()")
            except psycopg2.Error as error:
                if error.pgcode not in ORDINARY_ERRORS or db.connection.closed:
                    raise

    def _refill(self, db, _):
        """Whichever statistic it is, the worker fills it anew while all this goes on."""
        db.connection.autocommit = True
        # Until it is filled it answers as the plain query does, which is not exact for floating point.
        names = [name for name in statistics() if not name.endswith("_floats")]
        rng = random.Random(f"{self.seed} refill")
        while not self.stopping.wait(0.2):
            try:
                db.run("SELECT statistics_refresh(%s, concurrently => true)", (rng.choice(names),))
            except psycopg2.Error as error:
                if error.pgcode not in ORDINARY_ERRORS or db.connection.closed:
                    raise

    def _resolve(self, db, _):
        db.connection.autocommit = True
        rng = random.Random(f"{self.seed}/resolve")
        while True:
            stopping = self.stopping.wait(0.03)
            for (gid,) in db.rows("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
                try:
                    db.run(("COMMIT" if rng.random() < 0.6 else "ROLLBACK") + f" PREPARED '{gid}'")
                except psycopg2.errors.ObjectNotInPrerequisiteState:
                    pass  # busy: whoever prepares it has not let go of it; the next round finds it
            if stopping:
                return


def settle(server, dbname):
    """End prepared transactions, compare, fold everything, compare again; what is being filled becomes ready."""
    with server.session(dbname) as db:
        for (gid,) in db.rows("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            db.run(f"COMMIT PREPARED '{gid}'")
        for when in ("at the end", "after folding everything"):
            db.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
            db.run(f"LOCK TABLE {TABLES} IN ACCESS SHARE MODE")
            wrong = compare(db, True)
            db.run("COMMIT")
            if wrong:
                raise Failure(f"statistics differ {when}:\n  " + "\n  ".join(wrong[:10]))
            db.run("SELECT statistics_fold()")
        pending = db.value("SELECT coalesce(sum(pending), 0) FROM statistics_status")
        if pending != 0:
            raise Failure(f"{pending} partial rows are pending after a fold with no writer")
        for name in statistics():
            found = db.rows("SELECT * FROM statistics_verify(%s)", (name,))
            if found:
                raise Failure(f"statistics_verify finds {found[:5]} in {name}")
        wait_for("every statistic is ready",
                 lambda: db.value("SELECT bool_and(state = 'ready') FROM statistics_status"))

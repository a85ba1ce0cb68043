"""Random queries of the class that statistics keep, over tables with a column of nearly every type.

A `Fuzz` keeps a handful of statistics of random queries, writes at random, and compares each with its
query: within the writing transaction, after it, after folds, whole and looked up by some column. Where
equal values have one spelling only, results are compared as text, too.
"""

import collections
import random
import time

import psycopg2

from harness import Failure, difference

# column: its type, and what it may contain
COLUMNS = {
    "id": ("integer", None),
    "k": ("integer", [str(i) for i in range(8)]),
    "i2": ("smallint", [str(i) for i in range(-4, 5)]),
    "i8": ("bigint", ["0", "1", "7", "-3", "1000000000000", "9000000000000000000"]),
    "n": ("numeric", ["0", "1", "1.0", "1.00", "2.5", "-2.50", "100", "1e2", "0.001", "3.333333", "'NaN'", "1e10", "'Infinity'"]),
    "nn": ("numeric(8, 2)", [str(i / 100) for i in range(-500, 500, 37)]),
    "f8": ("double precision", [str(i / 4) for i in range(-9, 9)] + ["'NaN'", "'-Infinity'"]),
    "f4": ("real", [str(i / 2) for i in range(-5, 5)]),
    "bo": ("boolean", ["true", "false"]),
    "tx": ("text", ["'a'", "'b'", "'B'", "''", "'ab'", "'ä'", "'a '", "repeat('long', 30)"]),
    "ch": ("char(4)", ["'x'", "'x '", "'xy'", "''"]),
    "vc": ("varchar(6)", ["'x'", "'x '", "'yy'"]),
    "nd": ("text COLLATE nodet", ["'a'", "'A'", "'b'", "'B'", "'á'"]),
    "cc": ('text COLLATE "C"', ["'a'", "'B'", "'c'"]),
    "e": ("mood", ["'sad'", "'ok'", "'happy'"]),
    "r": ("int4range", ["'[1,3)'", "'[1,2]'", "'empty'", "'(,5)'", "'[2,9)'"]),
    "ar": ("integer[]", ["'{1,2}'", "'{}'", "'{1,NULL}'", "'[0:1]={1,2}'", "'{3}'"]),
    "jb": ("jsonb", ["'1'", "'1.0'", """'{"a": 1}'""", """'{"a": 1.0}'""", "'null'", "'[1, 2]'"]),
    "ip": ("inet", ["'10.0.0.1'", "'10.0.0.0/8'", "'::1'"]),
    "iv": ("interval", ["'1 day'", "'24 hours'", "'1 mon'", "'30 days'", "'90 min'"]),
    "u": ("uuid", [f"'{i:08d}-0000-0000-0000-000000000000'" for i in range(3)]),
    "ba": ("bytea", [r"'\x00'", r"'\x01ff'", "''"]),
    "bt": ("bit(3)", ["B'000'", "B'101'", "B'111'"]),
    "d": ("date", [f"current_date - {i}" for i in range(5)]),
    "ts": ("timestamp", [f"localtimestamp - interval '{i} minutes'" for i in range(-60, 4000, 97)]),
    "tz": ("timestamptz", [f"now() - interval '{i} minutes'" for i in range(-60, 4000, 89)]),
    "mo": ("money", ["'0.50'", "'1.50'", "'3'"]),
    "dm": ("small", [str(i) for i in range(5)]),
    "ce": ("cents", ["0", "0.01", "2.99"]),
    "co": ("pair", ["(1, 'a')", "(1, NULL)", "(2, 'b')", "(NULL, NULL)"]),
    "tm": ("time", ["'07:00'", "'23:00'"]),
    "na": ("name", ["'n1'", "'n2'"]),
}
SPELLED = {"n", "nd", "jb", "iv", "ar", "co"}     # equal values may be written differently

SCHEMA = """
CREATE COLLATION nodet (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (x integer, y text);
CREATE DOMAIN small AS integer CHECK (value < 1000);
CREATE DOMAIN cents AS numeric(9, 2);
CREATE TABLE a ({columns}, PRIMARY KEY (id));
CREATE TABLE b (LIKE a, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE b_0 PARTITION OF b FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE b_1 (gone integer, {reversed}, PRIMARY KEY (id));
ALTER TABLE b_1 DROP COLUMN gone;
ALTER TABLE b ATTACH PARTITION b_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE c (LIKE a, FOREIGN KEY (k) REFERENCES a ON DELETE SET NULL);
CREATE TABLE c_child () INHERITS (c);
"""


def create_tables(db):
    declared = [f"{name} {kind}" for name, (kind, _) in COLUMNS.items()]
    db.run(SCHEMA.format(columns=", ".join(declared), reversed=", ".join(reversed(declared))))
    for table in ("a", "b", "c"):
        for columns in ("tz", "ts", "k, i8", "tx, n"):
            db.run(f"CREATE INDEX ON {table} ({columns})")


class Query:
    """One random query; `spelled` when a result may be written in several ways."""

    def __init__(self, rng):
        self.rng = rng
        self.pick = lambda *options: rng.choice(options)
        self.chance = lambda probability: rng.random() < probability
        self.spelled = False
        self.sql = self.row() if self.chance(0.25) else self.grouped()

    # expressions over the columns of a table

    def column(self, table, name):
        self.spelled = self.spelled or name in SPELLED
        return f"{table}.{name}"

    def integer(self, t):
        return self.pick(
            f"{t}.k", f"{t}.i2", f"{t}.i8", f"{t}.dm", f"{t}.id", f"{t}.k % 3", f"coalesce({t}.k, -1)", f"length({t}.tx)",
            f"{t}.k + {t}.i2", f"CASE WHEN {t}.bo THEN {t}.k ELSE {t}.i2 END", f"({t}.jb->>'a')::numeric::integer",
            f"{t}.ar[1]", f"({t}.co).x", f"extract(hour FROM {t}.ts)::integer")

    def numeric(self, t):
        return self.pick(f"{t}.n", f"{t}.nn", f"{t}.ce", f"{t}.n * {t}.k", f"{t}.nn / 3", f"round({t}.n, 2)",
                         f"{t}.nn::numeric(6, 1)", f"{t}.n + {t}.nn", f"{t}.k * 1.5")

    def text(self, t):
        return self.pick(f"{t}.tx", f"{t}.vc", f"{t}.cc", f"lower({t}.tx)", f"{t}.tx || coalesce({t}.vc, '-')", f"left({t}.tx, 1)",
                         f'{t}.tx COLLATE "C"', f"{t}.na", f"encode({t}.ba, 'hex')", f"{t}.ch")

    def boolean(self, t):
        return self.pick(
            f"{t}.bo", f"{t}.k > 3", f"{t}.tx = 'a'", f"{t}.n IS NULL", f"{t}.n > 1", f"{t}.bo IS NOT TRUE", f"{t}.e = 'ok'",
            f"{t}.k IN (1, 2, 5)", f"{t}.tx LIKE 'a%'", f"NOT {t}.bo", f"{t}.bo OR {t}.k < 2", f"{t}.r @> 2", f"{t}.nd = 'A'",
            f"{t}.iv > interval '2 hours'", f"{t}.k BETWEEN 1 AND 5", f"{t}.f8 >= 0", f"{t}.co IS NOT NULL", f"{t}.jb ? 'a'",
            f"{t}.id % 2 = 0", f"{t}.ar && '{{1}}'")

    def any_column(self, t):
        return self.column(t, self.rng.choice(list(COLUMNS)))

    def group(self, t):
        choice = self.rng.random()
        if choice < 0.15:
            self.spelled = True
            return self.numeric(t)
        if choice < 0.25:
            return self.pick(f"date_trunc('hour', {t}.ts)", f"date_trunc('day', {t}.tz AT TIME ZONE 'Europe/Berlin')", f"{t}.ts::date")
        return self.pick(self.integer, self.text, self.boolean, self.any_column)(t)

    # aggregates

    def aggregate(self, t):
        number = self.pick(self.integer, self.numeric)(t)
        only = f" FILTER (WHERE {self.boolean(t)})" if self.chance(0.3) else ""
        choice = self.rng.random()
        if choice < 0.15:
            return f"count(*){only}"
        if choice < 0.25:
            return f"count({self.any_column(t)}){only}"
        if choice < 0.4:
            return f"{self.pick('sum', 'avg')}({number}){only}"
        if choice < 0.55:
            ordered = self.pick(number, self.text(t), *(f"{t}.{c}" for c in ("e", "ip", "iv", "d", "ts", "tz", "mo", "tm", "ar", "ce")))
            self.spelled = self.spelled or f"{t}.n" in ordered or ordered in (f"{t}.iv", f"{t}.ar")
            return f"{self.pick('min', 'max')}({ordered}){only}"
        if choice < 0.68:
            return f"count(DISTINCT {self.pick(number, self.text(t), self.any_column(t))}){only}"
        if choice < 0.75:
            self.spelled = self.spelled or f"{t}.n" in number
            return f"{self.pick('sum', 'avg')}(DISTINCT {number}){only}"
        if choice < 0.82:
            return f"{self.pick('bool_and', 'bool_or', 'every')}({self.boolean(t)}){only}"
        if choice < 0.9:
            return f"{self.pick('variance', 'stddev', 'var_pop', 'stddev_pop')}({number}){only}"
        return f"{self.pick('sum', 'avg', 'min', 'max')}({self.pick(f'{t}.f8', f'{t}.f4')}){only}"

    def over_aggregate(self, t):
        aggregate = self.aggregate(t)
        if self.chance(0.7):
            return aggregate
        if aggregate.startswith(("count", "sum(DISTINCT", "avg(DISTINCT")):
            return self.pick(f"{aggregate} * 2", f"coalesce({aggregate}, 0)", f"{aggregate} / nullif(count(*), 0)", f"({aggregate})::text",
                             f"CASE WHEN {aggregate} > 2 THEN 'many' ELSE 'few' END")
        return f"({aggregate}) IS NULL"

    # FROM and WHERE

    def window(self, t):
        return self.pick(
            f"{t}.tz >= now() - interval '24 hours'", f"{t}.tz > now() - interval '5 hours' AND {t}.tz <= now() - interval '10 minutes'",
            f"{t}.ts >= now() - interval '2 days'", f"{t}.ts > localtimestamp - interval '30 hours' AND {t}.ts < localtimestamp",
            f"{t}.tz >= date_trunc('day', now())", f"{t}.d >= current_date - 1", f"{t}.d = current_date", f"{t}.tz > current_date",
            f"now() - interval '12 hours' < {t}.tz", f"{t}.ts BETWEEN now() - interval '100 minutes' AND now()")

    def condition(self, t):
        other = self.pick("a", "b", "c")
        mine, its = self.pick(("k", "k"), ("i8", "i8"), ("tx", "tx"), ("k", "id"), ("e", "e"), ("n", "n"), ("i2", "k"), ("nd", "nd"), ("id", "k"))
        more = f" AND o.i2 = {t}.i2" if self.chance(0.2) else ""
        own = f" AND {self.boolean('o')}" if self.chance(0.4) else ""
        exists = f"EXISTS (SELECT 1 FROM {other} o WHERE o.{its} = {t}.{mine}{more}{own})"
        return self.pick(exists, "NOT " + exists, f"{t}.{mine} IN (SELECT o.{its} FROM {other} o WHERE o.id >= 0{own})",
                         f"{t}.id NOT IN (SELECT o.id FROM {other} o WHERE o.id IS NOT NULL{own})")

    def from_where(self):
        tables = ["t"]
        sql = f"FROM {self.pick('a', 'b', 'c')} t"
        for number in range(self.pick(0, 0, 0, 0, 1, 1, 2)):
            mine, its = self.pick(("k", "k"), ("k", "id"), ("id", "k"), ("i8", "i8"), ("e", "e"), ("tx", "tx"), ("i2", "k"), ("n", "n"), ("nd", "nd"))
            sql += f" JOIN {self.pick('a', 'b', 'c')} j{number} ON j{number}.{its} = {self.rng.choice(tables)}.{mine}"
            tables.append(f"j{number}")
        where = [self.boolean(self.rng.choice(tables)) for _ in range(self.pick(0, 0, 1, 1, 2))]
        where += [self.condition(self.rng.choice(tables)) for _ in range(self.pick(0, 0, 0, 0, 1, 2, 3))]
        where += [self.window(self.rng.choice(tables)) for _ in range(self.pick(0, 0, 1))]
        self.rng.shuffle(where)
        return sql + (" WHERE " + " AND ".join(where) if where else ""), tables

    def grouped(self):
        source, tables = self.from_where()
        groups = list(dict.fromkeys(self.group(self.rng.choice(tables)) for _ in range(self.pick(0, 0, 1, 1, 1, 2, 3))))
        shown = [group for group in groups if self.chance(0.9)]
        shown += [self.over_aggregate(self.rng.choice(tables)) for _ in range(self.pick(1, 2, 3, 4))]
        sql = "SELECT " + ", ".join(f"{one} AS c{number}" for number, one in enumerate(shown)) + f" {source}"
        if groups:
            sql += " GROUP BY " + ", ".join(groups)
        if self.chance(0.25):
            sql += " HAVING " + self.pick("count(*) > 2", "sum(t.k) > 3", "bool_or(t.bo)", f"({self.aggregate('t')}) IS NOT NULL")
        return sql

    def row(self):
        values = []
        for number in range(self.pick(2, 3, 4)):
            source, tables = self.from_where()
            values.append(f"(SELECT {self.over_aggregate(self.rng.choice(tables))} {source}) AS c{number}")
        return "SELECT " + ", ".join(values)


class Fuzz:
    """One session that writes and compares."""

    KEPT = 8

    def __init__(self, server, dbname, seed):
        self.rng = random.Random(seed)
        self.db = server.session(dbname)
        self.kept = {}
        self.created = self.comparisons = 0
        self.refused = collections.Counter()
        create_tables(self.db)

    # what happens

    def literal(self, column):
        kind, values = COLUMNS[column]
        value = str(self.rng.randrange(60)) if values is None else "NULL" if self.rng.random() < 0.12 else self.rng.choice(values)
        return f"({value})::{kind.split(' COLLATE')[0]}"

    def write(self):
        table = self.rng.choice(["a", "a", "b", "b", "c", "c_child"])
        where = Query(self.rng).boolean("x")
        choice = self.rng.random()
        if choice < 0.4:
            conflict = self.rng.choice(["DO NOTHING", "(id) DO UPDATE SET k = excluded.k, n = excluded.n, tx = excluded.tx, tz = excluded.tz"])
            several = 1 if "UPDATE" in conflict else self.rng.choice([1, 3, 10])
            rows = ", ".join("(" + ", ".join(map(self.literal, COLUMNS)) + ")" for _ in range(several))
            return f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES {rows}" + (f" ON CONFLICT {conflict}" if table in "ab" else "")
        if choice < 0.8:
            columns = self.rng.sample(list(COLUMNS)[1:], self.rng.choice([1, 2, 5]))
            return f"UPDATE {table} x SET " + ", ".join(f"{c} = {self.literal(c)}" for c in columns) + f" WHERE {where}"
        if choice < 0.97:
            return f"DELETE FROM {table} x WHERE {where} AND x.id % 3 = {self.rng.randrange(3)}"
        return f"TRUNCATE {self.rng.choice(['b', 'c', 'c_child', 'a CASCADE'])}"

    def create(self):
        name = f"s{self.created + sum(self.refused.values())}"
        query = Query(self.rng)
        try:
            self.db.run("SELECT statistics_create(%s, %s)", (name, query.sql))
        except psycopg2.Error as error:
            if error.pgcode != "0A000" or not error.diag.message_detail or not error.diag.message_hint:
                raise Failure(f"refused without a reason: {error}\n  {query.sql}") from error
            self.refused[error.diag.message_primary] += 1
            return
        self.created += 1
        self.kept[name] = query
        self.db.run(f"CREATE VIEW q_{name} AS {query.sql}")
        columns = self.db.rows("""SELECT attnum, attname, format_type(atttypid, atttypmod), attcollation FROM pg_attribute
            WHERE attrelid IN (%s::regclass, %s::regclass) AND attnum > 0 GROUP BY 1, 2, 3, 4 HAVING count(*) <> 2""", (name, "q_" + name))
        if columns:
            raise Failure(f"columns differ from those of the query: {columns}\n  {query.sql}")

    def drop(self, name):
        del self.kept[name]
        self.db.run(f"SELECT statistics_drop('{name}'); DROP VIEW q_{name}")

    # comparing

    def texts(self, relation, where=""):
        return self.db.value(f'SELECT array_agg(t ORDER BY t COLLATE "C") FROM (SELECT r::text AS t FROM {relation} r {where}) t')

    def look_up(self, name):
        """By one of its columns, equal to some value that it has."""
        column = "c0"
        kind = self.db.value("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s", (name, column))
        value = self.db.value(f"SELECT {column}::text FROM q_{name} ORDER BY random() LIMIT 1")
        if value is None:
            return f"WHERE {column} IS NULL"
        value = "'" + value.replace("'", "''") + "'::" + kind
        return "WHERE " + self.rng.choice([f"{column} = {value}", f"{column} IN ({value}, NULL)", f"{column} IS NOT DISTINCT FROM {value}"])

    def compare(self, when):
        """In one transaction, so with one now()."""
        for name, query in self.kept.items():
            self.comparisons += 1
            found = difference(self.db, name, f"SELECT * FROM q_{name}")
            if not found and not query.spelled:
                where = self.look_up(name) if self.rng.random() < 0.3 else ""
                texts = self.texts(name, where), self.texts(f"q_{name}", where)
                found = [texts] if texts[0] != texts[1] else []
            if found:
                raise Failure(f"{name} differs from its query {when}:\n  {query.sql}\n  " + "\n  ".join(map(str, found[:6])))

    def step(self):
        while len(self.kept) < self.KEPT:
            self.create()
        if self.rng.random() < 0.15:
            self.drop(self.rng.choice(list(self.kept)))
        self.db.run(f"SET timezone = '{self.rng.choice(['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Kolkata'])}'")
        self.db.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            self.db.run("SAVEPOINT before")
            try:
                self.db.run(self.write())
                if self.rng.random() < 0.2:
                    self.db.run("ROLLBACK TO before")
            except psycopg2.errors.ForeignKeyViolation:
                self.db.run("ROLLBACK TO before")
        self.compare("after own writes")
        self.db.run(self.rng.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))
        if self.rng.random() < 0.5:
            self.db.run("SELECT statistics_fold()")
        self.db.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
        self.compare("later")
        self.db.run("COMMIT")

    def run_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

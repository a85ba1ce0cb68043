"""Servers that share a Redis, and whose clocks differ by an hour."""

import datetime
import os
import shutil
import subprocess

from harness import Redis, Servers, expect, judged, make_directory, wait_for, work

HERE = os.path.dirname(os.path.abspath(__file__))
AHEAD_S = 3600
MINUTE = datetime.timedelta(minutes=1)
NOTHING = datetime.timedelta()


def clock_ahead():
    """The environment of a server whose clock is ahead."""
    library = os.path.join(make_directory(work("clock")), "clock_ahead.so")
    subprocess.run([shutil.which("gcc") or "cc", "-shared", "-fPIC", "-O1", "-o", library,
                    os.path.join(HERE, "..", "clock_ahead.c")], check=True)
    return {"LD_PRELOAD": library, "CLOCK_AHEAD_S": str(AHEAD_S)}


def servers_whose_clocks_differ_agree(_):
    redis = Redis(work("clocks_redis")).start()
    try:
        with Servers("clocks", redis) as servers, Servers("clocks_ahead", redis, environment=clock_ahead()) as others:
            db, ahead = servers.session(), others.session()
            are_apart(db, ahead)
            limits(db, ahead)
            sessions(db, ahead)
            values(db, ahead)
    finally:
        redis.stop()


def are_apart(db, ahead):
    apart = ahead.value("SELECT clock_timestamp()") - db.value("SELECT clock_timestamp()")
    expect(abs(apart.total_seconds() - AHEAD_S) < 60, f"the clocks are {apart} apart")


def limits(db, ahead):
    """What one server has allowed another does not give back."""
    for algorithm in ("gcra", "fixed_window", "sliding_window"):
        ask = f"SELECT count(*) FILTER (WHERE r.allowed) FROM generate_series(1, 5) i," \
              f" LATERAL (SELECT * FROM rate_limit('k' || (i * 0), 5, '10 min', algorithm => '{algorithm}')) r"
        expect(db.value(ask) == 5, f"{algorithm}: a limit begins used up")
        expect(ahead.value(ask) == 0, f"{algorithm}: a clock that is ahead gives back what was used")
        expect(db.value(ask) == 0, f"{algorithm}: a clock that is behind gives back what was used")


def sessions(db, ahead):
    for one, other in ((db, ahead), (ahead, db)):
        one.run("SELECT session_set('s', '{\"cart\": 1}', '1 minute')")
        expect(other.value("SELECT session_get('s')") == {"cart": 1}, "a session is not found by the other clock")
        expect(other.value("SELECT session_touch('s')"), "a session has ended by the other clock")
        one.run("SELECT session_destroy('s')")
        expect(other.value("SELECT session_get('s')") is None, "a session is found after its end")


def values(db, ahead):
    for one, other in ((db, ahead), (ahead, db)):
        one.run("SELECT cache_set('c', 'value', '1 minute', dialect => 'plain')")
        wait_for("the other server finds it", lambda: other.value("SELECT cache_get('c')") == "value")
        left = other.value("SELECT cache_ttl('c')")
        expect(NOTHING < left <= MINUTE, f"a value of a minute has {left} left")
        one.run("SELECT cache_delete('c')")
        wait_for("the other server has forgotten it", lambda: other.value("SELECT cache_get('c')") is None)


def an_entry_from_the_future_lives_no_longer_than_one_of_now(_):
    redis = Redis(work("future_redis")).start()
    try:
        with Servers("future", redis, environment=clock_ahead()) as servers:
            ahead = servers.session()
            ahead.run("SELECT cache_define('l:{id}', 'SELECT $1 AS v', '1 minute', stale_for => '10 hours')")
            with judged(servers.postgres.copy(work("future_standby"))) as standby, standby.session("shop") as db:
                are_apart(db, ahead)
                ahead.run("SELECT cache_get('l:1')")
                left, age, tier = db.rows("SELECT cache_ttl('l:1'), age, tier FROM cache_explain('l:1')")[0]
                expect(tier == "redis", f"the entry is in {tier}: nothing is tested")
                expect(NOTHING < left <= 1.1 * MINUTE, f"an entry of a minute has {left} left for a clock that is behind")
                expect(age >= NOTHING, f"an entry has the age {age}")
    finally:
        redis.stop()


TESTS = [
    servers_whose_clocks_differ_agree,
    an_entry_from_the_future_lives_no_longer_than_one_of_now,
]

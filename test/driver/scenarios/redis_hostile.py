"""A Redis that answers something else than it was asked: within one deadline, and nothing of it stays."""

import struct
import socket
import threading
import time

from harness import FakeRedis, expect, wait_for, work
from scenarios.redis_link import ANSWER, Script, Servers, bulk, get, mget_reply

ERRORS = [
    b"-LOADING Redis is loading the dataset in memory\r\n", b"-BUSY Redis is busy running a script\r\n",
    b"-READONLY You can't write against a read only replica.\r\n", b"-OOM command not allowed when used memory\r\n",
    b"-MOVED 1234 10.0.0.1:6379\r\n", b"-ASK 1234 10.0.0.1:6379\r\n", b"-NOAUTH Authentication required.\r\n",
    b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    b"-NOPERM this user has no permissions to access one of the keys\r\n", b"-MASTERDOWN Link with MASTER is down\r\n",
    b"-MISCONF Redis is configured to save RDB snapshots\r\n", b"-CLUSTERDOWN Hash slot not served\r\n",
    b"-ERR %s%n%500000d%s%s%s \x1b[31m\x07\r\n", b"-ERR \xff\xfe\xc3\r\n", b"-\r\n",
    b"-ERR " + b"x" * (4 * 1024 * 1024) + b"\r\n",
]

NONSENSE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x00", b"garbage\r\n", b"\r\n", b"$-7\r\n", b"*-7\r\n",
    b"$99999999999999999999\r\n", b"$9223372036854775807\r\n", b"*2147483647\r\n", b"*9223372036854775807\r\n",
    b"*4\r\n" * 100, b"*1\r\n" * 100000, b":99999999999999999999999\r\n", b":\r\n", b"$3\r\nabcdef\r\n",
    b"_\r\n", b",1.5\r\n", b"#t\r\n", b"%1\r\n+a\r\n+b\r\n", b"~1\r\n+a\r\n", b">2\r\n+message\r\n+x\r\n", b"(12345\r\n",
]

WRONG_TYPE = [b":1\r\n", b"+OK\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"$5\r\nhello\r\n", b"*1\r\n$1\r\nx\r\n",
              b"*3\r\n:1\r\n:2\r\n:3\r\n", b"*3\r\n*0\r\n*0\r\n*0\r\n"]

HALF = [b"*3\r\n$5\r\nhel", b"$100\r\nhalf", b"+O", b"*3\r\n$-1\r\n", b"-LOAD"]

EXTRA = [b"+OK\r\n+OK\r\n", b"$-1\r\n$-1\r\n", b":1\r\n:2\r\n"]

DEADLINE = 0.2
SLACK = 2.0


class Server(FakeRedis):
    """Counts the connections that are still open at this end."""

    def __init__(self, name, reply):
        self.open = 0
        super().__init__(work(name), reply)

    def _serve(self, connection):
        self.open += 1
        try:
            super()._serve(connection)
        finally:
            self.open -= 1


def judge(servers, fake, db, number, lie, call=get, answers=(ANSWER,)):
    """One call against this lie at an endpoint of its own, so that no pause after the last one hides it."""
    shown = lie[:40] if isinstance(lie, bytes) else lie
    db.run(f"SET cache_ext.redis_url = '{fake.url}?db={number}'")
    asked = fake.requests
    began = time.monotonic()
    found = call(db)
    took = time.monotonic() - began
    expect(fake.requests > asked, f"{shown!r} was not met")
    expect(found in answers, f"{shown!r} gave {found!r}")
    expect(took < DEADLINE + SLACK, f"{shown!r} took {took:.1f} s")
    wait_for(f"the connection is closed after {shown!r}", lambda: fake.open == 0, deadline=5)


def settings():
    return {"cache_ext__command_timeout": "'200ms'", "cache_ext__connect_timeout": "'200ms'"}


def check_end(servers, db):
    """The backend is the same, and what was said reached the log only in a readable form."""
    expect(db.connection.get_backend_pid() == db.pid and db.value("SELECT 1") == 1, "the backend is gone")
    servers.postgres.stop()
    with open(servers.postgres.log, "rb") as log:
        text = log.read()
    expect(b"\x1b[31m" not in text and b"\x07" not in text, "control bytes of a reply reached the log")
    expect(b"x" * 1000 not in text, "an endless error text reached the log")


def reads_survive_every_answer(options):
    current = {}
    fake = Server("hostile", Script(lambda request: current["lie"]))
    with Servers("hostile_pg", None, **settings()) as servers:
        with servers.session() as db:
            for number, lie in enumerate(ERRORS + NONSENSE + WRONG_TYPE + HALF + EXTRA + [False, None]):
                current["lie"] = lie
                judge(servers, fake, db, number, lie)
            current["lie"] = mget_reply([b"MGET"] + [b"k"] * 8, b"fine")
            check_end(servers, db)


def a_handshake_survives_every_answer(options):
    current = {}

    def reply(request):
        if request[0].upper() == b"INFO":
            return current["lie"]
        return b"+OK\r\n"

    fake = Server("hostile_hello", reply)
    with Servers("hostile_hello_pg", None, **settings()) as servers:
        with servers.session() as db:
            lies = ERRORS + NONSENSE + HALF + EXTRA + [False, None]
            for number, lie in enumerate(lies):
                current["lie"] = lie
                judge(servers, fake, db, number, lie)
            check_end(servers, db)


def counting_says_that_it_cannot(options):
    current = {}
    fake = Server("hostile_incr", Script(lambda request: mget_reply(request, b"x")))
    script = fake.reply

    def reply(request):
        return script(request) if request[0].upper() in (b"INFO", b"CLIENT", b"SELECT", b"MGET") else current["lie"]

    fake.reply = reply

    def count(db):
        try:
            return db.value("SELECT cache_incr('n')")
        except Exception as error:
            return error.pgcode

    with Servers("hostile_incr_pg", None, **settings()) as servers:
        with servers.session() as db:
            for number, lie in enumerate(ERRORS + NONSENSE + HALF + [False, None, b"$5\r\nhello\r\n", b"*0\r\n"]):
                current["lie"] = lie
                judge(servers, fake, db, number, lie, call=count, answers=("08006", "08P01", "28000", "0A000"))
            check_end(servers, db)


def resets_and_single_bytes_end_in_time(options):
    """Cut or trickled at every place of an answer."""
    current = {}

    def send(connection, data, pause, reset):
        try:
            for i in range(0, len(data), 1):
                connection.sendall(data[i:i + 1])
                time.sleep(pause)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def mget(request):
        data = mget_reply(request, b"a value of some length")
        if current["mode"] == "reset":
            return data[:current["cut"]], False
        threading.Thread(target=send, args=(fake.connections[-1], data, 1.0, False), daemon=True).start()
        return None

    fake = Server("bytes", Script(mget))
    inner = fake.reply

    def reply(request):
        answer = inner(request)
        if isinstance(answer, tuple):
            fake.connections[-1].sendall(answer[0])
            return False
        return answer

    fake.reply = reply
    with Servers("bytes_pg", None, **settings()) as servers:
        with servers.session() as db:
            current["mode"] = "reset"
            for number, cut in enumerate(range(0, 60)):
                current["cut"] = cut
                judge(servers, fake, db, number, f"cut at {cut}", answers=(ANSWER, "a value of some length")
                      if cut >= len(mget_reply([b"MGET", b"k"], b"a value of some length")) else (ANSWER,))
            current["mode"] = "trickle"
            for number in (100, 101):
                judge(servers, fake, db, number, "one byte a second")
            check_end(servers, db)


def a_delivery_survives_every_answer(options):
    """Each command of a delivery is answered wrongly once, in many ways; all arrives in the end, by the same worker."""
    honest = {
        b"INFO": bulk("run_id:one\r\nmaster_replid:two\r\n"), b"SET": b"+OK\r\n", b"MSET": b"+OK\r\n",
        b"CLIENT": b"+OK\r\n", b"SELECT": b"+OK\r\n", b"SREM": b":1\r\n", b"UNLINK": b":1\r\n", b"EXISTS": b":1\r\n", b"PUBLISH": b":0\r\n",
        b"SSCAN": b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nm\r\n", b"SCAN": b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nf\r\n",
    }
    lies = [b"-LOADING Redis is loading the dataset in memory\r\n", b"-READONLY replica\r\n", b"-ERR %s%n%500000d\x1b[31m\r\n",
            b"garbage\r\n", b"*-7\r\n", b"$99999999999999999999\r\n", b":1\r\n:2\r\n", b"*1\r\n" * 100000, False]
    odd = [b":1\r\n", b"$-1\r\n", b"*2\r\n$1\r\n0\r\n", b"*2\r\n:1\r\n:2\r\n", b"*0\r\n", b"*2\r\n$3\r\nabc\r\n*0\r\n"]
    current, told, seen = {}, [], []

    def reply(request):
        name = request[0].upper()
        told.append(request)
        if current.get("command") == name:
            seen.append(current.pop("command"))
            return current["lie"]
        if name == b"SSCAN" and request[2] == b"abc":
            return b"-ERR invalid cursor\r\n"
        return honest[name]

    fake = Server("hostile_delivery", reply)
    with Servers("hostile_delivery_pg", fake, **settings()) as servers:
        with servers.session() as db:
            db.run("SELECT cache_invalidate('first')")
            wait_for("the first is delivered", lambda: db.value("SELECT pending FROM invalidation_status") == 0)
            worker = db.value("SELECT worker_pid FROM invalidation_status")
            commands = (b"SET", b"MSET", b"UNLINK", b"EXISTS", b"SSCAN", b"SREM", b"SCAN", b"PUBLISH")
            cases = [(command, lie) for i, command in enumerate(commands)
                     for lie in lies[i % 2::2] + (odd if command in (b"SSCAN", b"SCAN") else [])]
            for number, (command, lie) in enumerate(cases):
                current.update(lie=lie, command=command)
                db.run("SELECT cache_invalidate('k%s'), cache_invalidate_tags('t%s'), cache_invalidate_pattern('p%s*')",
                       (number, number, number))
                wait_for(f"{command} was answered with {lie if lie is False else lie[:40]!r}, and all is delivered",
                         lambda: "command" not in current and db.value("SELECT pending FROM invalidation_status") == 0)
                wait_for("the key is named", lambda: any(r[0] == b"UNLINK" and b"k%d" % number in r for r in told), 5)
                told.clear()
            expect(len(seen) == len(cases), "a lie was not told")
            expect(db.value("SELECT worker_pid FROM invalidation_status") == worker, "the worker is another one")
            check_end(servers, db)


TESTS = [
    reads_survive_every_answer,
    a_handshake_survives_every_answer,
    counting_says_that_it_cannot,
    a_delivery_survives_every_answer,
    resets_and_single_bytes_end_in_time,
]

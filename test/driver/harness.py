"""Private PostgreSQL and Redis servers for the driver tests, the demo and the benchmark.

Everything lives in a directory that the caller names; servers listen on unix sockets only.  Started
as root, they run as the user in CACHE_EXT_SERVER_USER, because PostgreSQL refuses to run as root.
Nothing here sleeps for a fixed time to let something happen: wait_for() polls a condition and fails
at its deadline with what it last saw.
"""

import atexit
import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import psycopg2
import psycopg2.extensions


# So much freed memory AddressSanitizer keeps back in each process, to see who still uses it.


class Failure(Exception):
    """A promise that did not hold."""


def bin_dir():
    return os.environ["CACHE_EXT_BIN"]


def program(name):
    return os.path.join(bin_dir(), name)


def server_user():
    """The user that servers run as, or None when that is us."""
    if os.geteuid() != 0:
        return None
    return os.environ.get("CACHE_EXT_SERVER_USER", "postgres")


def work(name):
    """A path in the run's temporary directory."""
    return os.path.join(os.environ["CACHE_EXT_WORK"], name)


def make_directory(path):
    """Create a directory that belongs to the servers' user."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    if server_user():
        entry = pwd.getpwnam(server_user())
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return path


def fresh_directory(path):
    """The directory, or one with a number behind it when another test has used that name."""
    number, wanted = 1, path
    while os.path.exists(wanted):
        number += 1
        wanted = f"{path}_{number}"
    return make_directory(wanted)


def popen(arguments, log, variables=None, cwd="/"):
    """Start a server in a session of its own, so that Ctrl-C reaches us and not it."""
    options = {}
    if server_user():
        entry = pwd.getpwnam(server_user())
        options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "REDIS_"))}
    environment["LC_ALL"] = "C.UTF-8"
    environment.update(variables or {})
    if arguments[0] in (program("postgres"), program("pg_upgrade")) and "CACHE_EXT_PRELOAD" in os.environ:
        environment["LD_PRELOAD"] = ":".join(filter(None, (os.environ["CACHE_EXT_PRELOAD"], environment.get("LD_PRELOAD"))))
        environment["ASAN_OPTIONS"] = "detect_leaks=0:abort_on_error=1:quarantine_size_mb=8"
        environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    with open(log, "ab") as output:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, env=environment, cwd=cwd, **options)
    STARTED.append(process)
    return process


STARTED = []


@atexit.register
def end_leftovers():
    """End servers that a failed set-up or an interrupt has left; a server that was stopped is not among them."""
    for process in STARTED:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGQUIT if "postgres" in process.args[0] else signal.SIGKILL)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
    STARTED.clear()


def run_as_server(arguments, log, cwd="/"):
    process = popen(arguments, log, cwd=cwd)
    if process.wait() != 0:
        with open(log, errors="replace") as text:
            raise Failure(f"{arguments[0]} failed:\n{text.read()[-3000:]}")


def free_port():
    """A TCP port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, deadline=20.0, interval=0.01):
    """Poll until condition() is true; its value is returned.  Errors while polling count as 'no'."""
    end = time.monotonic() + deadline
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (psycopg2.Error, OSError, RedisGone, RedisError) as error:
            last = error
        if time.monotonic() > end:
            raise Failure(f"waited {deadline:.0f} s in vain: {what} (last seen: {last!r})")
        time.sleep(interval)


# ---------------------------------------------------------------------------
# PostgreSQL
# ---------------------------------------------------------------------------

class Postgres:
    """One private server.  Settings are written before the start; `preload` loads cache_ext early."""

    DEFAULTS = {
        "listen_addresses": "''",
        "unix_socket_permissions": "0777",
        "shared_buffers": "'64MB'",
        "fsync": "off",
        "max_connections": "60",
        "max_prepared_transactions": "20",
        "max_worker_processes": "16",
        "deadlock_timeout": "'100ms'",
        "autovacuum_naptime": "'1s'",
        "log_line_prefix": "'%m [%p] %b %e '",
        "log_min_messages": "info",
        "logging_collector": "off",
        "lc_messages": "'C'",
        "timezone": "'UTC'",
    }

    def __init__(self, directory, settings=None, preload=True, environment=None):
        self.environment = environment      # variables beside the driver's own
        self.directory = fresh_directory(directory)
        self.data = os.path.join(self.directory, "data")
        self.log = os.path.join(self.directory, "postgres.log")
        self.socket = self.directory
        self.preload = preload
        self.settings = dict(self.DEFAULTS, **(settings or {}))
        self.process = None
        self.expected = []      # patterns of log lines that a test provokes on purpose
        self._checked = 0       # bytes of the log already checked

    def init(self):
        template = os.path.join(os.path.dirname(self.directory.rstrip("/")), "initdb")
        if not os.path.exists(os.path.join(template, "complete")):
            make_directory(template)
            run_as_server(
                [program("initdb"), "-D", os.path.join(template, "data"), "-U", "postgres",
                 "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
                 "--no-instructions"], os.path.join(template, "log"))
            open(os.path.join(template, "complete"), "w").close()
        run_as_server(["/bin/cp", "-a", os.path.join(template, "data"), self.data], self.log)
        return self

    def write_settings(self):
        lines = [f"{name} = {value}" for name, value in self.settings.items()]
        lines.append(f"unix_socket_directories = '{self.socket}'")
        if self.preload:
            lines.append("shared_preload_libraries = 'cache_ext'")
        path = os.path.join(self.data, "postgresql.conf")
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")

    def set(self, **settings):
        """Change settings of the running server (GUC names with __ for the dot)."""
        for name, value in settings.items():
            self.settings[name.replace("__", ".")] = value
        self.write_settings()
        if self.running():
            os.kill(self.process.pid, signal.SIGHUP)

    def start(self, deadline=60.0):
        if not os.path.exists(self.data):
            self.init()
        self.write_settings()
        self.process = popen([program("postgres"), "-D", self.data], self.log, self.environment)

        def answers():
            if self.process.poll() is not None:
                raise Failure("the server did not start:\n" + self.log_tail())
            self.connect().close()
            return True

        wait_for("the server accepts connections", answers, deadline)
        return self

    def copy(self, directory):
        """A standby of this server, not yet started, with the same settings."""
        standby = Postgres(directory, dict(self.settings), self.preload).expect("terminating walreceiver")
        run_as_server([program("pg_basebackup"), "-h", self.socket, "-U", "postgres", "-D", standby.data,
                       "-R", "-X", "stream", "-c", "fast"], standby.log)
        return standby

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, mode="fast", deadline=60.0):
        """fast waits for nothing of the clients'; immediate is a crash that recovery has to mend."""
        if not self.running():
            return
        names = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        os.kill(self.process.pid, names[mode])
        try:
            self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failure(f"the server did not stop ({mode}) within {deadline:.0f} s") from None

    def crash(self):
        self.stop("immediate")

    def kill_process(self, pid, deadline=60.0):
        """SIGKILL one process of the server and wait until crash recovery is over."""
        def recoveries():
            with open(self.log, errors="replace") as file:
                return file.read().count("database system is ready to accept connections")

        before = recoveries()
        os.kill(pid, signal.SIGKILL)
        wait_for("the server has recovered", lambda: recoveries() > before, deadline)

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def connect(self, dbname="postgres", autocommit=True, **options):
        connection = psycopg2.connect(
            host=self.socket, user=options.pop("user", "postgres"), dbname=dbname,
            connect_timeout=10, **options)
        connection.autocommit = autocommit
        return connection

    def create_database(self, name, extension=True):
        with self.session() as db:
            db.run(f'CREATE DATABASE "{name}"')
        if extension:
            with self.session(name) as db:
                db.run("CREATE EXTENSION cache_ext")
        return name

    def session(self, dbname="postgres", **options):
        return Session(self, dbname, **options)

    def pids(self, where):
        with self.session() as db:
            return [row[0] for row in db.rows(f"SELECT pid FROM pg_stat_activity WHERE {where}")]

    def worker_pids(self, dbname):
        return self.pids(f"datname = '{dbname}' AND backend_type LIKE 'cache_ext%'")

    def log_tail(self, lines=40):
        try:
            with open(self.log, errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    # A background worker told to end leaves by exit code 1, as PostgreSQL's own do; its errors count.
    ALARMS = re.compile(
        r"PANIC|TRAP:|was terminated by signal|server process .* exited with exit code"
        r"| cache_ext \w+ (?!57P01)\w{5} (ERROR|FATAL)| XX000 | XX001 | XX002 |AddressSanitizer"
        r"|runtime error:|terminate called|WARNING:  problem in alloc set|leaked"
        r"|buffer refcount leak|relcache reference leak|snapshot .* still active")

    def check_log(self):
        """Fail when the server's log shows a crash or an internal error that no test provoked."""
        try:
            with open(self.log, errors="replace") as file:
                file.seek(self._checked)
                text = file.read()
                self._checked = file.tell()
        except FileNotFoundError:
            return
        bad = [line for line in text.splitlines()
               if self.ALARMS.search(line) and not any(re.search(p, line) for p in self.expected)]
        if bad:
            raise Failure("the server log shows:\n  " + "\n  ".join(bad[:10]))

    def expect(self, *patterns):
        self.expected.extend(patterns)
        return self


class Session:
    """A connection with short names for what tests do all the time."""

    def __init__(self, server, dbname="postgres", **options):
        self.connection = server.connect(dbname, **options)
        self.cursor = self.connection.cursor()
        self.pid = self.connection.get_backend_pid()
        self._thread = None
        self._outcome = None

    def run(self, sql, parameters=None):
        self.cursor.execute(sql, parameters)
        return self

    def rows(self, sql, parameters=None):
        self.cursor.execute(sql, parameters)
        return self.cursor.fetchall()

    def value(self, sql, parameters=None):
        found = self.rows(sql, parameters)
        return found[0][0] if found else None

    def fails(self, sqlstate, sql, parameters=None):
        """Run a statement that must fail with this SQLSTATE; returns the error."""
        try:
            self.run(sql, parameters)
        except psycopg2.Error as error:
            if error.pgcode != sqlstate:
                raise Failure(f"{sql!r} failed with {error.pgcode}, not {sqlstate}: {error}") from error
            return error
        raise Failure(f"{sql!r} did not fail with {sqlstate}")

    def start(self, sql, parameters=None):
        """Run a statement in the background; finish() returns its rows or raises its error."""
        def work():
            try:
                self.cursor.execute(sql, parameters)
                rows = self.cursor.fetchall() if self.cursor.description else None
                self._outcome = ("rows", rows)
            except BaseException as error:  # handed to finish()
                self._outcome = ("error", error)

        self._outcome = None
        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        return self

    def busy(self):
        return self._thread is not None and self._thread.is_alive()

    def finish(self, deadline=30.0):
        self._thread.join(deadline)
        if self._thread.is_alive():
            raise Failure(f"a statement did not end within {deadline:.0f} s")
        self._thread = None
        kind, outcome = self._outcome
        if kind == "error":
            raise outcome
        return outcome

    def is_terminated_by(self, other):
        """Terminated amid what start() has begun, it ends at once, and with an error."""
        other.run("SELECT pg_terminate_backend(%s)", (self.pid,))
        try:
            self.finish(10)
        except psycopg2.OperationalError:
            return
        raise Failure("a terminated call returned")

    def close(self):
        try:
            self.connection.close()
        except psycopg2.Error:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def is_waiting(server, session, kind=None):
    """Is the session's statement waiting (for a lock, or in wait event `kind`)?"""
    with server.session() as db:
        event = db.rows("SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = %s",
                        (session.pid,))
    if not event:
        return False
    return event[0][0] == "Lock" if kind is None else kind in event[0]


# ---------------------------------------------------------------------------
# Redis
# ---------------------------------------------------------------------------

class RedisGone(Exception):
    pass


class RedisError(Exception):
    pass


class RedisClient:
    """A few lines of the Redis protocol: enough for tests, and independent of the code tested."""

    def __init__(self, path, timeout=5.0):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(path)
        except OSError as error:
            raise RedisGone(str(error)) from error
        self.input = self.socket.makefile("rb")

    def __call__(self, *arguments):
        self.send(*arguments)
        return self.read()

    def send(self, *arguments):
        parts = [b"*%d\r\n" % len(arguments)]
        for argument in arguments:
            data = argument if isinstance(argument, bytes) else str(argument).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        try:
            self.socket.sendall(b"".join(parts))
        except OSError as error:
            raise RedisGone(str(error)) from error

    def read(self):
        try:
            line = self.input.readline()
        except OSError as error:
            raise RedisGone(str(error)) from error
        if not line.endswith(b"\r\n"):
            raise RedisGone("connection closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            data = self.input.read(int(rest) + 2)
            if len(data) != int(rest) + 2:
                raise RedisGone("connection closed")
            return data[:-2]
        if kind == b"*":
            return None if int(rest) < 0 else [self.read() for _ in range(int(rest))]
        raise RedisGone(f"unexpected reply {line!r}")

    def close(self):
        self.input.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Redis:
    """One private Redis.  With `durable`, what it has acknowledged survives SIGKILL."""

    def __init__(self, directory, durable=False, options=()):
        self.directory = fresh_directory(directory)
        self.path = os.path.join(self.directory, "redis.sock")
        self.log = os.path.join(self.directory, "redis.log")
        self.durable = durable
        self.options = list(options)
        self.process = None

    @property
    def url(self):
        return f"unix://{self.path}"

    def start(self, deadline=20.0):
        if os.path.exists(self.path):
            os.unlink(self.path)
        arguments = ["redis-server", "--port", "0", "--unixsocket", self.path,
                     "--unixsocketperm", "777", "--dir", self.directory, "--save", "",
                     "--pidfile", os.path.join(self.directory, "redis.pid"), "--daemonize", "no"]
        if self.durable:
            arguments += ["--appendonly", "yes", "--appendfsync", "always"]
        self.process = popen(arguments + self.options, self.log)

        def answers():
            if self.process.poll() is not None:
                with open(self.log, errors="replace") as text:
                    raise Failure("redis-server did not start:\n" + text.read()[-2000:])
            with self.client() as redis:
                return redis("PING") == "PONG"

        wait_for("Redis answers", answers, deadline)
        return self

    def client(self, timeout=5.0):
        return RedisClient(self.path, timeout)

    def ask(self, *arguments):
        with self.client() as redis:
            return redis(*arguments)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait()

    def forget(self):
        """Throw away what a durable Redis has on disk."""
        shutil.rmtree(os.path.join(self.directory, "appendonlydir"), ignore_errors=True)

    def pause(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        if self.running():
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class FakeRedis:
    """Listens where a Redis would and answers every request with what `reply(request)` gives.

    reply returns bytes to send; None to say nothing; or False to close the connection.
    """

    def __init__(self, directory, reply, name="fake.sock"):
        self.path = os.path.join(make_directory(directory), name)
        self.reply = reply
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o777)
        self.listener.listen(64)
        self.connections = []
        self.requests = 0
        self.closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"unix://{self.path}"

    def _accept(self):
        while not self.closed:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        source = connection.makefile("rb")
        try:
            while True:
                header = source.readline()
                if not header.startswith(b"*"):
                    return
                request = []
                for _ in range(int(header[1:])):
                    length = int(source.readline()[1:])
                    request.append(source.read(length + 2)[:-2])
                self.requests += 1
                answer = self.reply(request)
                if answer is False:
                    return
                if answer is not None:
                    connection.sendall(answer)
        except (OSError, ValueError):
            pass
        finally:
            connection.close()

    def stop(self):
        self.closed = True
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if os.path.exists(self.path):
            os.unlink(self.path)


# ---------------------------------------------------------------------------
# What several scenarios need
# ---------------------------------------------------------------------------

@contextlib.contextmanager
def judged(server, redis=None):
    """Start the server and judge its log at the end of the block; it is ended, and the Redis, however the block ends."""
    try:
        server.start()
        yield server
        server.stop()
        server.check_log()
    finally:
        server.stop("immediate")
        if redis:
            redis.stop()


class Servers:
    """A server with the extension in its database "shop", a Redis or what claims to be one, and sessions that end with them."""

    def __init__(self, name, redis=None, preload=True, environment=None, **settings):
        self.redis = redis
        options = {"cache_ext.redis_url": f"'{redis.url}'"} if redis else {}
        options.update({k.replace("__", "."): v for k, v in settings.items()})
        self.postgres = Postgres(work(name), options, preload, environment)
        self.sessions = []
        self.ending = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as ending:
            ending.enter_context(judged(self.postgres, self.redis))
            ending.callback(self.close_sessions)
            self.create("shop")
            self.ending = ending.pop_all()
        return self

    def create(self, dbname):
        """Create a database as the scenario's tests need it."""
        self.postgres.create_database(dbname)

    def session(self, dbname="shop", **options):
        session = self.postgres.session(dbname, **options)
        self.sessions.append(session)
        return session

    def delivered(self, db):
        wait_for("everything is delivered",
                 lambda: db.value("SELECT pending = 0 FROM invalidation_status"))

    def close_sessions(self):
        for session in self.sessions:
            session.close()

    def __exit__(self, *failure):
        return self.ending.__exit__(*failure)


@contextlib.contextmanager
def amid_writers(server, sql, sessions=3, pause_s=0.01):
    """While the block runs, so many sessions of "shop" repeat a statement, with short pauses."""
    stop = threading.Event()

    def write():
        with server.session("shop") as db:
            while not stop.wait(pause_s):
                db.run(sql)

    writers = [threading.Thread(target=write) for _ in range(sessions)]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def with_shop(name, body, preload=True, redis=True, settings=None, setup=None):
    """Run body(server, redis) with a database "shop" that has the extension and a Redis that keeps its data."""
    real = Redis(work(name + "_redis"), durable=True).start() if redis else None
    with Servers(name, real, preload, **(settings or {})) as servers:
        if setup:
            with servers.postgres.session("shop") as db:
                setup(db)
        body(servers.postgres, real)


APPLICATION_SCHEMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bag_tracking.sql")


def load_application(db):
    """Create the bag-tracking application's tables in the session's database."""
    with open(APPLICATION_SCHEMA) as file:
        db.run(file.read())


def difference_query(relation, query):
    return (
        f"WITH truth AS MATERIALIZED ({query}), answer AS MATERIALIZED (SELECT * FROM {relation})"
        "(SELECT 'missing', to_jsonb(t)::text FROM (TABLE truth EXCEPT ALL TABLE answer) t)"
        " UNION ALL "
        "(SELECT 'extra', to_jsonb(t)::text FROM (TABLE answer EXCEPT ALL TABLE truth) t)")


def difference(db, relation, query):
    """Rows in which a statistic and its query differ, in one statement and so in one snapshot."""
    return db.rows(difference_query(relation, query))


def expect_equal(db, relation, query, when=""):
    found = difference(db, relation, query)
    if found:
        raise Failure(f"{relation} differs from its query {when}:\n  " +
                      "\n  ".join(map(str, found[:10])))


def expect(condition, message):
    if not condition:
        raise Failure(message)

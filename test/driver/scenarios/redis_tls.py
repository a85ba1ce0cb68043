"""Redis over TLS: verified by default, and what cannot be verified is refused and said."""

import os
import shutil
import socket
import subprocess
import threading
import time

import psycopg2
import harness
from harness import Failure, Redis, expect, free_port, make_directory, server_user, wait_for, work

QUERY = "'SELECT 1 AS answer'"
ANSWER = '[{"answer":1}]'


class Authority:
    """Makes certificates; its own is in `file`."""

    def __init__(self, name):
        self.directory = make_directory(work(name))
        self.file = os.path.join(self.directory, "ca.crt")
        self.key = os.path.join(self.directory, "ca.key")
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-keyout", self.key, "-out", self.file, "-subj", "/CN=test authority", "-days", "2")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def certify(self, name, names, days="2"):
        """Returns the files of a certificate for these names and of its key."""
        base = os.path.join(self.directory, name)
        with open(base + ".ext", "w") as file:
            file.write(f"subjectAltName={names}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-keyout", base + ".key", "-out", base + ".csr", "-subj", f"/CN={name}")
        self._openssl("x509", "-req", "-in", base + ".csr", "-CA", self.file, "-CAkey", self.key,
                      "-CAcreateserial", "-out", base + ".crt", "-days", days, "-extfile", base + ".ext")
        for suffix in (".crt", ".key"):
            self.own(base + suffix, 0o600)
        return base + ".crt", base + ".key"

    def own(self, path, mode):
        if server_user():
            shutil.chown(path, server_user())
        os.chmod(path, mode)
        return path


def tls_redis(name, authority, certificate, clients="no"):
    port = free_port()
    redis = Redis(work(name), options=[
        "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-cert-file", certificate[0], "--tls-key-file",
        certificate[1], "--tls-ca-cert-file", authority.file, "--tls-auth-clients", clients])
    authority.own(authority.file, 0o644)
    redis.port = port
    return redis.start()


class Servers(harness.Servers):
    def __init__(self, name, **settings):
        super().__init__(name, cache_ext__memory_size="0", **settings)      # memory would answer for Redis


def point(db, **settings):
    for name, value in settings.items():
        db.run(f"SET cache_ext.{name} = '{value}'")


def refused(db, *reasons, codes=("08001",)):
    """The query answers, and cache_ping says why Redis is not used: for one of the reasons."""
    expect(db.value(f"SELECT cache_get('k', {QUERY})") == ANSWER, f"the query does not answer ({reasons})")
    try:
        db.run("SELECT cache_ping()")
    except psycopg2.Error as error:
        expect(error.pgcode in codes, f"{error.pgcode}: {error}")
        expect(any(reason in str(error) for reason in reasons), f"expected one of {reasons}, but: {error}")
    else:
        raise Failure(f"a Redis was used that should have been refused: {reasons}")


def used(db, redis, key):
    """At the latest when the pause after an earlier failure is over."""
    wait_for(f"{key} is stored",
             lambda: db.value(f"SELECT cache_get('{key}', {QUERY})") and redis.ask("EXISTS", key) == 1)
    expect(db.value(f"SELECT cache_get('{key}')") == ANSWER, f"{key} does not come back")
    expect(db.value("SELECT cache_ping() < interval '10 s'"), "no round trip")


def a_server_is_verified_and_then_used(options):
    authority = Authority("tls_ca")
    other = Authority("tls_other_ca")
    redis = tls_redis("tls_redis", authority, authority.certify("both", "DNS:localhost,IP:127.0.0.1"))
    wrong = tls_redis("tls_wrong", authority, authority.certify("wrong", "DNS:elsewhere.example"))
    expired = tls_redis("tls_expired", authority, authority.certify("expired", "DNS:localhost", days="0"))
    plain = free_port()
    plain_redis = Redis(work("tls_plain"), options=["--port", str(plain), "--bind", "127.0.0.1"]).start()
    try:
        with Servers("tls_pg") as servers, servers.session() as db:
            point(db, redis_tls_ca_file=authority.file, redis_url=f"rediss://localhost:{redis.port}")
            used(db, redis, "by_name")
            status = db.rows("SELECT address, state, breaker, server_version FROM redis_status")
            expect(status[0][:3] == (f"rediss://localhost:{redis.port}", "ready", "closed"), str(status))
            point(db, redis_url=f"rediss://127.0.0.1:{redis.port}")
            used(db, redis, "by_number")
            db.run("SELECT cache_get('large', $$SELECT repeat('x', 900000) AS x$$)")
            expect(db.value("SELECT length(cache_get('large'))") > 900000, "a large value does not come back")

            point(db, redis_tls_ca_file="")
            refused(db, "not trusted")
            point(db, redis_tls_ca_file=other.file)
            refused(db, "not trusted")
            point(db, redis_tls_ca_file="/nowhere/ca.crt")
            refused(db, "could not be read")
            point(db, redis_tls_ca_file=authority.file, redis_url=f"rediss://localhost:{wrong.port}")
            refused(db, "ostname mismatch")
            point(db, redis_url=f"rediss://127.0.0.1:{wrong.port}")
            refused(db, "IP address mismatch")
            point(db, redis_tls_verify="ca")
            used(db, wrong, "any_name")
            point(db, redis_url=f"rediss://localhost:{expired.port}")
            refused(db, "expired")
            point(db, redis_tls_verify="full", redis_url=f"rediss://localhost:{plain}")
            # It answers to a greeting in which, by chance, a line ends, and otherwise waits for that.
            refused(db, "in time", "wrong version number", codes=("08006", "08001"))
            point(db, redis_url=f"redis://localhost:{redis.port}")
            expect(db.value(f"SELECT cache_get('k', {QUERY})") == ANSWER, "plain bytes to a TLS port")
    finally:
        for server in (redis, wrong, expired, plain_redis):
            server.stop()


def a_client_certificate_is_shown_and_its_key_kept(options):
    authority = Authority("mtls_ca")
    redis = tls_redis("mtls_redis", authority, authority.certify("server", "DNS:localhost"), clients="yes")
    certificate, key = authority.certify("client", "DNS:client")
    locked = os.path.join(authority.directory, "locked.key")
    subprocess.run(["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", key, "-out", locked],
                   check=True, stderr=subprocess.DEVNULL)
    authority.own(locked, 0o600)
    try:
        with Servers("mtls_pg") as servers, servers.session() as db:
            point(db, redis_tls_ca_file=authority.file, redis_url=f"rediss://localhost:{redis.port}")
            refused(db, "certificate required", codes=("08006",))
            point(db, redis_tls_certificate_file=certificate)
            refused(db, "needed together")
            authority.own(key, 0o644)
            point(db, redis_tls_key_file=key)
            refused(db, "with mode 0600")
            point(db, redis_tls_key_file=locked)
            refused(db, "without a passphrase")
            authority.own(key, 0o600)
            point(db, redis_tls_key_file=key)
            used(db, redis, "mutual")
    finally:
        redis.stop()


class Stub:
    """Accepts TCP connections and does with each what it is told."""

    def __init__(self, serve):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]
        self.connected = threading.Event()
        self.kept = []
        threading.Thread(target=self._accept, args=(serve,), daemon=True).start()

    def _accept(self, serve):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.kept.append(connection)
            self.connected.set()
            try:
                serve(connection)
            except OSError:
                pass

    def stop(self):
        self.listener.close()


def a_peer_that_does_not_shake_hands_keeps_nobody(options):
    silent = Stub(lambda connection: None)
    rude = Stub(lambda connection: (connection.recv(65536), connection.close()))

    def trickle(connection):
        def send():
            try:
                while True:
                    connection.sendall(b"\x16")
                    time.sleep(0.05)
            except OSError:
                pass
        threading.Thread(target=send, daemon=True).start()

    slow = Stub(trickle)
    with Servers("tls_silent_pg", cache_ext__connect_timeout="'300ms'") as servers:
        with servers.session() as db, servers.session() as other:
            for stub, because in ((silent, "in time"), (rude, "closed the connection"), (slow, "")):
                started = time.monotonic()
                point(db, redis_url=f"rediss://localhost:{stub.port}")
                expect(db.value(f"SELECT cache_get('k', {QUERY})") == ANSWER, "the query does not answer")
                expect(time.monotonic() - started < 3, f"waited {time.monotonic() - started:.1f} s")
                expect(because in db.value("SELECT last_error FROM redis_status"), because)
            point(db, connect_timeout="30s", redis_url=f"rediss://127.0.0.1:{silent.port}/1")
            db.run("SET statement_timeout = '200ms'")
            db.fails("57014", f"SELECT cache_get('k', {QUERY})")
            db.run("SET statement_timeout = 0")
            silent.connected.clear()
            db.start("SELECT cache_ping()")    # which waits for no pause
            silent.connected.wait(10)
            db.is_terminated_by(other)
    for stub in (silent, rude, slow):
        stub.stop()


TESTS = [
    a_server_is_verified_and_then_used,
    a_client_certificate_is_shown_and_its_key_kept,
    a_peer_that_does_not_shake_hands_keeps_nobody,
]

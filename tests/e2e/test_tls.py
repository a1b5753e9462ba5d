"""TLS for clients: who gets in, who does not, and that nothing of it changes what a connection says."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from iris_client import _protocol as p
from support.authority import Authority, certs, openssl
from support.client import Client, Closed
from support.server import Server, iris
from support.wait import PATIENCE, until

MakeServer = Callable[..., Server]

LISTEN = {"IRIS_LISTEN__TLS": "127.0.0.1:0"}


def trusting(ca: Path, version: str = "") -> ssl.SSLContext:
    """Return a client's context that trusts a CA, for one version or all."""
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["iris/1"])
    if version:
        only = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        context.minimum_version = context.maximum_version = only
    return context


def login(server: Server, context: ssl.SSLContext, user: str, **options: object) -> Client:
    """Return a live connection by TLS."""
    client = Client(server.tls, tls=context, **options)
    return client.login(user, server.token(user))


def failed(server: Server, reason: str) -> int:
    """Return how many handshakes failed for that reason."""
    return int(server.metrics().sum("iris_tls_handshakes_failed_total", reason=reason))


@pytest.fixture
def secured(make_server: MakeServer) -> Server:
    """Return a server with the certificate that --dev makes."""
    return make_server(LISTEN).start()


def ca_of(server: Server) -> Path:
    """Return the CA that --dev made."""
    return server.data / "dev-ca.pem"


def s_client(server: Server, *args: str) -> str:
    """Return what openssl says of a connection that is closed at once."""
    host, port = server.tls
    done = openssl("s_client", "-connect", f"{host}:{port}", "-CAfile", str(ca_of(server)), "-servername", "localhost",
                   "-verify_return_error", *args)  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_openssl_connects_and_gets_the_protocol_of_iris(secured: Server, version: str) -> None:
    said = s_client(secured, f"-tls1_{version[-1]}", "-alpn", "h2,iris/1")
    assert "ALPN protocol: iris/1" in said and "Verify return code: 0 (ok)" in said, said
    assert f"TLSv{version}, Cipher is" in said, said


@pytest.mark.parametrize(
    ("reason", "args"),
    [
        ("version", ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]),
        ("version", ["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"]),
        ("incompatible", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA"]),
        ("incompatible", ["-tls1_2", "-cipher", "AES128-GCM-SHA256"]),
        ("incompatible", ["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"]),
        ("alpn", ["-alpn", "h2"]),
    ],
)
def test_old_versions_weak_suites_and_other_protocols_are_refused(
    secured: Server, reason: str, args: list[str]
) -> None:
    said = s_client(secured, *args)
    assert "alert" in said and "No ALPN negotiated" in said, said
    until(lambda: failed(secured, reason) == 1, f"it counts as {reason}")
    until(lambda: secured.metrics().closed("tls") == 1, "it is closed")


def read(client: Client, count: int) -> list[p.Delivery]:
    """Take so many messages and acknowledge each, so that the window of bytes stays open."""
    got: list[p.Delivery] = []
    while len(got) < count:
        got += client.take(1)
        client.ack(got[-1].no)
    return got


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_messages_go_back_and_forth_by_tls_and_in_the_clear(secured: Server, version: str) -> None:
    context = trusting(ca_of(secured), version)
    with login(secured, context, "a") as a, secured.login("b") as b:
        assert isinstance(a.socket, ssl.SSLSocket)
        assert a.socket.selected_alpn_protocol() == "iris/1" and a.socket.version() == f"TLSv{version}"
        large = [bytes([number]) * 65_000 for number in range(40)]
        for payload in large:
            a.send("b", payload)
        for number in range(len(large)):
            assert a.answer(number) == "accepted"
        assert [delivery.payload for delivery in read(b, len(large))] == large
        for payload in large:
            assert b.ask("a", payload) == "accepted"
        assert [delivery.payload for delivery in read(a, len(large))] == large
    metrics = secured.metrics()
    assert metrics.sum("iris_tls_handshakes_total", kind="full") == 1
    until(lambda: secured.metrics().sum("iris_tls_connections") == 0, "the connection is gone")


class Cut:
    """A client by TLS whose records are cut into segments as a test likes."""

    def __init__(self, server: Server, context: ssl.SSLContext, cut: int) -> None:
        self.socket = socket.create_connection(server.tls, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.cut = cut
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.reader = p.FrameReader()
        self.frames: list[object] = []
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self.incoming.write(self.socket.recv(1 << 16))

    def __enter__(self) -> Cut:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Send what is sealed, so many bytes at a time."""
        data = self.outgoing.read()
        for at in range(0, len(data), self.cut):
            self.socket.sendall(data[at : at + self.cut])

    def say(self, data: bytes, record: int) -> None:
        """Seal bytes in records of that size, and send them."""
        for at in range(0, len(data), record):
            self.tls.write(data[at : at + record])
        self.flush()

    def hear(self, count: int) -> list[object]:
        """Wait for that many frames and take them."""
        while len(self.frames) < count:
            try:
                data = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self.incoming.write(self.socket.recv(1 << 16))
                continue
            assert data, "closed"
            self.frames += [p.decode_server(kind, body) for kind, body in self.reader.feed(data)]
        return [self.frames.pop(0) for _ in range(count)]


@pytest.mark.parametrize("version", ["1.3", "1.2"])
@pytest.mark.parametrize(("cut", "record"), [(1, 1 << 14), (1 << 20, 1), (7, 3), (1 << 20, 1 << 14)])
def test_records_may_be_cut_and_joined_as_the_network_likes(
    secured: Server, version: str, cut: int, record: int
) -> None:
    with Cut(secured, trusting(ca_of(secured), version), cut) as one:
        one.say(p.encode_hello("u", "", secured.token("u"), 16), record)
        (welcome,) = one.hear(1)
        assert isinstance(welcome, p.Welcome)
        one.say(b"".join(p.encode_ping(bytes([number]) * 8) for number in range(50)), record)
        pongs = one.hear(50)
        assert [pong.echo for pong in pongs if isinstance(pong, p.Pong)] == [bytes([n]) * 8 for n in range(50)]


def own_certificate(home: Path) -> tuple[Path, Path, Path]:
    """Return a CA and a certificate for localhost with its key."""
    authority = Authority(home / "pki")
    return authority.cert, *authority.issue("localhost", "DNS:localhost")


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_a_client_resumes_on_another_process_with_the_same_secret_and_on_no_other(
    make_server: MakeServer, tmp_path: Path, version: str
) -> None:
    ca, cert, key = own_certificate(tmp_path)
    files = [tmp_path / "secrets-1", tmp_path / "secrets-2"]
    for file in files:
        file.write_text(secrets.token_hex(32) + "\n")
    env = {**LISTEN, "IRIS_TLS__CERTS": certs((cert, key))}
    one, two, other = (
        make_server({**env, "IRIS_TLS__TICKET_SECRETS": str(file)}).start() for file in (files[0], *files)
    )
    context = trusting(ca, version)

    def session_of(client: Client) -> ssl.SSLSession:
        client.sync()
        assert isinstance(client.socket, ssl.SSLSocket) and client.socket.session
        return client.socket.session

    with login(one, context, "u") as first:
        assert not first.socket.session_reused
        session = session_of(first)
    with login(two, context, "u", session=session) as second:
        assert second.socket.session_reused
        assert second.ask("u", b"resumed") == "accepted"
        session = session_of(second)
    assert two.metrics().sum("iris_tls_handshakes_total", kind="resumed") == 1
    with login(other, context, "u", session=session) as third:
        assert not third.socket.session_reused
    # The other one learns the secret of the first two, after its own.
    files[1].write_text(files[1].read_text() + files[0].read_text())
    hang_up(other, "TLS files loaded again", 1)
    with login(other, context, "u", session=session) as fourth:
        assert fourth.socket.session_reused
    for server in (one, two, other):
        assert files[0].read_text().strip() not in server.log()


def hang_up(server: Server, words: str, count: int) -> None:
    """Send SIGHUP and wait for what the log says of it."""
    assert server.process
    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.log().count(words) == count, f"it says {words!r}")


def test_certificates_are_loaded_again_without_a_dropped_connection_and_bad_ones_are_not_used(
    make_server: MakeServer, tmp_path: Path
) -> None:
    ca, cert, key = own_certificate(tmp_path)
    used = (tmp_path / "used.pem", tmp_path / "used-key.pem")

    def use(pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, used, strict=True):
            shutil.copy(source, target)

    use((cert, key))
    server = make_server({**LISTEN, "IRIS_TLS__CERTS": certs(used)}).start()
    context = trusting(ca)

    def shown() -> bytes:
        with login(server, context, "probe") as probe:
            assert isinstance(probe.socket, ssl.SSLSocket)
            return probe.socket.getpeercert(binary_form=True) or b""

    expiry = server.metrics().sum("iris_tls_certificate_expiry_timestamp_seconds")
    with login(server, context, "u") as old:
        before = shown()
        used[1].write_text("rubbish")
        hang_up(server, "the old ones stay in use", 1)
        assert shown() == before and old.ask("u", b"1") == "accepted"
        next_pair = Authority.issue(_authority(ca), "next", "DNS:localhost")
        shutil.copy(next_pair[0], used[0])
        shutil.copy(key, used[1])
        hang_up(server, "does not fit", 1)
        assert shown() == before
        use(next_pair)
        hang_up(server, "TLS files loaded again", 1)
        after = shown()
        assert after != before and old.ask("u", b"2") == "accepted"
    metrics = server.metrics()
    assert metrics.sum("iris_tls_reloads_total", result="failed") == 2
    assert metrics.sum("iris_tls_reloads_total", result="ok") == 1
    assert metrics.sum("iris_tls_certificate_expiry_timestamp_seconds") >= expiry > 0


def _authority(ca: Path) -> Authority:
    """Return the CA of an existing certificate."""
    authority = Authority.__new__(Authority)
    authority.home, authority.cert, authority.key = ca.parent, ca, ca.with_name("ca-key.pem")
    return authority


def test_what_is_no_tls_is_closed_and_counted(secured: Server) -> None:
    for number, garbage in enumerate([b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(9), bytes(64)], 1):
        with socket.create_connection(secured.tls, PATIENCE) as stranger:
            stranger.sendall(garbage)
            assert stranger.recv(7)[:1] == b"\x15", "an alert"
            assert stranger.recv(1) == b""
        until(lambda: failed(secured, "garbage") == number, "it is counted")  # noqa: B023 - used at once
    plain = Client(secured.tls)
    plain.hello("u", secured.token("u"))
    until(lambda: failed(secured, "plain") == 1, "a client in the clear is told apart")
    assert plain.socket.recv(1) == b"\x15"
    plain.close()
    with socket.create_connection(secured.tls, PATIENCE):
        pass
    until(lambda: failed(secured, "closed") == 1, "who leaves is counted")
    # The other way round.
    with pytest.raises(ssl.SSLError):
        Client(secured.tcp, tls=trusting(ca_of(secured)))
    with login(secured, trusting(ca_of(secured)), "u") as u:
        assert u.ask("u") == "accepted"


def test_a_client_that_does_not_trust_the_certificate_says_so(secured: Server) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(secured.tls, tls=ssl.create_default_context())
    until(lambda: failed(secured, "alert") == 1, "it is counted")


def test_both_sides_say_goodbye(secured: Server) -> None:
    context = trusting(ca_of(secured))
    with login(secured, context, "u") as leaving:
        assert isinstance(leaving.socket, ssl.SSLSocket)
        leaving.socket.unwrap()
    with login(secured, context, "u") as first, login(secured, context, "u") as second:
        assert isinstance(first.socket, ssl.SSLSocket)
        # A stream that ends without a goodbye would be an error now.
        first.socket.suppress_ragged_eofs = False
        assert first.end() == "replaced"
        assert second.ask("u") == "accepted"


def test_a_handshake_that_stays_incomplete_is_closed_by_the_login_timeout(make_server: MakeServer) -> None:
    server = make_server({**LISTEN, "IRIS_REACTOR__LOGIN_TIMEOUT": "2s"}).start()
    with (
        socket.create_connection(server.tls, PATIENCE) as silent,
        socket.create_connection(server.tls, PATIENCE) as slow,
    ):
        slow.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert silent.recv(1) == b"" and slow.recv(1) == b""
    assert failed(server, "timeout") == 2
    assert server.metrics().closed("login_timeout") == 2


def test_names_pick_certificates(make_server: MakeServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    first = authority.issue("one", "DNS:one.example", "rsa")
    second = authority.issue("two", "DNS:two.example,DNS:*.two.example")
    server = make_server({**LISTEN, "IRIS_TLS__CERTS": certs(first, second)}).start()
    context = trusting(authority.cert)
    for name in ("one.example", "two.example", "x.two.example"):
        login(server, context, "u", name=name).close()
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(server.tls, tls=context, name="three.example")


def by_certificate(context: ssl.SSLContext, pair: tuple[Path, Path]) -> ssl.SSLContext:
    """Have a context show a certificate."""
    context.load_cert_chain(*map(str, pair))
    return context


def test_a_certificate_logs_its_user_in_and_no_other(make_server: MakeServer, tmp_path: Path) -> None:
    ca, cert, key = own_certificate(tmp_path)
    clients = Authority(tmp_path / "clients")
    alice = clients.issue("alice", "URI:iris:user/alice,DNS:ignored")
    nameless = clients.issue("nameless", "DNS:alice")
    stranger = Authority(tmp_path / "strangers").issue("alice", "URI:iris:user/alice")
    server = make_server(
        {
            **LISTEN,
            "IRIS_TLS__CERTS": certs((cert, key)),
            "IRIS_TLS__CLIENT_AUTH": "optional",
            "IRIS_TLS__CLIENT_CA": str(clients.cert),
            "IRIS_TLS__CLIENT_USER": "uri",
            "IRIS_TLS__CLIENT_USER_PREFIX": "iris:user/",
        }
    ).start()

    def refused(context: ssl.SSLContext, user: str, token: str) -> str | None:
        with Client(server.tls, tls=context) as client, pytest.raises(Closed) as closed:
            client.login(user, token)
        return closed.value.code

    known = by_certificate(trusting(ca), alice)
    with Client(server.tls, tls=known).login("", "") as client:
        assert client.welcome and client.welcome.user == "alice"
        assert client.ask("alice", b"to myself") == "accepted"
        session = client.socket.session
    # A ticket brings the certificate back.
    with Client(server.tls, tls=known, session=session).login("alice", "") as client:
        assert client.socket.session_reused and client.welcome and client.welcome.waiting == 1
    login(server, known, "alice").close()
    assert refused(known, "bob", "") == "token_subject"
    assert refused(known, "bob", server.token("bob")) == "token_subject"
    assert refused(by_certificate(trusting(ca), nameless), "alice", "") == "token_missing"
    login(server, by_certificate(trusting(ca), nameless), "bob").close()
    login(server, trusting(ca), "bob").close()
    assert refused(trusting(ca), "alice", "") == "token_missing"
    with pytest.raises((ssl.SSLError, ConnectionError, Closed)):
        login(server, by_certificate(trusting(ca), stranger), "alice")
    until(lambda: failed(server, "certificate") == 1, "a stranger's certificate is counted")


def test_a_certificate_may_be_required(make_server: MakeServer, tmp_path: Path) -> None:
    ca, cert, key = own_certificate(tmp_path)
    clients = Authority(tmp_path / "clients")
    known = by_certificate(trusting(ca), clients.issue("any", "DNS:any"))
    server = make_server(
        {
            **LISTEN,
            "IRIS_TLS__CERTS": certs((cert, key)),
            "IRIS_TLS__CLIENT_AUTH": "required",
            "IRIS_TLS__CLIENT_CA": str(clients.cert),
        }
    ).start()
    with login(server, known, "u") as u:
        assert u.ask("u") == "accepted"
    with pytest.raises((ssl.SSLError, ConnectionError, Closed)):
        login(server, trusting(ca), "u")
    until(lambda: failed(server, "certificate_missing") == 1, "it is counted")


def test_a_storm_of_handshakes_is_shed_and_live_clients_are_served(make_server: MakeServer) -> None:
    server = make_server(
        {
            **LISTEN,
            "IRIS_REACTOR__COUNT": "1",
            "IRIS_TLS__HANDSHAKES_PER_TURN": "1",
            "IRIS_TLS__HANDSHAKES_WAITING": "4",
        }
    ).start()
    context = trusting(ca_of(server))
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    with login(server, context, "live") as live:

        def storm() -> bool:
            crowd = [socket.create_connection(server.tls, PATIENCE) for _ in range(64)]
            for one in crowd:
                one.sendall(hello)
            assert live.ask("live", b"x") == "accepted"
            for one in crowd:
                one.close()
            return failed(server, "full") > 0

        until(storm, "some are shed")
        until(lambda: server.metrics().sum("iris_tls_handshakes_waiting") == 0, "nobody waits any more")
        until(lambda: server.metrics().sum("iris_tls_connections") == 1, "one is left")
    assert server.metrics().closed("handshakes_full") == failed(server, "full")
    login(server, context, "later").close()


def test_check_says_how_long_certificates_are_valid_and_what_does_not_fit(tmp_path: Path) -> None:
    _, cert, key = own_certificate(tmp_path)
    other = _authority(tmp_path / "pki" / "ca.pem").issue("other", "DNS:other")
    config = tmp_path / "iris.toml"

    def check(pair: tuple[Path, Path], more: str = "") -> tuple[int, str]:
        text = '[listen]\ntcp = ""\ntls = "127.0.0.1:7443"\n[tls]\n'
        config.write_text(text + f"certs = {certs(pair)}\n{more}")
        done = iris("check", "--dev", "--config", str(config))
        return done.returncode, done.stdout

    code, said = check((cert, key))
    # Twenty in the second in which it is made.
    assert code == 0 and re.search(r"certificate for localhost: valid for (19|20) more days", said), said
    code, said = check((cert, other[1]))
    assert code == 1 and "iris.toml:5: tls.certs" in said and "does not fit" in said, said
    code, said = check((cert, key), 'client_auth = "required"\nticket_secrets = "iris.toml"\n')
    assert code == 1 and "tls.client_ca" in said, said
    code, said = check((cert, key), 'ticket_secrets = "iris.toml"\n')
    assert code == 1 and "line 1 is not 64 hexadecimal digits" in said, said

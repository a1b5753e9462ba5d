"""Each bad input ends that connection, for a reason that is named to the client and counted; nobody else notices."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest
from iris_client import _protocol as p
from support import ids, tokens
from support.client import Client, Closed
from support.server import Server
from support.wait import until
from support.witness import Witness

ENV = {"IRIS_REACTOR__SLOW_TIMEOUT": "5s"}

TLS_CLIENT_HELLO = bytes.fromhex("16030102000100 01fc0303") + bytes(range(256)) * 2
HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"


@pytest.fixture(autouse=True)
def _the_witness_goes_on(witness: Witness) -> Iterator[None]:
    yield
    witness.check()


def assert_ends(shared: Server, client: Client, code: str | None, reason: str | None = None) -> None:
    """The server ends this connection with that code (None: without one) and counts that reason, once."""
    reason = reason or code
    assert reason
    said = client.end()
    client.close()
    assert said == code
    gone(shared, client)


def gone(shared: Server, client: Client) -> None:
    """The kernel's socket on the server's side is closed, too."""
    port = client.address[1]
    open_states = ("01", "08")  # ESTABLISHED, CLOSE_WAIT (include/net/tcp_states.h)

    def is_gone() -> bool:
        return not any(p == port and state in open_states for p, state in shared.sockets())

    until(is_gone, "the server has closed its socket")


class Counts:
    """How far the counters of reasons moved, from when only the witness was connected."""

    def __init__(self, server: Server) -> None:
        self.server = server
        until(lambda: server.metrics().sum("iris_connections") == 2, "those of earlier tests are gone")
        self.before = self.read()

    def read(self) -> dict[str, float]:
        values = self.server.metrics().values
        return {
            dict(labels)["reason"]: value
            for (name, labels), value in values.items()
            if name == "iris_connections_closed_total"
        }

    def moved(self) -> dict[str, int]:
        now = self.read()
        return {r: int(now[r] - self.before[r]) for r in now if now[r] != self.before[r]}

    def assert_only(self, reason: str, count: int = 1) -> None:
        until(lambda: sum(self.moved().values()) >= count, f"{count} ended as {reason}")
        assert self.moved() == {reason: count}


@pytest.fixture
def counts(shared: Server, witness: Witness) -> Counts:
    return Counts(shared)


def hello_body(
    *,
    magic: bytes = b"IRIS",
    versions: tuple[int, int] = (1, 1),
    user: bytes = b"",
    device: bytes = b"",
    token: bytes = b"",
    window: int = 16,
) -> bytes:
    head = magic + struct.pack("<BBHI", *versions, 0, window)
    texts = bytes((len(user),)) + user + bytes((len(device),)) + device
    return head + texts + struct.pack("<H", len(token)) + token


# ---- strangers

STRANGERS = {
    "random bytes": (b"\x93\x5f\x00\x00" + b"\xa7\x13" * 40, "garbage"),
    "the start of a frame that is no HELLO": (b"\x02", "garbage"),
    "the start of wrong magic": (b"\x01\x20\x00\x00IRC", "garbage"),
    "an HTTP request": (HTTP, "oversize"),
    "a TLS ClientHello": (TLS_CLIENT_HELLO, "oversize"),
    "an SSH banner": (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "oversize"),
    "a Redis PING": (b"*1\r\n$4\r\nPING\r\n", "oversize"),
    "zeros": (bytes(64), "garbage"),
    "all bits set": (b"\xff" * 64, "oversize"),
    "an unknown type": (p.frame(0x3F, b""), "garbage"),
    "an ignorable type": (p.frame(0x80, b"x"), "out_of_order"),
    "a server's frame": (p.frame(p.WELCOME, bytes(60)), "garbage"),
    "an empty HELLO": (p.frame(p.HELLO, b""), "garbage"),
    "wrong magic": (p.frame(p.HELLO, hello_body(magic=b"MQTT")), "garbage"),
    "an oversize length": (bytes((p.HELLO,)) + (131_073).to_bytes(3, "little"), "oversize"),
    "the largest length": (bytes((p.HELLO,)) + b"\xff\xff\xff", "oversize"),
    "a HELLO longer than any": (bytes((p.HELLO,)) + (131_072).to_bytes(3, "little") + b"I", "garbage"),
    "SEND before HELLO": (p.encode_send(0, ids.now(), 0, b"\x01a", 1, b""), "out_of_order"),
    "PING before HELLO": (p.encode_ping(bytes(8)), "out_of_order"),
    "ACK before HELLO": (p.encode_ack(1), "out_of_order"),
    "versions 2 to 9": (p.frame(p.HELLO, hello_body(versions=(2, 9))), "version"),
    "version 0": (p.frame(p.HELLO, hello_body(versions=(0, 0))), "version"),
    "versions the wrong way round": (p.frame(p.HELLO, hello_body(versions=(2, 1))), "malformed"),
    "a user of 129 bytes": (p.frame(p.HELLO, hello_body(user=b"u" * 129)), "malformed"),
    "a device of 65 bytes": (p.frame(p.HELLO, hello_body(device=b"d" * 65)), "malformed"),
    "a token of 4097 bytes": (p.frame(p.HELLO, hello_body(token=b"t" * 4097)), "malformed"),
    "a user that is not UTF-8": (p.frame(p.HELLO, hello_body(user=b"\xff\xfe")), "malformed"),
    "a HELLO cut short": (p.frame(p.HELLO, hello_body(user=b"u")[:-1]), "malformed"),
    "a byte behind HELLO": (p.frame(p.HELLO, hello_body(user=b"u") + b"!"), "malformed"),
    "no token": (p.frame(p.HELLO, hello_body(user=b"u")), "token_missing"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_a_stranger_is_refused_by_name(shared: Server, counts: Counts, what: str) -> None:
    data, code = STRANGERS[what]
    with shared.connect() as client:
        client.raw(data)
        assert_ends(shared, client, code)
    counts.assert_only(code)


@pytest.mark.parametrize("what", ["an HTTP request", "random bytes", "an oversize length"])
def test_a_stranger_who_sends_byte_by_byte_is_refused_at_the_first_fault_seen(
    shared: Server, counts: Counts, what: str
) -> None:
    data, _ = STRANGERS[what]
    with shared.connect() as client:
        try:
            for byte in data:
                client.raw(bytes((byte,)))
        except ConnectionError:
            pass  # It was refused before the last byte.
        client.end()
        gone(shared, client)
    until(counts.moved, "the end is counted")
    assert counts.moved() in ({"garbage": 1}, {"oversize": 1})


def test_a_stranger_who_floods_is_cut_off_at_once(shared: Server, counts: Counts) -> None:
    with shared.connect() as client:
        try:
            for _ in range(256):
                client.raw(b"\xff" * 65_536)
            client.end()
        except ConnectionError:
            pass
        gone(shared, client)
    counts.assert_only("oversize")


# ---- tokens


def test_forged_expired_and_foreign_tokens_are_refused_each_by_its_name(
    shared: Server, witness: Witness
) -> None:
    now = int(time.time())
    key = shared.key
    sound = {"sub": "mallory", "exp": now + 600}
    header, body, signature = tokens.sign(key, sound).split(".")
    flipped = ("B" if signature[0] != "B" else "C") + signature[1:]
    other = tokens.b64url(b'{"sub": "root", "exp": 99999999999}')
    cases = {
        "signed with another key": (tokens.sign(b"k" * 32, sound), "token_signature", None),
        "a flipped signature": (f"{header}.{body}.{flipped}", "token_signature", None),
        "another's claims": (f"{header}.{other}.{signature}", "token_signature", None),
        "no signature": (f"{header}.{body}.", "token_signature", None),
        "expired": (tokens.sign(key, {**sound, "exp": now - 1}), "token_expired", None),
        "alg none": (tokens.unsigned("mallory"), "token_malformed", None),
        "alg None": (tokens.unsigned("mallory", "None"), "token_malformed", None),
        "not yet": (tokens.sign(key, {**sound, "nbf": now + 600}), "token_not_yet", None),
        "no exp": (tokens.sign(key, {"sub": "mallory"}), "token_malformed", "token_claims"),
        "exp a text": (tokens.sign(key, {**sound, "exp": "never"}), "token_malformed", "token_claims"),
        "no sub": (tokens.sign(key, {"exp": now + 600}), "token_subject", None),
        "an empty sub": (tokens.sign(key, {**sound, "sub": ""}), "token_subject", None),
        "a sub of 129 bytes": (tokens.sign(key, {**sound, "sub": "s" * 129}), "token_subject", None),
        "a control character": (tokens.sign(key, {**sound, "sub": "a\nb"}), "token_subject", None),
        "HS512": (
            tokens.sign(key, sound, {"alg": "HS512", "typ": "JWT"}),
            "token_key_unknown",
            "token_algorithm",
        ),
        "an unknown kid": (
            tokens.sign(key, sound, {"alg": "HS256", "kid": "x"}),
            "token_key_unknown",
            None,
        ),
        "a critical extension": (
            tokens.sign(key, sound, {"alg": "HS256", "crit": ["b64"], "b64": False}),
            "token_malformed",
            None,
        ),
        "two parts": (f"{header}.{body}", "token_malformed", None),
        "five parts": ("a.b.c.d.e", "token_malformed", None),
        "no JSON": ("YQ.Yg.Yw", "token_malformed", None),
        "of 4096 bytes": ("x" * 4096, "token_malformed", None),
    }
    for what, (token, code, reason) in cases.items():
        counts = Counts(shared)
        with shared.connect() as client:
            client.hello("", token)
            assert client.end() == code, what
        counts.assert_only(reason or code)


def test_a_token_of_another_user_does_not_open_ones_inbox(shared: Server, counts: Counts) -> None:
    with shared.connect() as client:
        client.hello("victim", shared.token("mallory"))
        assert_ends(shared, client, "token_subject")
    counts.assert_only("token_subject")


def test_a_token_that_expires_while_connected_ends_the_connection(
    shared: Server, counts: Counts
) -> None:
    client, expires = brief_login(shared)
    with client:
        assert client.welcome and client.welcome.token_expires_s == expires
        with pytest.raises((Closed, ConnectionError)):
            while True:
                client.sync()  # Traffic does not keep it alive.
        assert expires <= time.time()
        assert client.error is None or p.code_name(client.error.code) == "token_expired"
    until(lambda: counts.moved().get("session_expired") == 1, "it is counted")


def brief_login(shared: Server) -> tuple[Client, int]:
    """A client whose token expires soon, yet not before this machine has logged it in; and when that is."""
    for life in (2, 8, 30):
        expires = int(time.time()) + life
        client = shared.connect()
        try:
            return client.login("brief", tokens.sign(shared.key, {"sub": "brief", "exp": expires})), expires
        except Closed:
            client.close()
    raise AssertionError("no token lives long enough to log in")


def test_a_token_that_never_ends_is_as_good_as_any(shared: Server) -> None:
    for exp in (2**63, 2**64 - 1, 1e300):
        with shared.connect() as client:
            client.login("eternal", tokens.sign(shared.key, {"sub": "eternal", "exp": exp}))
            client.sync()


# ---- clients who logged in


def names(*raw: bytes) -> bytes:
    return b"".join(bytes((len(name),)) + name for name in raw)


def send_body(count: int, raw_names: bytes, payload: bytes = b"", seq: int = 0) -> bytes:
    return struct.pack("<I16sBH", seq, ids.now(), 0, count) + raw_names + payload


def sends(*seqs: int) -> bytes:
    return b"".join(p.frame(p.SEND, send_body(1, names(b"counted"), seq=seq)) for seq in seqs)


LOGGED_IN = {
    "HELLO twice": (p.encode_hello("", "", "x.y.z", 1), "out_of_order"),
    "an unknown type": (p.frame(0x3F, b"abc"), "unknown_type"),
    "type zero": (p.frame(0, b""), "unknown_type"),
    "a server's frame": (p.frame(p.MESSAGE, bytes(40)), "unknown_type"),
    "an oversize length": (bytes((p.SEND,)) + (131_073).to_bytes(3, "little"), "oversize"),
    "an oversize ignorable": (b"\x80\xff\xff\xff", "oversize"),
    "an ACK of what never came": (p.encode_ack(1), "bad_ack"),
    "an ACK of everything": (p.encode_ack(2**32 - 1), "bad_ack"),
    "a SEND number left out": (sends(7, 8, 10), "bad_seq"),
    "a SEND number again": (sends(7, 8, 8), "bad_seq"),
    "a SEND number behind": (sends(0, 2**32 - 1), "bad_seq"),
    "an ACK of three bytes": (p.frame(p.ACK, b"abc"), "malformed"),
    "an ACK of five bytes": (p.frame(p.ACK, b"abcde"), "malformed"),
    "a WINDOW of five bytes": (p.frame(p.WINDOW, b"abcde"), "malformed"),
    "a PING of seven bytes": (p.frame(p.PING, bytes(7)), "malformed"),
    "a PONG of eight bytes": (p.frame(p.PONG, bytes(8)), "malformed"),
    "a SEND of one byte": (p.frame(p.SEND, b"x"), "malformed"),
    "a SEND to nobody": (p.frame(p.SEND, send_body(0, b"")), "malformed"),
    "a SEND to 257": (p.frame(p.SEND, send_body(257, names(*[b"u"] * 257))), "malformed"),
    "a SEND to 65535": (p.frame(p.SEND, send_body(65_535, names(b"u"))), "malformed"),
    "a SEND to fewer than it says": (p.frame(p.SEND, send_body(3, names(b"u", b"v"))), "malformed"),
    "a name of no bytes": (p.frame(p.SEND, send_body(1, b"\0")), "malformed"),
    "a name of 129 bytes": (p.frame(p.SEND, send_body(1, names(b"n" * 129))), "malformed"),
    "a name beyond its frame": (p.frame(p.SEND, send_body(1, b"\x80abc")), "malformed"),
    "a name that is not UTF-8": (p.frame(p.SEND, send_body(1, names(b"\xc3\x28"))), "malformed"),
    "a surrogate in a name": (p.frame(p.SEND, send_body(1, names(b"\xed\xa0\x80"))), "malformed"),
    "query number 0": (
        p.frame(p.PRESENCE_QUERY, struct.pack("<IBH", 0, 0, 1) + names(b"u")),
        "malformed",
    ),
    "a query for nobody": (p.frame(p.PRESENCE_QUERY, struct.pack("<IBH", 1, 0, 0)), "malformed"),
    "a query for 257": (
        p.frame(
            p.PRESENCE_QUERY,
            struct.pack("<IBH", 1, 1, 257) + names(*[b"%d" % i for i in range(257)]),
        ),
        "malformed",
    ),
    "an UNWATCH of 257": (
        p.frame(p.UNWATCH, struct.pack("<H", 257) + names(*[b"%d" % i for i in range(257)])),
        "malformed",
    ),
}


@pytest.mark.parametrize("what", LOGGED_IN)
def test_a_client_who_breaks_a_rule_is_told_which(shared: Server, counts: Counts, what: str) -> None:
    data, code = LOGGED_IN[what]
    with shared.login("rulebreaker") as client:
        client.raw(data)
        assert_ends(shared, client, code)
    counts.assert_only(code)
    for name in ("u", "v"):
        with shared.login(name) as client:
            assert client.welcome and client.welcome.waiting == 0, "nothing of it was stored"


def test_an_ignorable_type_is_skipped_and_the_connection_lives(shared: Server) -> None:
    with shared.login("modern") as client:
        for kind in (0x80, 0xC1, 0xFF):
            client.raw(p.frame(kind, b"from the future" * 10))
        client.raw(p.frame(0x9A, bytes(131_072)))
        client.sync()
        assert client.ask("modern", b"x") == "accepted"
        client.ack(client.take(1)[0].no)
        client.sync()


def test_anything_between_hello_and_welcome_is_out_of_order(shared: Server, counts: Counts) -> None:
    with shared.connect() as client:
        hello = p.encode_hello("hasty", "", shared.token("hasty"), 16)
        client.raw(hello + p.encode_send(0, ids.now(), 0, names(b"hasty"), 1, b"too soon"))
        assert_ends(shared, client, "out_of_order")
    counts.assert_only("out_of_order")
    with shared.login("hasty") as client:
        assert client.welcome and client.welcome.waiting == 0


def test_one_send_too_many_unanswered_ends_the_connection(shared: Server, counts: Counts) -> None:
    with shared.login("pushy") as client:
        assert client.welcome
        window = client.welcome.send_window
        # In one piece, many times what the server takes at once, so that no answer can come between all of it.
        burst = b"".join(
            p.encode_send(seq, ids.now(), 0, names(b"pushy-to"), 1, b"") for seq in range(window * 64)
        )
        try:
            client.raw(burst)
        except ConnectionError:
            pass
        client.end()
    counts.assert_only("send_window")


def test_a_payload_too_large_is_refused_and_the_connection_lives(shared: Server) -> None:
    before = shared.metrics().rejected("payload_too_large")
    with shared.login("large") as client:
        assert client.ask("large", bytes(65_537)) == "payload_too_large"
        assert client.ask("large", bytes(100_000)) == "payload_too_large"
        assert client.ask("large", b"z" * 65_536) == "accepted"
        (delivery,) = client.take(1)
        assert delivery.payload == b"z" * 65_536
        client.ack(delivery.no)
        client.sync()
    assert shared.metrics().rejected("payload_too_large") == before + 2


def test_the_largest_list_and_the_longest_names_are_fine(shared: Server) -> None:
    users = [f"{i:03}" + "n" * 125 for i in range(256)]
    with shared.login("broad") as client:
        assert client.ask(users, b"hello all") == "accepted"
    for user in (users[0], users[255]):
        with shared.login(user) as client:
            (delivery,) = client.take(1)
            assert (delivery.sender, delivery.payload) == ("broad", b"hello all")
            client.ack(1)
            client.sync()
    for user in users[1:255]:
        with shared.login(user) as client:
            client.take(1)
            client.ack(1)
            client.sync()


# ---- clients who vanish


def half_a_send() -> bytes:
    return p.encode_send(0, ids.now(), 0, names(b"nobody"), 1, b"p" * 1000)[:500]


def test_a_client_that_vanishes_within_a_frame_leaves_nothing(shared: Server, counts: Counts) -> None:
    with shared.login("fading") as client:
        client.raw(half_a_send())
        client.close()
        gone(shared, client)
    counts.assert_only("peer_closed")
    with shared.login("nobody") as nobody:
        assert nobody.welcome and nobody.welcome.waiting == 0


def test_a_client_that_resets_within_a_frame_leaves_nothing(shared: Server, counts: Counts) -> None:
    with shared.login("fading") as client:
        client.raw(half_a_send())
        client.abort()
        gone(shared, client)
    until(counts.moved, "the end is counted")
    # What the reset is seen by decides the name: the poll and then a receive, or a send under way.
    assert counts.moved() in ({"peer_reset": 1}, {"peer_closed": 1})


def test_a_client_that_vanishes_before_its_first_byte_is_counted(
    shared: Server, counts: Counts
) -> None:
    for _ in range(20):
        shared.connect().close()
    counts.assert_only("peer_closed", 20)


# ---- clients who do not read


def flood(client: Client, data: bytes) -> None:
    """Send until the server ends it; never read."""
    try:
        while True:
            client.raw(data)
    except (ConnectionError, TimeoutError):
        pass


def test_a_flood_of_pings_without_reading_ends_as_slow_reader(shared: Server, counts: Counts) -> None:
    with shared.connect(rcvbuf=4096) as client:
        client.login("deaf", shared.token("deaf"))
        flood(client, p.encode_ping(bytes(8)) * 4096)
        # It still does not read: the server must get rid of the socket by itself.
        until(lambda: counts.moved(), "the end is counted")
        gone(shared, client)
    counts.assert_only("slow_reader")


def test_a_reader_that_stops_while_deliveries_are_due_is_ended_and_loses_nothing(
    shared: Server, counts: Counts
) -> None:
    with shared.connect(rcvbuf=4096) as client, shared.login("generous") as sender:
        client.login("sleepy", shared.token("sleepy"), 1024)
        for i in range(64):
            assert sender.ask("sleepy", b"%d" % i + bytes(60_000)) == "accepted"
        # The receive window bounds what is under way; only answers to its own requests can pile up beyond it.
        flood(client, p.encode_ping(bytes(8)) * 4096)
        gone(shared, client)
        counts.assert_only("slow_reader")
    with shared.login("sleepy") as client:
        assert client.welcome and client.welcome.waiting == 64
        got = client.drain_inbox()
        assert [int(d.payload.rstrip(b"\0")) for d in got] == list(range(64))


# ---- the admin port


def test_abuse_of_the_admin_port_disturbs_neither_clients_nor_metrics(shared: Server) -> None:
    host, port = shared.admin.rsplit(":", 1)
    held = []
    try:
        for data in (b"GET /metr", b"", TLS_CLIENT_HELLO, b"\0" * 1000, HTTP[:-2], p.encode_ping(bytes(8))):
            for _ in range(10):
                client = Client((host, int(port)))
                client.raw(data)
                held.append(client)
        flooded = Client((host, int(port)))
        held.append(flooded)
        with pytest.raises(ConnectionError):
            for _ in range(1024):
                flooded.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 65_536)
        until(lambda: shared.metrics().sum("iris_connections_logged_in") == 2, "the witness alone is there")
    finally:
        for client in held:
            client.close()

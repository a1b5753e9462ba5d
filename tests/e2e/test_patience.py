"""Silence and slowness end by name after a time that is configured, and cost little until then."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator

import pytest
from iris_client import _protocol as p
from support import ids
from support.client import Client, Closed, NotYet
from support.crowd import Crowd, allow_descriptors
from support.server import Server
from support.wait import until
from support.witness import Witness

# Long enough that clients on a busy machine keep to them, the witness among them.
ENV = {
    "IRIS_REACTOR__LOGIN_TIMEOUT": "4s",
    "IRIS_REACTOR__IDLE_TIMEOUT": "10s",
    "IRIS_REACTOR__COUNT": "2",
}
#: A server that ends no stranger while a test runs: the longest that it takes.
PATIENT = {"IRIS_REACTOR__COUNT": "1", "IRIS_REACTOR__LOGIN_TIMEOUT": "5m"}


@pytest.fixture(autouse=True)
def _the_witness_goes_on(witness: Witness) -> Iterator[None]:
    yield
    witness.check()


def drip(client: Client, data: bytes) -> str | None:
    """Send a byte every 50 ms until the server ends the connection; return why. It may not wait for the last byte."""
    for byte in data:
        readable, _, _ = select.select([client.socket], [], [], 0.05)
        try:
            if readable:
                client.pump(lambda: False, 0.01)
            client.raw(bytes((byte,)))
        except NotYet:
            continue
        except Closed as closed:
            return closed.code
        except ConnectionError:
            return client.end()
    raise AssertionError("it was never ended")


def test_a_stranger_who_says_nothing_is_told_login_timeout(shared: Server) -> None:
    with shared.connect() as client:
        assert client.end() == "login_timeout"


def test_a_hello_that_drips_for_ever_is_told_login_timeout(shared: Server) -> None:
    with shared.connect() as client:
        assert drip(client, p.encode_hello("slow", "", "t" * 4000, 1)) == "login_timeout"


def test_a_client_that_answers_pings_outlives_the_idle_timeout(shared: Server) -> None:
    """Three PINGs, each after half the time-out. A client that got no CPU for so long tries again."""

    def outlives() -> bool:
        with shared.login("quiet") as client:
            try:
                client.pump(lambda: client.pings >= 3)
                client.sync()
            except (Closed, ConnectionError):
                return False
            return True

    assert any(outlives() for _ in range(4))


def test_a_client_that_does_not_answer_pings_is_told_idle_timeout(shared: Server) -> None:
    before = shared.metrics().closed("idle_timeout")
    with shared.login("mute") as client:
        client.answers_pings = False
        assert client.end() == "idle_timeout"
        # None if the server itself got no CPU for half the time-out.
        assert client.pings <= 1
    until(lambda: shared.metrics().closed("idle_timeout") > before, "it is counted")


def test_half_a_frame_for_ever_is_no_sign_of_life(shared: Server) -> None:
    send = p.encode_send(0, ids.now(), 0, p.encode_name("x"), 1, bytes(3000))
    with shared.login("dripping") as client:
        client.answers_pings = False
        assert drip(client, send) == "idle_timeout"


def test_ten_thousand_strangers_who_never_log_in_cost_little(make_server: Callable[..., Server]) -> None:
    count = 10_000
    allow_descriptors(count + 500)
    server = make_server(PATIENT).start()
    witness = Witness(server)
    try:
        witness.check()
        before = server.rss()
        with Crowd(server.tcp) as crowd:
            crowd.join(count)
            until(lambda: server.metrics().sum("iris_connections") == count + 2, "all are accepted")
            grown = server.rss() - before
            # 512 bytes each, plus what serving anybody takes once.
            assert grown < count * 512 + (4 << 20), f"{grown} bytes for {count} strangers"
            witness.check()
        until(lambda: server.metrics().sum("iris_connections") == 2, "all are gone")
        witness.check()
    finally:
        witness.stop()


def test_ten_thousand_strangers_who_never_log_in_go_by_name(make_server: Callable[..., Server]) -> None:
    """They come while others go already, as fast as this machine can."""
    count = 10_000
    allow_descriptors(count + 500)
    server = make_server({"IRIS_REACTOR__LOGIN_TIMEOUT": "2s"}).start()
    witness = Witness(server)
    try:
        with Crowd(server.tcp) as crowd:
            crowd.join(count)
            witness.check()
            crowd.listen(lambda: crowd.endings.total() == count, "all are gone")
            assert crowd.endings == {"login_timeout": count}
        until(lambda: server.metrics().closed("login_timeout") == count, "all are counted")
        until(lambda: len(server.sockets()) <= 2, "the kernel's sockets are gone")
        witness.check()
    finally:
        witness.stop()


def test_unfinished_frames_are_bounded_and_strangers_cannot_use_the_users_half(
    make_server: Callable[..., Server],
) -> None:
    allow_descriptors(13_000)
    server = make_server(PATIENT).start()
    half_mib = 32
    hello = p.encode_hello("s" * 128, "d" * 64, "t" * 4096, 1)[:-1]
    fit = (half_mib << 20) // len(hello)
    witness = Witness(server)
    try:
        before = server.rss()
        with Crowd(server.tcp) as crowd:
            crowd.join(fit + 500, hello)
            crowd.listen(lambda: crowd.endings.total() >= 500, "those without room are gone")
            assert crowd.endings == {"unavailable": 500}
            until(lambda: server.metrics().closed("overloaded") == 500, "they are counted")
            assert server.rss() - before < (2 * half_mib + 24) << 20
            # Users have room for theirs still.
            with server.login("user") as user:
                send = p.encode_send(0, ids.now(), 0, p.encode_name("user"), 1, bytes(65_000))
                for part in (send[:30_000], send[30_000:64_000], send[64_000:]):
                    user.raw(part)
                    witness.check(1)
                assert user.answer(0) == "accepted"
        witness.check()
    finally:
        witness.stop()

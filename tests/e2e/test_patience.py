"""Silence and slowness end by name after a time that is configured, and cost little until then."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator

import pytest
from iris_client import _protocol as p
from support import ids
from support.client import Client, Closed
from support.crowd import Crowd, allow_descriptors
from support.server import Server
from support.wait import until
from support.witness import Witness

LOGIN_S, IDLE_S = 3, 4
ENV = {
    "IRIS_REACTOR__LOGIN_TIMEOUT": f"{LOGIN_S}s",
    "IRIS_REACTOR__IDLE_TIMEOUT": f"{IDLE_S}s",
    "IRIS_REACTOR__COUNT": "2",
}


@pytest.fixture(autouse=True)
def _the_witness_goes_on(witness: Witness) -> Iterator[None]:
    yield
    witness.check()


def drip(client: Client, data: Iterator[bytes], timeout: float = 20) -> str | None:
    """Send a byte every 50 ms until the server ends the connection; return why."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        readable, _, _ = select.select([client.socket], [], [], 0.05)
        try:
            if readable:
                client.pump(lambda: True)
                received = len(client.pongs) + client.pings
                client.pump(lambda: len(client.pongs) + client.pings > received, 1)
            else:
                client.raw(next(data))
        except Closed as closed:
            return closed.code
        except (ConnectionError, AssertionError):
            continue
    raise AssertionError("it was never ended")


def test_a_stranger_who_says_nothing_is_told_login_timeout(shared: Server) -> None:
    start = time.monotonic()
    with shared.connect() as client:
        assert client.end(20) == "login_timeout"
    assert LOGIN_S - 1 <= time.monotonic() - start <= LOGIN_S + 3


def test_a_hello_that_drips_for_ever_is_told_login_timeout(shared: Server) -> None:
    start = time.monotonic()
    hello = p.encode_hello("slow", "", "t" * 4000, 1)
    with shared.connect() as client:
        assert drip(client, iter(bytes((b,)) for b in hello)) == "login_timeout"
    assert time.monotonic() - start <= LOGIN_S + 3


def test_a_client_that_answers_pings_outlives_the_idle_timeout(shared: Server) -> None:
    with shared.login("quiet") as client:
        start = time.monotonic()
        client.pump(lambda: client.pings >= 3, 30)
        assert time.monotonic() - start > IDLE_S, "three PINGs, each after half the time-out"
        client.sync()


def test_a_client_that_does_not_answer_pings_is_told_idle_timeout(shared: Server) -> None:
    before = shared.metrics().closed("idle_timeout")
    with shared.login("mute") as client:
        client.answers_pings = False
        start = time.monotonic()
        assert client.end(20) == "idle_timeout"
        assert client.pings == 1
        assert IDLE_S - 1 <= time.monotonic() - start <= IDLE_S + 3
    assert shared.metrics().closed("idle_timeout") == before + 1


def test_half_a_frame_for_ever_is_no_sign_of_life(shared: Server) -> None:
    send = p.encode_send(0, ids.now(), 0, p.encode_name("x"), 1, bytes(60_000))
    with shared.login("dripping") as client:
        client.answers_pings = False
        start = time.monotonic()
        assert drip(client, iter(bytes((b,)) for b in send)) == "idle_timeout"
        assert time.monotonic() - start <= IDLE_S + 3


def test_ten_thousand_strangers_who_never_log_in_cost_little_and_go_by_name(
    make_server: Callable[..., Server],
) -> None:
    count = 10_000
    allow_descriptors(count + 500)
    server = make_server({"IRIS_REACTOR__LOGIN_TIMEOUT": "8s"}).start()
    witness = Witness(server)
    try:
        witness.check()
        before = server.rss()
        with Crowd(server.tcp) as crowd:
            crowd.join(count)
            assert not crowd.endings, "all are in before the first must go"
            until(lambda: server.metrics().sum("iris_connections") == count + 2, "all are accepted")
            grown = server.rss() - before
            # 512 bytes each, plus what serving anybody takes once.
            assert grown < count * 512 + (4 << 20), f"{grown} bytes for {count} strangers"
            witness.check()
            crowd.listen(lambda: crowd.endings.total() == count, "all are gone")
            assert crowd.endings == {"login_timeout": count}
        assert server.metrics().closed("login_timeout") == count
        until(lambda: len(server.sockets()) <= 2, "the kernel's sockets are gone")
        witness.check()
        assert witness.longest < 1.0
    finally:
        witness.stop()


def test_unfinished_frames_are_bounded_and_strangers_cannot_use_the_users_half(
    make_server: Callable[..., Server],
) -> None:
    allow_descriptors(13_000)
    server = make_server({"IRIS_REACTOR__COUNT": "1", "IRIS_REACTOR__LOGIN_TIMEOUT": "2m"}).start()
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
            assert server.metrics().closed("overloaded") == 500
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

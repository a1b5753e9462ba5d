"""Both clients against a scripted peer: what a server does wrong, or at an unlucky moment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

import iris_client
import peer
from calling import ID, client, close_politely, on_a_loop
from iris_client import AsyncIrisClient, IrisClient, _driver
from iris_client import _protocol as wire
from peer import ScriptedServer, Talk

TLS = Path(__file__).parent / "tls"


# ---- login ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", iris_client.ProtocolError, "oversize"),
        (b"\x41\x01\x00\x00\x01", iris_client.ProtocolError, "malformed"),
        (peer.ping(b"12345678"), iris_client.ProtocolError, "out_of_order"),
        (peer.welcome(version=9), iris_client.ProtocolError, "version"),
        (peer.error(102), iris_client.ProtocolError, "version"),
        (peer.error(203), iris_client.AuthError, "token_signature"),
        (peer.error(299), iris_client.AuthError, "code_299"),
        (peer.error(301), iris_client.Replaced, "replaced"),
        (peer.error(306, 1500), iris_client.ServerUnavailable, "connection_limit"),
        (b"", iris_client.ConnectionLost, "connection_lost"),
        (b"\x41\x3f", iris_client.ConnectionLost, "connection_lost"),
    ],
)
def test_a_login_that_fails_says_why_and_is_not_repeated(
    data: bytes, kind: type[iris_client.IrisError], code: str
) -> None:
    async def refuse(talk: Talk) -> None:
        await talk.hear("HELLO")
        talk.say(data)
        talk.hang_up()

    @on_a_loop
    async def run() -> None:
        async with ScriptedServer([refuse]) as server, client(server) as alice:
            with pytest.raises(iris_client.IrisError) as caught:
                await alice.login("alice")
            assert type(caught.value) is kind
            assert caught.value.code == code
            if code == "connection_limit":
                assert caught.value.retry_after == 1.5
            with pytest.raises(iris_client.NotLoggedIn):
                await alice.send_msg("bob", "hi")
            assert server.connections == 1

    run()


@on_a_loop
async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def silent(talk: Talk) -> None:
        await talk.ended()

    async with ScriptedServer([silent] * 3) as server:
        for patience in (0.05, 1.0, 20.0):
            alice = client(server, connect_timeout=patience)
            with pytest.raises(iris_client.ConnectionLost) as caught:
                await alice.login("alice")
            # A busy machine may not even have connected by then.
            if "WELCOME" in str(caught.value):
                break
        assert "WELCOME" in str(caught.value)


@on_a_loop
async def test_nobody_listening_is_said_with_the_address() -> None:
    # Bound and not listening: nobody answers there, and nobody else may.
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        alice = AsyncIrisClient("127.0.0.1", port, token="token")
        with pytest.raises(iris_client.ConnectionLost, match=f"127.0.0.1:{port}"):
            await alice.login("alice")


def test_without_a_token_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IRIS_TOKEN", raising=False)
    with IrisClient() as alice, pytest.raises(iris_client.AuthError) as caught:
        alice.login("alice")
    assert "iris token --user alice" in str(caught.value)
    assert caught.value.code == "token_missing"


def test_the_environment_gives_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRIS_TOKEN", "from-env")
    heard: list[str] = []

    async def listen(talk: Talk) -> None:
        heard.append((await talk.welcome())["token"])
        await close_politely(talk)

    @on_a_loop
    async def run() -> None:
        async with ScriptedServer([listen]) as server, client(server, token=None) as alice:
            await alice.login("alice")

    run()
    assert heard == ["from-env"]


# ---- TLS -----------------------------------------------------------------------------------------


@on_a_loop
async def test_tls_carries_the_same_bytes_and_checks_who_answers() -> None:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(TLS / "localhost.pem", TLS / "localhost.key")
    trusting = ssl.create_default_context(cafile=str(TLS / "localhost.pem"))

    async def deliver(talk: Talk) -> None:
        await talk.welcome()
        talk.say(peer.message(1, ID, "bob", b"hi"))
        await close_politely(talk)

    async with ScriptedServer([deliver], serving) as server:
        async with client(server, tls=trusting) as alice:
            await alice.login("alice")
            assert (await alice.recv_msg()).text == "hi"
        assert server.connections == 1
        stranger = client(server, tls=True)
        with pytest.raises(iris_client.ConnectionLost, match="certificate"):
            await stranger.login("alice")
        assert server.connections == 1


# ---- reconnecting --------------------------------------------------------------------------------


@on_a_loop
async def test_a_lost_answer_is_reported_by_send_msg_and_found_out_by_send_reliable() -> None:
    seen: list[dict[str, Any]] = []

    async def lose(talk: Talk) -> None:
        await talk.welcome()
        seen.append(await talk.hear("SEND"))
        seen.append(await talk.hear("SEND"))
        talk.hang_up()

    async def answer(talk: Talk) -> None:
        await talk.welcome()
        seen.append(await talk.hear("SEND"))
        talk.say(peer.accepted((seen[-1]["seq"], 1)))
        seen.append(await talk.hear("SEND"))
        talk.say(peer.accepted((seen[-1]["seq"], 1)))
        await close_politely(talk)

    async with ScriptedServer([lose, answer]) as server, client(server) as alice:
        await alice.login("alice")
        plain = asyncio.ensure_future(alice.send_msg("bob", "plain"))
        kept = await alice.send_reliable("bob", "kept")
        with pytest.raises(iris_client.ConnectionLost) as caught:
            await plain
        unknown = caught.value.msg_id
        assert unknown is not None
        assert await alice.send_reliable("bob", "plain", msg_id=unknown) == unknown
    ids = [frame["id"] for frame in seen]
    assert ids == [str(one) for one in (kept, unknown, kept, unknown)]


@on_a_loop
async def test_replaced_is_final_for_everybody_who_waits() -> None:
    async def replace(talk: Talk) -> None:
        await talk.welcome()
        await talk.hear("SEND")
        talk.say(peer.error(301, 0, "a newer login"))

    async with ScriptedServer([replace]) as server, client(server) as alice:
        await alice.login("alice")
        waiting = asyncio.ensure_future(alice.recv_msg())
        with pytest.raises(iris_client.Replaced) as caught:
            await alice.send_reliable("bob", "hi")
        assert caught.value.msg_id is not None
        with pytest.raises(iris_client.Replaced, match="a newer login"):
            await waiting
        with pytest.raises(iris_client.Replaced):
            await alice.presence("bob")
        assert server.connections == 1


@on_a_loop
async def test_a_token_that_expires_is_renewed_if_it_can_be() -> None:
    heard: list[str] = []

    async def expire(talk: Talk) -> None:
        heard.append((await talk.welcome())["token"])
        talk.say(peer.error(204))

    async def go_on(talk: Talk) -> None:
        heard.append((await talk.welcome())["token"])
        talk.say(peer.message(1, ID, "bob", b"hi"))
        await close_politely(talk)

    tokens = iter(["first", "second"])
    renewed: dict[str, Any] = {"token": lambda: next(tokens)}
    async with ScriptedServer([expire, go_on]) as server, client(server, **renewed) as alice:
        await alice.login("alice")
        assert (await alice.recv_msg()).body == b"hi"
    assert heard == ["first", "second"]

    async with ScriptedServer([expire]) as server, client(server, token="fixed") as alice:
        await alice.login("alice")
        with pytest.raises(iris_client.AuthError) as caught:
            await alice.recv_msg()
        assert caught.value.code == "token_expired"


@on_a_loop
async def test_a_token_function_that_fails_is_asked_again() -> None:
    async def lose(talk: Talk) -> None:
        await talk.welcome()

    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("the identity provider is away")
        return f"token-{calls}"

    async def go_on(talk: Talk) -> None:
        assert (await talk.hear("HELLO"))["token"] == "token-3"
        talk.say(peer.welcome(), peer.message(1, ID, "bob", b"hi"))
        await close_politely(talk)

    async with ScriptedServer([lose, go_on]) as server, client(server, token=token) as alice:
        await alice.login("alice")
        assert (await alice.recv_msg()).body == b"hi"


def test_drain_is_honoured_between_messages() -> None:
    # The longer, should a busy machine not get to send a message while the shorter one lasts.
    for drain_ms in (200, 2000, 20_000):
        with contextlib.suppress(EOFError):
            drain_between_messages(drain_ms)
            return
    raise AssertionError("nothing was sent while the server drained")


def drain_between_messages(drain_ms: int) -> None:
    times: list[float] = []

    @on_a_loop
    async def run() -> None:
        await play(times, drain_ms)

    run()
    began, left, came = times
    assert left - began >= drain_ms / 1000
    assert came >= left


async def play(times: list[float], drain_ms: int) -> None:
    now = asyncio.get_running_loop().time
    has_left = asyncio.Event()
    was_in_time = False

    async def drains(talk: Talk) -> None:
        nonlocal was_in_time
        await talk.welcome()
        talk.say(peer.drain(drain_ms, 0))
        times.append(now())
        try:
            sent = await talk.hear("SEND")
            talk.say(peer.accepted((sent["seq"], 1)))
            was_in_time = True
            await talk.ended()
            times.append(now())
        finally:
            has_left.set()

    async def next_one(talk: Talk) -> None:
        await talk.welcome()
        times.append(now())
        sent = await talk.hear("SEND")
        talk.say(peer.accepted((sent["seq"], 1)))
        await close_politely(talk)

    async with ScriptedServer([drains, next_one]) as server, client(server) as alice:
        await alice.login("alice")
        await alice.send_msg("bob", "while it drains")
        await has_left.wait()
        if was_in_time:
            await alice.send_msg("bob", "afterwards")


def test_leaving_a_server_waits_for_open_answers_and_begins_nothing_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_driver, "DRAIN_TIMEOUT", 200.0)
    on_a_loop(leave_with_an_open_answer)()


async def leave_with_an_open_answer() -> None:
    is_leaving = asyncio.Event()

    async def drains(talk: Talk) -> None:
        await talk.welcome()
        sent = await talk.hear("SEND")
        talk.say(peer.drain(0, 0))
        await nothing_is_sent(talk)
        is_leaving.set()
        await nothing_is_sent(talk)
        talk.say(peer.accepted((sent["seq"], 1)))
        await talk.ended()

    async def nothing_is_sent(talk: Talk) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(talk.hear("SEND"), 0.1)

    async def next_one(talk: Talk) -> None:
        await talk.welcome()
        sent = await talk.hear("SEND")
        talk.say(peer.accepted((sent["seq"], 1)))
        await close_politely(talk)

    async with ScriptedServer([drains, next_one]) as server, client(server) as alice:
        await alice.login("alice")
        first = asyncio.ensure_future(alice.send_msg("bob", "sent before"))
        await is_leaving.wait()
        await alice.send_msg("bob", "waits for the next server")
        await first
        assert server.connections == 2


@on_a_loop
async def test_a_server_that_drains_and_closes_at_once_is_left_alone_until_the_time() -> None:
    times: list[float] = []
    now = asyncio.get_running_loop().time

    async def drains(talk: Talk) -> None:
        await talk.welcome()
        times.append(now())
        talk.say(peer.drain(200, 0), peer.error(305, 0))

    async def next_one(talk: Talk) -> None:
        await talk.welcome()
        times.append(now())
        talk.say(peer.message(1, ID, "bob", b"hi"))
        await close_politely(talk)

    async with ScriptedServer([drains, next_one]) as server, client(server) as alice:
        await alice.login("alice")
        await alice.recv_msg()
    assert times[1] - times[0] >= 0.2


@on_a_loop
async def test_the_servers_advice_is_the_least_wait() -> None:
    times: list[float] = []
    now = asyncio.get_running_loop().time

    async def full(talk: Talk) -> None:
        await talk.welcome()
        times.append(now())
        talk.say(peer.error(307, 150))

    async def next_one(talk: Talk) -> None:
        await talk.welcome()
        times.append(now())
        talk.say(peer.message(1, ID, "bob", b"hi"))
        await close_politely(talk)

    async with ScriptedServer([full, next_one]) as server, client(server) as alice:
        await alice.login("alice")
        await alice.recv_msg()
    assert times[1] - times[0] >= 0.15


@on_a_loop
async def test_only_the_first_drain_of_a_connection_counts() -> None:
    async def drains(talk: Talk) -> None:
        await talk.welcome()
        talk.say(peer.drain(100, 0), *[peer.drain(4_000_000_000, 0)] * 1000)
        await talk.ended()

    async def next_one(talk: Talk) -> None:
        await talk.welcome()
        talk.say(peer.message(1, ID, "bob", b"hi"))
        await close_politely(talk)

    async with ScriptedServer([drains, next_one]) as server, client(server) as alice:
        await alice.login("alice")
        assert (await alice.recv_msg()).body == b"hi"


def test_a_server_that_asks_and_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_driver, "UNWRITTEN_MAX", 1 << 20)

    async def flood(talk: Talk) -> None:
        await talk.welcome()
        with contextlib.suppress(ConnectionError):
            while True:
                talk.say(*[peer.ping(b"12345678")] * 1000)
                await talk.drain()

    @on_a_loop
    async def run() -> None:
        async with ScriptedServer([flood]) as server:
            alice = client(server, reconnect=False)
            await alice.login("alice")
            with pytest.raises(iris_client.ConnectionLost):
                await alice.recv_msg()
            await alice.close()

    run()


@on_a_loop
async def test_without_reconnect_a_lost_connection_is_final() -> None:
    async def lose(talk: Talk) -> None:
        await talk.welcome()

    async with ScriptedServer([lose]) as server, client(server, reconnect=False) as alice:
        await alice.login("alice")
        with pytest.raises(iris_client.ConnectionLost):
            await alice.recv_msg()
        assert server.connections == 1


# ---- a server that breaks the protocol -----------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        peer.message(2, ID, "bob", b""),
        peer.accepted((0, 1)),
        peer.rejected((5, 501, 0)),
        peer.welcome(),
        wire.frame(wire.ACCEPTED, b"\x01"),
        wire.frame(wire.PRESENCE, b"\x00"),
        b"\x44\xff\xff\xff",
        b"\x00\x00\x00\x00",
    ],
)
def test_a_server_that_breaks_the_protocol_ends_the_client_cleanly(data: bytes) -> None:
    async def break_it(talk: Talk) -> None:
        await talk.welcome()
        talk.say(data)
        await talk.ended()

    @on_a_loop
    async def run() -> None:
        async with ScriptedServer([break_it]) as server, client(server) as alice:
            await alice.login("alice")
            with pytest.raises(iris_client.ProtocolError):
                await alice.recv_msg()
            assert server.connections == 1

    run()


@on_a_loop
async def test_one_byte_at_a_time_is_a_stream_like_any_other() -> None:
    async def drip(talk: Talk) -> None:
        hello = await talk.hear("HELLO")
        stream = peer.welcome(recv_window=hello["window"]) + peer.message(1, ID, "bob", b"hi")
        for byte in stream:
            talk.say(bytes((byte,)))
            await asyncio.sleep(0)
        await close_politely(talk)

    async with ScriptedServer([drip]) as server, client(server) as alice:
        await alice.login("alice")
        assert (await alice.recv_msg()).text == "hi"

"""Both clients against a scripted peer: what a server does wrong, or at an unlucky moment."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import uuid
from collections.abc import Awaitable, Iterator
from typing import Any, Callable

import pytest

import iris_client
import peer
from iris_client import AsyncIrisClient, IrisClient, _driver
from iris_client import _protocol as wire
from peer import ScriptedServer, Talk

ID = uuid.UUID("0193e8c0-5e2a-7a31-9c4f-2b6d7e8f9a0b")
Test = Callable[[], Awaitable[None]]


def on_a_loop(test: Test) -> Callable[[], None]:
    """Run a coroutine as a test, with a bound that no right run comes near."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 30))

    return run


def client(server: ScriptedServer, **options: Any) -> AsyncIrisClient:
    options = {"token": "token", "backoff": (0.001, 0.01), **options}
    return AsyncIrisClient("127.0.0.1", server.port, **options)


async def welcome_and_wait(talk: Talk) -> None:
    await talk.welcome()
    await close_politely(talk)


async def close_politely(talk: Talk) -> None:
    """Answer the PING by which a client asks whether its ACKs were read."""
    with contextlib.suppress(EOFError):
        echo = (await talk.hear("PING"))["echo"]
        talk.say(peer.pong(bytes.fromhex(echo), 1))
        await talk.ended()


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

    async with ScriptedServer([silent]) as server:
        alice = client(server, connect_timeout=0.05)
        with pytest.raises(iris_client.ConnectionLost, match="WELCOME"):
            await alice.login("alice")


@on_a_loop
async def test_nobody_listening_is_said_with_the_address() -> None:
    async with ScriptedServer([]) as server:
        port = server.port
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


@on_a_loop
async def test_drain_is_honoured_between_messages() -> None:
    times: list[float] = []
    now = asyncio.get_running_loop().time
    has_left = asyncio.Event()

    async def drains(talk: Talk) -> None:
        await talk.welcome()
        talk.say(peer.drain(200, 0))
        times.append(now())
        sent = await talk.hear("SEND")
        talk.say(peer.accepted((sent["seq"], 1)))
        await talk.ended()
        times.append(now())
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
        await alice.send_msg("bob", "afterwards")
    began, left, came = times
    assert left - began >= 0.2
    assert 0.2 <= came - began < 5


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


# ---- acknowledging -------------------------------------------------------------------------------


def two_messages(acks: list[int]) -> peer.Script:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        for no in (1, 2):
            talk.say(peer.message(no, uuid.UUID(int=ID.int + no), "bob", b"%d" % no))
        with contextlib.suppress(EOFError):
            while True:
                acks.append((await talk.hear("ACK"))["upto"])

    return script


@contextlib.contextmanager
def no_wait_at_close(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_driver, "CLOSE_TIMEOUT", 0.2)
    yield


def receive_both(server: ScriptedServer, leave_by: str) -> None:
    """Receive two messages in the sync client, and leave in one way or another."""
    options: dict[str, Any] = {"auto_ack": leave_by != "explicit"}
    try:
        with IrisClient("127.0.0.1", server.port, token="t", **options) as alice:
            alice.login("alice")
            first, second = alice.recv_msg(), alice.recv_msg(timeout=10)
            assert (first.body, second.body) == (b"1", b"2")
            if leave_by == "explicit":
                first.ack()
            if leave_by == "exception":
                raise KeyError
    except KeyError:
        assert leave_by == "exception"


@pytest.mark.parametrize(("leave_by", "upto"), [("end", 2), ("exception", 1), ("explicit", 1)])
def test_what_is_acknowledged_depends_on_how_the_program_leaves(
    monkeypatch: pytest.MonkeyPatch, leave_by: str, upto: int
) -> None:
    acks: list[int] = []

    @on_a_loop
    async def run() -> None:
        async with ScriptedServer([two_messages(acks)]) as server:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, receive_both, server, leave_by)

    with no_wait_at_close(monkeypatch):
        run()
    assert max(acks) == upto


@on_a_loop
async def test_closing_waits_until_the_acknowledgements_were_read() -> None:
    steps: list[str] = []

    async def script(talk: Talk) -> None:
        await talk.welcome()
        talk.say(peer.message(1, ID, "bob", b"hi"))
        assert (await talk.hear("ACK"))["upto"] == 1
        echo = (await talk.hear("PING"))["echo"]
        steps.append("read")
        talk.say(peer.pong(bytes.fromhex(echo), 1))
        await talk.ended()

    async with ScriptedServer([script]) as server:
        alice = client(server)
        await alice.login("alice")
        await alice.recv_msg()
        await alice.close()
        steps.append("closed")
        await alice.close()
        with pytest.raises(iris_client.ClientClosed):
            await alice.recv_msg()
    assert steps == ["read", "closed"]


# ---- waiting -------------------------------------------------------------------------------------


@on_a_loop
async def test_timeouts_have_their_own_types_and_leave_the_client_usable() -> None:
    async def slow(talk: Talk) -> None:
        await talk.welcome()
        first = await talk.hear("SEND")
        second = await talk.hear("SEND")
        talk.say(peer.accepted((first["seq"], 1), (second["seq"], 1)))
        await close_politely(talk)

    async with ScriptedServer([slow]) as server, client(server) as alice:
        await alice.login("alice")
        with pytest.raises(iris_client.RecvTimeout):
            await alice.recv_msg(timeout=0.01)
        with pytest.raises(iris_client.RecvTimeout):
            await alice.recv_presence(timeout=0.01)
        with pytest.raises(iris_client.SendTimeout) as caught:
            await alice.send_msg("bob", "hi", timeout=0.01)
        assert caught.value.msg_id is not None
        with pytest.raises(iris_client.RecvTimeout):
            await alice.presence("bob", timeout=0.01)
        await alice.send_msg("bob", "hi again")


@on_a_loop
async def test_a_refusal_carries_code_and_advice() -> None:
    async def refuse(talk: Talk) -> None:
        await talk.welcome()
        for code, wait in ((501, 1500), (405, 0)):
            sent = await talk.hear("SEND")
            talk.say(peer.rejected((sent["seq"], code, wait)))
        await close_politely(talk)

    async with ScriptedServer([refuse]) as server, client(server) as alice:
        await alice.login("alice")
        with pytest.raises(iris_client.Rejected) as caught:
            await alice.send_msg("bob", "hi")
        assert (caught.value.code, caught.value.retry_after) == ("inbox_full", 1.5)
        assert caught.value.retryable
        with pytest.raises(iris_client.Rejected) as caught:
            await alice.send_reliable("bob", "hi")
        assert (caught.value.code, caught.value.retryable) == ("payload_too_large", False)


@on_a_loop
async def test_a_deadline_names_the_last_refusal() -> None:
    async def refuse(talk: Talk) -> None:
        await talk.welcome()
        sent = await talk.hear("SEND")
        talk.say(peer.rejected((sent["seq"], 503, 60_000)))
        await close_politely(talk)

    async with ScriptedServer([refuse]) as server, client(server) as alice:
        await alice.login("alice")
        with pytest.raises(iris_client.SendTimeout, match="overloaded"):
            await alice.send_reliable("bob", "hi", timeout=0.2)


@on_a_loop
async def test_bad_arguments_never_reach_the_server() -> None:
    async with ScriptedServer([welcome_and_wait]) as server, client(server) as alice:
        await alice.login("alice")
        for to in ("", "n" * 129, [], [f"u{n}" for n in range(257)], ["bob", ""]):
            with pytest.raises(ValueError, match=r"1 to|bytes of UTF-8"):
                await alice.send_msg(to, "hi")
        with pytest.raises(UnicodeEncodeError):
            await alice.send_msg("\ud800", "hi")
        with pytest.raises(iris_client.Rejected) as caught:
            await alice.send_msg("bob", b"x" * 65_537)
        assert caught.value.code == "payload_too_large"
        with pytest.raises(ValueError, match="watched"):
            await alice.watch(f"u{n}" for n in range(1025))


def test_closing_in_another_thread_ends_the_loop_of_the_receiver() -> None:
    got: list[bytes] = []

    def receive(alice: IrisClient) -> None:
        got.extend(message.body for message in alice)

    def run_both(server: ScriptedServer) -> None:
        alice = IrisClient("127.0.0.1", server.port, token="t")
        alice.login("alice")
        receiver = threading.Thread(target=receive, args=(alice,))
        receiver.start()
        alice.send_msg("bob", "when this is answered, the message before was delivered")
        while len(got) < 1:
            receiver.join(0.001)
        alice.close()
        receiver.join()
        with pytest.raises(iris_client.ClientClosed):
            alice.recv_msg()
        with pytest.raises(iris_client.ClientClosed):
            alice.send_msg("bob", "too late")

    async def script(talk: Talk) -> None:
        await talk.welcome()
        sent = await talk.hear("SEND")
        talk.say(peer.message(1, ID, "bob", b"hi"), peer.accepted((sent["seq"], 1)))
        await close_politely(talk)

    @on_a_loop
    async def run() -> None:
        async with ScriptedServer([script]) as server:
            await asyncio.get_running_loop().run_in_executor(None, run_both, server)

    run()
    assert got == [b"hi"]


def test_a_client_that_never_logged_in_says_so() -> None:
    with IrisClient(token="t") as alice:
        for call in (alice.recv_msg, alice.recv_presence, alice.get_server_region):
            with pytest.raises(iris_client.NotLoggedIn):
                call()
        with pytest.raises(iris_client.NotLoggedIn):
            alice.send_msg("bob", "hi")
    with pytest.raises(iris_client.ClientClosed):
        alice.login("alice")


@on_a_loop
async def test_thousands_of_sends_go_out_in_few_writes_and_within_the_window() -> None:
    async def answer_all(talk: Talk) -> None:
        await talk.welcome(send_window=100)
        for seq in range(3000):
            assert (await talk.hear("SEND"))["seq"] == seq
            if seq % 50 == 49:
                talk.say(peer.accepted((seq - 49, 50)))
        await close_politely(talk)

    async with ScriptedServer([answer_all]) as server, client(server) as alice:
        await alice.login("alice")
        ids = await asyncio.gather(*(alice.send_msg("bob", b"%d" % n) for n in range(3000)))
        assert list(ids) == sorted(set(ids))

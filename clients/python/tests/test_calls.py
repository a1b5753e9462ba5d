"""Both clients against a scripted peer: acknowledging, waiting, and what callers get."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import iris_client
import peer
from calling import ID, client, close_politely, on_a_loop, welcome_and_wait
from iris_client import IrisClient, _driver
from peer import ScriptedServer, Talk

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
async def test_an_exception_in_an_async_with_leaves_the_last_message_for_the_next_login() -> None:
    heard: list[str] = []

    async def script(talk: Talk) -> None:
        await talk.welcome()
        talk.say(peer.message(1, ID, "bob", b"hi"))
        await close_politely(talk)
        heard.extend(talk.names)

    async def fail(server: ScriptedServer) -> None:
        async with client(server) as alice:
            await alice.login("alice")
            await alice.recv_msg()
            raise KeyError

    async with ScriptedServer([script]) as server:
        with pytest.raises(KeyError):
            await fail(server)
    assert heard == ["HELLO", "WINDOW", "PING"]


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
        with contextlib.suppress(EOFError):
            sent = await talk.hear("SEND")
            talk.say(peer.rejected((sent["seq"], 503, 60_000)))
        await close_politely(talk)

    async with ScriptedServer([refuse] * 3) as server:
        # A busy machine may need longer to hear of the refusal.
        for patience in (0.2, 2.0, 20.0):
            async with client(server) as alice:
                await alice.login("alice")
                with pytest.raises(iris_client.SendTimeout) as caught:
                    await alice.send_reliable("bob", "hi", timeout=patience)
            if "overloaded" in str(caught.value):
                break
        assert "overloaded" in str(caught.value)


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

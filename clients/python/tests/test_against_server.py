"""The clients against the real server, with kill -9 where it hurts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Optional

import pytest

import iris_client
from iris_client import IrisClient, Message, RecvTimeout
from server import PATIENCE, REPO, Server, binary, sign

EXAMPLES = REPO / "clients/python/examples"
#: Seconds after which something that must come has not come.
SOON = PATIENCE
#: Seconds for which something that must not come is waited for.
NEVER = 0.3


def receive(client: IrisClient, count: int) -> list[Message]:
    return [client.recv_msg(timeout=SOON) for _ in range(count)]


def nothing_more(client: IrisClient) -> None:
    with pytest.raises(RecvTimeout):
        client.recv_msg(timeout=NEVER)


# ---- the programs of the README ------------------------------------------------------------------


@contextlib.contextmanager
def example(
    server: Server, name: str, *args: str, user: Optional[str] = None
) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "IRIS_PORT": str(server.port),
        "IRIS_TOKEN": server.token(user or name),
        "PYTHONPATH": str(REPO / "clients/python/src"),
    }
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *args]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: Optional[int]) -> list[str]:
    """Return so many lines of its output, None for all up to its end."""
    assert process.stdout is not None
    if count is None:
        return process.stdout.read().splitlines()
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def test_two_programs_exchange_messages(own: Server) -> None:
    with example(own, "bob") as bob:
        assert lines(bob, 1) == ["bob is logged in, 0 messages wait"]
        with example(own, "alice", "one", "two") as alice:
            assert lines(bob, 2) == ["alice: one", "alice: two"]
            assert lines(alice, 2) == ["to bob: one", "to bob: two"]
            # She waits two seconds for each answer; a busy machine may need longer, and they wait.
            assert alice.wait(SOON) == 0
            *answers, _ = lines(alice, None)
        with own.login("alice") as later:
            answers += [f"{m.sender}: {m.text}" for m in receive(later, 2 - len(answers))]
        assert answers == ["bob: got 'one'", "bob: got 'two'"]


def test_an_offline_program_gets_its_messages_once_after_kill_9(own: Server) -> None:
    with example(own, "alice", "one", "two", "three") as alice:
        assert lines(alice, 3) == ["to bob: one", "to bob: two", "to bob: three"]
    own.kill()
    own.start()
    with example(own, "bob") as bob:
        assert lines(bob, 4) == [
            "bob is logged in, 3 messages wait",
            "alice: one",
            "alice: two",
            "alice: three",
        ]
        with own.login("alice") as listener:
            assert len(receive(listener, 3)) == 3
    with own.login("bob") as client:
        rest = client.info.waiting
        assert rest <= 1, "the last message may be unacknowledged: the program was killed at it"
        assert [message.text for message in receive(client, rest)] == ["three"][:rest]
        nothing_more(client)


def test_a_program_sends_a_thousand_messages_at_the_same_time(own: Server) -> None:
    with example(own, "pipelined", user="alice") as alice:
        assert lines(alice, 1) == ["1000 messages are in bob's inbox, on disk"]
        assert alice.wait(SOON) == 0
    with own.login("bob") as bob:
        texts = [message.text for message in receive(bob, 1000)]
        assert texts == [f"message {n}" for n in range(1000)]


def test_the_readme_shows_the_examples_as_they_are() -> None:
    readme = (REPO / "clients/python/README.md").read_text()
    examples = sorted(EXAMPLES.glob("*.py"))
    assert len(examples) == 3
    for path in examples:
        assert f"`examples/{path.name}`:\n\n```python\n{path.read_text()}```\n" in readme


def test_the_token_command_makes_tokens_that_log_in(shared: Server) -> None:
    key = str(shared.data / "dev.key")
    command = [str(binary()), "token", "--user", "cli-user", "--key", key]
    token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with IrisClient(port=shared.port, token=token) as client:
        client.login()
        assert client.info.user == "cli-user"


# ---- messages ------------------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_sent(shared: Server) -> None:
    with shared.login("as-sent-a") as alice, shared.login("as-sent-b") as bob:
        body = bytes(range(256))
        msg_id = alice.send_msg("as-sent-b", body)
        message = bob.recv_msg(timeout=SOON)
        assert (message.id, message.sender, message.body) == (msg_id, "as-sent-a", body)
        assert not message.is_receipt
        assert abs(message.time_ms - (msg_id.int >> 80)) < 60_000


@pytest.mark.parametrize("size", [0, 1, 65_536])
def test_payloads_of_all_sizes_arrive(shared: Server, size: int) -> None:
    with shared.login(f"sizes-{size}") as client:
        client.send_msg(f"sizes-{size}", b"x" * size)
        assert client.recv_msg(timeout=SOON).body == b"x" * size


def test_many_sends_under_way_arrive_once_and_in_order(shared: Server) -> None:
    async def run() -> list[str]:
        async with shared.async_client("many-a") as alice, shared.async_client("many-b") as bob:
            await alice.login("many-a")
            await bob.login("many-b")
            sends = asyncio.gather(
                *(alice.send_msg("many-b", str(n), timeout=SOON) for n in range(3000))
            )
            got = [(await bob.recv_msg(timeout=SOON)).text for _ in range(3000)]
            assert len(set(await sends)) == 3000
            with pytest.raises(RecvTimeout):
                await bob.recv_msg(timeout=NEVER)
            return got

    assert asyncio.run(run()) == [str(n) for n in range(3000)]


def test_a_list_reaches_everybody_once(shared: Server) -> None:
    names = [f"list-{n}" for n in range(256)]
    with shared.login("list-sender") as sender:
        msg_id = sender.send_msg([*names, names[0]], "to all")
    for name in (names[0], names[100], names[255]):
        with shared.login(name) as client:
            assert client.recv_msg(timeout=SOON).id == msg_id
            nothing_more(client)


def test_the_same_id_twice_makes_one_entry(shared: Server) -> None:
    with shared.login("twice-a") as alice, shared.login("twice-b") as bob:
        msg_id = alice.new_msg_id()
        for body in ("first", "second"):
            assert alice.send_reliable("twice-b", body, msg_id=msg_id) == msg_id
        assert bob.recv_msg(timeout=SOON).text == "first"
        nothing_more(bob)


def test_an_id_that_is_too_old_or_ahead_is_refused_by_name(shared: Server) -> None:
    with shared.login("ids-a") as alice:
        now = alice.new_msg_id().int
        for shift_ms, code in ((-2 * 3_600_000, "id_too_old"), (3_600_000, "id_in_future")):
            msg_id = uuid.UUID(int=now + (shift_ms << 80))
            with pytest.raises(iris_client.Rejected) as caught:
                alice.send_reliable("ids-b", "x", msg_id=msg_id)
            assert caught.value.code == code
        with pytest.raises(iris_client.Rejected) as caught:
            alice.send_reliable("ids-b", "x", msg_id=uuid.uuid4())
        assert caught.value.code == "id_not_v7"


def test_a_receipt_names_the_message_and_who_has_it(shared: Server) -> None:
    with shared.login("receipt-a") as alice:
        msg_id = alice.send_msg(["receipt-b", "receipt-c"], "please", receipt=True)
        for name in ("receipt-b", "receipt-c"):
            with shared.login(name) as client:
                assert client.recv_msg(timeout=SOON).wants_receipt
            receipt = alice.recv_msg(timeout=SOON)
            assert receipt.is_receipt
            assert (receipt.id, receipt.sender, receipt.body) == (msg_id, name, b"")
        nothing_more(alice)


def test_what_was_not_acknowledged_comes_again_and_the_rest_does_not(shared: Server) -> None:
    with shared.login("again-a") as alice:
        for text in ("one", "two", "three"):
            alice.send_msg("again-b", text)
    with contextlib.suppress(KeyError), shared.login("again-b") as bob:
        assert [m.text for m in receive(bob, 2)] == ["one", "two"]
        raise KeyError
    with shared.login("again-b") as bob:
        assert [m.text for m in receive(bob, 2)] == ["two", "three"]
    with shared.login("again-b") as bob:
        nothing_more(bob)


def test_more_waiting_than_the_window_comes_in_order(shared: Server) -> None:
    with shared.login("backlog-a") as alice:
        for n in range(100):
            alice.send_msg("backlog-b", str(n))
    with shared.login("backlog-b", recv_window=8) as bob:
        assert [m.text for m in receive(bob, 100)] == [str(n) for n in range(100)]
        nothing_more(bob)


# ---- sessions ------------------------------------------------------------------------------------


def test_the_region_and_the_user_are_told(shared: Server) -> None:
    with shared.client("region-user") as client:
        client.login()
        assert client.get_server_region() == "local"
        assert client.info.user == "region-user"


def test_a_newer_login_replaces_the_older_for_good(shared: Server) -> None:
    with shared.login("taken") as older, shared.login("taken") as newer:
        with pytest.raises(iris_client.Replaced):
            older.recv_msg(timeout=SOON)
        with pytest.raises(iris_client.Replaced):
            older.send_msg("taken", "I am gone")
        newer.send_msg("taken", "I am here")
        assert newer.recv_msg(timeout=SOON).text == "I am here"


def test_a_token_must_be_signed_fresh_and_ones_own(shared: Server) -> None:
    forged = sign(b"x" * 64, "mallory")
    cases = [
        (forged, "mallory", "token_signature"),
        (shared.token("mallory", ttl=-60), "mallory", "token_expired"),
        (shared.token("mallory"), "victim", "token_subject"),
        ("no.jwt", "mallory", "token_malformed"),
    ]
    for token, user, code in cases:
        with shared.client("mallory", token=token) as client:
            with pytest.raises(iris_client.AuthError) as caught:
                client.login(user)
            assert caught.value.code == code


def brief_logins(server: Server, clients: contextlib.ExitStack) -> tuple[IrisClient, IrisClient]:
    """Log in with tokens that end soon, yet not before this machine has logged both in."""
    for life in (2.0, 8.0, 30.0):
        ttls = iter([life, 3600.0])
        fixed = server.client("fixed", token=server.token("fixed", life))
        renewing = server.client("renewing", token=partial(renewed, server, ttls))
        clients.enter_context(fixed)
        clients.enter_context(renewing)
        try:
            fixed.login("fixed")
            renewing.login("renewing")
        except iris_client.AuthError:
            continue
        return fixed, renewing
    raise AssertionError("no token lives long enough to log in")


def renewed(server: Server, ttls: Iterator[float]) -> str:
    return server.token("renewing", next(ttls))


def test_a_connection_ends_with_its_token_and_goes_on_with_a_fresh_one(shared: Server) -> None:
    with contextlib.ExitStack() as clients:
        fixed, renewing = brief_logins(shared, clients)
        with pytest.raises(iris_client.AuthError) as caught:
            fixed.recv_msg(timeout=SOON)
        assert caught.value.code == "token_expired"
        assert renewing.send_reliable("renewing", "still here")
        assert renewing.recv_msg(timeout=SOON).text == "still here"


def test_presence_is_answered_and_watched(shared: Server) -> None:
    with shared.login("watcher") as watcher:
        assert not watcher.presence(["seen"], timeout=SOON)["seen"]
        states = watcher.watch(["seen", "unseen", "watcher"], timeout=SOON)
        assert {user: p.state for user, p in states.items()} == {
            "seen": "offline",
            "unseen": "offline",
            "watcher": "online",
        }
        with shared.login("seen"):
            came = watcher.recv_presence(timeout=SOON)
            assert (came.user, came.online) == ("seen", True)
            assert watcher.presence("seen", timeout=SOON)["seen"].since is not None
        left = watcher.recv_presence(timeout=SOON)
        assert (left.user, left.online) == ("seen", False)
        watcher.unwatch(["seen"])
        with shared.login("seen"), pytest.raises(RecvTimeout):
            watcher.recv_presence(timeout=NEVER)


# ---- kill -9 -------------------------------------------------------------------------------------


def test_clients_come_back_after_the_server_was_killed(own: Server) -> None:
    with own.login("alice") as alice, own.login("bob") as bob:
        bob.watch("alice", timeout=SOON)
        alice.send_msg("bob", "before")
        assert bob.recv_msg(timeout=SOON).text == "before"
        own.kill()
        with pytest.raises((iris_client.SendTimeout, iris_client.ConnectionLost)):
            alice.send_msg("bob", "nobody there", timeout=NEVER)
        own.start()
        alice.send_reliable("bob", "after")
        assert bob.recv_msg(timeout=SOON).text == "after"
        nothing_more(bob)


def test_a_server_that_stops_in_good_order_is_left_and_found_again(own: Server) -> None:
    with own.login("alice") as alice:
        alice.send_msg("alice", "before")
        assert alice.recv_msg(timeout=SOON).text == "before"
        own.stop()
        own.start()
        alice.send_reliable("alice", "after")
        assert alice.recv_msg(timeout=SOON).text == "after"
        nothing_more(alice)


def test_every_reliable_send_arrives_once_across_kills(own: Server) -> None:
    total, rounds = 600, 3
    failures: list[BaseException] = []

    def send(part: int) -> None:
        try:
            with own.login(f"sender-{part}") as sender:
                for n in range(total // 3):
                    sender.send_reliable("bob", f"{part}/{n}", timeout=SOON)
        except BaseException as error:
            failures.append(error)

    got: list[str] = []
    with own.login("bob") as bob:
        senders = [threading.Thread(target=send, args=(part,)) for part in range(3)]
        for sender in senders:
            sender.start()
        for at in range(1, rounds + 1):
            while len(got) < at * total // (rounds + 1):
                got.append(bob.recv_msg(timeout=SOON).text)
            own.kill()
            own.start()
        while len(got) < total:
            got.append(bob.recv_msg(timeout=SOON).text)
        nothing_more(bob)
        for sender in senders:
            sender.join()
    assert failures == []
    assert len(set(got)) == len(got) == total
    for part in range(3):
        numbers = [int(text.split("/")[1]) for text in got if text.startswith(f"{part}/")]
        assert numbers == sorted(numbers)


def test_hundreds_under_way_when_the_server_is_killed_arrive_once_and_in_order(own: Server) -> None:
    total = 1500

    async def run() -> list[int]:
        async with own.async_client("alice") as alice, own.async_client("bob") as bob:
            await alice.login("alice")
            await bob.login("bob")
            sends = asyncio.gather(
                *(alice.send_reliable("bob", str(n), timeout=SOON) for n in range(total))
            )
            got: list[int] = []
            for stop in (total // 3, 2 * total // 3, total):
                while len(got) < stop:
                    got.append(int((await bob.recv_msg(timeout=SOON)).text))
                if stop < total:
                    own.kill()
                    await asyncio.get_running_loop().run_in_executor(None, own.start)
            assert len(set(await sends)) == total
            with pytest.raises(RecvTimeout):
                await bob.recv_msg(timeout=NEVER)
            return got

    assert asyncio.run(run()) == list(range(total))


def test_an_outbox_survives_the_crash_of_its_program(own: Server, tmp_path: Path) -> None:
    """Make the id first, write it down, send, die, and send again with the same id."""
    with own.login("alice") as alice:
        written_down = str(alice.new_msg_id())
        alice.send_reliable("bob", "from the outbox", msg_id=written_down)
    own.kill()
    own.start()
    with own.login("alice") as alice, own.login("bob") as bob:
        alice.send_reliable("bob", "from the outbox", msg_id=written_down)
        message = bob.recv_msg(timeout=SOON)
        assert (str(message.id), message.text) == (written_down, "from the outbox")
        nothing_more(bob)

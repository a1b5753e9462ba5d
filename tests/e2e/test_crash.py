"""kill -9 at any moment: no accepted message is lost, none is in an inbox twice, none is changed or out of order."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

from iris_client import _protocol as p
from support import ids
from support.client import Client, Closed
from support.fleet import Fleet
from support.server import Server
from support.wait import until

ROUNDS = 20
#: The server gives a client who does not read 5 s for its last word, counted in whole seconds.
LAST_WORD_S = 3.5


def seed() -> int:
    """``IRIS_E2E_SEED`` repeats a run, as far as the scheduler lets it."""
    number = int(os.environ.get("IRIS_E2E_SEED", random.randrange(1 << 32)))
    print(f"IRIS_E2E_SEED={number}")
    return number


def test_twenty_kills_under_load_lose_nothing_and_double_nothing(
    make_server: Callable[..., Server],
) -> None:
    number = seed()
    pick = random.Random(number)
    server = make_server({"IRIS_CORE__PARTITIONS": "2"}).start()
    fleet = Fleet(number)
    # From the first moments of a login to the middle of steady work.
    moments = [0, 1, 30, 300, 900] * (ROUNDS // 5)
    pick.shuffle(moments)
    for accepted in moments:
        fleet.launch(server)
        fleet.wait_accepted(accepted)
        threading.Event().wait(pick.uniform(0, 0.03))
        server.kill()
        fleet.join()
        server.start()
    fleet.finish(server)
    counted = fleet.check()
    print("account:", counted)
    assert counted["messages"] >= sum(moments)
    assert counted["receipts"] > 0
    # What was acknowledged before an orderly end never comes back.
    assert server.stop() == 0
    server.start()
    for reader in (*fleet.online, *fleet.offline):
        with server.login(reader.name) as client:
            assert client.welcome and client.welcome.waiting == 0


def test_kills_at_full_speed_keep_every_accepted_message(make_server: Callable[..., Server]) -> None:
    """Windows of small messages, one after the other, so that batches are full when the kill comes."""
    pick = random.Random(seed())
    server = make_server().start()
    for life in range(6):
        assert server.process
        killer = threading.Timer(pick.uniform(0, 0.3), server.process.kill)
        name, numbers = p.encode_name(f"reader-{life}"), range(1, 1 << 20)
        accepted: set[int] = set()
        with server.login("writer") as writer:
            try:
                for start in range(0, len(numbers), 256):
                    batch = numbers[start : start + 256]
                    encoded = (
                        p.encode_send(n, ids.now(), 0, name, 1, n.to_bytes(4, "big")) for n in batch
                    )
                    writer.raw(b"".join(encoded))
                    writer.pump(lambda: len(writer.answers) >= len(batch))
                    assert set(writer.answers.values()) == {"accepted"}
                    accepted.update(writer.answers)
                    writer.answers.clear()
                    if not start:
                        killer.start()
            except ConnectionError:
                writer.last_words()
            except Closed:
                pass
            accepted.update(writer.answers)
        killer.join()
        server.ended()
        server.start()
        assert len(accepted) >= 256
        with server.login(f"reader-{life}", 1024) as reader:
            got = [int.from_bytes(d.payload, "big") for d in reader.drain_inbox()]
        assert got == list(range(1, len(got) + 1)), "in order, once, without a gap"
        assert len(got) >= max(accepted), f"{max(accepted) - len(got)} accepted messages are lost"


def seconds_of_a_start(server: Server) -> float:
    """Start it; return how long that takes here and now, to aim at moments within."""
    started = time.monotonic()
    server.start()
    return time.monotonic() - started


def test_kills_during_the_start_lose_nothing(make_server: Callable[..., Server]) -> None:
    number = seed()
    pick = random.Random(number)
    server = make_server().start()
    fleet = Fleet(number, online=2)
    fleet.launch(server)
    fleet.wait_accepted(1500)
    server.kill()
    fleet.join()
    took = seconds_of_a_start(server)
    server.kill()
    for _ in range(15):
        server.start(wait=False)
        threading.Event().wait(pick.uniform(0, took))
        server.kill()
    server.start()
    fleet.finish(server)
    print("account:", fleet.check())


def test_an_orderly_end_tells_everybody_and_loses_nothing(make_server: Callable[..., Server]) -> None:
    number = seed()
    server = make_server().start()
    fleet = Fleet(number)
    for _ in range(4):
        fleet.launch(server)
        fleet.wait_at_work(server)
        fleet.wait_accepted(300)
        idle = server.login("idle")
        assert server.process
        server.process.terminate()
        fleet.join(stop=False)
        with idle:
            assert idle.end() == "draining"
            assert idle.drain and idle.drain.jitter_ms > 0
        assert server.ended() == 0
        for sender in fleet.senders:
            assert sender.drained, "DRAIN comes before the end"
            assert sender.error and p.code_name(sender.error.code) == "draining"
        server.start()
    fleet.finish(server)
    counted = fleet.check()
    print("account:", counted)
    assert counted["receipts"] == counted["receipts wanted"], "receipts are not lost either"


def test_a_signal_during_the_start_ends_it_in_order(make_server: Callable[..., Server]) -> None:
    pick = random.Random(seed())
    server = make_server().start()
    with server.login("a") as a:
        for i in range(200):
            assert a.ask("b", b"%d" % i) == "accepted"
    assert server.stop() == 0
    took = seconds_of_a_start(server)
    assert server.stop() == 0
    for _ in range(12):
        server.start(wait=False)
        threading.Event().wait(pick.uniform(0, took))
        # Until it has asked for the signal, the kernel ends it.
        assert server.stop() in (0, -15)
    server.start()
    with server.login("b") as b:
        assert b.welcome and b.welcome.waiting == 200


def make_deaf(server: Server) -> Client:
    """A client with deliveries due and answers queued, who does not read."""
    deaf = server.connect(rcvbuf=4096).login("deaf", server.token("deaf"), 1024)
    with server.login("talker") as talker:
        for _ in range(16):
            assert talker.ask("deaf", bytes(60_000)) == "accepted"
    # Below the bound of a slow reader, beyond what the kernel takes.
    deaf.raw(p.encode_ping(bytes(8)) * 20_000)
    return deaf


def test_a_client_that_does_not_read_cannot_hold_up_an_orderly_end(
    make_server: Callable[..., Server],
) -> None:
    server = make_server().start()
    deaf = make_deaf(server)
    assert server.stop() == 0
    deaf.close()
    server.start()
    with server.login("deaf") as client:
        assert client.welcome and client.welcome.waiting == 16


def test_a_second_signal_ends_a_drain_at_once_and_loses_nothing(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    for attempt in range(1, 6):
        server.start()
        deaf = make_deaf(server)
        assert server.process
        drains = server.log().count("draining")
        server.process.terminate()
        started = time.monotonic()
        until(lambda: server.log().count("draining") > drains, "it drains", every=0.001)
        code = server.stop()
        in_time = time.monotonic() - started < LAST_WORD_S
        deaf.close()
        if in_time:
            break
        # A machine so busy that the drain was over before the second signal: it says nothing.
        assert code in (0, 130)
    assert in_time and code == 130
    server.start()
    with server.login("deaf") as client:
        assert client.welcome and client.welcome.waiting == 16 * attempt

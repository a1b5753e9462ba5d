"""What one process holds: more connections than descriptors, as many as configured, and inboxes of any length."""

from __future__ import annotations

import resource
from collections.abc import Callable

from iris_client import _protocol as p
from support import confine, ids
from support.client import Client
from support.crowd import Crowd, allow_descriptors
from support.server import Server
from support.wait import until


def test_one_process_holds_more_connections_than_its_limit_of_open_files(
    make_server: Callable[..., Server],
) -> None:
    files, count = 320, 3000
    allow_descriptors(count + 500)
    server = make_server(
        {"IRIS_REACTOR__COUNT": "1", "IRIS_CORE__PARTITIONS": "1", "IRIS_REACTOR__CONNECTIONS_MAX": "4000"}
    )
    server.before = confine.limit(resource.RLIMIT_NOFILE, files)
    server.start()
    with Crowd(server.tcp) as crowd:
        for i in range(count):
            crowd.join(1, p.encode_hello("", "", server.token(f"u{i}"), 16))
        crowd.listen(lambda: len(crowd.welcomed) == count, "all are logged in")
        metrics = server.metrics()
        assert metrics.sum("iris_connections_logged_in") == count
        assert metrics.sum("iris_process_open_fds") < files
        until(lambda: server.metrics().sum("iris_rings") >= count // files, "several rings are used")
        # Those of the last ring are served like those of the first.
        with server.login("sender") as sender:
            for i in range(0, count, 100):
                assert sender.ask(f"u{i}", b"here?") == "accepted"
        crowd.listen(lambda: crowd.deliveries == count // 100, "messages reach all rings")
    # The slots are used again.
    until(lambda: server.metrics().sum("iris_connections") == 0, "all are gone")
    with Crowd(server.tcp) as crowd:
        for i in range(500):
            crowd.join(1, p.encode_hello("", "", server.token(f"u{i}"), 16))
        crowd.listen(lambda: len(crowd.welcomed) == 500, "they are logged in again")


def test_a_connection_beyond_the_configured_number_is_told_so(
    make_server: Callable[..., Server],
) -> None:
    server = make_server({"IRIS_REACTOR__COUNT": "1", "IRIS_REACTOR__CONNECTIONS_MAX": "20"}).start()
    held = [server.login(f"u{i}") for i in range(20)]
    with server.connect() as beyond:
        assert beyond.end() == "connection_limit"
        assert beyond.error and beyond.error.retry_after_ms > 0
    assert server.metrics().closed("connection_limit") == 1
    held.pop().close()

    def gets_in() -> bool:
        client = server.connect()
        try:
            client.login("late", server.token("late"))
            return True
        except Exception:  # noqa: BLE001 - it is asked again
            return False
        finally:
            client.close()

    until(gets_in, "there is room again", 10, 0.05)
    for client in held:
        client.sync()
        client.close()


def fill(server: Server, user: str, count: int) -> None:
    """Put so many small messages into an inbox, a window at a time."""
    with server.login("filler") as filler:
        name = p.encode_name(user)
        for start in range(0, count, 250):
            seqs = range(start, min(start + 250, count))
            filler.raw(
                b"".join(p.encode_send(seq, ids.now(), 0, name, 1, seq.to_bytes(4, "big")) for seq in seqs)
            )
            filler.pump(lambda: len(filler.answers) == len(seqs))
            assert set(filler.answers.values()) == {"accepted"}
            filler.answers.clear()


def read(client: Client, seen: int, upto: int) -> None:
    """Take messages in order, from one number up to another, and acknowledge them."""
    for number in range(seen, upto):
        client.pump(lambda: client.inbox)
        delivery = client.inbox.popleft()
        assert int.from_bytes(delivery.payload, "big") == number
    client.ack(delivery.no)


def exchange(a: Client, b: Client, payload: bytes) -> None:
    """One message from one to the other: accepted, delivered, acknowledged."""
    assert a.ask(b.user, payload) == "accepted"
    (delivery,) = b.take(1)
    assert delivery.payload == payload
    b.ack(delivery.no)


def test_a_hundred_thousand_waiting_messages_stream_while_others_are_served(
    make_server: Callable[..., Server],
) -> None:
    """Also from disk: the server is killed in between, and keeps 1 MiB of its log in memory.

    One thread plays all clients. Before each exchange of two others, the reader of the stream makes room for more of it
    and stops reading: whatever of the server waited for the stream would wait for ever, and the exchange with it.
    """
    count, step = 100_000, 256
    server = make_server({"IRIS_WAL__RECENT_WINDOW": "1MiB", "IRIS_WAL__SEGMENT_SIZE": "8MiB"}).start()
    fill(server, "big", count)
    server.restart()
    with server.login("a") as a, server.login("b") as b, server.connect(rcvbuf=4096) as big:
        big.login("big", server.token("big"), 1024)
        assert big.welcome and big.welcome.waiting == count
        for seen in range(0, count, step):
            exchange(a, b, b"while %d were read" % seen)
            read(big, seen, min(seen + step, count))
        big.sync()
        assert not big.inbox
    until(lambda: server.metrics().sum("iris_disk_reads_total") > count / 2, "most came from disk")
    with server.login("big") as client:
        assert client.welcome and client.welcome.waiting == 0

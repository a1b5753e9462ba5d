"""What the metrics say of the log is what lies on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from support.server import Server, iris
from support.wait import until


def test_written_bytes_count_batches_and_footers(server: Server) -> None:
    with server.login("a") as a:
        for _ in range(80):
            seqs = [a.send("b", bytes(300)) for _ in range(200)]
            assert all(a.answer(seq) == "accepted" for seq in seqs)

    def segments(state: str) -> float:
        return server.metrics().sum("iris_wal_segments", state=state)

    until(lambda: segments("sealed") >= 2 and segments("sealing") == 0, "footers are written")
    written = server.metrics().sum("iris_wal_written_bytes_total")
    assert server.stop() == 0
    lines = iris("wal", "stat", str(server.data), "--json").stdout.splitlines()
    frames = sum(line["bytes"] for line in map(json.loads, lines) if line["kind"] == "frames")
    # 96 bytes of footer for each record of some 400, in the segments that are full.
    assert written > 1.1 * frames, (written, frames)


def test_batches_begin_a_configured_interval_apart(make_server: Callable[..., Server]) -> None:
    server = make_server({"IRIS_WAL__BATCH_INTERVAL": "100ms", "IRIS_CORE__PARTITIONS": "1"}).start()
    with server.login("a") as a:
        started = time.monotonic()
        for _ in range(6):
            assert a.answer(a.send("b", b"one at a time")) == "accepted"
        assert time.monotonic() - started >= 0.5
        seqs = [a.send("b", b"together") for _ in range(200)]
        assert all(a.answer(seq) == "accepted" for seq in seqs)
        batches = server.metrics().sum("iris_wal_batches_total")
        assert batches <= (time.monotonic() - started) / 0.1 + 1

"""Another binary in place of the one that runs: nobody is refused, everybody is back in time, nothing is lost."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from support.crowd import allow_descriptors
from support.keeper import Keeper
from support.server import Server
from support.storm import Storm
from support.wait import PATIENCE, until

#: Connections a second, and those who stay.
RATE = 1000
RESIDENTS = 500
#: Seconds of storm before and after the restart.
BEFORE, AFTER = 1.5, 1.5


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """Return listeners that outlive servers."""
    keeper = Keeper(2)
    yield keeper
    keeper.close()


def test_an_upgrade_under_a_storm_of_connections_refuses_nobody_and_loses_nothing(
    make_server: Callable[..., Server], keeper: Keeper
) -> None:
    allow_descriptors(20_000)
    server = make_server()
    keeper.supervise(server)
    server.binary = str(shutil.copy2(server.binary, server.home / "iris-before"))
    server.start()
    before = server.binary
    storm = Storm(server.tcp, server.key, "collector", RATE, RESIDENTS)
    storm.start()
    until(lambda: storm.online() == RESIDENTS and storm.made_until > BEFORE, "the storm goes on")

    accepted = server.metrics().sum("iris_connections_accepted_total")
    began = time.monotonic()
    server.binary = str(shutil.copy2(before, server.home / "iris-after"))
    assert server.stop() == 0
    stopped = time.monotonic()
    server.start()
    ready = time.monotonic()
    until(lambda: storm.made_until > ready - began + BEFORE + AFTER, "the storm went on")
    storm.stop(PATIENCE)

    counts, late = storm.counts, max(storm.lateness)
    print(
        f"{len(storm.made)} came in {storm.made_until:.1f} s, {accepted:.0f} before the restart; "
        f"stopped in {stopped - began:.2f} s, ready {ready - stopped:.2f} s later; {dict(counts)}; "
        f"{len(storm.lateness)} came back as told, the last {late:+.2f} s of what was advertised"
    )
    assert counts["ECONNREFUSED"] == 0
    assert not [how for how in counts if how.startswith("E")], "every connection came about"
    assert counts["connected"] == counts["attempts"]
    # All who stayed were told when to come back, and were let in then; what a busy machine adds is no promise of ours.
    assert len(storm.lateness) >= RESIDENTS
    assert late < PATIENCE / 10

    sent = Counter(guest.user for guest in [*storm.made, *storm.residents])
    with server.login("collector", 1024) as collector:
        got = Counter(delivery.payload.decode() for delivery in collector.drain_until_empty(len(sent)))
        assert got == sent, "each message once"
        assert collector.drain_inbox("collector") == []
    assert server.stop() == 0

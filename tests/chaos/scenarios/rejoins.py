"""Cores that come back with another disk than they left with: empty, an old image, damaged."""

from __future__ import annotations

import shutil
import struct

from harness.round import Round, Scenario
from support import logs

#: Bytes of the load that each scenario puts on disk before it takes something away.
MESSAGES = 40


def rejoin(r: Round, change: str) -> None:
    """Kill core 1 in the middle of a load, change its disk, start it, and have it serve alone."""
    r.start()
    r.load(interval=0.02)
    r.wait_flow(MESSAGES)
    core = r.core(1)
    if change == "old":
        # An image of the disk, as a snapshot would make it: of a node that is stopped.
        core.stop()
        shutil.copytree(core.data, core.home / "image", ignore=shutil.ignore_patterns("*.sock"))
        core.start()
        r.wait_healthy()
        r.wait_flow(MESSAGES)
    r.fault()
    core.kill()
    r.wait_flow(MESSAGES)
    if change == "empty":
        core.wipe()
    elif change == "old":
        core.wipe()
        shutil.move(core.home / "image", core.data)
    else:
        r.notes["damaged_bytes"] = damage(r)
    core.start()
    r.wait_healthy()
    r.wait_flow(20)
    r.end_load()
    assert r.crowd
    r.look_alone(1, [name for name in r.crowd.users if "-off-" in name])


def damage(r: Round) -> int:
    """Overwrite one batch, which later ones prove to have been synced, in each partition's log; return the bytes."""
    core = r.core(1)
    r.damaged.add(1)
    total = 0
    for log in sorted((core.data / "wal").glob("p*")):
        for segment in sorted(log.glob("*.seg")):
            data = segment.read_bytes()
            frames = []
            at = logs.BLOCK
            while data[at : at + 4] == b"IRBF":
                (body,) = struct.unpack_from("<I", data, at + 8)
                frames.append((at, body))
                at += -(-(64 + body) // logs.BLOCK) * logs.BLOCK
            if len(frames) > 8:
                start, body = frames[len(frames) // 2]
                r.account.touched.update(logs.message_ids(data[start + 64 : start + 64 + body]))
                logs.overwrite(segment, start + 64, bytes(body))
                total += body
    assert total, "there was a batch to damage"
    return total


def rejoin_empty(r: Round) -> None:
    rejoin(r, "empty")


def rejoin_old_image(r: Round) -> None:
    rejoin(r, "old")


def rejoin_damaged(r: Round) -> None:
    rejoin(r, "damaged")


SCENARIOS = [
    Scenario("rejoin-empty", "a killed core comes back with an empty disk, then serves alone", rejoin_empty, gap_ms=2000),
    Scenario("rejoin-old-image", "a killed core comes back with an old image of its disk", rejoin_old_image, gap_ms=2000),
    Scenario("rejoin-damaged", "a killed core comes back with a damaged log", rejoin_damaged, gap_ms=2000),
]

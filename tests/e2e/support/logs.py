"""Log directories from outside: where a message stands on disk, and how to damage it. By docs/WAL-FORMAT.md."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .server import Server, iris

BLOCK = 4096
#: Type of a record that holds a message.
MSG = 1
_FRAME = b"IRBF"
_TRAILER = b"IRISFOOT"
TRAILER_BYTES = 96


@dataclass(frozen=True)
class Place:
    """The frame that holds a message: its file and the bytes of the whole frame in it."""

    path: Path
    start: int
    end: int
    payload: int

    def overlaps(self, path: Path, start: int, end: int) -> bool:
        return self.path.name == path.name and start < self.end and self.start < end


def find(segments: list[Path], payload: bytes) -> Place:
    """Return where the one frame with this payload stands."""
    found = []
    for path in segments:
        data = path.read_bytes()
        at = data.find(payload)
        if at < 0:
            continue
        start = at // BLOCK * BLOCK
        while data[start : start + 4] != _FRAME:
            start -= BLOCK
        (body,) = struct.unpack_from("<I", data, start + 8)
        end = start + -(-(64 + body) // BLOCK) * BLOCK
        assert start <= at < end
        found.append(Place(path, start, end, at))
    assert len(found) == 1, found
    return found[0]


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Change bytes in place; the length stays."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def message_ids(body: bytes) -> Iterator[bytes]:
    """Yield the ids of the messages in the records of a batch."""
    at = 0
    while at < len(body):
        (length,) = struct.unpack_from("<I", body, at)
        assert length >= 40, "the body of a batch is whole records"
        if body[at + 4] == MSG:
            yield body[at + 36 : at + 52]
        at += length


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flip one bit."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes((byte ^ 1 << bit,)))


def has_footer(path: Path) -> bool:
    """Whether the file ends with a trailer."""
    return path.read_bytes()[-TRAILER_BYTES:].startswith(_TRAILER)


def copy_of(server: Server, home: Path) -> Server:
    """Return a server, not started, on a copy of another's data directory."""
    other = Server(home, server.env)
    shutil.copytree(server.data, other.data, ignore=shutil.ignore_patterns("*.sock"))
    return other


def verify(server: Server) -> tuple[int, list[dict[str, Any]]]:
    """Run ``iris wal verify``; return its exit code and its lines."""
    done = iris("wal", "verify", str(server.data), "--json")
    assert done.stderr == "", done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["kind"] == "summary"
    return done.returncode, lines


def verdict(server: Server) -> str:
    """Return the verdict of ``iris wal verify``, checked against its exit code and its lines."""
    code, lines = verify(server)
    said = lines[-1]["verdict"]
    assert code == {"sound": 0, "damaged": 1, "unreadable": 2}[said]
    faults = [line for line in lines if line["kind"] == "fault"]
    assert len(faults) == lines[-1]["faults"]
    assert bool(faults) == (said == "damaged")
    torn = [line for line in lines if line["kind"] == "torn_tail"]
    assert len(torn) == lines[-1]["torn_tails"]
    return "torn" if said == "sound" and torn else said

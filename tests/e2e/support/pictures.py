"""PNG files, as far as a test looks at them: how often each colour occurs."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from pathlib import Path


def colours(path: Path) -> Counter[tuple[int, int, int]]:
    """Return how many pixels have each colour; 8 bits a channel, not interlaced, as browsers write them."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is no PNG"
    packed, at, width, height, channels = b"", 8, 0, 0, 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (depth, interlaced) == (8, 0) and colour in (2, 6)
            channels = 3 if colour == 2 else 4
        elif kind == b"IDAT":
            packed += body
        at += length + 12
    raw, row_bytes = zlib.decompress(packed), width * channels
    found: Counter[tuple[int, int, int]] = Counter()
    above = bytearray(row_bytes)
    for row in range(height):
        start = row * (row_bytes + 1)
        above = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + row_bytes]), above, channels)
        found.update(zip(above[0::channels], above[1::channels], above[2::channels]))
    return found


def _unfiltered(kind: int, row: bytearray, above: bytearray, channels: int) -> bytearray:
    """Return a row as it was before the filter of the PNG specification, section 9."""
    for index, value in enumerate(row if kind else b""):
        left = row[index - channels] if index >= channels else 0
        up, corner = above[index], above[index - channels] if index >= channels else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            near = left + up - corner
            guess = min((abs(near - left), 0, left), (abs(near - up), 1, up), (abs(near - corner), 2, corner))[2]
        row[index] = (value + guess) & 0xFF
    return row

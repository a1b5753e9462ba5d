"""Small file systems of a test's own, and what fills them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .wait import PATIENCE

MIB = 1 << 20


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@contextmanager
def mounted(kind: str, place: Path, mib: int) -> Iterator[Path]:
    """Mount a tmpfs, or an ext4 in a file beside ``place``; skip where that is not possible."""
    # Here, because the chaos runner fills disks as well, without pytest.
    import pytest

    place.mkdir()
    if kind == "tmpfs":
        done = run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place))
    else:
        image = place.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(mib * MIB)
        if not shutil.which("mkfs.ext4"):
            pytest.skip("no mkfs.ext4")
        made = run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image))
        assert made.returncode == 0, made.stderr
        done = run("mount", "-o", "loop", str(image), str(place))
    if done.returncode != 0:
        pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        assert run("umount", "-l", str(place)).returncode == 0


def free(place: Path) -> int:
    """Return the bytes that may still be written below a directory."""
    stat = os.statvfs(place)
    return stat.f_bavail * stat.f_frsize


class Ballast:
    """A file that takes room."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.path = disk / "ballast"

    def leave(self, amount: int) -> None:
        """Grow until only so many bytes are free; 0 fills the disk to the last block."""
        with self.path.open("ab", buffering=0) as file:
            while (room := free(self.disk)) > amount:
                with suppress(OSError):
                    if file.write(bytes(min(MIB, room - amount))):
                        continue
                break
            if not amount:
                with suppress(OSError):
                    while file.write(bytes(512)):
                        pass

    def drop(self) -> None:
        """Give the room back."""
        self.path.unlink()

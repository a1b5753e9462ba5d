"""What docs/OPERATING.md tells its readers to type. A block of a shell has a name behind ``sh``, by which a test runs it."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs/OPERATING.md"
#: First words of what is typed.
PROGRAMS = {
    "apt-get", "cargo", "cat", "chmod", "cp", "curl", "dmesg", "find", "ip", "iris", "iris-loadgen", "iris-tune", "journalctl",
    "kill", "make", "openssl", "promtool", "sed", "ss", "ssh", "sysctl", "systemctl", "ulimit",
}  # fmt: skip

_fence = re.compile(r"^```(\w*)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(language: str) -> list[tuple[str, str]]:
    fences = _fence.findall(PAGE.read_text())
    return [(name, text) for is_in, name, text in fences if is_in == language]


def names() -> list[str]:
    """Return the name of each block of a shell, empty if it has none."""
    return [name for name, _ in _blocks("sh")]


def blocks(name: str) -> list[str]:
    """Return the blocks of this name, as they stand."""
    found = [text for block, text in _blocks("sh") if block == name]
    assert found, f"the page has no block {name}"
    return found


def lines(name: str) -> list[str]:
    """Return the commands of the blocks of this name, one in each line, without comments."""
    typed = [line.split(" #", 1)[0].strip() for block in blocks(name) for line in block.splitlines()]
    return [line for line in typed if line]


def toml(has: str) -> str:
    """Return the one block of a configuration with this in it."""
    (found,) = [text for _, text in _blocks("toml") if has in text]
    return found


def mentioned() -> set[str]:
    """Return the commands within sentences and tables, without those that stand in a block with more arguments."""
    text = _fence.sub("", PAGE.read_text())
    said = {said.replace("\\|", "|") for said in re.findall(r"`([^`\n]+)`", text)}
    typed = {said for said in said if said.split()[0] in PROGRAMS and " " in said}
    shown = [line for name in names() for line in lines(name)]
    return {said for said in typed if not any(f"{line} ".startswith(f"{said} ") for line in shown)}

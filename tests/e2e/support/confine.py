"""What a child can be made to do without: rights, limits, system calls. For ``preexec_fn``."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_SECCOMP_RET_ERRNO, _SECCOMP_RET_ALLOW = 0x0005_0000, 0x7FFF_0000
#: io_uring_setup(2), the same number on every architecture younger than 2019.
_IO_URING_SETUP = 425

NOBODY = 65_534


def is_root() -> bool:
    """Whether rights must be given up before a lack of rights can be tested."""
    return os.geteuid() == 0


def without_rights() -> None:
    """Become nobody, if this is root."""
    if is_root():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def limit(what: int, amount: int) -> Callable[[], None]:
    """Return a setter of soft and hard limit."""
    return lambda: resource.setrlimit(what, (amount, amount))


def without_io_uring(error: int = errno.EPERM) -> Callable[[], None]:
    """Return a setter of a seccomp filter that refuses io_uring_setup, as container runtimes do."""
    # BPF: load the number; if it is io_uring_setup, fall to the errno, else to allow (seccomp(2)).
    program = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, _IO_URING_SETUP),
        (0x06, 0, 0, _SECCOMP_RET_ERRNO | error),
        (0x06, 0, 0, _SECCOMP_RET_ALLOW),
    ]
    assert platform.machine() in ("x86_64", "aarch64")
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    prog = Program(len(program), ctypes.addressof(buffer))

    def apply() -> None:
        keep = buffer  # The kernel reads it now.
        assert _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        assert _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prog), 0, 0) == 0
        assert keep

    return apply


@contextmanager
def public_place(binary: str) -> Iterator[tuple[Path, str]]:
    """Yield a directory that nobody owns and can reach, and a copy of the binary that nobody can run."""
    with tempfile.TemporaryDirectory(prefix="iris-e2e-") as name:
        place = Path(name)
        copy = shutil.copy(binary, place / "iris")
        home = place / "home"
        home.mkdir()
        for path in (place, Path(copy), home):
            path.chmod(0o755)
        if is_root():
            os.chown(home, NOBODY, NOBODY)
        yield home, str(copy)

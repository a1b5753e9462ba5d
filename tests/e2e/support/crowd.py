"""Thousands of connections of one process, driven by epoll."""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections import Counter
from contextlib import suppress

import pytest
from iris_client import _protocol as p

from .wait import PATIENCE


def allow_descriptors(count: int) -> None:
    """Raise this process's own limit of open files; skip the test where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip(f"{count} open files are needed, and the hard limit is {hard}: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


class Crowd:
    """Many sockets; what each was told last is kept."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.selector = selectors.DefaultSelector()
        self.readers: dict[socket.socket, p.FrameReader] = {}
        self.welcomed: set[socket.socket] = set()
        self.deliveries = 0
        self.endings: Counter[str] = Counter()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.readers:
            one.close()
        self.selector.close()

    def join(self, count: int, first: bytes = b"") -> list[socket.socket]:
        """Connect so many more; each says ``first``."""
        joined = []
        for _ in range(count):
            one = socket.create_connection(self.address, timeout=PATIENCE)
            if first:
                one.sendall(first)
            one.setblocking(False)
            self.selector.register(one, selectors.EVENT_READ)
            self.readers[one] = p.FrameReader()
            joined.append(one)
        return joined

    def listen(self, until: object, what: str, timeout: float = PATIENCE) -> None:
        """Read what comes until ``until()`` holds."""
        assert callable(until)
        deadline = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < deadline, f"after {timeout} s still not: {what}"
            for key, _ in self.selector.select(0.05):
                assert isinstance(key.fileobj, socket.socket)
                self.read(key.fileobj)

    def read(self, one: socket.socket) -> None:
        """Read one socket; note its end and the reason it was told."""
        data, told = b"", "no word"
        with suppress(ConnectionError):
            data = one.recv(65_536)
        for kind, body in self.readers[one].feed(data):
            frame = p.decode_server(kind, body)
            if isinstance(frame, p.ErrorReport):
                told = p.code_name(frame.code)
                data = b""
            elif isinstance(frame, p.Delivery):
                self.deliveries += 1
            elif isinstance(frame, p.Welcome):
                self.welcomed.add(one)
            elif isinstance(frame, p.Ping):
                one.sendall(p.encode_pong(frame.echo))
        if not data:
            self.endings[told] += 1
            self.selector.unregister(one)
            del self.readers[one]
            self.welcomed.discard(one)
            one.close()

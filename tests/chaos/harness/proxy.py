"""A TCP proxy that spoils what it carries: delay, bandwidth, stalls, resets. One thread, both ways alike."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque

#: Bytes that a direction holds at most; then the sender feels it.
HELD_MAX = 1 << 18
#: Seconds between two looks at what is due.
TICK = 0.002


class Way:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.held: deque[tuple[float, bytes]] = deque()
        self.bytes = 0
        self.ended = False

    def has_room(self) -> bool:
        """Whether more may be read."""
        return not self.ended and self.bytes < HELD_MAX


class Proxy:
    """Listens on an address of its own and connects on to ``target`` for each connection."""

    def __init__(self, host: str, target: tuple[str, int]) -> None:
        self.target = target
        #: Seconds that each byte is held, each way.
        self.delay = 0.0
        #: Bytes a second, each way and connection; 0: no bound.
        self.bandwidth = 0
        #: Nothing moves, and nothing is closed.
        self.stalled = False
        self.carried = 0
        self.connections = 0
        self._resets = threading.Event()
        self._stop = threading.Event()
        self._listener = socket.create_server((host, 0))
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._ways: list[Way] = []
        self._allowance = 0.0
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """End all connections with RST; new ones are taken."""
        self._resets.set()

    def close(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.is_set():
            self._turn()
            now = time.monotonic()
            if self.bandwidth:
                self._allowance = min(self._allowance + self.bandwidth * (now - last), self.bandwidth / 10)
            last = now
            for way in list(self._ways):
                self._write(way, now)
            if self._resets.is_set():
                self._resets.clear()
                self._end_all(reset=True)
        self._end_all(reset=False)
        self._listener.close()

    def _turn(self) -> None:
        """Wait a little for something to read, and read it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ, None)
            for way in self._ways:
                if way.has_room() and not self.stalled:
                    selector.register(way.source, selectors.EVENT_READ, way)
            for key, _ in selector.select(TICK):
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            far.settimeout(1.0)
            far.connect(self.target)
        except OSError:
            near.close()
            far.close()
            return
        for one in (near, far):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self._ways += [Way(near, far), Way(far, near)]

    def _read(self, way: Way) -> None:
        try:
            data = way.source.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end(way)
            return
        if not data:
            way.ended = True
        else:
            way.held.append((time.monotonic() + self.delay, data))
            way.bytes += len(data)

    def _write(self, way: Way, now: float) -> None:
        while way.held and way.held[0][0] <= now and not self.stalled and way in self._ways:
            due, data = way.held.popleft()
            room = len(data) if not self.bandwidth else min(len(data), int(self._allowance))
            if room == 0:
                way.held.appendleft((due, data))
                return
            try:
                count = way.target.send(data[:room])
            except (BlockingIOError, InterruptedError):
                count = 0
            except OSError:
                self._end(way)
                return
            if self.bandwidth:
                self._allowance -= count
            self.carried += count
            way.bytes -= count
            if count < len(data):
                way.held.appendleft((due, data[count:]))
                return
        if way.ended and not way.held:
            self._end(way)

    def _end(self, way: Way) -> None:
        """Close both sides of the connection to which this direction belongs."""
        both = (way.source, way.target)
        self._ways = [one for one in self._ways if one.source not in both]
        for one in both:
            one.close()

    def _end_all(self, *, reset: bool) -> None:
        for way in self._ways:
            with contextlib.suppress(OSError):
                if reset:
                    way.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                way.source.close()
        self._ways = []

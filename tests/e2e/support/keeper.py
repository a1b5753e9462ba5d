"""A small supervisor: it holds the listening sockets and passes them to one life of a server after the other."""

from __future__ import annotations

import socket
import sys

from .server import Server

#: What stands between this process and the server: descriptors come to lie at 3 and up, and LISTEN_PID is known only in
#: the child (sd_listen_fds(3)).
PASS = """
import fcntl, os, sys
count, rest = int(sys.argv[1]), sys.argv[2:]
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 500) for fd in rest[:count]]
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place)
os.closerange(3 + count, 1024)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(rest[count], rest[count:])
"""


class Keeper:
    """Holds a listener for each reactor, all on one address."""

    def __init__(self, reactors: int, backlog: int = 4096) -> None:
        self.listeners: list[socket.socket] = []
        address = ("127.0.0.1", 0)
        for _ in range(reactors):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen(backlog)
            address = listener.getsockname()
            self.listeners.append(listener)

    def supervise(self, server: Server) -> None:
        """Have each life of a server get the listeners."""
        fds = [listener.fileno() for listener in self.listeners]
        names = [f"tcp-{number}" for number in range(len(fds))]
        server.env |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(names)}
        server.env["IRIS_REACTOR__COUNT"] = str(len(fds))
        server.launcher = [sys.executable, "-c", PASS, str(len(fds)), *map(str, fds)]
        server.pass_fds = fds

    def close(self) -> None:
        """Let go of the port."""
        for listener in self.listeners:
            listener.close()

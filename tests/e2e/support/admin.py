"""The admin server as a program on the node's machine asks it: over TCP, or over its unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any

from .server import Server
from .wait import PATIENCE


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket. Its folder is opened first, because a socket's path has 107 bytes at most."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.close(folder)


def request(
    node: Server, method: str, path: str, headers: dict[str, str] | None = None, *, tcp: bool = False
) -> tuple[int, bytes]:
    """Return status and body."""
    connection = (
        http.client.HTTPConnection(node.admin, timeout=PATIENCE) if tcp else Unix(node.data / "admin.sock")
    )
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(
    node: Server, path: str, headers: dict[str, str] | None = None, *, tcp: bool = False
) -> tuple[int, dict[str, Any]]:
    """Return status and body of a POST, by the socket unless TCP is asked for."""
    status, body = request(node, "POST", path, headers, tcp=tcp)
    said: dict[str, Any] = json.loads(body)
    return status, said

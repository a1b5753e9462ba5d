"""The other half of the codec, and a scripted server, for tests only."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import uuid
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any, Callable, Optional

from iris_client import _protocol as wire

REPO = Path(__file__).resolve().parents[3]
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (REPO / "proto/vectors/wire-v1.json").read_text()
)

WELCOME: dict[str, Any] = {
    "version": 1,
    "server_time_ms": 1_734_776_741_000,
    "waiting": 0,
    "send_window": 256,
    "recv_window": 256,
    "payload_max": 65_536,
    "recipients_max": 256,
    "idle_timeout_ms": 300_000,
    "token_expires_s": 1_734_863_141,
    "dedup_window_ms": 3_600_000,
    "region": "local",
    "node": "n1",
    "user": "alice",
}


def welcome(**changes: Any) -> bytes:
    w = {**WELCOME, **changes}
    numbers = struct.pack("<BxQIIIIHIQQ", *(w[name] for name in list(WELCOME)[:10]))
    return wire.frame(
        wire.WELCOME, numbers + b"".join(str8(w[n]) for n in ("region", "node", "user"))
    )


def accepted(*runs: tuple[int, int], copies: int = 1) -> bytes:
    body = bytes((copies,)) + b"".join(struct.pack("<IH", *run) for run in runs)
    return wire.frame(wire.ACCEPTED, body)


def rejected(*entries: tuple[int, int, int]) -> bytes:
    return wire.frame(wire.REJECTED, b"".join(struct.pack("<IHI", *entry) for entry in entries))


def message(
    no: int, msg_id: uuid.UUID, sender: str, payload: bytes, flags: int = 0, time_ms: int = 1
) -> bytes:
    head = struct.pack("<I16sQB", no, msg_id.bytes, time_ms, flags)
    return wire.frame(wire.MESSAGE, head + str8(sender) + payload)


def presence(query: int, *entries: tuple[int, int, str]) -> bytes:
    parts = (struct.pack("<BQ", state, since) + str8(user) for state, since, user in entries)
    return wire.frame(wire.PRESENCE, struct.pack("<I", query) + b"".join(parts))


def drain(retry_after_ms: int, jitter_ms: int) -> bytes:
    return wire.frame(wire.DRAIN, struct.pack("<II", retry_after_ms, jitter_ms))


def error(code: int, retry_after_ms: int = 0, text: str = "") -> bytes:
    raw = text.encode()
    return wire.frame(wire.ERROR, struct.pack("<HIH", code, retry_after_ms, len(raw)) + raw)


def ping(echo: bytes) -> bytes:
    return wire.frame(wire.PING, echo)


def pong(echo: bytes, time_ms: int) -> bytes:
    return wire.frame(wire.PONG, echo + struct.pack("<Q", time_ms))


def str8(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw


def decode_client(kind: int, body: bytes) -> tuple[str, dict[str, Any]]:
    """Return what a client said, with the names of the vectors."""
    fields = wire.Fields(body)
    name, said = _CLIENT[kind](fields)
    fields.end()
    return name, said


def frames(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return all that a client said in whole frames."""
    reader = wire.FrameReader()
    return [decode_client(kind, body) for kind, body in reader.feed(data)]


def _hello(f: wire.Fields) -> tuple[str, dict[str, Any]]:
    assert f.take(4) == wire.MAGIC
    low, high, _, window = f.numbers(struct.Struct("<BBHI"))
    return "HELLO", {
        "version_min": low,
        "version_max": high,
        "window": window,
        "user": f.text(1),
        "device": f.text(1),
        "token": f.text(2),
    }


def _send(f: wire.Fields) -> tuple[str, dict[str, Any]]:
    seq, msg_id, flags, count = f.numbers(struct.Struct("<I16sBH"))
    return "SEND", {
        "seq": seq,
        "id": str(uuid.UUID(bytes=msg_id)),
        "flags": flags,
        "to": [f.name() for _ in range(count)],
        "payload": f.rest().hex(),
    }


def _query(f: wire.Fields) -> tuple[str, dict[str, Any]]:
    query, flags, count = f.numbers(struct.Struct("<IBH"))
    users = [f.name() for _ in range(count)]
    return "PRESENCE_QUERY", {"query": query, "watch": bool(flags & 1), "users": users}


def _unwatch(f: wire.Fields) -> tuple[str, dict[str, Any]]:
    (count,) = f.numbers(struct.Struct("<H"))
    return "UNWATCH", {"users": [f.name() for _ in range(count)]}


def _u32(frame: str, field: str) -> Callable[[wire.Fields], tuple[str, dict[str, Any]]]:
    return lambda f: (frame, {field: f.numbers(struct.Struct("<I"))[0]})


def _pong(f: wire.Fields) -> tuple[str, dict[str, Any]]:
    echo = f.take(8).hex()
    f.take(8)
    return "PONG", {"echo": echo}


_CLIENT: dict[int, Callable[[wire.Fields], tuple[str, dict[str, Any]]]] = {
    wire.HELLO: _hello,
    wire.SEND: _send,
    wire.ACK: _u32("ACK", "upto"),
    wire.WINDOW: _u32("WINDOW", "window"),
    wire.PRESENCE_QUERY: _query,
    wire.UNWATCH: _unwatch,
    wire.PING: lambda f: ("PING", {"echo": f.take(8).hex()}),
    wire.PONG: _pong,
}


class Talk:
    """One connection at the scripted server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = wire.FrameReader()
        self._heard: list[tuple[str, dict[str, Any]]] = []
        self.names: list[str] = []

    async def hear(self, name: str) -> dict[str, Any]:
        """Return the next frame of this type; others before it are skipped."""
        while True:
            while self._heard:
                kind, said = self._heard.pop(0)
                self.names.append(kind)
                if kind == name:
                    return said
            data = await self._reader.read(65_536)
            if not data:
                raise EOFError(f"the client closed before {name}")
            self._heard += [decode_client(kind, body) for kind, body in self._frames.feed(data)]

    async def ended(self) -> None:
        """Wait until the client closed."""
        while await self._reader.read(65_536):
            pass

    def say(self, *data: bytes) -> None:
        self._writer.write(b"".join(data))

    async def drain(self) -> None:
        """Wait until the client took what was said."""
        await self._writer.drain()

    def hang_up(self) -> None:
        self._writer.close()

    async def welcome(self, **changes: Any) -> dict[str, Any]:
        hello = await self.hear("HELLO")
        self.say(welcome(**{"recv_window": hello["window"], **changes}))
        return hello


Script = Callable[[Talk], Awaitable[None]]


class ScriptedServer:
    """Plays one script for each connection, in order; an error in a script is raised at the end."""

    def __init__(self, scripts: Iterable[Script], tls: Optional[ssl.SSLContext] = None) -> None:
        self._tls = tls
        self._scripts = list(scripts)
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        if number >= len(self._scripts):
            writer.close()
            return
        task = asyncio.ensure_future(self._scripts[number](Talk(reader, writer)))
        self._tasks.append(task)
        await asyncio.wait({task})
        writer.close()

    async def __aexit__(self, kind: Any, value: Any, traceback: Any) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)

"""Clients of a scripted server, on a loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from collections.abc import Awaitable
from typing import Any, Callable

import peer
from iris_client import AsyncIrisClient
from peer import ScriptedServer, Talk

ID = uuid.UUID("0193e8c0-5e2a-7a31-9c4f-2b6d7e8f9a0b")
Test = Callable[[], Awaitable[None]]


def on_a_loop(test: Test) -> Callable[[], None]:
    """Run a coroutine as a test, with a bound that no right run comes near."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 300))

    return run


def client(server: ScriptedServer, **options: Any) -> AsyncIrisClient:
    options = {"token": "token", "backoff": (0.001, 0.01), **options}
    return AsyncIrisClient("127.0.0.1", server.port, **options)


async def welcome_and_wait(talk: Talk) -> None:
    await talk.welcome()
    await close_politely(talk)


async def close_politely(talk: Talk) -> None:
    """Answer the PING by which a client asks whether its ACKs were read."""
    with contextlib.suppress(EOFError):
        echo = (await talk.hear("PING"))["echo"]
        talk.say(peer.pong(bytes.fromhex(echo), 1))
        await talk.ended()

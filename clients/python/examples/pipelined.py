"""Sends a thousand messages to bob, all under way at the same time."""

import asyncio
import os

from iris_client import AsyncIrisClient


async def main() -> None:
    async with AsyncIrisClient(port=int(os.environ.get("IRIS_PORT", "7400"))) as client:
        await client.login("alice")
        await asyncio.gather(*(client.send_msg("bob", f"message {n}") for n in range(1000)))
        print("1000 messages are in bob's inbox, on disk", flush=True)


asyncio.run(main())

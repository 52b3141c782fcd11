"""Waiting in tests: until something holds, no longer than it needs, with an end."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], Awaitable[object]], *, within_s: float) -> None:
    """Look again and again; TimeoutError when it never comes true."""
    async with asyncio.timeout(within_s):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)

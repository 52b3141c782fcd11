"""A cheap HTTP client for making load: keep-alive, one request at a time on a connection. Knows the CSC's two calls.

httpx and aiohttp cost as much for each request as a P-256 signature, and there are two cores for everything.
"""

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class BenchError(Exception):
    """What was measured did not work."""


class Connection:
    """One connection to the gateway with one client's token."""

    def __init__(self, url: str, token: str) -> None:
        self._address = urlsplit(url)
        self._token = token
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            self._address.hostname, self._address.port, limit=4 * 1024 * 1024
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def post(self, method: str, body: bytes) -> bytes:
        """The body of the answer; BenchError unless it is a 200."""
        head = (
            f"POST /csc/v1/{method} HTTP/1.1\r\nHost: {self._address.netloc}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        said = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(said.partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        if not said.startswith(b"http/1.1 200"):
            raise BenchError(f"{method}: {said.splitlines()[0].decode()} {answer.decode()}")
        return answer

    async def call(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self.post(method, json.dumps(parameters).encode()))
        return answer

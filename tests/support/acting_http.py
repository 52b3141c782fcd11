"""A web server that says exactly what a test tells it to, to the last byte, and remembers what it was asked."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Raw:
    """Parts as they go out, with a pause after each; `resets` ends the connection as a crash does."""

    parts: Sequence[bytes]
    pause_s: float = 0.0
    resets: bool = False


Answer = Callable[[Asked], Raw]


@dataclass
class Server:
    url: str
    asked: list[Asked] = field(default_factory=list)
    sent_bytes: int = 0


def head(status: int | str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Said", "Connection: close", *lines, "", ""]).encode()


def reply(status: int, body: bytes | str = b"", *lines: str, content_type: str = "application/json") -> Raw:
    content = body.encode() if isinstance(body, str) else body
    about = [f"Content-Type: {content_type}"] if content else []
    return Raw([head(status, f"Content-Length: {len(content)}", *about, *lines) + content])


def reply_json(status: int, document: Any, *lines: str) -> Raw:
    return reply(status, json.dumps(document), *lines)


@asynccontextmanager
async def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """One request to a connection. To HEAD, which changes nothing, it says a nonce (ACME)."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            asked = await _read(reader)
            server.asked.append(asked)
            said = reply(204, b"", "Replay-Nonce: n") if asked.method == "HEAD" else answer(asked)
            for part in said.parts:
                writer.write(part)
                await writer.drain()
                server.sent_bytes += len(part)
                await asyncio.sleep(said.pause_s)
            if said.resets:
                writer.transport.abort()
        with suppress(ConnectionError, ssl.SSLError):
            writer.close()

    listener = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server = Server(f"{'http' if tls is None else 'https'}://127.0.0.1:{port}")
    try:
        yield server
    finally:
        listener.close()


async def _read(reader: asyncio.StreamReader) -> Asked:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, body)

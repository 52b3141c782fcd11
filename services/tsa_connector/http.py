"""HTTP/1.1 outwards, as little of it as a TSA needs: one request over a kept connection, one whole answer back.

No redirects, no proxies, no cookies, no encodings: we talk to whom we were told to, and an answer has a limit that is
held while it comes in. httpx does all this and more, and took four fifths of what a time stamp costs this room.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from shared.errors import Code, RakkanError
from shared.settings import SettingsError

_HEAD_BYTES_MAX = 65_536
_PIECE_BYTES = 16_384
_IDLE_S = 25.0
"""Shorter than servers usually keep a connection: what they are just closing shall not be used."""
_HTTP, _HTTPS = 80, 443


class NotSentError(RakkanError):
    """TSA_UNAVAILABLE, and surely nothing reached the other side."""


class BrokenError(RakkanError):
    """TSA_UNAVAILABLE: the connection broke. A kept one may have been stale, so once more may help."""


class LateError(RakkanError):
    """TSA_UNAVAILABLE: no whole answer in time."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way on it."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self.idle_since = 0.0
        self._begin()

    @property
    def is_usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and self._answer is None

    async def exchange(self, request: bytes) -> Answer:
        if self._transport is None or self._transport.is_closing():
            raise BrokenError(Code.TSA_UNAVAILABLE, "the connection broke")
        self._answer = asyncio.get_running_loop().create_future()
        self._begin()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- what the loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by class, and are by what they can do.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked
            self.close()
            return
        # In pieces: a long head and the body behind it may come in one.
        for start in range(0, len(data), _PIECE_BYTES):
            self._feed(data[start : start + _PIECE_BYTES])
            if not self._is_asked:
                return

    @property
    def _is_asked(self) -> bool:
        return self._answer is not None

    def _feed(self, data: bytes) -> None:
        if not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES_MAX:
                self._fail(RakkanError(Code.TSA_UNTRUSTED, "an answer whose head has no end"))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(BrokenError(Code.TSA_UNAVAILABLE, "what came back is no HTTP"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is None:
            return
        # Without a length the end of the connection is the end of the body (RFC 9112 6.3).
        if exc is None and self._in_body and not {"content-length", "transfer-encoding"} & self._headers.keys():
            self._finish()
        else:
            self._fail(BrokenError(Code.TSA_UNAVAILABLE, "the connection broke"))

    # --- what the parser calls ---

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._bytes_max:
            self._fail(RakkanError(Code.TSA_UNTRUSTED, f"an answer of more than {self._bytes_max} bytes"))
            return
        self._body += data

    def on_message_complete(self) -> None:
        keeps = self._parser.should_keep_alive()
        self._finish()
        if not keeps:
            self.close()

    def _begin(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._in_body = False
        self._head_bytes = 0

    def _finish(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(Answer(self._parser.get_status_code(), self._headers, bytes(self._body)))

    def _fail(self, fault: RakkanError) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(fault)
        self.close()


class Origin:
    """One address, and the connections that are kept to it."""

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None,
        connect_timeout_s: float,
        connections_max: int,
        bytes_max: int,
    ) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise SettingsError(f"{url} names no host")
        self._host = parts.hostname
        self._tls = tls if parts.scheme == "https" else None
        self._port = parts.port or (_HTTPS if self._tls else _HTTP)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._authority = parts.netloc.rpartition("@")[2]
        self._connect_timeout_s = connect_timeout_s
        self._bytes_max = bytes_max
        self._room = asyncio.Semaphore(connections_max)
        self._idle: list[_Connection] = []

    async def request(
        self, method: str, content: bytes = b"", *, headers: Mapping[str, str], timeout_s: float
    ) -> Answer:
        """The whole answer in time, or TSA_UNAVAILABLE of the kind it is; TSA_UNTRUSTED for one without end."""
        request = self._request(method, content, headers)
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_s), self._room:
                connection = self._kept() or await self._connect()
                answer = await connection.exchange(request)
                self._keep(connection)
                return answer
        except TimeoutError:
            raise LateError(Code.TSA_UNAVAILABLE, f"no answer in {timeout_s:.3g} s") from None
        finally:
            if connection is not None and connection not in self._idle:
                connection.close()

    async def knock(self) -> None:
        """Whether anybody is there: a connection, TLS included, and not a word over it."""
        (await self._connect()).close()

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._bytes_max), self._host, self._port, ssl=self._tls
                )
        except (OSError, ssl.SSLError) as error:  # TimeoutError is an OSError
            raise NotSentError(Code.TSA_UNAVAILABLE, f"cannot be reached: {type(error).__name__}") from None
        return connection

    def _kept(self) -> _Connection | None:
        """The one used last: the others may grow old and go."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and now - connection.idle_since < _IDLE_S:
                return connection
            connection.close()
        return None

    def _keep(self, connection: _Connection) -> None:
        if connection.is_usable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)

    def _request(self, method: str, content: bytes, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {self._target} HTTP/1.1", f"host: {self._authority}"]
        lines += [f"{name}: {check_header(name, value)}" for name, value in headers.items()]
        if content:
            lines.append(f"content-length: {len(content)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def check_header(name: str, value: str) -> str:
    """The value, unless it would end the header before its time."""
    if not value.isprintable() or not name.replace("-", "").isalnum() or not (name + value).isascii():
        raise SettingsError(f"the header {name} cannot be sent: it has characters that no header may have")
    return value

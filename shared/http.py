"""The HTTP door of a room: a listening uvicorn and the edge around its application. Knows no path and no rule.

Used by gateway and authentication. What an application may take for granted behind the edge: an operation is in hand,
the body is whole and within its limit, and an exception that nobody expected is logged here and answered without words.
"""

import asyncio
import json
import re
import socket
import ssl
from asyncio import TimerHandle
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, cast

import structlog
import uvicorn
from pydantic import AfterValidator, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.errors import RakkanError
from shared.messaging import operation
from shared.proxies import Network, introduce, shown_directly
from shared.settings import Port, Section

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"x-content-type-options", b"nosniff"),
)
"""Sent unless the application says otherwise."""


def _some(network: Network) -> Network:
    if network.prefixlen == 0:
        raise ValueError("the whole Internet is no proxy of yours")
    return network


class HTTPDoor(Section):
    """Where a room listens for HTTP, and what one caller may cost. Port 0 takes any free one."""

    host: str = "127.0.0.1"
    port: Port = 0
    certificate_file: Path | None = None
    """With key_file: TLS ends here. Without, it ends at a proxy, or the door is on loopback."""
    key_file: Path | None = None
    clients_ca_file: Path | None = None
    """With certificate_file: clients may show a certificate of these authorities (RFC 8705). Browsers then ask people
    for one too, so this is for an origin that no signer visits."""
    proxies: tuple[Annotated[Network, AfterValidator(_some)], ...] = ()
    """Addresses or networks of the proxies before this door. From them, and from nobody else, `X-Forwarded-For` and
    `Client-Cert` (RFC 9440) are believed; they must overwrite what their callers send under these names."""
    body_bytes_max: int = Field(default=262_144, ge=1)
    head_bytes_max: int = Field(default=32_768, ge=1024)
    head_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    request_timeout_s: float = 25.0
    """The deadline that a request hands on to every room it asks."""
    keep_alive_s: int = 30
    connections_max: int = 1024
    requests_max: int = 256
    """Requests in hand at once; one more is answered 503 at once."""
    leave_s: float = 0.5
    """After SIGTERM: how long answers still invite clients to close before we stop listening."""
    drain_timeout_s: int = 35
    """After that: how long requests in hand may take."""


class Edge:
    """ASGI around an application: limits, the operation, security headers, one log line, and the last catch."""

    def __init__(self, app: ASGIApp, *, door: HTTPDoor, room: str) -> None:
        self._app = app
        self._door = door
        self._room = room
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        with operation.begin(self._room, timeout_s=self._door.request_timeout_s) as current:
            answer = _Answer(send, current.operation_id, _header(scope, b"x-request-id"))
            try:
                await self._admit(scope, receive, answer)
            except Exception:  # the HTTP edge: one of the two places where everything is caught
                log.exception("request failed", operation=current.operation_id, path=scope["path"][:200])
                if answer.status is None:
                    await answer.refuse(500, "server_error", "")
                else:
                    raise  # the answer is half sent: only closing the connection tells the client
            log.info(
                "request answered",
                operation=current.operation_id,
                method=scope["method"],
                path=scope["path"][:200],
                status=answer.status,
                took_ms=round((monotonic() - answer.began) * 1000, 1),
            )

    async def _admit(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            scope = introduce(scope, self._door.proxies)
        except RakkanError as refusal:
            await answer.refuse(HTTPStatus.BAD_REQUEST, "invalid_request", refusal.detail)
            return
        try:
            body = await self._body(scope, receive)
        except _Refused as refusal:
            # Of a body that came too slowly nothing more is awaited; of one that is too long the rest is on its way.
            rest = partial(_discard, receive) if refusal.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else _nothing
            await answer.refuse(refusal.status, "invalid_request", refusal.text, closing=rest)
            return
        if body is None:
            return
        # Counted from here: a body that comes in slowly must not take the place of one that is there.
        if self._in_hand >= self._door.requests_max:
            await answer.refuse(503, "temporarily_unavailable", "The service is busy, try again in a second")
            return
        self._in_hand += 1
        try:
            await self._app(scope, _replay(body, receive), answer.send)
        finally:
            self._in_hand -= 1

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, counted as it comes; None when the client went away."""
        most = self._door.body_bytes_max
        declared = _header(scope, b"content-length") or b"0"
        if not declared.isdigit() or int(declared[:20]) > most:
            raise _Refused(413, f"The request body may have {most} bytes")
        parts: list[bytes] = []
        held = 0
        try:
            async with asyncio.timeout(self._door.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    held += len(parts[-1])
                    if held > most:
                        raise _Refused(413, f"The request body may have {most} bytes")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise _Refused(408, "The request body did not arrive in time") from None


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _Answer:
    """What is sent back: remembers the status and adds the headers."""

    def __init__(self, send: Send, operation_id: str, request_id: bytes | None) -> None:
        self._send = send
        self.status: int | None = None
        self.began = monotonic()
        # The caller's own id is echoed for its logs; ours is what our logs know.
        self._own: list[tuple[bytes, bytes]] = [(b"x-operation-id", operation_id.encode())]
        if request_id and _REQUEST_ID.fullmatch(request_id):
            self._own.append((b"x-request-id", request_id))

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message = {**message, "headers": [*given, *self._own, *((n, v) for n, v in _HEADERS if n not in names)]}
        await self._send(message)

    async def refuse(
        self, status: int, error: str, text: str, *, closing: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Refuse in the words OAuth and the CSC share. With `closing` the connection ends, after that was done."""
        body = json.dumps({"error": error} | ({"error_description": text} if text else {})).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"1"))
        if closing is not None:
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": closing is not None})
        if closing is not None:
            await closing()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for given, value in scope["headers"] if given == name), None)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out the body that was read, then goes on with the connection."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


async def _nothing() -> None:
    """There is nothing to wait for."""


async def _discard(receive: Receive) -> None:
    # Closing with bytes unread resets the connection, and the client may never see why it was refused. So what is
    # still on its way is thrown away, within a limit that makes it no weapon.
    left = 32 * 1024 * 1024
    try:
        async with asyncio.timeout(5.0):
            more = True
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        return


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on the head, which it lacks: a slow or endless head held a connection for ever."""

    head_bytes_max = 32_768
    head_timeout_s = 10.0
    _timer: TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            self._arm()
        super().data_received(data)
        if self._in_head and self._head_bytes > self.head_bytes_max and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        tls = self.transport.get_extra_info("ssl_object")
        shown_directly(cast("Scope", self.scope), tls.getpeercert(binary_form=True) if tls else None)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout_s, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its hands on the signals: those are the runtime's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@asynccontextmanager
async def serve_http(app: ASGIApp, door: HTTPDoor) -> AsyncIterator[int]:
    """Listen while the context lasts; yields the port. Leaving waits for the requests in hand."""
    leaving = asyncio.Event()
    protocol: Any = type(
        "Protocol", (_Protocol,), {"head_bytes_max": door.head_bytes_max, "head_timeout_s": door.head_timeout_s}
    )
    config = uvicorn.Config(
        _inviting_to_close(app, leaving.is_set),
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=door.connections_max,
        timeout_keep_alive=door.keep_alive_s,
        timeout_graceful_shutdown=door.drain_timeout_s,
        ssl_certfile=door.certificate_file,
        ssl_keyfile=door.key_file,
        ssl_ca_certs=str(door.clients_ca_file) if door.clients_ca_file else None,
        ssl_cert_reqs=ssl.CERT_OPTIONAL if door.clients_ca_file else ssl.CERT_NONE,
    )
    server = _Server(config)
    listener = _listen(door)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # it failed to start: raise what it raised
        yield listener.getsockname()[1]
    finally:
        listening.cancel()
        leaving.set()
        await asyncio.sleep(0 if serving.done() else door.leave_s)
        server.should_exit = True
        await serving


def _listen(door: HTTPDoor) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(
        door.host, door.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)  # noqa: FBT003 - the standard library names it no other way
    return listener


def _inviting_to_close(app: ASGIApp, leaving: Callable[[], bool]) -> ASGIApp:
    """Once we are leaving, every answer says `Connection: close`, so that no client sends into a closing connection."""

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and leaving():
                message = {**message, "headers": [*_without(message.get("headers", ())), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, closing)

    return around


def _without(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() != b"connection"]

"""The HTTP door over a real socket: limits, headers, the last catch, and leaving without losing a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from shared.http import Edge, HTTPDoor, serve_http
from shared.messaging import operation

DOOR = HTTPDoor(
    body_bytes_max=1000, head_bytes_max=2048, head_timeout_s=0.3, body_timeout_s=0.3, requests_max=2, leave_s=0.1
)


class Echo:
    """Answers with the body and the operation it sees; `/wait` first waits, `/fail` fails."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.entered = 0
        self.arrived = asyncio.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered += 1
        self.arrived.release()
        if scope["path"] == "/fail":
            raise KeyError("a secret")
        if scope["path"] == "/wait":
            await self.go_on.wait()
        body = (await receive())["body"]
        headers = [(b"seen-operation", operation.current().operation_id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(echo: Echo) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    async with (
        serve_http(Edge(echo, door=DOOR, room="gateway"), DOOR) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client, port


async def raw(port: int, data: bytes) -> bytes:
    """What comes back for these bytes, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_request_passes_whole_and_the_answer_has_the_headers() -> None:
    async with serving(Echo()) as (client, _):
        answer = await client.post("/", content=b"x" * 1000, headers={"x-request-id": "partner-0001"})
    assert answer.content == b"x" * 1000
    assert answer.headers["x-operation-id"] == answer.headers["seen-operation"]
    assert answer.headers["x-request-id"] == "partner-0001"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


async def test_a_request_id_that_is_no_plain_word_is_not_echoed() -> None:
    async with serving(Echo()) as (client, _):
        answer = await client.post("/", headers={"x-request-id": "<script>alert(1)</script>"})
    assert "x-request-id" not in answer.headers


async def test_a_declared_length_beyond_the_limit_is_refused_before_the_application_sees_it() -> None:
    echo = Echo()
    async with serving(echo) as (client, _):
        answer = await client.post("/", content=b"x" * 10_000_000)
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")
    assert echo.entered == 0


async def test_a_chunked_body_is_counted_as_it_comes() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 100

    echo = Echo()
    async with serving(echo) as (client, _):
        answer = await client.post("/", content=chunks())
    assert answer.status_code == 413
    assert echo.entered == 0


async def test_a_body_that_does_not_come_is_refused_in_time() -> None:
    async with serving(Echo()) as (_, port):
        answer = await raw(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_does_not_end_is_cut_by_length_and_by_time() -> None:
    async with serving(Echo()) as (_, port):
        assert b" 400 " in await raw(port, b"GET / HTTP/1.1\r\nA: " + b"x" * 5000)
        assert await raw(port, b"GET / HTTP/1.1\r\nA: x") == b""
        assert await raw(port, b"") == b""


async def test_an_unexpected_exception_is_answered_without_words() -> None:
    async with serving(Echo()) as (client, _):
        answer = await client.post("/fail")
    assert (answer.status_code, answer.json()) == (500, {"error": "server_error"})


async def test_one_request_too_many_is_answered_at_once() -> None:
    echo = Echo()
    async with serving(echo) as (client, _):
        held = [asyncio.create_task(client.post("/wait")) for _ in range(2)]
        await echo.arrived.acquire()
        await echo.arrived.acquire()
        refused = await client.post("/")
        echo.go_on.set()
        assert [(await answer).status_code for answer in held] == [200, 200]
        assert (await client.post("/")).status_code == 200
    assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
    assert refused.headers["retry-after"] == "1"


async def test_leaving_waits_for_the_request_in_hand_and_asks_clients_to_close() -> None:
    echo = Echo()
    async with httpx.AsyncClient(trust_env=False) as client:
        async with serve_http(Edge(echo, door=DOOR, room="gateway"), DOOR) as port:
            url = f"http://127.0.0.1:{port}"
            waiting = asyncio.create_task(client.post(f"{url}/wait", content=b"late"))
            await echo.arrived.acquire()
            asyncio.get_running_loop().call_later(0.3, echo.go_on.set)
        answer = await waiting
        assert (answer.content, answer.headers["connection"]) == (b"late", "close")
        with pytest.raises(httpx.ConnectError):
            await client.post(url)


async def test_a_body_that_raises_leaves_the_exception_as_it_is() -> None:
    with pytest.raises(LookupError):
        async with serve_http(Edge(Echo(), door=DOOR, room="gateway"), DOOR):
            raise LookupError


async def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    async with serve_http(Edge(Echo(), door=DOOR, room="gateway"), DOOR) as port:
        with pytest.raises(OSError, match="in use"):
            async with serve_http(Echo(), HTTPDoor(port=port)):
                pass


async def test_only_http_passes_the_edge() -> None:
    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(_: Message) -> None:
        raise AssertionError

    echo = Echo()
    await Edge(echo, door=DOOR, room="gateway")({"type": "websocket"}, receive, send)
    assert echo.entered == 0


async def test_every_request_the_door_took_is_answered_when_it_leaves_under_load() -> None:
    """What the kernel still queues when the door closes is refused by the kernel: no program can take it any more."""
    answered = 0
    echo = Echo()

    async def work(url: str) -> None:
        nonlocal answered
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    answer = await client.post(url, content=b"x" * 500)
                except httpx.TransportError:
                    return
                assert answer.content == b"x" * 500
                answered += 1

    door = DOOR.model_copy(update={"requests_max": 100})
    async with asyncio.TaskGroup() as group, serve_http(Edge(echo, door=door, room="gateway"), door) as port:
        for _ in range(8):
            group.create_task(work(f"http://127.0.0.1:{port}/"))
        await asyncio.sleep(0.5)
    assert answered > 8
    assert echo.entered == answered

"""HTTP as the TSA connector speaks it: connections kept and found stale, and answers of every shape."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from services.tsa_connector.http import Answer, BrokenError, LateError, NotSentError, Origin, check_header
from shared.errors import Code, RakkanError
from shared.settings import SettingsError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def origin(serve: Serve, *, path: str = "/tsa?x=1", **more: Any) -> AsyncIterator[Origin]:
    limits = {"connect_timeout_s": 2.0, "connections_max": 4, "bytes_max": 1000} | more
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        opened = Origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}", tls=None, **limits)
        yield opened
        opened.close()


async def ask(opened: Origin, content: bytes = b"query", *, timeout_s: float = 2.0) -> Answer:
    return await opened.request("POST", content, headers={"x-one": "1"}, timeout_s=timeout_s)


def saying(*answers: bytes, then_close: bool = False) -> tuple[Serve, list[bytes]]:
    """One answer for each request of a connection; the heads that came."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in answers:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(len(b"query"))
                writer.write(answer)
                await writer.drain()
            if not then_close:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return serve, heads


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Two:  b \r\n\r\nok"


async def test_what_is_sent_is_what_was_said_and_the_length() -> None:
    serve, heads = saying(OK)
    async with origin(serve) as opened:
        answer = await ask(opened)
    head = heads[0].decode().split("\r\n")
    assert head[0] == "POST /tsa?x=1 HTTP/1.1"
    assert sorted(line.partition(":")[0] for line in head[1:-2]) == ["content-length", "host", "x-one"]
    assert (answer.status, answer.headers["x-two"], answer.body) == (200, "b", b"ok")


def test_the_loop_that_rooms_run_on_will_do() -> None:
    async def once() -> Answer:
        serve, _ = saying(OK)
        async with origin(serve) as opened:
            await opened.knock()
            return await ask(opened)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(once()).body == b"ok"


async def test_a_connection_is_kept_for_the_next_request() -> None:
    serve, heads = saying(OK, OK, OK)
    async with origin(serve) as opened:
        for _ in range(3):
            assert (await ask(opened)).body == b"ok"
        assert (len(heads), len(opened._idle)) == (3, 1)


async def test_a_kept_connection_that_the_server_closed_is_told_as_broken_or_replaced() -> None:
    serve, _ = saying(OK, then_close=True)
    async with origin(serve) as opened:
        await ask(opened)
        await asyncio.sleep(0.05)
        assert (await ask(opened)).body == b"ok"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
    ids=["chunked", "until the end", "1.0", "no content", "empty"],
)
async def test_an_answer_of_every_shape_is_read(answer: bytes, body: bytes) -> None:
    serve, _ = saying(answer, then_close=True)
    async with origin(serve) as opened:
        assert (await ask(opened)).body == body


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", Code.TSA_UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Code.TSA_UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", Code.TSA_UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", Code.TSA_UNAVAILABLE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + bytes(1001), Code.TSA_UNTRUSTED),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1001), Code.TSA_UNTRUSTED),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n", Code.TSA_UNTRUSTED),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n", Code.TSA_UNTRUSTED),
    ],
    ids=["ssh", "short", "half a chunk", "two lengths", "long", "long until the end", "long header", "many headers"],
)
async def test_an_answer_that_is_none_is_refused(answer: bytes, code: Code) -> None:
    serve, _ = saying(answer, then_close=True)
    async with origin(serve) as opened:
        with pytest.raises(RakkanError) as refusal:
            await ask(opened)
        assert refusal.value.code is code
        assert opened._idle == []


async def test_what_comes_before_it_was_asked_for_closes_the_connection() -> None:
    serve, heads = saying(OK + OK, OK)
    async with origin(serve) as opened:
        await ask(opened)
        await asyncio.sleep(0.05)
        assert (await ask(opened)).body == b"ok"
    assert len(heads) == 2


async def test_silence_ends_in_time_and_its_connection_is_not_kept() -> None:
    serve, _ = saying(b"", b"")
    async with origin(serve) as opened:
        with pytest.raises(LateError):
            await ask(opened, timeout_s=0.1)
        assert opened._idle == []


async def test_nobody_there_is_told_from_a_connection_that_broke() -> None:
    serve, _ = saying(OK)
    async with origin(serve) as opened:
        pass
    with pytest.raises(NotSentError):
        await ask(opened)
    with pytest.raises(NotSentError):
        await opened.knock()
    serve, _ = saying(then_close=True)
    async with origin(serve) as opened:
        with pytest.raises(BrokenError):
            await ask(opened)
        await opened.knock()


async def test_no_more_connections_are_made_than_allowed() -> None:
    open_now, most = 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(len(b"query"))
                await asyncio.sleep(0.02)
                writer.write(OK)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            open_now -= 1
            writer.close()

    async with origin(serve, connections_max=3) as opened:
        answers = await asyncio.gather(*(ask(opened) for _ in range(20)))
    assert (len(answers), most) == (20, 3)


@pytest.mark.parametrize(("name", "value"), [("x", "a\r\ny: b"), ("x", "\x00"), ("x:y", "a"), ("x", "ü"), ("", "a")])
def test_a_header_that_would_be_two_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError):
        check_header(name, value)

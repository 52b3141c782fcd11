"""The TSA connector against OpenSSL's TSA over HTTP, and `openssl ts -verify` against the connector's tokens."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.local.tsa import OTHER_POLICY, POLICY, Server, make
from services.tsa_connector.client import TSAClient
from services.tsa_connector.handlers import Handlers
from services.tsa_connector.settings import TSA, trusted
from shared.algorithms import Hash
from shared.errors import Code, RakkanError
from tests.support.openssl import openssl
from tests.support.timestamps import asking

DOCUMENT = b"the document that is time-stamped"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(make(tmp_path_factory.mktemp("openssl") / "tsa")) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@asynccontextmanager
async def connector(url: str, anchors_file: Path, **more: object) -> AsyncIterator[Handlers]:
    settings = TSA.model_validate({"url": url, "anchors_file": anchors_file, "hashes": tuple(Hash), **more})
    client = TSAClient.open(settings)
    try:
        yield Handlers(endpoint=client, tsa=trusted(settings), hashes=settings.hashes, policy=settings.policy)
    finally:
        await client.close()


def digest_of(hash_: Hash) -> bytes:
    return hashlib.new(hash_.value, DOCUMENT).digest()


@asynccontextmanager
async def answering(*parts: bytes, pause_s: float = 0.0) -> AsyncIterator[str]:
    """A server that says this to everybody, part by part."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def head(status: str = "200 OK", *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *lines, "", ""]).encode()


@pytest.mark.parametrize("hash_", Hash)
async def test_openssl_accepts_a_token_over_every_hash(server: Server, tmp_path: Path, hash_: Hash) -> None:
    async with connector(server.url, server.authority.anchors_file, accuracy_max_s=1.0) as handlers:
        (stamped,) = (await handlers.timestamp(asking(digest_of(hash_), hash_))).tokens
    (tmp_path / "token").write_bytes(stamped.token)
    verified = openssl(
        "ts", "-verify", "-token_in", "-in", "token", "-digest", digest_of(hash_).hex(),
        "-CAfile", server.authority.anchors_file, folder=tmp_path,
    )  # fmt: skip
    assert "Verification: OK" in verified
    assert abs(stamped.time - datetime.now(UTC)) < timedelta(seconds=5)


async def test_many_at_once_each_get_their_own_token(server: Server) -> None:
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(12)]
    async with connector(server.url, server.authority.anchors_file) as handlers:
        asked = (handlers.timestamp(asking(digest)) for digest in digests)
        stamped = await asyncio.gather(*asked)
    assert len({one.tokens[0].token for one in stamped}) == len(digests)


async def test_the_callers_nonce_is_in_the_token(server: Server) -> None:
    nonce = b"\x00" + b"\xfe" * 31
    async with connector(server.url, server.authority.anchors_file) as handlers:
        (stamped,) = (await handlers.timestamp(asking(digest_of(Hash.SHA256), nonce=nonce))).tokens
    assert nonce.lstrip(b"\x00") in stamped.token


async def test_the_policy_asked_for_is_the_policy_given(server: Server) -> None:
    async with connector(server.url, server.authority.anchors_file, policy=OTHER_POLICY) as handlers:
        await handlers.timestamp(asking(digest_of(Hash.SHA256)))
    await refused(Code.TSA_REFUSED, server.url, server.authority.anchors_file, policy="2.999.7")
    await refused(Code.TSA_UNTRUSTED, server.url, server.authority.anchors_file, policies=(OTHER_POLICY,))
    async with connector(server.url, server.authority.anchors_file, policies=(POLICY,)) as handlers:
        await handlers.timestamp(asking(digest_of(Hash.SHA256)))


async def refused(code: Code, url: str, anchors_file: Path, **more: object) -> str:
    async with connector(url, anchors_file, **more) as handlers:
        with pytest.raises(RakkanError) as refusal:
            await handlers.timestamp(asking(digest_of(Hash.SHA256)))
    assert refusal.value.code is code, refusal.value.detail
    return refusal.value.detail


async def test_a_tsa_of_another_root_is_not_trusted(server: Server, tmp_path: Path) -> None:
    stranger = make(tmp_path / "other")
    await refused(Code.TSA_UNTRUSTED, server.url, stranger.anchors_file)


async def test_a_tsa_that_is_down_is_unavailable(server: Server, unused_port: int) -> None:
    await refused(Code.TSA_UNAVAILABLE, f"http://127.0.0.1:{unused_port}/", server.authority.anchors_file)


@pytest.fixture
async def unused_port() -> int:
    async with answering() as url:
        return int(url.rsplit(":", 1)[1].strip("/"))


async def test_a_silent_tsa_is_unavailable_in_time(server: Server) -> None:
    async with answering(head(), pause_s=5.0) as url:
        began = asyncio.get_running_loop().time()
        await refused(Code.TSA_UNAVAILABLE, url, server.authority.anchors_file, timeout_s=0.3)
        assert asyncio.get_running_loop().time() - began < 2


async def test_a_tsa_that_drips_bytes_gets_no_more_time(server: Server) -> None:
    async with answering(head(), *[b"0"] * 100, pause_s=0.1) as url:
        await refused(Code.TSA_UNAVAILABLE, url, server.authority.anchors_file, timeout_s=0.5)


async def test_a_connection_that_breaks_twice_is_unavailable(server: Server) -> None:
    async with answering(b"HTTP/1.1 200 O") as url:
        await refused(Code.TSA_UNAVAILABLE, url, server.authority.anchors_file)


@pytest.mark.parametrize("length", ["Content-Length: 70000", "Transfer-Encoding: chunked"])
async def test_an_oversized_answer_is_dropped(server: Server, length: str) -> None:
    body = b"0" * 70_000 if "chunked" not in length else b"1000\r\n" + b"0" * 4096 + b"\r\n"
    async with answering(head("200 OK", length), *[body] * 40) as url:
        assert "more than" in await refused(Code.TSA_UNTRUSTED, url, server.authority.anchors_file)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (head("200 OK", "Content-Type: text/html") + b"<html>please log in</html>", Code.TSA_UNTRUSTED),
        (head("200 OK", "Content-Encoding: gzip") + b"\x1f\x8b", Code.TSA_UNTRUSTED),
        (head("200 OK", "Content-Type: application/timestamp-reply"), Code.TSA_UNTRUSTED),
        (head("200 OK") + b"0\x03\x02\x01\x00", Code.TSA_UNTRUSTED),
        (head("302 Found", "Location: http://127.0.0.1:1/"), Code.TSA_UNAVAILABLE),
        (head("503 Service Unavailable"), Code.TSA_UNAVAILABLE),
        (head("429 Too Many Requests"), Code.TSA_UNAVAILABLE),
        (head("401 Unauthorized"), Code.TSA_REFUSED),
        (head("403 Forbidden"), Code.TSA_REFUSED),
    ],
)
async def test_what_is_no_timestamp_reply_is_refused(server: Server, answer: bytes, code: Code) -> None:
    async with answering(answer) as url:
        await refused(code, url, server.authority.anchors_file)


async def test_the_tsa_is_told_who_asks(server: Server, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(head("503 Not now"))
        writer.close()

    (tmp_path / "secret").write_text("open sesame\n")
    async with await asyncio.start_server(note, "127.0.0.1", 0) as door:
        url = f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}/"
        anchors = server.authority.anchors_file
        await refused(Code.TSA_UNAVAILABLE, url, anchors, username="rakkan", password_file=tmp_path / "secret")
        await refused(Code.TSA_UNAVAILABLE, url, anchors, bearer_file=tmp_path / "secret")
    assert b"basic cmfra2fuom9wzw4gc2vzyw1l" in heads[0].lower()
    assert b"bearer open sesame" in heads[1].lower()

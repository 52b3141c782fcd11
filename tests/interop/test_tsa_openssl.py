"""The TSA connector against OpenSSL's TSA over HTTP, and `openssl ts -verify` against the connector's tokens."""

import asyncio
import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.local.tsa import OTHER_POLICY, POLICY, Server, make
from services.tsa_connector.handlers import Handlers
from shared.algorithms import Hash
from shared.errors import Code, RakkanError
from shared.messaging import operation
from tests.support.openssl import openssl
from tests.support.timestamps import asking
from tests.support.tls_files import make_tls_files
from tests.support.tsa_rooms import entry, registry_of, tsa_room

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
async def connector(
    url: str, anchors_file: Path, *, secrets_folder: Path = Path(), **more: object
) -> AsyncIterator[Handlers]:
    anchor = await asyncio.to_thread(anchors_file.read_text)
    tsa = entry(url, anchor=anchor, hashes=tuple(Hash), **more)
    async with tsa_room(registry_of({"clock": tsa}), secrets_folder=secrets_folder) as room:
        with operation.begin("gateway", timeout_s=20):
            yield room.handlers


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
    async with connector(server.url, server.authority.anchors_file, accuracy_max_ms=1000) as handlers:
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
    async with connector(server.url, server.authority.anchors_file) as handlers:
        (stamped,) = (await handlers.timestamp(asking(digest_of(Hash.SHA256), policy=OTHER_POLICY))).tokens
    assert stamped.policy == OTHER_POLICY
    await refused(Code.TSA_POLICY_REFUSED, server.url, server.authority.anchors_file, default_policy="2.999.7")
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


async def test_fifty_megabytes_are_dropped_after_the_first_few(server: Server) -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head("200 OK", f"Content-Length: {50 * 2**20}"))
            while sent < 50 * 2**20:
                writer.write(bytes(65_536))
                sent += 65_536
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(pour, "127.0.0.1", 0) as door:
        url = f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}/"
        assert "more than" in await refused(Code.TSA_UNTRUSTED, url, server.authority.anchors_file)
    assert sent < 20 * 2**20


async def test_a_connection_that_is_reset_in_the_middle_of_a_body_is_unavailable(server: Server) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head("200 OK", "Content-Type: application/timestamp-reply", "Content-Length: 900") + b"\x30" * 100)
        await writer.drain()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as door:
        url = f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}/"
        await refused(Code.TSA_UNAVAILABLE, url, server.authority.anchors_file)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_nobody_is_followed_to_another_address(server: Server, status: str) -> None:
    knocks = 0

    def knock(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocks
        knocks += 1
        writer.close()

    async with await asyncio.start_server(knock, "127.0.0.1", 0) as inside:
        private = f"http://127.0.0.1:{inside.sockets[0].getsockname()[1]}/"
        async with answering(head(status, f"Location: {private}", "Content-Length: 0")) as url:
            await refused(Code.TSA_UNAVAILABLE, url, server.authority.anchors_file)
    assert knocks == 0


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


@pytest.mark.parametrize(
    ("login", "told"),
    [
        ({"kind": "basic", "username": "rakkan", "secret": "secret"}, b"authorization: Basic cmFra2FuOm9wZW4gc2VzYW1l"),
        ({"kind": "bearer", "secret": "secret"}, b"authorization: Bearer open sesame"),
        ({"kind": "header", "header": "x-api-key", "secret": "secret"}, b"x-api-key: open sesame"),
        (
            {"kind": "hook", "hook": "licence_file", "header": "x-licence", "secret": "secret"},
            b"x-licence: b3BlbiBzZXNhbWUK",
        ),
    ],
)
async def test_the_tsa_is_told_who_asks(server: Server, tmp_path: Path, login: dict[str, str], told: bytes) -> None:
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(head("503 Not now"))
        writer.close()

    (tmp_path / "secret").write_text("open sesame\n")
    async with await asyncio.start_server(note, "127.0.0.1", 0) as door:
        url = f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}/"
        more = {"login": login, "secrets_folder": tmp_path}
        await refused(Code.TSA_UNAVAILABLE, url, server.authority.anchors_file, **more)
    assert told.lower() in heads[0].lower()
    assert told.partition(b": ")[2] in heads[0]


@dataclass(frozen=True)
class TLSDoor:
    """A web server that asks for a certificate, in front of OpenSSL's TSA."""

    url: str
    anchor: str
    folder: Path


@pytest.fixture
async def tls_door(server: Server, tmp_path: Path) -> AsyncIterator[TLSDoor]:
    names = {"server": "127.0.0.1", "client": "rakkan", "other": "other.example"}
    root = make_tls_files(tmp_path, names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(cadata=root)
    context.verify_mode = ssl.CERT_REQUIRED

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            sent = await reader.readuntil(b"\r\n\r\n")
            length = int(sent.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            answer = await asyncio.to_thread(server.authority.answer, await reader.readexactly(length))
            writer.write(head("200 OK", "Content-Type: application/timestamp-reply", f"Content-Length: {len(answer)}"))
            writer.write(answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context) as door:
        yield TLSDoor(f"https://127.0.0.1:{door.sockets[0].getsockname()[1]}/", root, tmp_path)


async def test_the_tsa_knows_us_by_our_certificate(server: Server, tls_door: TLSDoor) -> None:
    login = {"kind": "mtls", "secret": "client.pem"}
    more = {"tls_anchors": [tls_door.anchor], "secrets_folder": tls_door.folder}
    async with connector(tls_door.url, server.authority.anchors_file, login=login, **more) as handlers:
        assert (await handlers.timestamp(asking(digest_of(Hash.SHA256)))).tokens
    await refused(Code.TSA_UNAVAILABLE, tls_door.url, server.authority.anchors_file, **more)


async def test_a_web_server_that_is_not_who_it_should_be_is_told_nothing(server: Server, tls_door: TLSDoor) -> None:
    login = {"kind": "mtls", "secret": "client.pem"}
    more = {"login": login, "secrets_folder": tls_door.folder}
    anchors = server.authority.anchors_file
    # Of a root that is not believed for this TSA, and of the right root under another name.
    await refused(Code.TSA_UNAVAILABLE, tls_door.url, anchors, **more)
    elsewhere = tls_door.url.replace("127.0.0.1", "localhost")
    await refused(Code.TSA_UNAVAILABLE, elsewhere, anchors, tls_anchors=[tls_door.anchor], **more)

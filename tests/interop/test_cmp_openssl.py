"""CMP against `openssl cmp -port`: a third reading of the standard, and faults that its options make.

It answers every order with one fixed certificate, and it keeps one transaction, for as long as one connection: one
server for each test, behind a relay that holds the connection.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.local.program import wait_until
from services.ca_connector.authorities import Authority
from services.ca_connector.orders import Issued, Order, Pending, Refused, State
from shared.errors import Code, RakkanError
from tests.support.openssl import openssl
from tests.support.ordering import after, leaf, new_key, now, open_entry, order_for, settle
from tests.support.peers.environments import program as path_of
from tests.support.peers.running import free_port, listening, program, write_secrets

BY_SIGNATURE, BY_MAC = "signature", "mac"


class Authorities:
    """The files that a server and we need, made by openssl itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("ca", "server", "ra"):
            openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key", folder=folder)
        openssl("req", "-x509", "-new", "-key", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/C=JP/CN=Mock CA",
                folder=folder)  # fmt: skip
        self.certify("server", "/CN=Mock CMP server", usage="extendedKeyUsage=1.3.6.1.5.5.7.3.27")
        self.certify("ra", "/CN=Our RA", usage="keyUsage=digitalSignature")
        self.secrets = write_secrets(folder / "secrets", ra=self.read("ra.pem") + self.read("ra.key"), mac="hush")

    def certify(self, name: str, subject: str, *, usage: str) -> None:
        (self.folder / f"{name}.cnf").write_text(f"{usage}\nsubjectKeyIdentifier=hash\n")
        openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-subj", subject, folder=self.folder)
        self.sign(name)

    def sign(self, name: str, form: str = "PEM") -> None:
        openssl("x509", "-req", "-inform", form, "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "20", "-extfile", f"{name}.cnf", "-out", f"{name}.pem",
                folder=self.folder)  # fmt: skip

    def answer(self, order: Order) -> None:
        """The certificate that the server will have for this order: the order's own, or one made now."""
        if order.chain:
            (self.folder / "answer.pem").write_bytes(leaf(order).public_bytes(Encoding.PEM))
            return
        (self.folder / "answer.csr").write_bytes(order.csr)
        (self.folder / "answer.cnf").write_text("keyUsage=critical,nonRepudiation\n")
        self.sign("answer", "DER")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("cmp-mock"))


@asynccontextmanager
async def mock(
    authorities: Authorities, order: Order, *options: str, by: str = BY_SIGNATURE, **connection: Any
) -> AsyncIterator[Authority]:
    """A server with these options, and our adapter to it."""
    authorities.answer(order)
    port = free_port()
    shared = ["-srv_ref", "rakkan", "-srv_secret", "pass:hush"] if by == BY_MAC else []
    server = program("openssl-cmp", authorities.folder)
    server.start(
        [path_of("openssl", package="openssl"), "cmp", "-port", str(port), "-srv_cert", "server.pem", "-srv_key",
         "server.key", "-srv_trusted", "ca.pem", "-rsp_cert", "answer.pem", "-rsp_capubs", "ca.pem", *shared, *options],
        {"PATH": "/usr/bin:/bin"}, folder=authorities.folder,
    )  # fmt: skip
    wait_until(lambda: listening(f"http://127.0.0.1:{port}/"), server, timeout_s=10)
    relay = await Relay.open(port)
    known = {"reference": "rakkan", "secret": "mac"} if by == BY_MAC else {
        "key": "ra", "responders": [authorities.read("ca.pem")],
    }  # fmt: skip
    entry = {
        "label": "openssl's mock",
        "protocol": "cmp",
        "connection": {"url": f"{relay.url}/pkix/", **known, **connection},
        "anchors": [authorities.read("ca.pem")],
        "profiles": {"signing": {"label": "Document signing"}},
        "default_profile": "signing",
    }
    authority = open_entry(entry, authorities.secrets)
    try:
        yield authority
    finally:
        await authority.close()
        await relay.close()
        server.stop()


class Relay:
    """Between us and the server, with one connection to it however often we connect.

    It answers in HTTP/1.0, after which our HTTP library keeps no connection, and forgets a transaction with it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Relay":
        relay = cls(*await asyncio.open_connection("127.0.0.1", port))
        relay.server = await asyncio.start_server(relay.converse, "127.0.0.1", 0)
        relay.url = f"http://127.0.0.1:{relay.server.sockets[0].getsockname()[1]}"
        return relay

    async def close(self) -> None:
        self.server.close()
        self.writer.close()
        await self.server.wait_closed()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.writer.write(await whole(reader))
            writer.write(await whole(self.reader))
            await writer.drain()
        finally:
            writer.close()


async def whole(reader: asyncio.StreamReader) -> bytes:
    """One request or one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


@pytest.mark.parametrize("by", [BY_SIGNATURE, BY_MAC])
@pytest.mark.parametrize("kind", ["p10cr", "ir", "cr"])
async def test_openssl_enrolls_us(authorities: Authorities, by: str, kind: str) -> None:
    key = new_key()
    order = order_for(key)
    options = () if kind == "p10cr" else ("-accept_raverified",)
    async with mock(authorities, order, *options, by=by, request=kind) as authority:
        order, outcome, polls = await settle(authority, order, lambda: None)
    assert order.state is State.CONFIRMED, outcome
    assert polls == 0
    assert leaf(order).public_key() == key.public_key()
    if kind == "ir":  # only an ip brings the CA's own certificates (RFC 9483 4.1.1)
        assert x509.load_der_x509_certificate(order.chain[1]).subject == leaf(order).issuer


async def test_openssl_updates_a_key(authorities: Authorities) -> None:
    first, _ = await enrolled(authorities)
    second = order_for(new_key(), previous=first)
    async with mock(authorities, first, "-accept_raverified", renewal="kur") as authority:
        order, outcome, _ = await settle(authority, second, lambda: None)
    assert order.state is State.CONFIRMED, outcome
    assert order.chain[0] == first.chain[0]  # it gives back what was to be updated, and looks whether that was named


@pytest.mark.parametrize("by", [BY_SIGNATURE, BY_MAC])
async def test_openssl_lets_us_wait_and_says_how_long(authorities: Authorities, by: str) -> None:
    order = order_for(new_key())
    async with mock(authorities, order, "-poll_count", "2", "-check_after", "7", by=by) as authority:
        first = await authority.submit(order)
        assert isinstance(first, Pending)
        order = after(order, first)
        second = await authority.poll(order)
        assert isinstance(second, Pending)
        assert second.not_before is not None
        assert (second.not_before - now()).total_seconds() == pytest.approx(7, abs=2)
        order, outcome, _ = await settle_pending(authority, after(order, second))
    assert isinstance(outcome, Issued)


@pytest.mark.parametrize("by", [BY_SIGNATURE, BY_MAC])
async def test_openssl_answers_a_revocation_and_a_general_message(authorities: Authorities, by: str) -> None:
    order, _ = await enrolled(authorities)
    async with mock(authorities, order, by=by) as authority:
        await authority.revoke(order, reason=4, at=now())
    async with mock(authorities, order, by=by) as authority:
        assert (await authority.check()).chain == ()  # of this question it knows nothing and echoes it


async def test_openssl_spares_us_the_confirmation(authorities: Authorities) -> None:
    order = order_for(new_key())
    async with mock(authorities, order, "-grant_implicitconf", implicit_confirm=True) as authority:
        order, outcome, _ = await settle(authority, order, lambda: None)
        assert order.state is State.CONFIRMED, outcome


async def test_a_certificate_for_another_key_is_rejected_there(authorities: Authorities) -> None:
    order, other = order_for(new_key()), order_for(new_key())
    async with mock(authorities, other) as authority:
        outcome = await authority.submit(order)
        assert isinstance(outcome, Issued)
        await authority.confirm(after(order, outcome), accepted=False)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-pkistatus", "2", "-failure", "19", "-statusstring", "no such person"), "no such person; badCertTemplate"),
        (("-pkistatus", "2", "-failure", "9"), "badPOP"),
        (("-send_error",), "error processing message; CMP routines; error processing message; badRequest"),
    ],
)
async def test_a_rejection_says_why(authorities: Authorities, options: tuple[str, ...], reason: str) -> None:
    order = order_for(new_key())
    async with mock(authorities, order, *options) as authority:
        assert await authority.submit(order) == Refused(reason)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("-send_error", "-send_unprot_err"), Code.AUTHORITY_UNTRUSTED),
        (("-send_unprotected",), Code.AUTHORITY_UNTRUSTED),
        (("-pkistatus", "2", "-failure", "24"), Code.AUTHORITY_UNAVAILABLE),
        (("-pkistatus", "2", "-failure", "20"), Code.AUTHORITY_REFUSED),
        (("-pkistatus", "2", "-failure", "23"), Code.AUTHORITY_REFUSED),
    ],
)
@pytest.mark.parametrize("by", [BY_SIGNATURE, BY_MAC])
async def test_what_goes_wrong_is_told_apart(
    authorities: Authorities, options: tuple[str, ...], code: Code, by: str
) -> None:
    order = order_for(new_key())
    async with mock(authorities, order, *options, by=by) as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order)
    assert refusal.value.code is code, refusal.value.detail


async def test_a_wrong_secret_on_either_side_is_believed_by_neither(authorities: Authorities) -> None:
    order = order_for(new_key())
    write_secrets(authorities.secrets, other="shout")
    async with mock(authorities, order, by=BY_MAC, secret="other") as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order)
    assert refusal.value.code is Code.AUTHORITY_UNTRUSTED


async def test_an_answer_from_whom_the_registry_does_not_name_is_not_believed(authorities: Authorities) -> None:
    order = order_for(new_key())
    async with mock(authorities, order, responders=[authorities.read("ra.pem")]) as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order)
    assert refusal.value.code is Code.AUTHORITY_UNTRUSTED


async def enrolled(authorities: Authorities) -> tuple[Order, Any]:
    order = order_for(new_key())
    async with mock(authorities, order) as authority:
        order, outcome, _ = await settle(authority, order, lambda: None)
    return order, outcome


async def settle_pending(authority: Authority, order: Order) -> tuple[Order, Any, int]:
    outcome, polls = await authority.poll(order), 1
    while isinstance(outcome, Pending) and polls < 10:
        order = after(order, outcome)
        outcome, polls = await authority.poll(order), polls + 1
    return after(order, outcome), outcome, polls

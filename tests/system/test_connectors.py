"""Both connectors as processes with broker, database, HSM and OpenSSL's TSA, asked by those who may ask them."""

import asyncio
import hashlib
import json
import secrets
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from deploy.local.home import CHECKOUT
from deploy.local.stack import Stack
from shared.algorithms import Hash
from shared.contracts.base import Job
from shared.contracts.ca_connector import ConfirmOrder, OrderCertificate, RevokeCertificate
from shared.contracts.sam import AcceptCertificate, NoteCertificateStatus, RefuseOrder
from shared.contracts.tsa_connector import Timestamp
from shared.errors import RakkanError
from shared.messaging import operation
from shared.messaging.bus import Bus
from shared.messaging.outbox import Posted
from tests.support.buses import bus_of
from tests.support.openssl import openssl

ROOMS = ("ca_connector", "tsa_connector")


@dataclass
class SAM:
    """The SAM's place on the bus: it sends orders and keeps what comes back."""

    bus: Bus
    heard: "asyncio.Queue[Job]" = field(default_factory=asyncio.Queue)

    async def hear(self, job: Job) -> None:
        self.heard.put_nowait(job)

    async def send(self, job: Job) -> None:
        body = job.model_dump_json().encode()
        await self.bus.send_job(Posted(secrets.token_hex(8), job.TYPE, "operation", body))

    async def next(self, order_id: str) -> Job:
        async with asyncio.timeout(30):
            while True:
                job = await self.heard.get()
                if getattr(job, "order_id", None) == order_id:
                    return job


@pytest.fixture(scope="module")
async def rooms(broker: Stack, database: Stack) -> AsyncIterator[Stack]:
    assert broker is database
    await asyncio.to_thread(broker.token, "ca_connector")
    await asyncio.to_thread(broker.rooms.hold_ceremony, "ca_connector")
    await asyncio.to_thread(broker.rooms.start_tsas)
    await asyncio.to_thread(broker.rooms.write_registry)
    for room in ROOMS:
        await asyncio.to_thread(broker.rooms.start, room)
    try:
        for room in ROOMS:
            await asyncio.to_thread(broker.rooms.wait_ready, room)
        yield broker
    finally:
        await asyncio.to_thread(broker.rooms.stop)


@pytest.fixture(scope="module")
async def sam(rooms: Stack) -> AsyncIterator[SAM]:
    bus = bus_of(rooms, "sam")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bus.connected())
        await reached(bus)
        sam = SAM(bus)
        bus.serve(dict.fromkeys((AcceptCertificate, RefuseOrder, NoteCertificateStatus), sam.hear))
        yield sam


async def reached(bus: Bus) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await bus.check()
            except RakkanError:
                await asyncio.sleep(0.05)


def order() -> OrderCertificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hanako")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    csr = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
    return OrderCertificate(order_id=secrets.token_hex(8), authority="local", csr=csr)


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback URL
        body: bytes = answer.read()
    return body


async def test_a_certificate_is_ordered_confirmed_and_revoked(rooms: Stack, sam: SAM, tmp_path: Path) -> None:
    asked = order()
    await sam.send(asked)
    accepted = await sam.next(asked.order_id)
    assert isinstance(accepted, AcceptCertificate)
    certificate = x509.load_der_x509_certificate(accepted.chain[0])
    (tmp_path / "it.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    verify = ("verify", "-x509_strict", "-CAfile", rooms.rooms.anchors_file)
    assert openssl(*verify, "it.pem", folder=tmp_path) == "it.pem: OK\n"
    await sam.send(ConfirmOrder(order_id=asked.order_id, accepted=True))
    await sam.send(RevokeCertificate(order_id=asked.order_id, reason=1))
    while isinstance(noted := await sam.next(asked.order_id), AcceptCertificate):
        """The watch may have told the SAM again meanwhile."""
    assert isinstance(noted, NoteCertificateStatus)
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert points[0].full_name
    crl = x509.load_der_x509_crl(await asyncio.to_thread(fetch, points[0].full_name[0].value))
    (tmp_path / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    checked = openssl(*verify, "-crl_check", "-CRLfile", "crl.pem", "it.pem", folder=tmp_path)
    assert "certificate revoked" in checked


async def test_a_request_that_cannot_be_certified_comes_back_refused(sam: SAM) -> None:
    asked = order().model_copy(update={"csr": b"no request"})
    await sam.send(asked)
    refused = await sam.next(asked.order_id)
    assert isinstance(refused, RefuseOrder)
    assert "cannot be read" in refused.reason


async def test_an_operator_is_shown_how_each_ca_stands(rooms: Stack) -> None:
    argv, environment = rooms.rooms.operator(["--json", "ca"])
    shown = await asyncio.create_subprocess_exec(
        *argv, env=environment, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE, **rooms.rooms.account.identity()
    )
    out, _ = await shown.communicate()
    shown_of = {one["authority"]: one for one in json.loads(out)["certification authorities"]}
    local = shown_of["local"]
    assert (local["reachable"], local["chain"], local["breaker"]) == ("yes", "ok", "closed")
    assert local["unknown"] == 0


async def test_no_order_is_lost_or_issued_twice_when_the_room_is_killed(rooms: Stack, sam: SAM) -> None:
    orders = [order() for _ in range(10)]
    for one in orders[:5]:
        await sam.send(one)
    await asyncio.to_thread(rooms.rooms.program("ca_connector").kill)
    for one in (*orders[5:], *orders):  # and each of them once more
        await sam.send(one)
    await asyncio.to_thread(rooms.rooms.start, "ca_connector")
    await asyncio.to_thread(rooms.rooms.wait_ready, "ca_connector")
    chains: dict[str, set[bytes]] = {one.order_id: set() for one in orders}
    async with asyncio.timeout(90):  # one that was cut off between its row and its certificate waits for the watch
        while not all(chains.values()):
            job = await sam.heard.get()
            if isinstance(job, AcceptCertificate) and job.order_id in chains:
                chains[job.order_id].add(job.chain[0])
    assert all(len(certificates) == 1 for certificates in chains.values())


async def test_a_time_stamp_comes_over_the_bus_and_openssl_believes_it(rooms: Stack, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"document").digest()
    bus = bus_of(rooms, "gateway")
    async with bus.connected():
        with operation.begin("gateway", timeout_s=20):
            wanted = Timestamp(digest=digest, hash=Hash.SHA256, authority="local", tenant_id="acme", client_id="erp")
            (stamped,) = (await bus.ask(wanted)).tokens
    assert abs(stamped.time - datetime.now(UTC)) < timedelta(seconds=10)
    (tmp_path / "token").write_bytes(stamped.token)
    arguments = ("ts", "-verify", "-token_in", "-in", "token", "-digest", digest.hex(), "-CAfile")
    assert "Verification: OK" in openssl(*arguments, rooms.rooms.tsa_anchors_file, folder=tmp_path)

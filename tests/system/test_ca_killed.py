"""The CA connector as a process is killed by -9 again and again while a CA that issues twice is at work."""

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.local.home import CHECKOUT
from deploy.local.program import Program
from deploy.local.stack import Stack
from shared.contracts.base import Job
from shared.contracts.ca_connector import ConfirmOrder, ListOrders, OrderCertificate, ResolveOrder
from shared.contracts.sam import AcceptCertificate, NoteCertificateStatus, RefuseOrder
from shared.errors import RakkanError
from shared.messaging import operation
from shared.messaging.bus import Bus
from shared.messaging.outbox import Posted
from shared.messaging.topology import OPERATOR
from tests.support import counting_ca
from tests.support.buses import bus_of
from tests.support.certificates import name

KILLS = 8
ORDERS = 48
ROOM = "ca_connector"


@dataclass
class Place:
    stack: Stack
    folder: Path
    sam: Bus
    operator: Bus
    accepted: dict[str, set[bytes]] = field(default_factory=dict)

    async def hear(self, job: Job) -> None:
        """The SAM: it takes every certificate, as often as it is told of it."""
        if isinstance(job, AcceptCertificate):
            self.accepted.setdefault(job.order_id, set()).add(job.chain[0])
            await self.send(ConfirmOrder(order_id=job.order_id, accepted=True))

    async def send(self, job: Job) -> None:
        body = job.model_dump_json().encode()
        await self.sam.send_job(Posted(secrets.token_hex(8), job.TYPE, "operation", body))

    async def orders(self, state: str) -> list[str]:
        """Of those that are in it, as an operator sees them; the room may just be down."""
        try:
            with operation.begin(OPERATOR, timeout_s=5):
                found = await self.operator.ask(ListOrders(state=state, orders_max=500))
        except RakkanError:
            return ["nobody knows"]
        return [row.order_id for row in found.orders]

    async def resolve(self, order_id: str, outcome: str, chain: tuple[bytes, ...] = ()) -> None:
        with operation.begin(OPERATOR, timeout_s=10):
            await self.operator.ask(ResolveOrder(order_id=order_id, outcome=outcome, chain=chain))

    def issued(self) -> dict[str, list[str]]:
        """Key to certificates in hex, by the CA's own ledger."""
        found: dict[str, list[str]] = {}
        for line in (self.folder / "ledger").read_text().splitlines():
            key, certificate = line.split()
            found.setdefault(key, []).append(certificate)
        return found


@pytest.fixture
async def place(broker: Stack, database: Stack) -> AsyncIterator[Place]:
    assert broker is database
    rooms = broker.rooms
    await asyncio.to_thread(broker.token, ROOM)
    folder = broker.folder / "counting"
    program = Program("counting-ca", broker.folder, rooms.account)
    port = broker.ports["counting ca"]
    rooms.account.folder(folder)
    argv = [sys.executable, "-m", "tests.support.counting_ca", "--folder", str(folder), "--port", str(port)]
    program.start([*argv, "--latency-ms", "150"], {"PATH": "/usr/bin:/bin"}, folder=CHECKOUT)
    await wait_for_file(folder / "root.pem")
    secret = broker.keys.registry_secrets_folder(ROOM) / "counting-ca"
    rooms.account.write(secret, counting_ca.TOKEN, mode=0o600)
    entry = counting_ca.entry(port, folder, timeout_s=2, polling={"first_s": 1, "longest_s": 2})
    rooms.registry.write({"certification_authorities": {"counting": entry}})
    bus, operator = bus_of(broker, "sam"), bus_of(broker, OPERATOR)
    try:
        await asyncio.to_thread(rooms.start, ROOM)
        await asyncio.to_thread(rooms.wait_ready, ROOM)
        async with bus.connected(), operator.connected():
            for one in (bus, operator):
                await reached(one)
            made = Place(broker, folder, bus, operator)
            bus.serve(dict.fromkeys((AcceptCertificate, RefuseOrder, NoteCertificateStatus), made.hear))
            yield made
    finally:
        await asyncio.to_thread(rooms.stop)
        program.stop()


async def reached(bus: Bus) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await bus.check()
            except RakkanError:
                await asyncio.sleep(0.05)


async def wait_for_file(file: Path) -> None:
    async with asyncio.timeout(20):
        while not file.exists():  # noqa: ASYNC110, ASYNC240 - another program writes it
            await asyncio.sleep(0.05)


def order() -> tuple[OrderCertificate, str]:
    """An order and the hash of its key."""
    request = x509.CertificateSigningRequestBuilder().subject_name(name("Hanako"))
    csr = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    job = OrderCertificate(order_id=secrets.token_hex(8), authority="counting", csr=csr.public_bytes(Encoding.DER))
    return job, counting_ca.key_of(csr)


async def test_killed_again_and_again_it_orders_nothing_twice_and_loses_nothing(place: Place) -> None:
    orders: dict[str, str] = {}
    for number in range(KILLS):
        for _ in range(ORDERS // KILLS):
            job, key = order()
            orders[job.order_id] = key
            await place.send(job)
        # Each death falls somewhat later in the work than the one before.
        await asyncio.sleep(0.1 + 0.04 * number)
        await asyncio.to_thread(place.stack.rooms.program(ROOM).kill)
        await asyncio.to_thread(place.stack.rooms.start, ROOM)
        await asyncio.to_thread(place.stack.rooms.wait_ready, ROOM)
    in_doubt = await settled(place, set(orders))
    issued = place.issued()
    assert all(len(certificates) == 1 for certificates in issued.values())
    for order_id in in_doubt:
        # The operator looks at the CA: what it has there is handed over, what it has not is placed again.
        if orders[order_id] in issued:
            await place.resolve(order_id, "issued", (bytes.fromhex(issued[orders[order_id]][0]),))
        else:
            await place.resolve(order_id, "again")
    assert await settled(place, set(orders)) == set()
    assert {order_id for order_id in orders if len(place.accepted.get(order_id, ())) == 1} == set(orders)
    assert all(len(certificates) == 1 for certificates in place.issued().values())
    assert len(place.issued()) == len(orders)


async def settled(place: Place, wanted: set[str]) -> set[str]:
    """Wait until each order is confirmed or in doubt; those in doubt."""
    deadline = time.monotonic() + 120
    while True:
        confirmed, unknown = set(await place.orders("CONFIRMED")), set(await place.orders("UNKNOWN"))
        if wanted <= confirmed | unknown:
            return unknown & wanted
        if time.monotonic() > deadline:
            log_tail = place.stack.rooms.program(ROOM).log_tail()
            raise TimeoutError(f"not settled: {wanted - confirmed - unknown}\n{log_tail}")
        await asyncio.sleep(0.5)

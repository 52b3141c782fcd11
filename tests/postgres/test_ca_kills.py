"""The CA connector dies between every two of its steps, two hundred times: no second certificate, none lost.

The database is real; a life of the process is a wiring of the real parts around it, and ends at a step of our choice,
before or after it was done. What is not committed then is gone, and the next life finds what is.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from deploy.local.stack import Stack
from services.ca_connector.authorities import Capabilities, Health
from services.ca_connector.breaker import Breaker
from services.ca_connector.handlers import Handlers
from services.ca_connector.metrics import Metrics
from services.ca_connector.orders import Issued, Order, Outcome, Pending, State, resolve
from services.ca_connector.placing import Placing
from services.ca_connector.queue import Queue
from services.ca_connector.store import Store
from services.ca_connector.store_queues import QueueStore
from services.ca_connector.sweeping import Sweep
from shared.audit import AuditWriter
from shared.contracts.ca_connector import ConfirmOrder, OrderCertificate, RevokeCertificate
from shared.contracts.sam import AcceptCertificate
from shared.database import Pool, connect_pool
from shared.messaging import operation
from shared.settings import Database
from tests.support.ca_connector import registry_of
from tests.support.certificates import CA, NOW, authority, issue, name

KILLS = 200
LEASE = timedelta(minutes=1)
LATER = timedelta(minutes=2)


class KilledError(BaseException):
    """No `except` of the process may see its own death."""


@dataclass
class RealCA:
    """The CA outside: it goes on while we die, and knows what it issued. `patient` CAs let us poll."""

    capabilities: Capabilities
    issuer: CA = field(default_factory=lambda: authority("CA of the kills"))
    issued: dict[str, list[bytes]] = field(default_factory=dict)
    confirmed: dict[str, list[bool]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)

    async def submit(self, order: Order) -> Outcome:
        known = self.issued.setdefault(order.order_id, [])
        if self.capabilities.repeatable and known:
            return Issued((known[0],))
        if self.capabilities.polls:
            return Pending(f"handle of {order.order_id}".encode())
        return self._issue(order)

    async def poll(self, order: Order) -> Outcome:
        assert order.handle == f"handle of {order.order_id}".encode()
        known = self.issued[order.order_id]
        return Issued((known[0],)) if known else self._issue(order)

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        self.confirmed.setdefault(order.order_id, []).append(accepted)

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:
        del reason, at
        self.revoked.add(order.order_id)

    async def check(self) -> Health:
        return Health()

    async def close(self) -> None: ...

    def _issue(self, order: Order) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        der = issue(self.issuer, name(order.order_id), key).public_bytes(Encoding.DER)
        self.issued[order.order_id].append(der)
        return Issued((der,))


KINDS = {
    "asked once": Capabilities(polls=False, revokes=True, renews=False),
    "asked twice": Capabilities(polls=False, revokes=True, renews=False, repeatable=True),
    "polled": Capabilities(polls=True, revokes=True, renews=True, confirms=True),
}


class Mortal:
    """Passes calls on until its life ends at a step: before it is done, or after."""

    def __init__(self, real: Any, life: "Life") -> None:
        self._real = real
        self._life = life

    def __getattr__(self, name_: str) -> Any:
        found = getattr(self._real, name_)
        return self._life.step(found) if asyncio.iscoroutinefunction(found) else found


@dataclass
class Life:
    """One life of the process, which ends at the step of this number. Without one it lives on."""

    world: "World"
    dies_at: int | None = None
    steps: int = 0
    dead: bool = False

    def __post_init__(self) -> None:
        store, queues = Mortal(self.world.store, self), Mortal(self.world.queues, self)
        ca, now = self.world.entry, self.world.now
        breaker, metrics = Breaker(), Metrics(CollectorRegistry())
        authority_ = Mortal(self.world.ca, self)
        placing = Placing(
            name=self.world.name,
            ca=ca,
            authority=authority_,
            breaker=breaker,
            store=store,
            metrics=metrics,
            timeout_s=5,
            now=now,
        )
        self.queue = Queue(
            name=self.world.name,
            ca=ca,
            authority=authority_,
            placing=placing,
            breaker=breaker,
            store=queues,
            lease=LEASE,
            now=now,
        )
        desks = {self.world.name: SimpleNamespace(ca=ca, authority=authority_)}
        known: Any = SimpleNamespace(desks=desks, wake=lambda _: None)
        self.handlers = Handlers(store=store, queues=known, now=now)
        self.sweep = Sweep(store=store, authorities=lambda: [self.world.name], chores=(), stuck=LEASE, now=now)

    def step(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def mortal(*arguments: Any, **named: Any) -> Any:
            self._maybe_die()
            result = await call(*arguments, **named)
            self._maybe_die()
            return result

        return mortal

    def _maybe_die(self) -> None:
        self.dead = self.dead or self.steps == self.dies_at
        self.steps += 1
        if self.dead:
            raise KilledError

    async def live(self, job: OrderCertificate) -> None:
        """All that is done for an order: it comes, is placed and polled, the SAM takes it, and has it revoked."""
        try:
            await self.handlers.order_certificate(job)
            for _ in range(3):
                await self._work()
                await self._hear_sam(job.order_id)
                if (await self.world.store.order(job.order_id)).state is State.CONFIRMED:
                    await self.handlers.revoke_certificate(RevokeCertificate(order_id=job.order_id, reason=5))
                    # Twice: what one step holds locked, the round passes over.
                    await self._work()
                    await self._work()
                    break
        except KilledError:
            pass
        await self.queue.settle(timeout_s=5)

    async def _work(self) -> None:
        self.world.time += LATER
        await self.queue.once()
        await self.queue.settle(timeout_s=5)
        if self.dead:
            raise KilledError
        await self.sweep.once()

    async def _hear_sam(self, order_id: str) -> None:
        """The SAM takes what it is told of. It lives elsewhere: its word comes again until it was heard."""
        rows = await self.world.pool.fetch("select body from outbox where type = $1", AcceptCertificate.TYPE)
        for row in rows:
            told = json.loads(row["body"])
            if told["order_id"] == order_id:
                await self.handlers.confirm_order(ConfirmOrder(order_id=order_id, accepted=True))


@dataclass
class World:
    """What is left when the process dies."""

    pool: Pool
    store: Store
    queues: QueueStore
    ca: RealCA
    chain_id: str
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    time: datetime = NOW

    def __post_init__(self) -> None:
        self.entry = registry_of([self.name]).certification_authorities[self.name]

    def now(self) -> datetime:
        return self.time


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    file = database.keys.password_file("ca_connector", "database")
    opened = await connect_pool(Database(port=database.postgres.port, password_file=file), "ca_connector")
    yield opened
    opened.terminate()


@pytest.fixture
async def worlds(pool: Pool) -> AsyncIterator[Mapping[str, World]]:
    audit = AuditWriter("ca_connector", secrets.token_hex(4))
    await audit.start(pool)
    store, queues = Store(pool, audit), QueueStore(pool)
    # A death leaves its trace in the log of the process, and painting two hundred of them takes a minute.
    with operation.begin("sam", timeout_s=600), capture_logs():
        yield {
            kind: World(pool, store, queues, RealCA(capabilities), audit.chain_id)
            for kind, capabilities in KINDS.items()
        }


def order(world: World) -> OrderCertificate:
    order_id = secrets.token_hex(8)
    return OrderCertificate(order_id=order_id, authority=world.name, csr=order_id.encode())


async def steps_of(world: World) -> int:
    """How many places to die there are on the whole way of an order."""
    life, job = Life(world), order(world)
    await life.live(job)
    assert (await world.store.order(job.order_id)).state is State.CONFIRMED
    assert job.order_id in world.ca.revoked
    return life.steps


async def test_two_hundred_deaths_between_any_two_steps_make_no_second_certificate_and_lose_none(
    worlds: Mapping[str, World],
) -> None:
    places = {kind: await steps_of(world) for kind, world in worlds.items()}
    deaths, doubts = 0, 0
    for number in range(KILLS):
        kind = list(worlds)[number % len(worlds)]
        world, dies_at = worlds[kind], (number // len(worlds)) % places[kind]
        job = order(world)
        first = Life(world, dies_at=dies_at)
        await first.live(job)
        assert first.dead, (kind, dies_at)
        deaths += 1
        await Life(world).live(job)
        doubts += await settle_doubt(world, job)
        await check(world, job)
        await world.pool.execute("delete from outbox")
    assert deaths == KILLS
    # What only a person can find out is rare: the death must fall between the question and the record of the answer.
    assert 0 < doubts < KILLS // 4


async def settle_doubt(world: World, job: OrderCertificate) -> bool:
    """Whether an operator had to look at the CA; she says what she found there."""
    current = await world.store.order(job.order_id)
    if current.state is not State.UNKNOWN:
        return False
    assert not world.ca.capabilities.repeatable
    found = world.ca.issued.get(job.order_id)
    resolved = resolve(current, Issued((found[0],)) if found else None)
    assert await world.store.record(current, resolved, now=world.time)
    await Life(world).live(job)
    return True


async def check(world: World, job: OrderCertificate) -> None:
    current = await world.store.order(job.order_id)
    assert current.state is State.CONFIRMED
    assert world.ca.issued[job.order_id] == [current.chain[0]]
    assert job.order_id in world.ca.revoked
    if world.ca.capabilities.confirms:
        assert set(world.ca.confirmed[job.order_id]) == {True}
    kinds = await world.pool.fetch(
        "select convert_from(record, 'UTF8')::json ->> 'event_type' as kind from audit_leaves "
        "where chain_id = $2 and convert_from(record, 'UTF8')::json -> 'subject' ->> 'order_id' = $1",
        job.order_id,
        world.chain_id,
    )
    told = [row["kind"] for row in kinds]
    for once in ("certificate.ordered", "certificate.issued", "certificate.confirmed", "certificate.revoked"):
        assert told.count(once) == 1, told

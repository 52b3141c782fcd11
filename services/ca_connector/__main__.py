"""The CA connector's table of contents: what is wired to what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from services.ca_connector.authorities import Surroundings
from services.ca_connector.batch import Batch
from services.ca_connector.fetching import Fetching
from services.ca_connector.handlers import Handlers
from services.ca_connector.metrics import Metrics
from services.ca_connector.overseeing import Overseeing
from services.ca_connector.publishing import Publishing
from services.ca_connector.queues import Queues
from services.ca_connector.selftest import SelfTest
from services.ca_connector.settings import Settings
from services.ca_connector.status import Statuses
from services.ca_connector.store import Store
from services.ca_connector.store_batches import BatchStore
from services.ca_connector.store_lists import ListStore
from services.ca_connector.store_queues import QueueStore
from services.ca_connector.store_standing import StandingStore
from services.ca_connector.store_status import StatusStore
from services.ca_connector.sweeping import Sweep
from services.ca_connector.token import CAKey
from services.ca_connector.watching import Watching
from shared import runtime
from shared.contracts.batches import ExportRequests, ImportCertificates
from shared.contracts.ca_connector import (
    ConfirmOrder,
    ListAuthorities,
    ListOrders,
    NoteCertificate,
    NoteRevoked,
    OrderCertificate,
    ResolveOrder,
    RevokeCertificate,
)
from shared.hsm import Token
from shared.messaging import bus
from shared.registry import RegistrySource

_SELF_TEST_S = 8.0
"""Less than an operator's question about it may take."""
_STATUS_S = 15.0
_ROUNDS_EACH = 10
"""The watch looks so often in the time in which each list is read once."""


def now() -> datetime:
    """Whole seconds: certificates and CRLs know no finer time."""
    return datetime.now(UTC).replace(microsecond=0)


@asynccontextmanager
async def build(room: runtime.Room[Settings]) -> AsyncIterator[bus.Handlers]:
    settings = room.settings
    store = Store(room.pool, room.audit)
    metrics = Metrics(room.registry)
    registry = RegistrySource(settings.registry, room.trust, room.registry)
    async with AsyncExitStack() as stack:
        token = await stack.enter_async_context(Token.open(settings.hsm))
        queues = await _queues(stack, room, registry, store, metrics, token)
        publishing = Publishing(queues, room.health)
        await publishing.use(registry.current)
        registry.listen(publishing.use)
        fetching = Fetching(timeout_s=_STATUS_S, list_bytes_max=settings.status.list_bytes_max)
        stack.push_async_callback(fetching.close)
        self_test = SelfTest(desks=lambda: queues.desks, sources=fetching, timeout_s=_SELF_TEST_S, now=now)
        tasks = {
            "sweep": _sweep(settings, store, queues, publishing).run(every_s=settings.watch.every_s),
            "watch": _watching(room, queues, fetching, metrics).run(every_s=settings.status.every_s / _ROUNDS_EACH),
            "self-test": self_test.run(),
        }
        for name, work in tasks.items():
            task = asyncio.create_task(work, name=name)
            stack.push_async_callback(_end, task)
            room.health.check(name, partial(_check, task))
        room.health.check("hsm", token.probe)
        room.health.check("crl", publishing.check)
        room.health.check("queues", queues.check)
        room.health.check("registry", registry.check)
        await stack.enter_async_context(registry.watched())
        handlers = Handlers(store=store, queues=queues, now=now)
        overseeing = Overseeing(
            store=store,
            standing=StandingStore(room.pool),
            queues=queues,
            self_test=self_test,
            registry_version=lambda: registry.current.version,
            now=now,
        )
        batch = _batch(room, registry, store)
        yield {
            OrderCertificate: handlers.order_certificate,
            ConfirmOrder: handlers.confirm_order,
            NoteCertificate: handlers.note_certificate,
            RevokeCertificate: handlers.revoke_certificate,
            ListAuthorities: overseeing.list_authorities,
            ListOrders: overseeing.list_orders,
            ResolveOrder: overseeing.resolve_order,
            NoteRevoked: overseeing.note_revoked,
            ExportRequests: batch.export_requests,
            ImportCertificates: batch.import_certificates,
        }


async def _queues(
    stack: AsyncExitStack,
    room: runtime.Room[Settings],
    registry: RegistrySource,
    store: Store,
    metrics: Metrics,
    token: Token,
) -> Queues:
    """A queue for each CA of the registry, at work."""
    is_local = any(ca.protocol == "local" for ca in registry.current.certification_authorities.values())
    lists = ListStore(room.pool, room.audit)
    ca_key = await CAKey.find(token) if is_local else None
    queues = Queues(
        orders=store,
        store=QueueStore(room.pool),
        metrics=metrics,
        surroundings=partial(Surroundings, secrets=registry, now=now, lists=lists, ca_key=ca_key),
        every_s=room.settings.watch.every_s,
        settle_s=room.settings.watch.settle_s,
        now=now,
    )
    stack.push_async_callback(queues.close)
    await queues.use(registry.current)
    registry.listen(queues.use)
    return queues


def _sweep(settings: Settings, store: Store, queues: Queues, publishing: Publishing) -> Sweep:
    return Sweep(
        store=store,
        authorities=lambda: queues.desks,
        chores=(("crl", publishing.renew),),
        stuck=timedelta(seconds=settings.watch.stuck_s),
        now=now,
    )


def _watching(room: runtime.Room[Settings], queues: Queues, fetching: Fetching, metrics: Metrics) -> Watching:
    statuses = StatusStore(room.pool, room.audit)
    settings = room.settings.status
    return Watching(
        desks=lambda: queues.desks,
        statuses=Statuses(store=statuses, sources=fetching, settings=settings, metrics=metrics, now=now),
        store=statuses,
        standing=StandingStore(room.pool),
        metrics=metrics,
        warn_days=settings.warn_days,
        now=now,
    )


def _batch(room: runtime.Room[Settings], registry: RegistrySource, store: Store) -> Batch:
    return Batch(
        store=BatchStore(room.pool, room.audit),
        orders=store,
        registry=lambda: registry.current,
        key=room.messages_key,
        now=now,
    )


async def _check(task: "asyncio.Task[None]") -> None:
    if task.done():
        task.result()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


if __name__ == "__main__":
    runtime.run("ca_connector", Settings, build)

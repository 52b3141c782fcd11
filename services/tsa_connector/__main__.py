"""The TSA connector's table of contents: what is wired to what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from services.tsa_connector.asking import Asking
from services.tsa_connector.client import Clients, StatusClient
from services.tsa_connector.handlers import Handlers
from services.tsa_connector.memory import Memories
from services.tsa_connector.metrics import TSAMetrics
from services.tsa_connector.obtaining import Obtaining
from services.tsa_connector.quotas import Quotas
from services.tsa_connector.reading import ReaderPool
from services.tsa_connector.recording import Recorder
from services.tsa_connector.settings import Settings
from services.tsa_connector.status import Statuses
from services.tsa_connector.store import Store
from services.tsa_connector.watching import Watch
from shared import runtime
from shared.contracts.tsa_connector import ExplainTimestamp, ReadAuthorities, Timestamp
from shared.health import Health
from shared.messaging import bus
from shared.registry import RegistrySource

_LOOK_S = 0.5


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def build(room: runtime.Room[Settings]) -> AsyncIterator[bus.Handlers]:
    source = RegistrySource(room.settings.registry, room.trust, room.registry)
    tsas = source.current.time_stamping_authorities
    store, metrics, memories = Store(room.pool, room.audit), TSAMetrics(room.registry), Memories()
    recorder = Recorder(store)
    async with AsyncExitStack() as closing:
        readers = await closing.enter_async_context(ReaderPool(room.settings.readers, tsas).running())
        clients, sources = Clients(tsas, source), StatusClient()
        statuses = Statuses(sources=sources, readers=readers, now=now)
        asking = Asking(
            client=clients.of,
            readers=readers,
            quotas=Quotas(store),
            statuses=statuses,
            memories=memories,
            metrics=metrics,
            now=now,
        )
        obtaining = Obtaining(registry=lambda: source.current, asking=asking, surplus=recorder.surplus, now=now)
        watch = Watch(
            registry=source.current,
            clients=clients,
            readers=readers,
            store=store,
            memories=memories,
            metrics=metrics,
            now=now,
        )
        handlers = Handlers(
            instance=room.instance,
            registry=lambda: source.current,
            obtaining=obtaining,
            recorder=recorder,
            store=store,
            memories=memories,
            now=now,
        )
        for one in (clients, statuses, obtaining):
            closing.push_async_callback(one.close)
        room.health.check("readers", readers.check)
        source.listen(watch.take_up)
        await closing.enter_async_context(source.watched())
        await closing.enter_async_context(_watching(watch, room.health))
        room.health.check("registry", source.check)
        yield {
            Timestamp: handlers.timestamp,
            ReadAuthorities: handlers.read_authorities,
            ExplainTimestamp: handlers.explain_timestamp,
        }


@asynccontextmanager
async def _watching(watch: Watch, health: Health) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run(every_s=_LOOK_S), name="watch")

    async def check() -> None:
        if task.done():
            task.result()

    health.check("watch", check)
    health.check("clock", watch.check_clock)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


if __name__ == "__main__":
    runtime.run("tsa_connector", Settings, build)

"""The TSA connector's table of contents: what is wired to what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from services.tsa_connector.asking import Asking
from services.tsa_connector.client import Clients, StatusClient
from services.tsa_connector.clock import Sightings
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
from shared.messaging import bus
from shared.registry import Registry, RegistrySource

_LOOK_S = 0.5


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def build(room: runtime.Room[Settings]) -> AsyncIterator[bus.Handlers]:
    source = RegistrySource(room.settings.registry, room.trust, room.registry)
    tsas = source.current.time_stamping_authorities
    store, metrics = Store(room.pool, room.audit), TSAMetrics(room.registry)
    recorder, memories, sightings = Recorder(store), Memories(), Sightings()
    clients, sources = Clients(tsas, source), StatusClient()
    async with ReaderPool(room.settings.readers, tsas).running() as readers, source.watched():
        statuses = Statuses(sources=sources, readers=readers, now=now)
        asking = Asking(
            client=clients.of,
            readers=readers,
            quotas=Quotas(store),
            statuses=statuses,
            memories=memories,
            sightings=sightings,
            metrics=metrics,
            now=now,
        )

        def registry() -> Registry:
            return source.current

        obtaining = Obtaining(registry=registry, asking=asking, surplus=recorder.surplus, now=now)
        handlers = Handlers(
            instance=room.instance,
            registry=registry,
            obtaining=obtaining,
            recorder=recorder,
            store=store,
            memories=memories,
            sightings=sightings,
            now=now,
        )
        watch = Watch(
            registry=source.current,
            clients=clients,
            readers=readers,
            store=store,
            memories=memories,
            sightings=sightings,
            metrics=metrics,
            now=now,
        )
        source.listen(watch.take_up)
        watching = asyncio.create_task(watch.run(every_s=_LOOK_S), name="watch")

        async def check_watch() -> None:
            if watching.done():
                watching.result()

        room.health.check("readers", readers.check)
        room.health.check("clock", watch.check_clock)
        room.health.check("watch", check_watch)
        room.health.check("registry", source.check)
        try:
            yield {
                Timestamp: handlers.timestamp,
                ReadAuthorities: handlers.read_authorities,
                ExplainTimestamp: handlers.explain_timestamp,
            }
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await obtaining.close()
            await statuses.close()
            await clients.close()
            await sources.close()


if __name__ == "__main__":
    runtime.run("tsa_connector", Settings, build)

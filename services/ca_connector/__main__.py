"""The CA connector's table of contents: what is wired to what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from services.ca_connector.authorities import Surroundings
from services.ca_connector.handlers import Handlers
from services.ca_connector.metrics import Metrics
from services.ca_connector.publishing import Publishing
from services.ca_connector.queues import Queues
from services.ca_connector.settings import Settings
from services.ca_connector.store import Store
from services.ca_connector.store_lists import ListStore
from services.ca_connector.store_queues import QueueStore
from services.ca_connector.sweeping import Sweep
from services.ca_connector.token import CAKey
from shared import runtime
from shared.contracts.ca_connector import ConfirmOrder, OrderCertificate, RevokeCertificate
from shared.hsm import Token
from shared.messaging import bus
from shared.registry import RegistrySource


def now() -> datetime:
    """Whole seconds: certificates and CRLs know no finer time."""
    return datetime.now(UTC).replace(microsecond=0)


@asynccontextmanager
async def build(room: runtime.Room[Settings]) -> AsyncIterator[bus.Handlers]:
    settings = room.settings
    store = Store(room.pool, room.audit)
    lists = ListStore(room.pool, room.audit)
    metrics = Metrics(room.registry)
    registry = RegistrySource(settings.registry, room.trust)
    async with Token.open(settings.hsm) as token:
        is_local = any(ca.protocol == "local" for ca in registry.current.certification_authorities.values())
        ca_key = await CAKey.find(token) if is_local else None
        queues = Queues(
            orders=store,
            store=QueueStore(room.pool),
            metrics=metrics,
            surroundings=partial(Surroundings, secrets=registry, now=now, lists=lists, ca_key=ca_key),
            every_s=settings.watch.every_s,
            settle_s=settings.watch.settle_s,
            now=now,
        )
        await queues.use(registry.current)
        registry.listen(queues.use)
        handlers = Handlers(store=store, queues=queues, now=now)
        publishing = Publishing(queues, room.health)
        await publishing.use(registry.current)
        registry.listen(publishing.use)
        sweep = Sweep(
            store=store,
            authorities=lambda: queues.desks,
            chores=(("crl", publishing.renew),),
            stuck=timedelta(seconds=settings.watch.stuck_s),
            now=now,
        )
        sweeping = asyncio.create_task(sweep.run(every_s=settings.watch.every_s), name="sweep")

        async def check_sweep() -> None:
            if sweeping.done():
                sweeping.result()

        room.health.check("hsm", token.probe)
        room.health.check("crl", publishing.check)
        room.health.check("sweep", check_sweep)
        room.health.check("queues", queues.check)
        room.health.check("registry", registry.check)
        try:
            async with registry.watched():
                yield {
                    OrderCertificate: handlers.order_certificate,
                    ConfirmOrder: handlers.confirm_order,
                    RevokeCertificate: handlers.revoke_certificate,
                }
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            await queues.close()


if __name__ == "__main__":
    runtime.run("ca_connector", Settings, build)

"""The slow rounds: each CA's certificate status, certificates that end soon, how things stand for the metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NoReturn, Protocol

import structlog

from services.ca_connector.metrics import Metrics
from services.ca_connector.orders import Order
from services.ca_connector.queues import Desk
from services.ca_connector.store_standing import Standing, age_s
from shared.errors import RakkanError
from shared.messaging import operation
from shared.registry import CertificationAuthority

log = structlog.get_logger()

_ROUND_S = 600.0
_WARNED_MAX = 200
_STATES = ("SUBMITTED", "PENDING", "UNKNOWN", "ISSUED")


class Statuses(Protocol):
    async def look(self, name: str, ca: CertificationAuthority) -> None: ...


class StatusStore(Protocol):
    async def expiring(self, *, now: datetime, within: timedelta, orders_max: int) -> Iterable[Order]: ...


class StandingStore(Protocol):
    async def standings(
        self, *, now: datetime, days: Sequence[int], with_ended: bool = False, lists_of: Sequence[str] = ()
    ) -> Mapping[str, Standing]: ...


class Watching:
    """Each CA's status is looked at in a task of its own: one whose server hangs delays no other's."""

    def __init__(
        self,
        *,
        desks: Callable[[], Mapping[str, Desk]],
        statuses: Statuses,
        store: StatusStore,
        standing: StandingStore,
        metrics: Metrics,
        warn_days: tuple[int, ...],
        now: Callable[[], datetime],
    ) -> None:
        self.desks = desks
        self.statuses = statuses
        self.store = store
        self.standing = standing
        self.metrics = metrics
        self.warn_days = warn_days
        self.now = now
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def run(self, *, every_s: float) -> NoReturn:
        try:
            while True:
                await self.once()
                await asyncio.sleep(every_s)
        finally:
            for task in self._looking.values():
                task.cancel()
            await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def once(self) -> None:
        for name, desk in self.desks().items():
            former = self._looking.get(name)
            if former is None or former.done():
                self._looking[name] = asyncio.create_task(self._look(name, desk.ca), name=f"status-{name}")
        await self._step("expiring", self._warn())
        await self._step("standing", self._count())

    async def _look(self, name: str, ca: CertificationAuthority) -> None:
        await self._step(f"status of {name}", self.statuses.look(name, ca))

    async def _warn(self) -> None:
        for days in sorted(self.warn_days):
            within = timedelta(days=days)
            for order in await self.store.expiring(now=self.now(), within=within, orders_max=_WARNED_MAX):
                log.warning("certificate expiring", authority=order.authority, order_id=order.order_id, days=days)

    async def _count(self) -> None:
        now, desks = self.now(), self.desks()
        lists_of = [name for name, desk in desks.items() if desk.ca.revocation.crl_url or desk.ca.revocation.ocsp_url]
        standings = await self.standing.standings(now=now, days=self.warn_days, lists_of=lists_of)
        for name in {*desks, *standings}:
            standing = standings.get(name, Standing())
            self.metrics.standing(
                name,
                orders={state: standing.orders.get(state, 0) for state in _STATES},
                oldest_s=age_s(standing.oldest, now=now),
                revocations=standing.revocations,
                expiring={days: standing.expiring.get(days, 0) for days in self.warn_days},
                status_age_s=age_s(standing.status_of, now=now),
            )
        for name, desk in desks.items():
            self.metrics.breaker(name, desk.breaker.state)
            self.metrics.status_age_max(name, desk.ca.revocation.max_age_s)

    async def _step(self, about: str, work: Awaitable[None]) -> None:
        with operation.begin("ca_connector", timeout_s=_ROUND_S):
            try:
                async with asyncio.timeout(_ROUND_S):
                    await work
            except (RakkanError, TimeoutError) as trouble:
                log.warning("watch step failed", about=about, why=str(trouble))

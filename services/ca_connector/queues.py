"""The queues of all CAs of the registry, and how a new registry comes into use while they work."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from services.ca_connector.authorities import Authority, Surroundings, open_authority
from services.ca_connector.breaker import Breaker
from services.ca_connector.metrics import Metrics
from services.ca_connector.placing import Placing
from services.ca_connector.placing import Store as OrderStore
from services.ca_connector.queue import Queue
from services.ca_connector.queue import Store as QueueStore
from shared.registry import CertificationAuthority, Registry
from shared.settings import SettingsError

log = structlog.get_logger()

_EXCHANGES = 3
"""As many as one step of any protocol makes in turn, each with the time-out of the registry."""
_LEASE_BEYOND_STEP = 4 / 3


class Open(Protocol):
    def __call__(self, ca: CertificationAuthority, surroundings: Surroundings) -> Authority: ...


@dataclass(frozen=True)
class Desk:
    """One CA at work."""

    ca: CertificationAuthority
    authority: Authority
    queue: Queue
    breaker: Breaker
    task: asyncio.Task[None]


class Queues:
    """`desks` is what is at work now. A registry with one entry that cannot be opened is not taken up at all."""

    def __init__(
        self,
        *,
        orders: OrderStore,
        store: QueueStore,
        metrics: Metrics,
        surroundings: Callable[[str], Surroundings],
        every_s: float,
        settle_s: float,
        now: Callable[[], datetime],
        open_: Open = open_authority,
    ) -> None:
        self.desks: Mapping[str, Desk] = {}
        self._orders = orders
        self._store = store
        self._metrics = metrics
        self._surroundings = surroundings
        self._every_s = every_s
        self._settle_s = settle_s
        self._now = now
        self._open = open_
        self._leaving: set[asyncio.Task[None]] = set()

    async def use(self, registry: Registry) -> None:
        """Open what is new or changed, then let it take over. Raises SettingsError, and then nothing has changed."""
        wanted = registry.certification_authorities
        changed = {name: ca for name, ca in wanted.items() if name not in self.desks or self.desks[name].ca != ca}
        opened = await self._opened(changed)
        former = {name: desk for name, desk in self.desks.items() if name in changed or name not in wanted}
        self.desks = {name: desk for name, desk in self.desks.items() if name not in former} | {
            name: self._desk(name, wanted[name], authority) for name, authority in opened.items()
        }
        for name, desk in former.items():
            leave = asyncio.create_task(self._leave(desk), name=f"leave-{name}")
            self._leaving.add(leave)
            leave.add_done_callback(self._leaving.discard)

    async def _opened(self, changed: Mapping[str, CertificationAuthority]) -> dict[str, Authority]:
        opened: dict[str, Authority] = {}
        try:
            for name, ca in changed.items():
                opened[name] = self._open(ca, self._surroundings(name))
        except (SettingsError, OSError):
            for authority in opened.values():
                await authority.close()
            raise
        return opened

    def wake(self, authority: str) -> None:
        if authority in self.desks:
            self.desks[authority].queue.wake()

    async def check(self) -> None:
        """Raise what ended a queue: none ends by itself."""
        for desk in self.desks.values():
            if desk.task.done():
                desk.task.result()

    async def close(self) -> None:
        """Take nothing new, finish what is in hand."""
        await asyncio.gather(*(self._leave(desk) for desk in self.desks.values()), *self._leaving)

    def _desk(self, name: str, ca: CertificationAuthority, authority: Authority) -> Desk:
        breaker = Breaker()
        step_s = _EXCHANGES * ca.timeout_s
        placing = Placing(
            name=name,
            ca=ca,
            authority=authority,
            breaker=breaker,
            store=self._orders,
            metrics=self._metrics,
            timeout_s=step_s,
            now=self._now,
        )
        queue = Queue(
            name=name,
            ca=ca,
            authority=authority,
            placing=placing,
            breaker=breaker,
            store=self._store,
            # Longer than a step: nobody takes up an order while another still waits for its authority.
            lease=timedelta(seconds=step_s * _LEASE_BEYOND_STEP),
            now=self._now,
        )
        task = asyncio.create_task(queue.run(every_s=self._every_s), name=f"queue-{name}")
        return Desk(ca, authority, queue, breaker, task)

    async def _leave(self, desk: Desk) -> None:
        desk.queue.stop()
        await asyncio.gather(desk.task, return_exceptions=True)
        await desk.queue.settle(timeout_s=min(desk.queue.placing.timeout_s, self._settle_s))
        await desk.authority.close()

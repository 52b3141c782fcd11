"""The work at one CA: so many exchanges at once, within its quota, none while its breaker is open.

Each CA has a queue of its own, so one that hangs holds up its own orders and nobody else's.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from services.ca_connector.authorities import Authority
from services.ca_connector.breaker import Breaker
from services.ca_connector.orders import Order, Revocation
from services.ca_connector.placing import Placing
from shared.errors import RakkanError
from shared.messaging import operation
from shared.registry import CertificationAuthority
from shared.registry.model import Quota

log = structlog.get_logger()


class Store(Protocol):
    async def claim(
        self, authority: str, *, now: datetime, lease: timedelta, orders_max: int, quotas: tuple[Quota, ...]
    ) -> list[Order]: ...

    async def claim_open(self, authority: str, *, now: datetime, lease: timedelta, orders_max: int) -> list[Order]: ...

    async def claim_revocations(
        self, authority: str, *, now: datetime, lease: timedelta, orders_max: int
    ) -> list[Revocation]: ...


class Queue:
    def __init__(
        self,
        *,
        name: str,
        ca: CertificationAuthority,
        authority: Authority,
        placing: Placing,
        breaker: Breaker,
        store: Store,
        lease: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self.name = name
        self.ca = ca
        self.authority = authority
        self.placing = placing
        self.breaker = breaker
        self.store = store
        self.lease = lease
        self.now = now
        self._woken = asyncio.Event()
        self._stopping = False
        self._in_hand: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Something is due now."""
        self._woken.set()

    async def run(self, *, every_s: float) -> None:
        """Until `stop`. It is not cancelled: between a claim and the work on it an order would be left in doubt."""
        while not self._stopping:
            self._woken.clear()
            try:
                await self.once()
            except RakkanError as trouble:  # the database is away: the next round finds out whether it still is
                log.warning("queue not read", authority=self.name, why=str(trouble))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._woken.wait()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True
        self.wake()

    async def once(self) -> None:
        """Begin what is due and may begin."""
        now = self.now()
        if self.breaker.probe_is_due(now=now):
            await self._probe()
        free = self.breaker.free(self.ca.concurrency_max, in_hand=len(self._in_hand))
        if not free:
            return
        for revocation in await self.store.claim_revocations(
            self.name, now=now, lease=self.lease, orders_max=(free + 1) // 2
        ):
            self._begin(self.placing.revoke(revocation), operation.new_operation_id())
            free -= 1
        if not free:
            return
        if self.ca.status == "maintenance":
            orders = await self.store.claim_open(self.name, now=now, lease=self.lease, orders_max=free)
        else:
            orders = await self.store.claim(
                self.name, now=now, lease=self.lease, orders_max=free, quotas=self.ca.quotas
            )
        for order in orders:
            self._begin(self.placing.take_up(order), order.operation_id)

    async def settle(self, *, timeout_s: float) -> None:
        """Wait for what is in hand; what takes longer is left to whoever takes it up next."""
        if self._in_hand:
            _, late = await asyncio.wait(self._in_hand, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _probe(self) -> None:
        """Ask for the self-test rather than spend an order on finding out."""
        try:
            async with asyncio.timeout(self.ca.timeout_s):
                await self.authority.check()
        except (RakkanError, TimeoutError) as trouble:
            self.breaker.failed(trouble, now=self.now())
        else:
            self.breaker.probed()

    def _begin(self, work: Coroutine[Any, Any, None], operation_id: str) -> None:
        task = asyncio.create_task(self._within(work, operation_id), name=f"ca-{self.name}")
        self._in_hand.add(task)
        task.add_done_callback(self._ended)

    async def _within(self, work: Awaitable[None], operation_id: str) -> None:
        timeout_s = self.lease.total_seconds()
        with operation.begin("ca_connector", timeout_s=timeout_s, operation_id=operation_id):
            await work

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        self.wake()
        fault = None if task.cancelled() else task.exception()
        if isinstance(fault, RakkanError):
            log.warning("step failed", authority=self.name, why=str(fault))
        elif fault is not None:
            # A fault of an adapter is its own CA's trouble: its order is looked at with care when its lease ends.
            log.error("step broke", authority=self.name, exc_info=fault)
            self.placing.metrics.failed(self.name, "bug")

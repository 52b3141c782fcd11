"""The watch over what waits: orders to be polled, orders nothing happened to, revocations not done, a CRL to renew."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import NoReturn, Protocol

import structlog

from services.ca_connector.orders import Order, Revocation
from shared.errors import RakkanError
from shared.messaging import operation

log = structlog.get_logger()

_ORDERS_MAX = 20
_STEP_S = 60.0


class Store(Protocol):
    async def claim(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Order]: ...

    async def claim_revocations(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Revocation]: ...


class Steps(Protocol):
    async def take_up(self, order: Order) -> None: ...

    async def finish_revocation(self, revocation: Revocation) -> None: ...


class Sweep:
    """Any number of processes may sweep: what one claims, the others leave alone for `stuck`."""

    def __init__(
        self,
        *,
        store: Store,
        steps: Steps,
        renew_crl: Callable[[], Awaitable[bool]],
        stuck: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self.store = store
        self.steps = steps
        self.renew_crl = renew_crl
        self.stuck = stuck
        self.now = now

    async def run(self, *, every_s: float) -> NoReturn:
        while True:
            await self.once()
            await asyncio.sleep(every_s)

    async def once(self) -> None:
        """One round. What fails is left for a later round and does not keep the others waiting."""
        await self._step("crl", self._renew)
        await self._step("orders", self._orders)
        await self._step("revocations", self._revocations)

    async def _renew(self) -> None:
        if await self.renew_crl():
            log.info("crl renewed")

    async def _orders(self) -> None:
        # One at a time: a claim begins when the work on it begins, or the last of many would run out unserved.
        for _ in range(_ORDERS_MAX):
            claimed = await self.store.claim(now=self.now(), stuck=self.stuck, orders_max=1)
            if not claimed:
                return
            take_up = partial(self.steps.take_up, claimed[0])
            await self._step(claimed[0].order_id, take_up, claimed[0].operation_id)

    async def _revocations(self) -> None:
        for _ in range(_ORDERS_MAX):
            claimed = await self.store.claim_revocations(now=self.now(), stuck=self.stuck, orders_max=1)
            if not claimed:
                return
            await self._step(claimed[0].order_id, partial(self.steps.finish_revocation, claimed[0]))

    async def _step(self, about: str, work: Callable[[], Awaitable[None]], operation_id: str | None = None) -> None:
        with operation.begin("ca_connector", timeout_s=_STEP_S, operation_id=operation_id):
            try:
                async with asyncio.timeout(_STEP_S):
                    await work()
            except (RakkanError, TimeoutError) as trouble:
                log.warning("sweep step failed", about=about, why=str(trouble))

"""The watch over what is no CA's to answer: certificates the SAM has not heard of, CRLs of a CA in this room."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NoReturn, Protocol

import structlog

from services.ca_connector.orders import Order, Refused, advance, lose
from shared.errors import RakkanError
from shared.messaging import operation

log = structlog.get_logger()

_ORDERS_MAX = 20
_STEP_S = 60.0
_HOMELESS_AFTER = timedelta(seconds=60)
"""The registry that names an order's authority may reach the SAM a little before it reaches us."""


class Store(Protocol):
    async def claim_untold(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Order]: ...

    async def repeat(self, order: Order) -> None: ...

    async def homeless(self, *, before: datetime, authorities: list[str], orders_max: int) -> list[Order]: ...

    async def record(self, before: Order, after: Order, *, now: datetime) -> bool: ...


class Sweep:
    """Any number of processes may sweep: what one claims, the others leave alone for `stuck`.

    `chores` are done in each round, each by itself: what fails is left for a later round and keeps nothing waiting.
    """

    def __init__(
        self,
        *,
        store: Store,
        authorities: Callable[[], Iterable[str]],
        chores: Sequence[tuple[str, Callable[[], Awaitable[None]]]],
        stuck: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self.store = store
        self.authorities = authorities
        self.chores = chores
        self.stuck = stuck
        self.now = now

    async def run(self, *, every_s: float) -> NoReturn:
        while True:
            await self.once()
            await asyncio.sleep(every_s)

    async def once(self) -> None:
        for about, chore in self.chores:
            await self._step(about, chore)
        await self._step("orders", self._tell_again)
        await self._step("orders of no authority", self._refuse_homeless)

    async def _tell_again(self) -> None:
        for order in await self.store.claim_untold(now=self.now(), stuck=self.stuck, orders_max=_ORDERS_MAX):
            await self._step(order.order_id, partial(self.store.repeat, order), order.operation_id)

    async def _refuse_homeless(self) -> None:
        now = self.now()
        homeless = await self.store.homeless(
            before=now - _HOMELESS_AFTER, authorities=sorted(self.authorities()), orders_max=_ORDERS_MAX
        )
        for order in homeless:
            after = (
                lose(order, f"{order.authority} left the registry while the order was being placed")
                if order.asked_before
                else advance(order, Refused(f"there is no authority {order.authority}"))
            )
            await self._step(order.order_id, partial(self._record, order, after), order.operation_id)

    async def _record(self, before: Order, after: Order) -> None:
        await self.store.record(before, after, now=self.now())

    async def _step(self, about: str, work: Callable[[], Awaitable[None]], operation_id: str | None = None) -> None:
        with operation.begin("ca_connector", timeout_s=_STEP_S, operation_id=operation_id):
            try:
                async with asyncio.timeout(_STEP_S):
                    await work()
            except (RakkanError, TimeoutError) as trouble:
                log.warning("sweep step failed", about=about, why=str(trouble))

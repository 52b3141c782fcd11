"""What the CA connector does with a message, and with an order whose time has come."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import structlog

from services.ca_connector.authorities import Authority
from services.ca_connector.orders import (
    CESSATION_OF_OPERATION,
    Order,
    Outcome,
    Refused,
    Revocation,
    State,
    advance,
    check_reason,
    check_same,
    decide,
)
from shared.contracts.ca_connector import ConfirmOrder, OrderCertificate, RevokeCertificate
from shared.errors import RETRYABLE, Code, RakkanError

log = structlog.get_logger()


class Store(Protocol):
    async def submit(self, *, order_id: str, authority: str, csr: bytes, now: datetime) -> tuple[Order, bool]: ...

    async def order(self, order_id: str) -> Order: ...

    async def record(self, before: Order, after: Order) -> bool: ...

    async def repeat(self, order: Order) -> None: ...

    async def want_revocation(self, order: Order, *, reason: int, now: datetime) -> Revocation: ...

    async def record_revoked(self, order: Order, revocation: Revocation, *, now: datetime) -> None: ...


class Handlers:
    """Once an order or a revocation is a row, a failing authority fails no job: the watch goes on with it."""

    def __init__(
        self,
        *,
        store: Store,
        authorities: Mapping[str, Authority],
        answer_timeout_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self.store = store
        self.authorities = authorities
        self.answer_timeout_s = answer_timeout_s
        self.now = now

    async def order_certificate(self, message: OrderCertificate) -> None:
        """Make the order durable, then place it."""
        order, is_new = await self.store.submit(
            order_id=message.order_id, authority=message.authority, csr=message.csr, now=self.now()
        )
        check_same(order, authority=message.authority, csr=message.csr)
        if is_new:
            await self.take_up(order)

    async def confirm_order(self, message: ConfirmOrder) -> None:
        """Note the SAM's word; what it does not want is revoked."""
        order = await self.store.order(message.order_id)
        decided = decide(order, accepted=message.accepted, reason=message.reason)
        if decided is not order and not await self.store.record(order, decided):
            decided = decide(await self.store.order(message.order_id), accepted=message.accepted, reason=message.reason)
        if decided.state is State.REJECTED:
            await self._revoke(decided, reason=CESSATION_OF_OPERATION)

    async def revoke_certificate(self, message: RevokeCertificate) -> None:
        """Make the wish durable, then have it done. What is not issued yet is revoked when it is."""
        check_reason(message.reason)
        await self._revoke(await self.store.order(message.order_id), reason=message.reason)

    async def take_up(self, order: Order) -> None:
        """The next step of an order: place it, ask about it, or tell the SAM about it again."""
        if order.state is State.ISSUED:
            await self.store.repeat(order)
            return
        try:
            async with asyncio.timeout(self.answer_timeout_s):
                outcome = await self._ask(order)
        except (RakkanError, TimeoutError) as trouble:
            self._leave_to_watch(trouble, order.order_id)
            return
        if not await self.store.record(order, advance(order, outcome)):
            log.info("another was first", order_id=order.order_id)

    async def finish_revocation(self, revocation: Revocation) -> None:
        """Have a wanted revocation done, unless it is done or there is nothing to revoke yet."""
        order = await self.store.order(revocation.order_id)
        if revocation.revoked_at is not None or not order.chain:
            return
        authority = self.authorities.get(order.authority)
        if authority is None:
            raise RakkanError(
                Code.AUTHORITY_UNKNOWN, f"{order.authority} issued {order.order_id} and is set up no more"
            )
        try:
            async with asyncio.timeout(self.answer_timeout_s):
                await authority.revoke(order, reason=revocation.reason, at=revocation.wanted_at)
        except (RakkanError, TimeoutError) as trouble:
            self._leave_to_watch(trouble, order.order_id)
            return
        await self.store.record_revoked(order, revocation, now=self.now())

    async def _ask(self, order: Order) -> Outcome:
        authority = self.authorities.get(order.authority)
        if authority is None:
            return Refused(f"there is no authority {order.authority}")
        return await (authority.poll(order) if order.state is State.PENDING else authority.submit(order))

    async def _revoke(self, order: Order, *, reason: int) -> None:
        if order.state is State.REJECTED and not order.chain:
            return
        await self.finish_revocation(await self.store.want_revocation(order, reason=reason, now=self.now()))

    @staticmethod
    def _leave_to_watch(trouble: RakkanError | TimeoutError, order_id: str) -> None:
        if isinstance(trouble, RakkanError) and trouble.code not in RETRYABLE:
            raise trouble
        log.warning("authority not reached", order_id=order_id, why=str(trouble) or "no answer in time")

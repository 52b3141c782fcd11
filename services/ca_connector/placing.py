"""What is done at one CA for one order or one revocation, and what becomes of it when that fails.

An order being placed carries a mark in the database. Where the mark is found and nobody knows what came of it, the
order is placed again only at a CA that gives the same certificate twice; elsewhere it becomes UNKNOWN.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import structlog
from cryptography import x509

from services.ca_connector.authorities import Authority
from services.ca_connector.breaker import Breaker
from services.ca_connector.metrics import Metrics
from services.ca_connector.orders import (
    Issued,
    Order,
    Outcome,
    Pending,
    Refused,
    Revocation,
    State,
    advance,
    back_off,
    is_given_up,
    lose,
    schedule,
    surely_not_placed,
)
from shared.errors import RETRYABLE, Code, RakkanError
from shared.registry import CertificationAuthority

log = structlog.get_logger()

_RECORD_AGAIN_S = (0.5, 10.0)
_STOPPED = "the connector stopped while the order was being placed"


class Store(Protocol):
    async def order(self, order_id: str) -> Order: ...

    async def record(self, before: Order, after: Order, *, now: datetime) -> bool: ...

    async def postpone(self, order: Order, *, due_at: datetime, trouble: str) -> None: ...

    async def confirmed(self, order: Order) -> None: ...

    async def keep_stray(self, order: Order, chain: tuple[bytes, ...]) -> bool: ...

    async def want_revocation(self, order: Order, *, reason: int, now: datetime) -> Revocation: ...

    async def record_revoked(self, order: Order, revocation: Revocation, *, now: datetime) -> None: ...

    async def postpone_revocation(self, revocation: Revocation, *, due_at: datetime, trouble: str) -> None: ...


class Placing:
    """At one CA. `timeout_s` bounds all exchanges of one step together."""

    def __init__(
        self,
        *,
        name: str,
        ca: CertificationAuthority,
        authority: Authority,
        breaker: Breaker,
        store: Store,
        metrics: Metrics,
        timeout_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self.name = name
        self.ca = ca
        self.authority = authority
        self.breaker = breaker
        self.store = store
        self.metrics = metrics
        self.timeout_s = timeout_s
        self.now = now

    async def take_up(self, order: Order) -> None:
        """The next step of an order: place it, ask about it, or tell the CA what the SAM decided."""
        if order.confirm_due:
            await self._confirm(order)
        elif order.profile not in self.ca.profiles and order.state is State.SUBMITTED and not order.asked_before:
            await self._record(order, advance(order, Refused(f"{self.name} has no profile {order.profile}")))
        elif order.state is State.SUBMITTED and order.asked_before and not self.authority.capabilities.repeatable:
            await self._record(order, lose(order, _STOPPED))
        else:
            await self._ask(order)

    async def revoke(self, revocation: Revocation) -> None:
        """Have a wanted revocation done. What the CA will not do is wanted again later, and shown until then."""
        order = await self.store.order(revocation.order_id)
        if not self.authority.capabilities.revokes:
            trouble: RakkanError | TimeoutError = RakkanError(
                Code.AUTHORITY_REFUSED, "this authority revokes by hand only; say so when it is done"
            )
        else:
            try:
                with self.metrics.asking(self.name, "revoke"):
                    async with asyncio.timeout(self.timeout_s):
                        await self.authority.revoke(order, reason=revocation.reason, at=revocation.wanted_at)
            except (RakkanError, TimeoutError) as fault:
                trouble = fault
                if _is_said(fault):
                    # It is about this certificate: the CA is well, and goes on with its orders.
                    self.metrics.failed(self.name, "revocation_refused")
                    log.warning("revocation refused", authority=self.name, order_id=order.order_id, why=_why(fault))
                else:
                    self._failed(fault, order.order_id)
            else:
                self.breaker.succeeded()
                await self.store.record_revoked(order, revocation, now=self.now())
                return
        due_at = self.now() + back_off(revocation.failures, self.ca.polling)
        await self.store.postpone_revocation(revocation, due_at=due_at, trouble=_why(trouble))

    async def _ask(self, order: Order) -> None:
        placing = order.state is State.SUBMITTED
        try:
            with self.metrics.asking(self.name, "submit" if placing else "poll"):
                async with asyncio.timeout(self.timeout_s):
                    outcome = await (self.authority.submit(order) if placing else self.authority.poll(order))
                _check_readable(outcome)
        except (RakkanError, TimeoutError) as trouble:
            self._failed(trouble, order.order_id)
            await self._after_failure(order, trouble)
            return
        self.breaker.succeeded()
        now = self.now()
        if isinstance(outcome, Pending):
            outcome = schedule(order, outcome, polling=self.ca.polling, now=now)
            patient = self.authority.capabilities.waits_for_people
            if not patient and is_given_up(order, polling=self.ca.polling, now=now):
                given_up = lose(replace(order, handle=outcome.handle), _given_up(self.ca))
                await self._record(order, given_up)
                return
        await self._record(order, advance(order, outcome), outcome)

    async def _after_failure(self, order: Order, trouble: RakkanError | TimeoutError) -> None:
        now = self.now()
        if order.state is State.SUBMITTED:
            lost = not (surely_not_placed(trouble) or self.authority.capabilities.repeatable)
        else:
            lost = isinstance(trouble, RakkanError) and trouble.code is Code.INDETERMINATE
        if lost:
            await self._record(order, lose(order, _why(trouble)))
        elif order.state is State.PENDING and is_given_up(order, polling=self.ca.polling, now=now):
            await self._record(order, lose(order, _given_up(self.ca)))
        else:
            due_at = now + back_off(order.failures, self.ca.polling)
            await self.store.postpone(order, due_at=due_at, trouble=_why(trouble))

    async def _confirm(self, order: Order) -> None:
        try:
            with self.metrics.asking(self.name, "confirm"):
                async with asyncio.timeout(self.timeout_s):
                    await self.authority.confirm(order, accepted=order.state is State.CONFIRMED)
        except (RakkanError, TimeoutError) as trouble:
            self._failed(trouble, order.order_id)
            due_at = self.now() + back_off(order.failures, self.ca.polling)
            await self.store.postpone(order, due_at=due_at, trouble=_why(trouble))
            return
        self.breaker.succeeded()
        await self.store.confirmed(order)

    async def _record(self, before: Order, after: Order, outcome: Outcome | None = None) -> None:
        """Until it is durable: a certificate that only we have seen must not be lost to a database that is away."""
        pause_s, longest_s = _RECORD_AGAIN_S
        while True:
            try:
                if await self.store.record(before, after, now=self.now()):
                    return
                current = await self.store.order(before.order_id)
                break
            except RakkanError as trouble:
                if trouble.code not in RETRYABLE:
                    raise
                log.warning("not recorded yet", order_id=before.order_id, why=str(trouble))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)
        await self._late(current, outcome)

    async def _late(self, current: Order, outcome: Outcome | None) -> None:
        """Somebody moved the order meanwhile. A certificate still has to be linked, or revoked."""
        if current.state is State.UNKNOWN and outcome is not None:
            await self.store.record(current, advance(current, outcome), now=self.now())
        elif not isinstance(outcome, Issued) or outcome.chain == current.chain:
            log.info("another was first", order_id=current.order_id)
        elif await self.store.keep_stray(current, outcome.chain):
            log.error("certificate came for an ended order; revoking it", order_id=current.order_id)
            await self.store.want_revocation(replace(current, chain=outcome.chain), reason=5, now=self.now())
        else:
            serial = x509.load_der_x509_certificate(outcome.chain[0]).serial_number
            log.error("second certificate for an order", order_id=current.order_id, serial_number=f"{serial:x}")
            self.metrics.failed(self.name, "second_certificate")
            await self.authority.revoke(replace(current, chain=outcome.chain), reason=5, at=self.now())

    def _failed(self, trouble: RakkanError | TimeoutError, order_id: str) -> None:
        kind = trouble.code.value if isinstance(trouble, RakkanError) else "timeout"
        self.metrics.failed(self.name, kind)
        log.warning("authority failed", authority=self.name, order_id=order_id, why=_why(trouble))
        if self.breaker.failed(trouble, now=self.now()):
            log.error("authority left alone for a while", authority=self.name, why=self.breaker.why)


def _is_said(trouble: RakkanError | TimeoutError) -> bool:
    """Whether a revocation failed by the CA's own word."""
    return isinstance(trouble, RakkanError) and trouble.code in {Code.AUTHORITY_REFUSED, Code.CERTIFICATE_REFUSED}


def _check_readable(outcome: Outcome) -> None:
    """What is no certificate at all was not issued to us. Whether it is the right one, the SAM judges."""
    if not isinstance(outcome, Issued):
        return
    try:
        for der in outcome.chain:
            _ = x509.load_der_x509_certificate(der).serial_number
    except (ValueError, x509.InvalidVersion):
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "issued, but what came is no certificate") from None
    if not outcome.chain:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "issued, but no certificate came")


def _given_up(ca: CertificationAuthority) -> str:
    return f"still pending after {ca.polling.give_up_days} days"


def _why(trouble: RakkanError | TimeoutError) -> str:
    return str(trouble) or "no answer in time"

"""Fakes around certification authorities: one that does as it is told, and the lists of the local one."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import Capabilities, Health, MakeCRL
from services.ca_connector.orders import Order, Outcome, Revocation, State
from services.ca_connector.profile import RevokedCertificate
from shared.errors import Code, RakkanError


@dataclass
class FakeLists:
    """The CRLs of one authority, in memory."""

    revoked: dict[int, RevokedCertificate] = field(default_factory=dict)
    crls: list[x509.CertificateRevocationList] = field(default_factory=list)

    async def latest_crl(self, authority: str) -> bytes | None:
        assert authority == "local"
        return self.crls[-1].public_bytes(Encoding.DER) if self.crls else None

    async def latest_crl_times(self, authority: str) -> tuple[datetime, datetime] | None:
        assert authority == "local"
        if not self.crls:
            return None
        assert self.crls[-1].next_update_utc is not None
        return self.crls[-1].last_update_utc, self.crls[-1].next_update_utc

    async def publish_crl(
        self, authority: str, make: MakeCRL, *, now: datetime, revoked: RevokedCertificate | None = None
    ) -> None:
        assert authority == "local"
        if revoked is not None:
            if revoked.serial_number in self.revoked:
                return
            self.revoked[revoked.serial_number] = revoked
        self.crls.append(await make(len(self.crls) + 1, tuple(self.revoked.values()), now))


@dataclass
class FakeAuthority:
    """Gives back the prepared outcomes, one for each question; without one it is out of reach."""

    capabilities: ClassVar[Capabilities] = Capabilities(polls=True, revokes=True, renews=True)
    outcomes: list[Outcome] = field(default_factory=list)
    asked: list[tuple[str, State]] = field(default_factory=list)
    revoked: list[tuple[str, int]] = field(default_factory=list)
    away: bool = False

    async def submit(self, order: Order) -> Outcome:
        return self._next(order)

    async def poll(self, order: Order) -> Outcome:
        return self._next(order)

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:
        del at
        if self.away:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE)
        self.revoked.append((order.order_id, reason))

    async def confirm(self, order: Order, *, accepted: bool) -> None: ...

    async def check(self) -> Health:
        return Health()

    async def close(self) -> None: ...

    def _next(self, order: Order) -> Outcome:
        self.asked.append((order.order_id, order.state))
        if not self.outcomes:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE)
        return self.outcomes.pop(0)


@dataclass
class FakeStore:
    """The rules of the real one without a database: first come first served, ends are ends."""

    orders: dict[str, Order] = field(default_factory=dict)
    attempted_at: dict[str, datetime] = field(default_factory=dict)
    revocations: dict[str, Revocation] = field(default_factory=dict)
    revocation_attempted_at: dict[str, datetime] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    async def submit(self, *, order_id: str, authority: str, csr: bytes, now: datetime) -> tuple[Order, bool]:
        is_new = order_id not in self.orders
        if is_new:
            self.attempted_at[order_id] = now
            self.orders[order_id] = Order(order_id, authority, csr, "operation", created_at=now)
        return self.orders[order_id], is_new

    async def order(self, order_id: str) -> Order:
        if order_id not in self.orders:
            raise RakkanError(Code.NOT_FOUND)
        return self.orders[order_id]

    async def record(self, before: Order, after: Order) -> bool:
        if self.orders[before.order_id].state is not before.state:
            return False
        self.orders[before.order_id] = after
        if after.state is State.ISSUED:
            self.accepted.append(after.order_id)
        if after.state is State.REJECTED and before.state is not State.ISSUED:
            self.refused.append(after.order_id)
        return True

    async def repeat(self, order: Order) -> None:
        self.accepted.append(order.order_id)

    async def claim(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Order]:
        stale = {order_id for order_id, at in self.attempted_at.items() if at <= now - stuck}
        due = [
            order
            for order in self.orders.values()
            if (order.state in {State.SUBMITTED, State.ISSUED} and order.order_id in stale)
            or (order.state is State.PENDING and order.not_before is not None and order.not_before <= now)
        ][:orders_max]
        for order in due:
            self.attempted_at[order.order_id] = now
            if order.state is State.PENDING:
                self.orders[order.order_id] = replace(order, not_before=now + stuck)
        return due

    async def want_revocation(self, order: Order, *, reason: int, now: datetime) -> Revocation:
        return self.revocations.setdefault(order.order_id, Revocation(order.order_id, reason, now))

    async def record_revoked(self, order: Order, revocation: Revocation, *, now: datetime) -> None:
        self.revocations[order.order_id] = replace(revocation, revoked_at=now)
        if order.state is not State.REJECTED:
            self.noted.append(order.order_id)

    async def claim_revocations(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Revocation]:
        due = [
            one
            for one in self.revocations.values()
            if one.revoked_at is None
            and self.orders[one.order_id].chain
            and self.revocation_attempted_at.get(one.order_id, one.wanted_at) <= now - stuck
        ][:orders_max]
        self.revocation_attempted_at |= {one.order_id: now for one in due}
        return due

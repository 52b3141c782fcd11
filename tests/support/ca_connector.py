"""Fakes around certification authorities: one that does as it is told, the room without its servers, CRLs."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry

from services.ca_connector.authorities import Authority, Capabilities, Health, MakeCRL, Surroundings
from services.ca_connector.handlers import Handlers
from services.ca_connector.metrics import Metrics
from services.ca_connector.orders import Order, Outcome, Revocation, State
from services.ca_connector.profile import RevokedCertificate
from services.ca_connector.queues import Queues
from services.ca_connector.sweeping import Sweep
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.registry import Registry
from shared.registry.model import Quota
from shared.settings import SettingsError


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

    capabilities: Capabilities = field(default_factory=lambda: Capabilities(polls=True, revokes=True, renews=True))
    outcomes: list[Outcome | RakkanError] = field(default_factory=list)
    asked: list[tuple[str, State]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    revoked: list[tuple[str, int]] = field(default_factory=list)
    confirmed: list[tuple[str, bool]] = field(default_factory=list)
    away: bool = False
    refuses_revocations: bool = False
    checks: int = 0
    closed: bool = False

    async def submit(self, order: Order) -> Outcome:
        return self._next(order)

    async def poll(self, order: Order) -> Outcome:
        return self._next(order)

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:
        del at
        if self.away:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE)
        if self.refuses_revocations:
            raise RakkanError(Code.AUTHORITY_REFUSED, "not without a form")
        self.revoked.append((order.order_id, reason))

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        if self.away:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE)
        self.confirmed.append((order.order_id, accepted))

    async def check(self) -> Health:
        self.checks += 1
        if self.away:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE, "away")
        return Health()

    async def close(self) -> None:
        self.closed = True

    def _next(self, order: Order) -> Outcome:
        self.asked.append((order.order_id, order.state))
        self.orders.append(order)
        if self.away or not self.outcomes:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, RakkanError):
            raise outcome
        return outcome


@dataclass
class FakeStore:
    """The rules of the real one without a database: first come first served, ends are ends."""

    orders: dict[str, Order] = field(default_factory=dict)
    renews: dict[str, str] = field(default_factory=dict)
    key_hashes: dict[bytes, str] = field(default_factory=dict)
    due_at: dict[str, datetime] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    revocations: dict[str, Revocation] = field(default_factory=dict)
    revocation_due_at: dict[str, datetime] = field(default_factory=dict)
    askings: list[tuple[str, datetime]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    away: int = 0
    """So many times `record` finds the database away."""

    async def submit(self, wanted: Order, *, renews: str | None, key_hash: bytes) -> Order:
        if wanted.order_id not in self.orders:
            if self.key_hashes.setdefault(key_hash, wanted.order_id) != wanted.order_id and renews is None:
                raise RakkanError(Code.CONFLICT)
            self.orders[wanted.order_id] = wanted
            self.due_at[wanted.order_id] = wanted.created_at
            if renews is not None:
                self.renews[wanted.order_id] = renews
        return self.orders[wanted.order_id]

    async def order(self, order_id: str) -> Order:
        if order_id not in self.orders:
            raise RakkanError(Code.NOT_FOUND)
        return self.orders[order_id]

    async def record(self, before: Order, after: Order, *, now: datetime) -> bool:
        if self.away:
            self.away -= 1
            raise RakkanError(Code.UNAVAILABLE)
        if self.orders[before.order_id].state is not before.state:
            return False
        self.orders[before.order_id] = replace(after, asked_before=False)
        self.due_at[before.order_id] = after.not_before if after.state is State.PENDING and after.not_before else now
        if after.state is State.ISSUED:
            self.accepted.append(after.order_id)
        if after.state is State.REJECTED and before.state is not State.ISSUED:
            self.refused.append(after.order_id)
        return True

    async def postpone(self, order: Order, *, due_at: datetime, trouble: str) -> None:
        current = self.orders[order.order_id]
        if current.state is order.state:
            self.orders[order.order_id] = replace(current, asked_before=False, failures=current.failures + 1)
            self.due_at[order.order_id] = due_at
            self.troubles[order.order_id] = trouble

    async def confirmed(self, order: Order) -> None:
        self.orders[order.order_id] = replace(self.orders[order.order_id], confirm_due=False)

    async def keep_stray(self, order: Order, chain: tuple[bytes, ...]) -> bool:
        current = self.orders[order.order_id]
        if current.state is not State.REJECTED or current.chain:
            return False
        self.orders[order.order_id] = replace(current, chain=chain)
        return True

    async def repeat(self, order: Order) -> None:
        self.accepted.append(order.order_id)

    async def claim_untold(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Order]:
        due = [
            order
            for order in self.orders.values()
            if order.state is State.ISSUED and self.due_at[order.order_id] <= now - stuck
        ][:orders_max]
        self.due_at |= {order.order_id: now for order in due}
        return due

    async def homeless(self, *, before: datetime, authorities: list[str], orders_max: int) -> list[Order]:
        return [
            order
            for order in self.orders.values()
            if order.state is State.SUBMITTED
            and order.authority not in authorities
            and self.due_at[order.order_id] <= before
        ][:orders_max]

    async def claim(
        self, authority: str, *, now: datetime, lease: timedelta, orders_max: int, quotas: tuple[Quota, ...]
    ) -> list[Order]:
        free = orders_max
        for quota in quotas:
            since = now - timedelta(seconds=quota.seconds)
            free = min(free, quota.requests - sum(1 for name, at in self.askings if name == authority and at > since))
        claimed = self._claim(authority, now, lease, orders_max, new_max=free)
        self.askings += [(authority, now) for order in claimed if order.state is State.SUBMITTED]
        return claimed

    async def claim_open(self, authority: str, *, now: datetime, lease: timedelta, orders_max: int) -> list[Order]:
        return self._claim(authority, now, lease, orders_max, new_max=0)

    def _claim(self, authority: str, now: datetime, lease: timedelta, orders_max: int, *, new_max: int) -> list[Order]:
        due = [
            order
            for order in self.orders.values()
            if order.authority == authority
            and (order.state in {State.SUBMITTED, State.PENDING} or order.confirm_due)
            and self.due_at[order.order_id] <= now
        ]
        new = [order for order in due if order.state is State.SUBMITTED][: max(0, new_max)]
        claimed = [order for order in due if order.state is not State.SUBMITTED or order in new][:orders_max]
        for order in claimed:
            self.due_at[order.order_id] = now + lease
            self.orders[order.order_id] = replace(order, asked_before=order.state is State.SUBMITTED)
        renewed = {order.order_id: self.orders.get(self.renews.get(order.order_id, "")) for order in claimed}
        return [replace(order, previous=renewed[order.order_id]) for order in claimed]

    async def want_revocation(self, order: Order, *, reason: int, now: datetime) -> Revocation:
        self.revocation_due_at.setdefault(order.order_id, now)
        return self.revocations.setdefault(order.order_id, Revocation(order.order_id, reason, now))

    async def record_revoked(self, order: Order, revocation: Revocation, *, now: datetime) -> None:
        self.revocations[order.order_id] = replace(revocation, revoked_at=now)
        if order.state is not State.REJECTED:
            self.noted.append(order.order_id)

    async def revocation(self, order_id: str) -> Revocation:
        if order_id not in self.revocations:
            raise RakkanError(Code.NOT_FOUND)
        return self.revocations[order_id]

    async def postpone_revocation(self, revocation: Revocation, *, due_at: datetime, trouble: str) -> None:
        current = self.revocations[revocation.order_id]
        self.revocations[revocation.order_id] = replace(current, failures=current.failures + 1)
        self.revocation_due_at[revocation.order_id] = due_at
        self.troubles[revocation.order_id] = trouble

    async def claim_revocations(
        self, authority: str, *, now: datetime, lease: timedelta, orders_max: int
    ) -> list[Revocation]:
        due = [
            one
            for one in self.revocations.values()
            if one.revoked_at is None
            and self.orders[one.order_id].chain
            and self.orders[one.order_id].authority == authority
            and self.revocation_due_at[one.order_id] <= now
        ][:orders_max]
        self.revocation_due_at |= {one.order_id: now + lease for one in due}
        return due


class ConnectorRoom:
    """Handlers, queues and the watch as in the room, around fakes. `work` has each CA do what is due, and waits."""

    def __init__(self, authorities: Mapping[str, Authority], **entries: Any) -> None:
        self.time = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
        self.authorities = dict(authorities)
        self.store = FakeStore()
        self.metrics = Metrics(CollectorRegistry())
        self.entries = entries
        self.renewals = 0
        self.queues = Queues(
            orders=self.store,
            store=self.store,
            metrics=self.metrics,
            surroundings=partial(Surroundings, secrets=NoSecrets(), now=lambda: self.time),
            every_s=3600,
            settle_s=1,
            now=lambda: self.time,
            open_=lambda _, surroundings: self.authorities[surroundings.name],
        )
        self.handlers = Handlers(store=self.store, queues=self.queues, now=lambda: self.time)
        self.sweep = Sweep(
            store=self.store,
            authorities=lambda: self.queues.desks,
            chores=(("crl", self._renew),),
            stuck=timedelta(seconds=60),
            now=lambda: self.time,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator["ConnectorRoom"]:
        await self.queues.use(registry_of(dict.fromkeys(self.authorities), **self.entries))
        try:
            with operation.begin("sam", timeout_s=60):
                yield self
        finally:
            await self.queues.close()

    async def work(self, *, later: timedelta = timedelta()) -> None:
        """What is due after so long."""
        self.time += later
        for desk in self.queues.desks.values():
            await desk.queue.once()
            await desk.queue.settle(timeout_s=5)
        await self.sweep.once()

    async def _renew(self) -> None:
        self.renewals += 1


class NoSecrets:
    def secret(self, name: str) -> str:
        raise SettingsError(f"no secret {name}")

    def secret_file(self, name: str) -> Path:
        raise SettingsError(f"no secret {name}")


def registry_of(names: Iterable[str], *, version: int = 1, **entry: Any) -> Registry:
    """CAs of these names, alike."""
    profiles = {"signing": {"label": "Signing"}}
    one = {"label": "CA", "protocol": "fake", "profiles": profiles, "default_profile": "signing"} | entry
    return Registry.model_validate({"version": version, "certification_authorities": dict.fromkeys(names, one)})

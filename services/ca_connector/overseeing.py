"""What an operator asks and says about CAs and orders: how they stand, what became of an order in doubt."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from cryptography import x509

from services.ca_connector.orders import Issued, Order, Outcome, Pending, Refused, Revocation, State, resolve
from services.ca_connector.queues import Desk
from services.ca_connector.selftest import Tested
from services.ca_connector.store_standing import Standing
from shared.contracts.base import Done
from shared.contracts.ca_connector import (
    Authorities,
    AuthorityRow,
    ListAuthorities,
    ListOrders,
    NoteRevoked,
    OrderRow,
    Orders,
    ResolveOrder,
)
from shared.errors import Code, RakkanError


class Store(Protocol):
    async def order(self, order_id: str) -> Order: ...

    async def record(self, before: Order, after: Order, *, now: datetime) -> bool: ...

    async def revocation(self, order_id: str) -> Revocation: ...

    async def record_revoked(self, order: Order, revocation: Revocation, *, now: datetime) -> None: ...


class StandingStore(Protocol):
    async def standings(
        self, *, now: datetime, days: Sequence[int], with_ended: bool = False, lists_of: Sequence[str] = ()
    ) -> Mapping[str, Standing]: ...

    async def lists(self) -> Sequence[Mapping[str, Any]]: ...

    async def orders(
        self, *, authority: str | None, state: str | None, orders_max: int
    ) -> Sequence[Mapping[str, Any]]: ...


class Queues(Protocol):
    @property
    def desks(self) -> Mapping[str, Desk]: ...

    def wake(self, authority: str) -> None: ...


class SelfTest(Protocol):
    @property
    def last(self) -> Mapping[str, Tested]: ...

    async def run(self) -> None: ...


class Overseeing:
    def __init__(
        self,
        *,
        store: Store,
        standing: StandingStore,
        queues: Queues,
        self_test: SelfTest,
        registry_version: Callable[[], int],
        now: Callable[[], datetime],
    ) -> None:
        self.store = store
        self.standing = standing
        self.queues = queues
        self.self_test = self_test
        self.registry_version = registry_version
        self.now = now

    async def list_authorities(self, request: ListAuthorities) -> Authorities:
        """Those of the registry, and those that left it while orders were under way."""
        if request.test:
            await self.self_test.run()
        now, desks = self.now(), self.queues.desks
        standings = await self.standing.standings(now=now, days=(), with_ended=True)
        lists = await self.standing.lists()
        gone = sorted(name for name, one in standings.items() if name not in desks and (one.oldest or one.revocations))
        return Authorities(
            registry_version=self.registry_version(),
            authorities=tuple(
                self._row(name, desks.get(name), standings.get(name, Standing()), lists, now=now)
                for name in (*desks, *gone)
            ),
        )

    async def list_orders(self, request: ListOrders) -> Orders:
        rows = await self.standing.orders(
            authority=request.authority, state=request.state, orders_max=request.orders_max
        )
        return Orders(
            orders=tuple(
                OrderRow(
                    order_id=row["order_id"],
                    authority=row["authority"],
                    profile=row["profile"],
                    state=row["state"],
                    since=row["submitted_at"],
                    due_at=row["due_at"],
                    why=row["why"],
                    serial_number=row["serial_number"],
                    revocation=None
                    if row["revocation_wanted_at"] is None
                    else row["revocation_trouble"] or "not asked for yet",
                )
                for row in rows
            )
        )

    async def resolve_order(self, request: ResolveOrder) -> Done:
        """Move an order in doubt by the operator's word. A certificate she hands over is checked by the SAM."""
        order = await self.store.order(request.order_id)
        resolved = resolve(order, _outcome(request, order, now=self.now()))
        if not await self.store.record(order, resolved, now=self.now()):
            raise RakkanError(Code.CONFLICT, f"order {request.order_id} has just moved; look again")
        self.queues.wake(order.authority)
        return Done()

    async def note_revoked(self, request: NoteRevoked) -> Done:
        """The operator had it revoked at the CA."""
        order = await self.store.order(request.order_id)
        revocation = await self.store.revocation(request.order_id)
        await self.store.record_revoked(order, revocation, now=self.now())
        return Done()

    def _row(
        self,
        name: str,
        desk: Desk | None,
        standing: Standing,
        lists: Sequence[Mapping[str, Any]],
        *,
        now: datetime,
    ) -> AuthorityRow:
        tested = self.self_test.last.get(name)
        numbers = {state.value.lower(): standing.orders.get(state.value, 0) for state in State}
        return AuthorityRow(
            authority=name,
            label=desk.ca.label if desk else "not in the registry any more",
            protocol=desk.ca.protocol if desk else "",
            tested_at=tested.at if tested else None,
            reachable=tested.reachable if tested else "not tested",
            chain=tested.chain if tested else "",
            crl=(tested.crl if tested else "") or _list_words(name, lists, now=now),
            latency_ms=tested.latency_ms if tested else None,
            breaker=f"{desk.breaker.state}: {desk.breaker.why}" if desk and desk.breaker.why else _breaker(desk),
            revocations_waiting=standing.revocations,
            **numbers,
        )


def _breaker(desk: Desk | None) -> str:
    return "" if desk is None else str(desk.breaker.state)


def _list_words(name: str, lists: Sequence[Mapping[str, Any]], *, now: datetime) -> str:
    """Of the lists that certificates of this CA name, the worst."""
    words = []
    for row in lists:
        if row["authority"] != name:
            continue
        if row["trouble"] is not None:
            return f"{row['url']}: {row['trouble']}"
        if row["next_update"] is not None:
            late = row["next_update"] <= now
            words.append(f"{'ran out' if late else 'fresh until'} {row['next_update']:%Y-%m-%d %H:%M}")
    return max(words, default="none")


def _outcome(request: ResolveOrder, order: Order, *, now: datetime) -> Outcome | None:
    if request.outcome == "again":
        return None
    if request.outcome == "refused":
        return Refused(request.reason or "refused by the operator")
    if request.outcome == "poll":
        if order.handle is None:
            raise RakkanError(Code.CONFLICT, f"order {order.order_id} has no handle to ask by")
        return Pending(order.handle, now)
    try:
        for der in request.chain:
            _ = x509.load_der_x509_certificate(der).serial_number
    except (ValueError, x509.InvalidVersion):
        raise RakkanError(Code.MALFORMED, "what was handed over is no certificate") from None
    if not request.chain:
        raise RakkanError(Code.MALFORMED, "an order that was issued has a certificate: hand it over")
    return Issued(request.chain)

"""The one state machine of every order at every CA, and which revocations there are. Rules only, no I/O.

SUBMITTED -> PENDING (handle, not before) -> ISSUED -> CONFIRMED | REJECTED. A CA that answers at once skips PENDING;
one that will not issue ends in REJECTED. What comes twice changes nothing; what contradicts an end is CONFLICT.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from shared.errors import Code, RakkanError


class State(StrEnum):
    SUBMITTED = "SUBMITTED"
    PENDING = "PENDING"
    ISSUED = "ISSUED"
    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"


BY_AUTHORITY: Mapping[State, frozenset[State]] = {
    State.SUBMITTED: frozenset({State.PENDING, State.ISSUED, State.REJECTED}),
    State.PENDING: frozenset({State.PENDING, State.ISSUED, State.REJECTED}),
}
"""Where an authority's word can take an order."""

BY_SAM: Mapping[State, frozenset[State]] = {State.ISSUED: frozenset({State.CONFIRMED, State.REJECTED})}
"""Where the SAM's word can. Neither speaks for the other: what was issued is not the authority's to reject."""

CESSATION_OF_OPERATION = 5
REASONS = frozenset({0, 1, 2, 3, 4, CESSATION_OF_OPERATION, 9, 10})
"""RFC 5280 5.3.1 without 6 and 8: a hold can be taken back, and suspending a credential is the SAM's to do."""
_REASON_MAX = 255


@dataclass(frozen=True)
class Order:
    """One order of one certificate."""

    order_id: str
    authority: str
    csr: bytes
    operation_id: str
    """Of the request that it began with: what is done for it later belongs to the same."""
    state: State = State.SUBMITTED
    handle: bytes | None = None
    """What the authority must be asked with later; only its adapter reads it."""
    not_before: datetime | None = None
    chain: tuple[bytes, ...] = ()
    """DER, end entity first; empty until issued."""
    reason: str | None = None


@dataclass(frozen=True)
class Revocation:
    """That the certificate of an order must not be believed any more."""

    order_id: str
    reason: int
    wanted_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class Issued:
    chain: tuple[bytes, ...]


@dataclass(frozen=True)
class Pending:
    handle: bytes
    not_before: datetime
    """Not to be asked earlier."""


@dataclass(frozen=True)
class Refused:
    reason: str


Outcome = Issued | Pending | Refused


def check_same(order: Order, *, authority: str, csr: bytes) -> None:
    """Raise CONFLICT when an order id comes again with another content."""
    if (order.authority, order.csr) != (authority, csr):
        raise RakkanError(Code.CONFLICT, f"order {order.order_id} exists with another content")


def advance(order: Order, outcome: Outcome) -> Order:
    """The order after what its authority said."""
    if isinstance(outcome, Pending):
        return _move(order, BY_AUTHORITY, State.PENDING, handle=outcome.handle, not_before=outcome.not_before)
    if isinstance(outcome, Issued):
        if not outcome.chain:
            raise RakkanError(Code.CERTIFICATE_REFUSED, f"order {order.order_id} was issued without a certificate")
        return _move(order, BY_AUTHORITY, State.ISSUED, chain=outcome.chain)
    return _move(order, BY_AUTHORITY, State.REJECTED, reason=_reason(outcome.reason))


def decide(order: Order, *, accepted: bool, reason: str | None) -> Order:
    """The order after the SAM's word on its certificate; the same object when that word came before."""
    to = State.CONFIRMED if accepted else State.REJECTED
    if order.state is to and order.chain:
        return order
    return _move(order, BY_SAM, to, reason=None if accepted else _reason(reason or ""))


def check_reason(reason: int) -> None:
    """Raise MALFORMED for a reason that revokes nothing for good."""
    if reason not in REASONS:
        raise RakkanError(Code.MALFORMED, f"{reason} is no reason to revoke for good")


def _move(order: Order, moves: Mapping[State, frozenset[State]], to: State, **changes: object) -> Order:
    if to not in moves.get(order.state, frozenset()):
        raise RakkanError(Code.CONFLICT, f"order {order.order_id} is {order.state} and cannot become {to}")
    return replace(order, state=to, **changes)  # type: ignore[arg-type]  # names of Order's own fields


def _reason(text: str) -> str:
    return text.strip()[:_REASON_MAX] or "no reason given"

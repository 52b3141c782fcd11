"""The one state machine of every order at every CA, and which revocations there are. Rules only, no I/O.

SUBMITTED -> PENDING (handle, not before) -> ISSUED -> CONFIRMED | REJECTED. A CA that answers at once skips PENDING;
one that will not issue ends in REJECTED. A certificate that a partner brought to the SAM leads to CONFIRMED at once.
What comes twice changes nothing; what contradicts an end is CONFLICT.

UNKNOWN is what may have been issued or may not: nothing is asked of the CA again until an operator has looked there.
A second certificate for a key would be worse than a late one.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from shared.errors import RETRYABLE, Code, RakkanError
from shared.registry.model import Polling


class State(StrEnum):
    SUBMITTED = "SUBMITTED"
    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    ISSUED = "ISSUED"
    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"


BY_AUTHORITY: Mapping[State, frozenset[State]] = {
    State.SUBMITTED: frozenset({State.PENDING, State.ISSUED, State.REJECTED, State.UNKNOWN}),
    State.PENDING: frozenset({State.PENDING, State.ISSUED, State.REJECTED, State.UNKNOWN}),
    State.UNKNOWN: frozenset({State.PENDING, State.ISSUED, State.REJECTED}),
}
"""Where an authority's word can take an order, or that there was none. A word that comes late is still its word."""

BY_OPERATOR: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.ISSUED, State.REJECTED}),
    State.UNKNOWN: frozenset({State.SUBMITTED, State.PENDING, State.ISSUED, State.REJECTED}),
}
"""Where an operator's can, who has looked at the CA."""

BY_SAM: Mapping[State, frozenset[State]] = {State.ISSUED: frozenset({State.CONFIRMED, State.REJECTED})}
"""Where the SAM's word can. Neither speaks for the other: what was issued is not the authority's to reject."""

BROUGHT: Mapping[State, frozenset[State]] = dict.fromkeys(
    (State.SUBMITTED, State.PENDING, State.UNKNOWN, State.ISSUED), frozenset({State.CONFIRMED})
)
"""Where a certificate that the SAM was brought past us can: it is issued and decided on at once."""

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
    _: KW_ONLY
    created_at: datetime
    profile: str = "signing"
    """Of that authority's profiles in the registry."""
    previous: "Order | None" = None
    """The order whose certificate this one takes over from; with the same key it is a renewal, else a rekey."""
    origin: bytes | None = None
    """The SAM's signed statement on the origin of the key, for a CA that wants it."""
    state: State = State.SUBMITTED
    handle: bytes | None = None
    """What the authority must be asked with later; only its adapter reads it."""
    not_before: datetime | None = None
    chain: tuple[bytes, ...] = ()
    """DER, end entity first; empty until issued."""
    reason: str | None = None
    """Why it was rejected, or what is unknown."""
    asked_before: bool = False
    """It was placed once, and what came of that was not recorded."""
    failures: int = 0
    """In a row, since the authority last said something."""
    polls: int = 0
    confirm_due: bool = False
    """The authority waits for the SAM's word."""


@dataclass(frozen=True)
class Revocation:
    """That the certificate of an order must not be believed any more."""

    order_id: str
    reason: int
    wanted_at: datetime
    revoked_at: datetime | None = None
    failures: int = 0


@dataclass(frozen=True)
class Issued:
    chain: tuple[bytes, ...]
    """DER, end entity first."""
    handle: bytes | None = None
    """What `confirm` and `revoke` will want to know besides; only the adapter reads it."""


@dataclass(frozen=True)
class Pending:
    handle: bytes
    not_before: datetime | None = None
    """When the authority wants to be asked again; nothing: as the registry says."""


@dataclass(frozen=True)
class Refused:
    reason: str


Outcome = Issued | Pending | Refused


_SURELY_NOT_PLACED = RETRYABLE | {Code.AUTHORITY_REFUSED}
_SOONEST = timedelta(seconds=1)
_DOUBLINGS_MAX = 30


def check_same(order: Order, wanted: Order) -> None:
    """Raise CONFLICT when an order id comes again with another content."""
    if (order.authority, order.profile, order.csr) != (wanted.authority, wanted.profile, wanted.csr):
        raise RakkanError(Code.CONFLICT, f"order {order.order_id} exists with another content")


def surely_not_placed(trouble: RakkanError | TimeoutError) -> bool:
    """Whether an order that failed like this can be placed again without a second certificate."""
    return isinstance(trouble, RakkanError) and trouble.code in _SURELY_NOT_PLACED


def back_off(times: int, polling: Polling) -> timedelta:
    """How long to wait after so many tries in a row."""
    return timedelta(seconds=min(polling.longest_s, polling.first_s * 2 ** min(times, _DOUBLINGS_MAX)))


def schedule(order: Order, pending: Pending, *, polling: Polling, now: datetime) -> Pending:
    """When a pending order is asked about again: as the authority says, else ever more seldom."""
    if pending.not_before is None:
        return replace(pending, not_before=now + back_off(order.polls, polling))
    return replace(pending, not_before=max(pending.not_before, now + _SOONEST))


def is_given_up(order: Order, *, polling: Polling, now: datetime) -> bool:
    return now - order.created_at >= timedelta(days=polling.give_up_days)


def advance(order: Order, outcome: Outcome) -> Order:
    """The order after what its authority said."""
    if isinstance(outcome, Pending):
        polls = order.polls + (order.state is State.PENDING)
        later = {"handle": outcome.handle, "not_before": outcome.not_before, "polls": polls}
        return _move(order, BY_AUTHORITY, State.PENDING, reason=None, failures=0, **later)
    if isinstance(outcome, Issued):
        if not outcome.chain:
            raise RakkanError(Code.CERTIFICATE_REFUSED, f"order {order.order_id} was issued without a certificate")
        handle = order.handle if outcome.handle is None else outcome.handle
        return _move(order, BY_AUTHORITY, State.ISSUED, chain=outcome.chain, handle=handle, reason=None)
    return _move(order, BY_AUTHORITY, State.REJECTED, reason=_reason(outcome.reason))


def lose(order: Order, reason: str) -> Order:
    """The order of which nobody here can say whether it was issued."""
    return _move(order, BY_AUTHORITY, State.UNKNOWN, reason=_reason(reason))


def decide(order: Order, *, accepted: bool, reason: str | None) -> Order:
    """The order after the SAM's word on its certificate; the same object when that word came before."""
    to = State.CONFIRMED if accepted else State.REJECTED
    if order.state is to and order.chain:
        return order
    return _move(order, BY_SAM, to, reason=None if accepted else _reason(reason or ""))


def fill(order: Order, chain: tuple[bytes, ...]) -> Order:
    """The order after the SAM linked a certificate that came past us; the same object when it has that one already.

    CONFLICT when it has another, or has ended without one.
    """
    if order.chain and order.chain[0] != chain[0]:
        raise RakkanError(Code.CONFLICT, f"order {order.order_id} has another certificate")
    if order.chain and order.state is State.CONFIRMED:
        return order
    return _move(order, BROUGHT, State.CONFIRMED, chain=order.chain or chain, reason=None, failures=0)


def expect_confirmation(order: Order) -> Order:
    """The decided order, whose authority is to be told."""
    return replace(order, confirm_due=True)


def resolve(order: Order, outcome: Outcome | None) -> Order:
    """The order after an operator looked at the CA: what came of it, or (nothing) that it is to be placed again."""
    if outcome is None:
        return _move(order, BY_OPERATOR, State.SUBMITTED, reason=None, handle=None, failures=0, asked_before=False)
    after = advance(order, outcome)
    return _move(order, BY_OPERATOR, after.state, **{name: getattr(after, name) for name in _BY_WORD})


def check_reason(reason: int) -> None:
    """Raise MALFORMED for a reason that revokes nothing for good."""
    if reason not in REASONS:
        raise RakkanError(Code.MALFORMED, f"{reason} is no reason to revoke for good")


_BY_WORD = ("handle", "not_before", "chain", "reason", "failures", "polls")


def _move(order: Order, moves: Mapping[State, frozenset[State]], to: State, **changes: object) -> Order:
    if to not in moves.get(order.state, frozenset()):
        raise RakkanError(Code.CONFLICT, f"order {order.order_id} is {order.state} and cannot become {to}")
    return replace(order, state=to, **changes)  # type: ignore[arg-type]  # names of Order's own fields


def _reason(text: str) -> str:
    return text.strip()[:_REASON_MAX] or "no reason given"

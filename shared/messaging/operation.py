"""The operation a piece of work belongs to: its id, its deadline, and who asked.

It is carried by context and inherited by every ask.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of the outside world, on its way through the rooms."""

    operation_id: str
    deadline: datetime
    caller: str
    """The room that sent the message in hand; the room itself at the edge."""
    message_id: str = ""
    """Of the message in hand: the same again is the same message, delivered or replayed once more."""


_current: ContextVar[Operation | None] = ContextVar("operation", default=None)


def current() -> Operation:
    """The operation in hand. Asking outside one is a bug."""
    operation = _current.get()
    if operation is None:
        raise LookupError("no operation in hand: wrap the work in begin() or carry()")
    return operation


@contextmanager
def carry(operation: Operation) -> Iterator[Operation]:
    """Do work on behalf of an operation that came in a message."""
    token = _current.set(operation)
    try:
        yield operation
    finally:
        _current.reset(token)


@contextmanager
def begin(room: str, *, timeout_s: float, operation_id: str | None = None) -> Iterator[Operation]:
    """Open an operation at the edge; its deadline is set here, once, and inherited by all that follows."""
    deadline = datetime.now(UTC) + timedelta(seconds=timeout_s)
    with carry(Operation(operation_id or new_operation_id(), deadline, room)) as operation:
        yield operation


def new_operation_id() -> str:
    return secrets.token_hex(12)

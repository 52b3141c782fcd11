"""When a CA that fails is left alone, and when it is tried again. Rules only, no I/O; the time is handed in.

CLOSED: at work. OPEN: left alone for a while, which doubles. HALF_OPEN: its self-test succeeded, and one order is let
through; what comes of it closes or opens. The state is one process's own: replicas find out for themselves.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from shared.errors import Code, RakkanError

FAILURES_MAX = 5
FIRST = timedelta(seconds=5)
LONGEST = timedelta(minutes=5)
_AT_ONCE = frozenset({Code.AUTHORITY_UNTRUSTED, Code.AUTHORITY_REFUSED})
"""What the next order would meet as well."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.why = ""
        self._failures = 0
        self._opened = 0
        self._until: datetime | None = None

    def probe_is_due(self, *, now: datetime) -> bool:
        return self.state is BreakerState.OPEN and self._until is not None and now >= self._until

    def free(self, slots: int, *, in_hand: int) -> int:
        """How many more exchanges may begin."""
        if self.state is BreakerState.OPEN:
            return 0
        return max(0, (1 if self.state is BreakerState.HALF_OPEN else slots) - in_hand)

    def probed(self) -> None:
        """The self-test succeeded."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN

    def succeeded(self) -> None:
        """The CA said something that could be understood; a refusal is that too."""
        if self.state is BreakerState.OPEN:
            return  # what began before it opened
        self.state, self.why, self._failures, self._opened, self._until = BreakerState.CLOSED, "", 0, 0, None

    def failed(self, trouble: RakkanError | TimeoutError, *, now: datetime) -> bool:
        """Whether it opened by this."""
        self._failures += 1
        at_once = isinstance(trouble, RakkanError) and trouble.code in _AT_ONCE
        was_open = self.state is BreakerState.OPEN
        if was_open and self._until is not None and now < self._until:
            return False
        if not (at_once or was_open or self.state is BreakerState.HALF_OPEN or self._failures >= FAILURES_MAX):
            return False
        self.state = BreakerState.OPEN
        self.why = str(trouble)[:255] or "no answer in time"
        self._until = now + min(FIRST * 2 ** min(self._opened, 10), LONGEST)
        self._opened += 1
        return not was_open

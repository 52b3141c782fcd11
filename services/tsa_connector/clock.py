"""Whether it is our own clock that is off. Rules only, no I/O.

A token that is genuine in all but its time tells either that its TSA's clock is off or that ours is. One TSA against us
is the TSA; most of them against us, and agreeing with each other, is us.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

_FRESH = timedelta(minutes=10)
_OFF_FRESH = timedelta(seconds=30)
"""A quarrel is forgotten soon unless it goes on: a clock that was set right shall be believed again."""
_OTHERS_MIN = 2
_ASK_AGAIN_AFTER = timedelta(seconds=10)


@dataclass(frozen=True)
class Sighting:
    """The last genuine token of a TSA."""

    offset_s: float
    """genTime against our clock when it came; positive: theirs is ahead."""
    tolerance_s: float
    seen_at: datetime

    @property
    def is_off(self) -> bool:
        return abs(self.offset_s) > self.tolerance_s


def own_offset_s(sightings: Mapping[str, Sighting], *, now: datetime) -> float | None:
    """How far most TSAs say that we are off; nothing while our clock may be right."""
    fresh = [one for one in sightings.values() if now - one.seen_at <= (_OFF_FRESH if one.is_off else _FRESH)]
    off = [one for one in fresh if one.is_off]
    if len(off) < _OTHERS_MIN or 2 * len(off) <= len(fresh):
        return None
    middle = median(one.offset_s for one in off)
    agree = [one for one in off if abs(one.offset_s - middle) <= one.tolerance_s]
    return middle if 2 * len(agree) > len(fresh) and len(agree) >= _OTHERS_MIN else None


class Sightings:
    """What the TSAs say of the time, and whether to ask anybody while our clock is in doubt."""

    def __init__(self) -> None:
        self._of: dict[str, Sighting] = {}
        self._asked_at: datetime | None = None

    def saw(self, name: str, sighting: Sighting) -> None:
        self._of[name] = sighting

    def forget(self, name: str) -> None:
        self._of.pop(name, None)

    def off(self) -> tuple[str, ...]:
        """Those whose time is not ours."""
        return tuple(name for name, sighting in self._of.items() if sighting.is_off)

    def own_offset_s(self, now: datetime) -> float | None:
        return own_offset_s(self._of, now=now)

    def may_ask(self, now: datetime) -> bool:
        """While our clock is off every token would be refused: one now and then finds out whether it still is."""
        if self.own_offset_s(now) is None:
            return True
        if self._asked_at is not None and now - self._asked_at < _ASK_AGAIN_AFTER:
            return False
        self._asked_at = now
        return True

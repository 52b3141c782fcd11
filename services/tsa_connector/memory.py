"""What is remembered of each TSA: its two circuit breakers, how long it takes, how its clock stands. Rules only.

One breaker counts what goes wrong on the way; the other opens at the first token that does not hold, since a bad
signature or a false clock is a compromise or a fault and never noise. Memory is this process's own: quotas are what
replicas share.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median, quantiles

from services.tsa_connector.clock import Sightings

_SAMPLES_MAX = 64
_SLOW_FORGOTTEN_AFTER = timedelta(seconds=30)
_STABLE_AFTER = timedelta(minutes=5)
_SLOW_TIMES = 3.0
_SLOW_MORE_S = 0.2
_SAMPLES_MIN = 3


def is_slow(usual_s: float | None, fastest_s: float | None) -> bool:
    """Who usually takes over three times as long as the fastest of those to choose from, and over 0.2 s longer."""
    if usual_s is None or fastest_s is None:
        return False
    return usual_s > _SLOW_TIMES * fastest_s and usual_s > fastest_s + _SLOW_MORE_S


class State(StrEnum):
    WORKING = "working"
    ON_TRIAL = "on trial"
    """Set aside before; one request may find out whether it is well again."""
    BEING_TRIED = "being tried"
    RESTING = "resting"


@dataclass(frozen=True)
class Condition:
    """How a TSA stands at a moment, as far as it matters for whom to ask."""

    state: State = State.WORKING
    why: str = ""
    usual_s: float | None = None
    """The median of its last answers."""
    is_exhausted: bool = False


@dataclass(frozen=True)
class BreakerRule:
    failures: int
    """So many one after the other open it."""
    wait: timedelta
    wait_max: timedelta
    """Each opening soon after another doubles the wait, up to this."""


TRANSPORT = BreakerRule(failures=3, wait=timedelta(seconds=2), wait_max=timedelta(minutes=1))
VERIFICATION = BreakerRule(failures=1, wait=timedelta(minutes=1), wait_max=timedelta(hours=1))


@dataclass(frozen=True)
class Breaker:
    rule: BreakerRule
    failures: int = 0
    openings: int = 0
    open_until: datetime | None = None
    """Nothing when it is closed; past: half open."""
    closed_at: datetime | None = None

    def is_open(self, now: datetime) -> bool:
        return self.open_until is not None and now < self.open_until

    def is_half_open(self, now: datetime) -> bool:
        return self.open_until is not None and now >= self.open_until

    def failed(self, now: datetime) -> "Breaker":
        """One failure is enough half open, and soon after: who flaps is not given three callers each time."""
        if self.is_open(now):
            return self
        failures = self.failures + 1
        is_fresh = self.open_until is not None or self._closed_lately(now)
        if failures < self.rule.failures and not is_fresh:
            return replace(self, failures=failures)
        openings = self.openings + 1 if is_fresh else 1
        # Doubled at most so often that the number stays a number.
        wait = min(self.rule.wait * 2 ** min(openings - 1, 16), self.rule.wait_max)
        return replace(self, failures=failures, openings=openings, open_until=now + wait)

    def succeeded(self, now: datetime) -> "Breaker":
        if self.open_until is not None:
            return replace(self, failures=0, open_until=None, closed_at=now)
        openings = self.openings if self._closed_lately(now) else 0
        if not self.failures and openings == self.openings:
            return self
        return replace(self, failures=0, openings=openings)

    def _closed_lately(self, now: datetime) -> bool:
        return self.closed_at is not None and now - self.closed_at < _STABLE_AFTER


@dataclass(frozen=True)
class Latency:
    """How long the last answers took."""

    samples: tuple[float, ...] = ()
    heard_at: datetime | None = None

    def heard(self, seconds: float, *, now: datetime, anew: bool = False) -> "Latency":
        """One more. `anew` forgets the rest once it is twice as quick: after a trial that is what counts."""
        is_better = anew and self.usual_s is not None and seconds < self.usual_s / 2
        kept = () if is_better else self.samples[-(_SAMPLES_MAX - 1) :]
        return Latency((*kept, seconds), now)

    @property
    def usual_s(self) -> float | None:
        """The median; nothing before there are enough to tell: a first answer is often late."""
        return median(self.samples) if len(self.samples) >= _SAMPLES_MIN else None

    @property
    def p95_s(self) -> float | None:
        if len(self.samples) < 2:  # noqa: PLR2004 - quantiles need two
            return self.samples[0] if self.samples else None
        return quantiles(self.samples, n=20, method="inclusive")[-1]


@dataclass(frozen=True)
class Memory:
    """Of one TSA."""

    transport: Breaker = field(default_factory=lambda: Breaker(TRANSPORT))
    verification: Breaker = field(default_factory=lambda: Breaker(VERIFICATION))
    latency: Latency = Latency()
    trial_until: datetime | None = None
    """A request is finding out whether it is well again; so long at most, should that request be lost."""
    is_reachable: bool = True
    """Of a TSA whose transport breaker is half open: whether a connection could be made since."""
    exhausted_until: datetime | None = None
    offset_s: float | None = None
    offset_at: datetime | None = None
    certificate_until: datetime | None = None
    last_fault: str = ""

    def condition(self, *, now: datetime, fastest_s: float | None = None) -> Condition:
        """How it stands. `fastest_s` is what the best of the others usually takes."""
        exhausted = self.exhausted_until is not None and now < self.exhausted_until
        about = Condition(usual_s=self.latency.usual_s, is_exhausted=exhausted)
        for breaker, kind in ((self.verification, "a token did not hold"), (self.transport, "no answer")):
            if breaker.is_open(now):
                rest = f"set aside until {breaker.open_until:%H:%M:%S} ({kind}: {self.last_fault})"
                return replace(about, state=State.RESTING, why=rest)
        is_doubtful = self.transport.is_half_open(now) or self.verification.is_half_open(now)
        if self.transport.is_half_open(now) and not self.is_reachable:
            return replace(about, state=State.RESTING, why=f"no connection yet ({self.last_fault})")
        if not is_doubtful and not self._is_slow_of_old(now, fastest_s):
            return about
        if self.trial_until is not None and now < self.trial_until:
            return replace(about, state=State.BEING_TRIED, why="being tried again")
        return replace(about, state=State.ON_TRIAL, why="to be tried again")

    def _is_slow_of_old(self, now: datetime, fastest_s: float | None) -> bool:
        """Who was slow is asked no more, so nobody hears that it is quick again unless it is tried."""
        heard_at = self.latency.heard_at
        if heard_at is None or now - heard_at < _SLOW_FORGOTTEN_AFTER:
            return False
        return is_slow(self.latency.usual_s, fastest_s)

    def wants_connecting(self, now: datetime) -> bool:
        return self.transport.is_half_open(now) and not self.is_reachable

    def trying(self, *, until: datetime) -> "Memory":
        return replace(self, trial_until=until)

    def acquitted(self) -> "Memory":
        """It did not lie: our own clock did."""
        return replace(self, verification=Breaker(VERIFICATION))

    def connected(self) -> "Memory":
        return replace(self, is_reachable=True)

    def answered(self, seconds: float, *, now: datetime, on_trial: bool = False) -> "Memory":
        """A token came and held."""
        return replace(
            self,
            transport=self.transport.succeeded(now),
            verification=self.verification.succeeded(now),
            latency=self.latency.heard(seconds, now=now, anew=on_trial),
            trial_until=None if on_trial else self.trial_until,
            is_reachable=True,
        )

    def was_away(self, seconds: float | None, why: str, *, now: datetime, on_trial: bool = False) -> "Memory":
        """No answer, or one that it cannot work now."""
        transport = self.transport.failed(now)
        late = self.latency if seconds is None else self.latency.heard(seconds, now=now, anew=on_trial)
        return replace(
            self,
            transport=transport,
            latency=late,
            trial_until=None if on_trial else self.trial_until,
            is_reachable=self.is_reachable and transport.open_until is None,
            last_fault=why,
        )

    def lied(self, why: str, *, now: datetime, on_trial: bool = False) -> "Memory":
        """An answer that does not hold. It did answer: the way to it is good."""
        return replace(
            self,
            transport=self.transport.succeeded(now),
            verification=self.verification.failed(now),
            trial_until=None if on_trial else self.trial_until,
            last_fault=why,
        )

    def declined(self, *, now: datetime, on_trial: bool = False) -> "Memory":
        """It is well, and would not do this one thing."""
        return replace(
            self, transport=self.transport.succeeded(now), trial_until=None if on_trial else self.trial_until
        )


class Memories:
    """One for each TSA of the registry, changed only here."""

    def __init__(self) -> None:
        self._of: dict[str, Memory] = {}
        self.sightings = Sightings()

    def of(self, name: str) -> Memory:
        return self._of.get(name) or Memory()

    def change(self, name: str, change: Callable[[Memory], Memory]) -> Memory:
        self._of[name] = change(self.of(name))
        return self._of[name]

    def forget(self, name: str) -> None:
        """An entry that officers changed begins anew."""
        self._of.pop(name, None)
        self.sightings.forget(name)

    def conditions(self, names: Iterable[str], *, now: datetime) -> dict[str, Condition]:
        """Of those to choose from: who is slow shows beside the fastest of them."""
        alone = {name: self.of(name).condition(now=now) for name in names}
        usual = [one.usual_s for one in alone.values() if one.usual_s is not None and one.state is not State.RESTING]
        fastest_s = min(usual, default=None)
        return {name: self.of(name).condition(now=now, fastest_s=fastest_s) for name in alone}

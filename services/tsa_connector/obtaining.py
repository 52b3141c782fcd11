"""How a token is obtained: whom the route names is asked in turn, until one gives a token that holds.

A named TSA is asked and no other. Of a pool the next is asked as soon as one fails, when one on trial is not quick,
and, where officers allow it, when one is later than usual. A token that comes too late is noted: it has to be paid.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.tsa_connector.asking import Asking, Attempt, Plan, Question
from services.tsa_connector.memory import Condition, State
from services.tsa_connector.routing import Route, Standing, Wish, pool_of, route
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.registry import Registry, TimeStampingAuthority

_MARGIN_S = 0.25
"""Kept of the caller's time for what comes after the token."""
_TRIAL_PATIENCE_S = (0.05, 0.5)
_IMPATIENCE_TIMES = 4.0
_IMPATIENCE_MIN_S = 1.0
_SAME_FOR_ALL = (
    Code.TSA_QUOTA,
    Code.TSA_POLICY_REFUSED,
    Code.HASH_ALGORITHM_REFUSED,
    Code.TSA_UNTRUSTED,
    Code.TSA_REFUSED,
    Code.UNAVAILABLE,
)


class NoTokenError(RakkanError):
    """No token was to be had; `attempts` tells of everybody who was asked."""

    def __init__(self, code: Code, detail: str, attempts: tuple[Attempt, ...] = ()) -> None:
        super().__init__(code, detail[:1000])
        self.attempts = attempts


@dataclass(frozen=True)
class Obtained:
    tokens: tuple[Attempt, ...]
    attempts: tuple[Attempt, ...]
    """All of them, in the order in which they ended."""
    choice: str


@dataclass
class _Run:
    """One request under way."""

    question: Question
    registry: Registry
    route: Route
    conditions: dict[str, Condition]
    waiting: deque[str]
    attempts: list[Attempt] = field(default_factory=list)

    def tsa(self, name: str) -> TimeStampingAuthority:
        return self.registry.time_stamping_authorities[name]


@dataclass(frozen=True)
class _Patience:
    """How long to wait for who was asked before the next is asked beside it."""

    seconds: float | None = None
    """Nothing: until it has answered or failed."""
    hedges_by: str | None = None
    """The next is within a budget, which may be used up."""


@dataclass
class HedgeBudget:
    """How often a TSA was asked as the second, against how often anybody was asked as the first."""

    firsts: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    def first(self) -> None:
        self.firsts += 1
        if self.firsts > 10_000:  # noqa: PLR2004 - what was long ago weighs half
            self.firsts /= 2
            self.seconds = {name: count / 2 for name, count in self.seconds.items()}

    def take(self, name: str, percent_max: int) -> bool:
        """Whether it may be asked once more as the second; if so, that is counted."""
        count = self.seconds.get(name, 0.0) + 1
        if count * 100 > percent_max * self.firsts:
            return False
        self.seconds[name] = count
        return True


class Obtaining:
    def __init__(
        self,
        *,
        registry: Callable[[], Registry],
        asking: Asking,
        surplus: Callable[[Question, Attempt], Coroutine[Any, Any, None]],
        now: Callable[[], datetime],
    ) -> None:
        self._registry = registry
        self._asking = asking
        self._surplus = surplus
        self._now = now
        self._budget = HedgeBudget()
        self._late: set[asyncio.Task[None]] = set()

    def route(self, wish: Wish) -> tuple[Route, dict[str, Condition]]:
        """Whom to ask now, and how each of them stands."""
        return self._route(self._registry(), wish)

    async def obtain(self, question: Question) -> Obtained:
        """As many tokens as are wished for, each of another TSA; NoTokenError unless all of them are to be had."""
        wish, registry = question.wish, self._registry()
        chosen, conditions = self._route(registry, wish)
        if len(chosen.order) < wish.distinct:
            raise _too_few(chosen, wish)
        now = self._now()
        if not self._asking.memories.sightings.may_ask(now):
            off_s = self._asking.memories.sightings.own_offset_s(now) or 0.0
            raise NoTokenError(Code.TSA_UNAVAILABLE, f"our own clock is off by {off_s:+.0f} s")
        run = _Run(question, registry, chosen, conditions, deque(chosen.order))
        tokens = [await self._one(run)] if wish.distinct == 1 else await self._several(run, wish.distinct)
        return Obtained(tuple(tokens), tuple(run.attempts), chosen.choice)

    def _route(self, registry: Registry, wish: Wish) -> tuple[Route, dict[str, Condition]]:
        now = self._now()
        pool = pool_of(registry, wish, now=now)
        conditions = self._asking.memories.conditions(pool.names, now=now)
        return route(registry, pool, conditions, wish), conditions

    async def close(self) -> None:
        """Wait for tokens that are late: they are paid for and shall be recorded."""
        if self._late:
            await asyncio.wait(self._late)

    async def _several(self, run: _Run, count: int) -> list[Attempt]:
        """All of them, or none: those that came for nothing are noted."""
        outcomes = await asyncio.gather(*(self._one(run) for _ in range(count)), return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        tokens = [outcome for outcome in outcomes if isinstance(outcome, Attempt)]
        if failed:
            for attempt in tokens:
                await self._surplus(run.question, attempt)
            raise failed[0]
        return tokens

    async def _one(self, run: _Run) -> Attempt:
        """The first token that holds, of those who still wait to be asked."""
        asked: set[asyncio.Task[Attempt]] = set()
        try:
            while run.waiting or asked:
                patience = self._ask_next(run, asked) if run.waiting else _Patience()
                done, asked = await self._wait(asked, patience)
                for task in done:
                    attempt = task.result()
                    run.attempts.append(attempt)
                    if attempt.reading is not None:
                        return attempt
        finally:
            for task in asked:
                self._leave(run.question, task)
        raise _no_token(run.route, run.attempts)

    async def _wait(
        self, asked: set["asyncio.Task[Attempt]"], patience: _Patience
    ) -> tuple[set["asyncio.Task[Attempt]"], set["asyncio.Task[Attempt]"]]:
        """Who has ended, and who has not; nobody has when it is time to ask another beside them."""
        if not asked:
            return set(), set()
        first = asyncio.FIRST_COMPLETED
        done, rest = await asyncio.wait(asked, timeout=patience.seconds, return_when=first)
        if done or patience.hedges_by is None:
            return done, rest
        if self._budget.take(patience.hedges_by, self._percent(patience.hedges_by)):
            return done, rest
        return await asyncio.wait(rest, return_when=first)

    def _ask_next(self, run: _Run, asked: set["asyncio.Task[Attempt]"]) -> _Patience:
        """Ask whoever is next."""
        name = run.waiting.popleft()
        left_s = (operation.current().deadline - self._now()).total_seconds() - _MARGIN_S
        if left_s <= 0:
            run.waiting.clear()
            run.attempts.append(Attempt(name, code=Code.TSA_UNAVAILABLE, detail="no time was left to ask"))
            return _Patience()
        usual_s, is_on_trial = self._timeout_s(run, name), run.conditions[name].state is State.ON_TRIAL
        timeout_s = min(usual_s, left_s)
        plan = Plan(name, run.tsa(name), timeout_s, is_on_trial=is_on_trial, is_cut_short=left_s < usual_s)
        if is_on_trial:
            until = self._now() + timedelta(seconds=timeout_s + 1)
            self._asking.memories.change(name, lambda memory: memory.trying(until=until))
        if not asked:
            self._budget.first()
        asked.add(asyncio.create_task(self._asking.ask(run.question, plan), name=f"ask {name}"))
        return self._patience(run, name, is_on_trial=is_on_trial)

    def _timeout_s(self, run: _Run, name: str) -> float:
        """What its entry says; less when another could be asked and this one has never been so slow."""
        longest_s, p95_s = run.tsa(name).timeout_s, self._asking.memories.of(name).latency.p95_s
        if run.route.is_named or not run.waiting or p95_s is None:
            return longest_s
        return min(longest_s, max(_IMPATIENCE_MIN_S, _IMPATIENCE_TIMES * p95_s))

    def _patience(self, run: _Run, name: str, *, is_on_trial: bool) -> _Patience:
        if not run.waiting:
            return _Patience()
        following = run.waiting[0]
        if is_on_trial:
            shortest, longest = _TRIAL_PATIENCE_S
            p95_s = self._asking.memories.of(following).latency.p95_s
            return _Patience(longest if p95_s is None else min(max(2 * p95_s, shortest), longest))
        if run.tsa(following).hedge_percent_max == 0:
            return _Patience()
        return _Patience(self._asking.memories.of(name).latency.p95_s, hedges_by=following)

    def _percent(self, name: str) -> int:
        tsa = self._registry().time_stamping_authorities.get(name)
        return tsa.hedge_percent_max if tsa is not None else 0

    def _leave(self, question: Question, task: "asyncio.Task[Attempt]") -> None:
        """Somebody was quicker. What still comes is noted."""

        async def note() -> None:
            attempt = await task
            if attempt.reading is not None or attempt.given_back is not None:
                await self._surplus(question, attempt)

        late = asyncio.create_task(note(), name="late token")
        self._late.add(late)
        late.add_done_callback(self._late.discard)


def _too_few(chosen: Route, wish: Wish) -> NoTokenError:
    """Fewer are to be asked than tokens are wished for."""
    if chosen.is_named and wish.distinct > 1:
        return NoTokenError(Code.TSA_UNKNOWN, f"{chosen.choice} is one, and {wish.distinct} were wished for")
    if chosen.exhausted:
        return NoTokenError(Code.TSA_QUOTA, f"{chosen.choice}: the quota is used up")
    away = "; ".join(
        f"{one.authority}: {one.why}"
        for one in chosen.verdicts
        if one.standing is Standing.LEFT_OUT and not one.why.startswith("not in")
    )
    count = f"{len(chosen.order)} of {wish.distinct}" if wish.distinct > 1 else "nobody"
    return NoTokenError(Code.TSA_UNAVAILABLE, f"{chosen.choice}: {count} to ask ({away})")


def _no_token(chosen: Route, attempts: list[Attempt]) -> NoTokenError:
    """What to tell when everybody was asked: their common reason, or that the choice is away for now."""
    told = "; ".join(f"{attempt.authority}: {attempt.detail}" for attempt in attempts)
    codes = {attempt.code for attempt in attempts}
    code = next((code for code in _SAME_FOR_ALL if codes == {code}), Code.TSA_UNAVAILABLE)
    return NoTokenError(code, f"{chosen.choice}: {told}", tuple(attempts))

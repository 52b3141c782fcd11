"""One TSA is asked once: its quota spent, the question put, the answer judged, and what it showed remembered."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Protocol

import structlog

from services.tsa_connector.clock import Sighting
from services.tsa_connector.frames import Reading
from services.tsa_connector.http import BrokenError, LateError, NotSentError
from services.tsa_connector.memory import Memories, Memory
from services.tsa_connector.request import TimestampRequest, make_request
from services.tsa_connector.routing import Wish
from shared.errors import Code, RakkanError
from shared.registry import TimeStampingAuthority

log = structlog.get_logger()

_DECLINED = frozenset({Code.TSA_POLICY_REFUSED, Code.HASH_ALGORITHM_REFUSED, Code.TSA_REFUSED})
"""What a TSA that is well may say to one question."""
_EXHAUSTED = timedelta(seconds=1)


class Client(Protocol):
    async def ask(self, query: bytes, *, timeout_s: float) -> bytes: ...


class Readers(Protocol):
    async def read_token(
        self,
        body: bytes,
        *,
        tsa: str,
        request: TimestampRequest,
        asked_at: datetime,
        now: datetime,
        with_certificates: bool,
    ) -> Reading: ...


class Quotas(Protocol):
    async def spend(self, name: str, tsa: TimeStampingAuthority) -> int | None: ...


class Statuses(Protocol):
    async def check(self, name: str, tsa: TimeStampingAuthority, reading: Reading) -> None: ...


class Metrics(Protocol):
    def asked(self, attempt: "Attempt") -> None: ...


@dataclass(frozen=True)
class Question:
    """What is asked of whichever TSA comes to be asked."""

    wish: Wish
    nonce: bytes | None = None
    """The caller's own; otherwise each try has a new one."""
    with_certificates: bool = True


@dataclass(frozen=True)
class Attempt:
    """What came of asking one TSA."""

    authority: str
    latency_s: float = 0.0
    """From the question to the whole answer."""
    reading: Reading | None = None
    offset_s: float | None = None
    """genTime against our clock, of a genuine token."""
    code: Code | None = None
    detail: str = ""
    given_back: int | None = None
    """The second in which its quota was spent, when surely nothing reached it."""

    @property
    def word(self) -> str:
        return f"{self.authority}:{self.code or 'token'}"


@dataclass(frozen=True)
class Plan:
    """How one TSA is to be asked."""

    name: str
    tsa: TimeStampingAuthority
    timeout_s: float
    is_on_trial: bool = False
    is_cut_short: bool = False
    """The caller's own deadline leaves less time than the TSA may take: then silence proves nothing."""


@dataclass(frozen=True)
class _Asked:
    body: bytes
    request: TimestampRequest
    at: datetime
    latency_s: float


@dataclass
class Asking:
    """Everything that belongs to asking; `client` gives the client of a TSA by its name."""

    client: Callable[[str], Client]
    readers: Readers
    quotas: Quotas
    statuses: Statuses
    memories: Memories
    metrics: Metrics
    now: Callable[[], datetime]

    async def ask(self, question: Question, plan: Plan) -> Attempt:
        """The token or the refusal, as a value; what it tells of the TSA is remembered."""
        attempt = await self._try(question, plan)
        if isinstance(attempt, BrokenError):  # a kept connection may have been stale: once more, with a new nonce
            attempt = await self._try(question, plan)
        if isinstance(attempt, BrokenError):
            attempt = self._away(plan, attempt, latency_s=0.0)
        self.metrics.asked(attempt)
        return attempt

    async def _try(self, question: Question, plan: Plan) -> Attempt | BrokenError:
        try:
            second = await self.quotas.spend(plan.name, plan.tsa)
        except RakkanError as refusal:
            return Attempt(plan.name, code=refusal.code, detail=refusal.detail)
        if second is None:
            self._exhausted(plan)
            return Attempt(plan.name, code=Code.TSA_QUOTA, detail="its quota is used up")
        began = monotonic()
        try:
            asked = await self._put(question, plan)
        except BrokenError as broken:
            return broken
        except RakkanError as refusal:
            is_unsent = isinstance(refusal, NotSentError) and second > 0
            attempt = self._away(plan, refusal, latency_s=monotonic() - began)
            return replace(attempt, given_back=second if is_unsent else None)
        return await self._judge(question, plan, asked)

    async def _put(self, question: Question, plan: Plan) -> _Asked:
        wish, tsa = question.wish, plan.tsa
        # Who ignores what is asked for is not asked for its own default: its token names what it likes, of the list.
        policy = wish.policy or (None if tsa.ignores_policy else tsa.default_policy)
        request = make_request(wish.digest, wish.hash, allowed=tsa.hashes, nonce=question.nonce, policy=policy)
        at, began = self.now(), monotonic()
        body = await self.client(plan.name).ask(request.der(), timeout_s=plan.timeout_s)
        return _Asked(body, request, at, monotonic() - began)

    async def _judge(self, question: Question, plan: Plan, asked: _Asked) -> Attempt:
        about = Attempt(plan.name, latency_s=asked.latency_s)
        now = self.now()
        try:
            reading = await self.readers.read_token(
                asked.body,
                tsa=plan.name,
                request=asked.request,
                asked_at=asked.at,
                now=now,
                with_certificates=question.with_certificates,
            )
        except RakkanError as refusal:
            return self._refused(plan, about, refusal)
        about = replace(about, offset_s=(reading.time - now).total_seconds())
        self._saw(plan, about.offset_s or 0.0, reading, now)
        if reading.time_fault is not None:
            return self._untimely(plan, about, reading.time_fault)
        try:
            await self.statuses.check(plan.name, plan.tsa, reading)
        except RakkanError as refusal:
            return self._refused(plan, about, refusal)
        self._remember(plan, lambda m: m.answered(asked.latency_s, now=self.now(), on_trial=plan.is_on_trial))
        return replace(about, reading=reading)

    def _saw(self, plan: Plan, offset_s: float, reading: Reading, now: datetime) -> None:
        self.memories.sightings.saw(plan.name, Sighting(offset_s, plan.tsa.clock_tolerance_s, now))
        until = reading.not_after
        self._remember(plan, lambda m: replace(m, offset_s=offset_s, offset_at=now, certificate_until=until))

    def _untimely(self, plan: Plan, about: Attempt, fault: str) -> Attempt:
        """A false time: the TSA's, unless most TSAs say that it is ours."""
        own_s = self.memories.sightings.own_offset_s(self.now())
        if own_s is None:
            return self._refused(plan, about, RakkanError(Code.TSA_UNTRUSTED, fault))
        log.error("our own clock is off", seconds=round(own_s, 3))
        # Those who were taken for liars before it was known are believed again.
        for name in self.memories.sightings.off():
            self.memories.change(name, Memory.acquitted)
        self._remember(plan, lambda m: m.declined(now=self.now(), on_trial=plan.is_on_trial))
        return replace(about, code=Code.TSA_UNAVAILABLE, detail=f"our own clock is off by {own_s:+.0f} s")

    def _refused(self, plan: Plan, about: Attempt, refusal: RakkanError) -> Attempt:
        """An answer that is no token, or none to believe."""
        now, on_trial = self.now(), plan.is_on_trial
        if refusal.code is Code.TSA_UNTRUSTED:
            # One untrue token is a broken clock, a broken server or an attack: the operator must hear of each.
            log.error("untrue time stamp", authority=plan.name, detail=refusal.detail)
            self._remember(plan, lambda m: m.lied(refusal.detail, now=now, on_trial=on_trial))
        elif refusal.code in _DECLINED:
            self._remember(plan, lambda m: m.declined(now=now, on_trial=on_trial))
        else:
            return self._away(plan, refusal, latency_s=about.latency_s)
        return replace(about, code=refusal.code, detail=refusal.detail)

    def _away(self, plan: Plan, refusal: RakkanError, *, latency_s: float) -> Attempt:
        now, on_trial = self.now(), plan.is_on_trial
        if refusal.code is Code.TSA_UNTRUSTED:
            return self._refused(plan, Attempt(plan.name, latency_s=latency_s), refusal)
        if refusal.code is Code.UNAVAILABLE or plan.is_cut_short:
            self._remember(plan, lambda m: replace(m, trial_until=None if on_trial else m.trial_until))
        else:
            # How quickly a connection was refused tells nothing of how quickly tokens come.
            took_s = latency_s if isinstance(refusal, LateError) else None
            self._remember(plan, lambda m: m.was_away(took_s, refusal.detail, now=now, on_trial=on_trial))
        log.warning("tsa away", authority=plan.name, code=refusal.code, detail=refusal.detail)
        return Attempt(plan.name, latency_s=latency_s, code=refusal.code, detail=refusal.detail)

    def _exhausted(self, plan: Plan) -> None:
        until = self.now() + _EXHAUSTED
        self._remember(plan, lambda m: replace(m, exhausted_until=until))

    def _remember(self, plan: Plan, change: Callable[[Memory], Memory]) -> None:
        self.memories.change(plan.name, change)

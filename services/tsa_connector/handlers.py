"""What the TSA connector does with a message."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from services.tsa_connector.asking import Attempt, Question
from services.tsa_connector.memory import Condition, Memories
from services.tsa_connector.obtaining import Obtained
from services.tsa_connector.request import check_digest
from services.tsa_connector.routing import Route, Standing, Wish
from shared.contracts.tsa_connector import (
    AuthorityState,
    AuthorityStates,
    ExplainTimestamp,
    Explanation,
    QuotaState,
    ReadAuthorities,
    Reason,
    Timestamp,
    Timestamps,
    TimestampToken,
)
from shared.errors import Code, RakkanError
from shared.registry import Registry, TimeStampingAuthority
from shared.registry.model import Quota

log = structlog.get_logger()


class Obtaining(Protocol):
    def route(self, wish: Wish) -> tuple[Route, dict[str, Condition]]: ...

    async def obtain(self, question: Question) -> Obtained: ...


class Recorder(Protocol):
    async def obtained(self, message: Timestamp, obtained: Obtained) -> None: ...

    async def refused(self, message: Timestamp, refusal: RakkanError) -> None: ...


class Store(Protocol):
    async def left(self, quotas: Mapping[str, Sequence[Quota]]) -> dict[str, tuple[int, ...]]: ...


class Handlers:
    def __init__(
        self,
        *,
        instance: str,
        registry: Callable[[], Registry],
        obtaining: Obtaining,
        recorder: Recorder,
        store: Store,
        memories: Memories,
        now: Callable[[], datetime],
    ) -> None:
        self.instance = instance
        self.registry = registry
        self.obtaining = obtaining
        self.recorder = recorder
        self.store = store
        self.memories = memories
        self.now = now

    async def timestamp(self, message: Timestamp) -> Timestamps:
        """Obtain the tokens, every check passed, and answer once the record of them is durable."""
        try:
            check_digest(message.digest, message.hash)
            question = Question(_wish(message), message.nonce, with_certificates=message.certificate_requested)
            obtained = await self.obtaining.obtain(question)
        except RakkanError as refusal:
            log.warning("time stamp refused", code=refusal.code, detail=refusal.detail)
            await self.recorder.refused(message, refusal)
            raise
        await self.recorder.obtained(message, obtained)
        return Timestamps(tokens=tuple(_token(attempt) for attempt in obtained.tokens))

    async def explain_timestamp(self, message: ExplainTimestamp) -> Explanation:
        """The route of such a request, now."""
        check_digest(message.digest, message.hash)
        route, _ = self.obtaining.route(_wish(message))
        refused = None
        if len(route.order) < message.distinct:
            refused = Code.TSA_QUOTA if route.exhausted else Code.TSA_UNAVAILABLE
        order = {name: place for place, name in enumerate(route.order)}
        verdicts = sorted(route.verdicts, key=lambda one: (order.get(one.authority, len(order)), one.authority))
        return Explanation(
            choice=route.choice,
            refused=refused,
            reasons=tuple(
                Reason(authority=one.authority, standing=_standing(one.standing, refused), why=one.why)
                for one in verdicts
            ),
        )

    async def read_authorities(self, _: ReadAuthorities) -> AuthorityStates:
        registry, now = self.registry(), self.now()
        tsas = registry.time_stamping_authorities
        left = await self.store.left({name: tsa.quotas for name, tsa in tsas.items()})
        conditions = self.memories.conditions(tsas, now=now)
        return AuthorityStates(
            instance=self.instance,
            registry_version=registry.version,
            own_offset_s=self.memories.sightings.own_offset_s(now),
            authorities=tuple(
                self._state(name, tsa, conditions[name], left.get(name, ()), now=now) for name, tsa in tsas.items()
            ),
        )

    def _state(
        self, name: str, tsa: TimeStampingAuthority, condition: Condition, left: Sequence[int], *, now: datetime
    ) -> AuthorityState:
        memory = self.memories.of(name)
        return AuthorityState(
            authority=name,
            label=tsa.label,
            url=tsa.url,
            classes=tuple(one.name for one in tsa.classes if one.holds_on(now.date())),
            state="maintenance" if tsa.status == "maintenance" else condition.state,
            why=condition.why,
            usual_ms=_ms(memory.latency.usual_s),
            p95_ms=_ms(memory.latency.p95_s),
            offset_ms=_ms(memory.offset_s),
            certificate_until=memory.certificate_until,
            quotas=tuple(
                QuotaState(requests=quota.requests, seconds=quota.seconds, left=count)
                for quota, count in zip(tsa.quotas, left, strict=True)
            ),
        )


def _wish(message: Timestamp | ExplainTimestamp) -> Wish:
    return Wish(
        digest=message.digest,
        hash=message.hash,
        tenant_id=message.tenant_id,
        authority=message.authority,
        assurance_class=message.assurance_class,
        policy=message.policy,
        distinct=message.distinct,
        for_archive=message.for_archive,
    )


def _standing(standing: Standing, refused: Code | None) -> str:
    """Nobody is asked when there are fewer than wished for."""
    return Standing.IF_NEEDED if refused is not None and standing is Standing.ASKED else standing


def _token(attempt: Attempt) -> TimestampToken:
    reading = attempt.reading
    if reading is None:
        raise RakkanError(Code.INTERNAL, "a token was obtained that is none")
    return TimestampToken(
        token=reading.token,
        time=reading.time,
        authority=attempt.authority,
        policy=reading.policy,
        serial_number=reading.serial_number,
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)

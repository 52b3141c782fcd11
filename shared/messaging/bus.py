"""How a room asks, answers and takes jobs. Knows envelopes and routes; the broker itself is `rabbitmq.py`."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any, TypeVar, cast

import structlog
from pydantic import Field, ValidationError

from shared.contracts.base import Message, Reply, Request
from shared.errors import RETRYABLE, Code, RakkanError
from shared.messaging import operation, rabbitmq
from shared.messaging.envelope import FAILURE, REPLY, Envelope, check_answer, check_route, open_envelope, seal_envelope
from shared.messaging.metrics import Metrics
from shared.messaging.operation import Operation
from shared.messaging.outbox import Posted
from shared.messaging.rabbitmq import Delivery, Link, LinkLostError
from shared.messaging.topology import PREFETCH, REPLIES, Route, queues_of, route_of
from shared.settings import Broker
from shared.trust import SigningKey, Trust

log = structlog.get_logger()

R = TypeVar("R", bound=Reply)
Handler = Callable[[Any], Awaitable[Reply | None]]
Handlers = Mapping[type[Message], Handler]

JOB_LIFETIME = timedelta(days=7)
_RETRY_S = (0.5, 5.0)
_RECONNECT_S = (0.5, 10.0)
_LINK_WAIT_S = 8.0
_jitter = secrets.SystemRandom().uniform


class Failure(Reply):
    """A refusal on the wire."""

    code: Code
    detail: str = Field(max_length=1000)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An ask whose answer is still out."""

    route: Route
    answer: "asyncio.Future[Envelope]"


class Bus:
    """One room's place on the bus. `connected()` keeps a link to the broker for as long as it is entered."""

    def __init__(
        self, settings: Broker, room: str, key: SigningKey, trust: Trust, metrics: Metrics | None = None
    ) -> None:
        self._settings = settings
        self._room = room
        self._key = key
        self._trust = trust
        self._metrics = metrics or Metrics.unregistered()
        self._handlers: dict[str, Handler] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._serving = asyncio.Event()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Bus"]:
        """Connect, and reconnect, in the background."""
        keeper = asyncio.create_task(self._keep_linked(), name="broker link")
        try:
            yield self
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            if self._link is not None:
                await self._link.close()

    def serve(self, handlers: Handlers) -> None:
        """From now on take what comes to the room's queues."""
        self._handlers = {message.TYPE: handler for message, handler in handlers.items()}
        self._serving.set()

    async def check(self) -> None:
        """UNAVAILABLE while nothing can be sent: readiness and load shedding look here."""
        if self._link is None:
            raise RakkanError(Code.UNAVAILABLE, "no connection to the broker")
        await self._link.check()

    async def drain(self, *, timeout_s: float) -> None:
        """Take nothing more, finish and answer what is in hand."""
        if self._link is not None:
            await self._link.stop_consuming()
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=timeout_s)
            for task in late:
                log.error("work cut off by the drain limit", task=task.get_name())
                task.cancel()

    # --- asking ---

    async def ask(self, request: Request[R]) -> R:
        """The listener's answer, within the deadline of the operation in hand and of the route.

        Raises what the listener refused with; EXPIRED without time left, UNAVAILABLE when no answer came in time.
        """
        route = route_of(request.TYPE)
        now = datetime.now(UTC)
        current = operation.current()
        deadline = min(current.deadline, now + timedelta(seconds=route.timeout_s))
        left_s = (deadline - now).total_seconds()
        if left_s <= 0:
            raise RakkanError(Code.EXPIRED, f"no time left to ask {request.TYPE}")
        envelope = self._envelope(
            request.TYPE, route.listener, current.operation_id, request.model_dump_json().encode(), until=deadline
        )
        sealed = seal_envelope(envelope, self._key)
        waiting = _Waiting(route, asyncio.get_running_loop().create_future())
        self._waiting[envelope.message_id] = waiting
        try:
            async with asyncio.timeout(left_s):
                answer = await self._send_until_answered(envelope, sealed, waiting, left_s)
        except TimeoutError:
            raise RakkanError(Code.UNAVAILABLE, f"no answer to {request.TYPE} in time") from None
        finally:
            del self._waiting[envelope.message_id]
        return cast("R", _read_answer(answer, request))

    async def _send_until_answered(
        self, envelope: Envelope, sealed: bytes, waiting: _Waiting, left_s: float
    ) -> Envelope:
        while True:
            link = await self._some_link()
            try:
                await link.publish(
                    sealed,
                    exchange=waiting.route.listener,
                    key="requests",
                    message_id=envelope.message_id,
                    type_=envelope.type,
                    reply_to=link.reply_queue,
                    expires_s=left_s,
                )
                await _first(waiting.answer, link.lost)
            except LinkLostError:
                pass
            if waiting.answer.done():
                return waiting.answer.result()
            if not waiting.route.repeatable:
                raise RakkanError(Code.UNAVAILABLE, f"the broker went away under {envelope.type}: outcome unknown")

    async def _some_link(self) -> Link:
        """The link, waited for as long as a broker takes to restart, not until every caller's deadline."""
        try:
            async with asyncio.timeout(_LINK_WAIT_S):
                while (link := self._link) is None or link.lost.is_set():
                    # A lost link stays here until its keeper has the floor: waiting is what gives it to it.
                    self._linked.clear()
                    await self._linked.wait()
        except TimeoutError:
            raise RakkanError(Code.UNAVAILABLE, "no connection to the broker") from None
        return link

    def _answered(self, sealed: bytes) -> None:
        try:
            envelope = open_envelope(sealed, recipient=self._room, trust=self._trust, now=datetime.now(UTC))
            waiting = self._waiting.get(envelope.answers)
            if waiting is None:
                return  # the asker gave up, or asked twice and has its answer
            check_answer(envelope, waiting.route)
        except RakkanError as refusal:
            log.warning("answer refused", code=refusal.code, detail=refusal.detail)
            self._metrics.refused_envelope(refusal.code)
            return
        if not waiting.answer.done():
            waiting.answer.set_result(envelope)

    # --- jobs out ---

    async def send_job(self, posted: Posted) -> None:
        """Send one job of the outbox; returns when the broker has it. Anything raised means: keep it, send it again."""
        route = route_of(posted.type)
        if self._link is None:
            raise LinkLostError("no connection to the broker")
        until = datetime.now(UTC) + JOB_LIFETIME
        envelope = self._envelope(
            posted.type, route.listener, posted.operation_id, posted.body, until=until, message_id=posted.message_id
        )
        await self._link.publish(
            seal_envelope(envelope, self._key),
            exchange=route.listener,
            key="jobs",
            message_id=posted.message_id,
            type_=posted.type,
            reply_to=None,
            expires_s=JOB_LIFETIME.total_seconds(),
        )

    # --- serving ---

    def _deliver(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._serve(delivery), name=f"serve {delivery.queue}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, delivery: Delivery) -> None:
        try:
            envelope = open_envelope(delivery.body, recipient=self._room, trust=self._trust, now=datetime.now(UTC))
            route = check_route(envelope, queue=delivery.queue)
        except RakkanError as refusal:
            log.warning("message refused", code=refusal.code, detail=refusal.detail, queue=delivery.queue)
            self._metrics.refused_envelope(refusal.code)
            # An expired request is nobody's loss: its asker has gone. All else is kept for those who look into it.
            if refusal.code is Code.EXPIRED and delivery.queue.endswith(".requests"):
                await delivery.accept()
            else:
                await delivery.reject(again=False)
            return
        current = Operation(envelope.operation_id, envelope.expires_at, envelope.sender, envelope.message_id)
        with operation.carry(current), structlog.contextvars.bound_contextvars(operation=envelope.operation_id):
            outcome = await self._handle(envelope, route)
            if route.is_job:
                await self._settle_job(delivery, envelope, outcome)
            else:
                await self._reply(delivery, envelope, route, outcome)

    async def _handle(self, envelope: Envelope, route: Route) -> Reply | RakkanError | None:
        started = perf_counter()
        outcome: Reply | RakkanError | None
        with self._metrics.in_hand(envelope.type):
            try:
                message = route.message.model_validate_json(envelope.body)
                outcome = await self._handlers[envelope.type](message)
            except ValidationError as fault:
                outcome = RakkanError(Code.MALFORMED, _where(fault))
            except RakkanError as refusal:
                outcome = refusal
            except Exception:
                log.exception("handler failed", type=envelope.type)
                outcome = RakkanError(Code.INTERNAL)
        word = outcome.code if isinstance(outcome, RakkanError) else "done"
        took_s = perf_counter() - started
        self._metrics.handled(envelope.type, word, took_s)
        detail = {"detail": outcome.detail} if isinstance(outcome, RakkanError) else {}
        log.info("message handled", type=envelope.type, outcome=word, took_ms=round(took_s * 1000, 1), **detail)
        return outcome

    async def _reply(
        self, delivery: Delivery, asked: Envelope, route: Route, outcome: Reply | RakkanError | None
    ) -> None:
        if isinstance(outcome, Reply):
            suffix, body = REPLY, outcome
        else:
            refusal = outcome or RakkanError(Code.INTERNAL)
            suffix, body = FAILURE, Failure(code=refusal.code, detail=refusal.detail[:1000])
        try:
            envelope = self._envelope(
                asked.type + suffix,
                asked.sender,
                asked.operation_id,
                body.model_dump_json().encode(),
                until=asked.expires_at,
                answers=asked.message_id,
            )
            await self._send_reply(envelope, to=delivery.reply_to)
        except (LinkLostError, RakkanError) as trouble:
            # What was decided is recorded: the asker asks again and gets the same.
            log.warning("answer not delivered", type=route.message.TYPE, why=str(trouble))
        await delivery.accept()

    async def _send_reply(self, envelope: Envelope, *, to: str) -> None:
        if not to.startswith(f"{envelope.recipient}.replies."):
            raise RakkanError(Code.FORBIDDEN, "the answer was to go to somebody else")
        if self._link is None:
            raise LinkLostError("no connection to the broker")
        await self._link.publish(
            seal_envelope(envelope, self._key),
            exchange=REPLIES,
            key=to,
            message_id=envelope.message_id,
            type_=envelope.type,
            reply_to=None,
            expires_s=(envelope.expires_at - datetime.now(UTC)).total_seconds(),
        )

    async def _settle_job(self, delivery: Delivery, envelope: Envelope, outcome: Reply | RakkanError | None) -> None:
        if not isinstance(outcome, RakkanError):
            await delivery.accept()
        elif outcome.code in RETRYABLE or outcome.code is Code.INTERNAL:
            # Held back before it goes round, or a peer that is down makes a hot loop. The broker counts the rounds.
            await asyncio.sleep(_jitter(*_RETRY_S))
            await delivery.reject(again=True)
        else:
            log.error("job given up", type=envelope.type, message_id=envelope.message_id, code=outcome.code)
            await delivery.reject(again=False)

    # --- the link ---

    async def _keep_linked(self) -> None:
        wait_s = _RECONNECT_S[0]
        while True:
            try:
                self._link = await rabbitmq.open_link(self._settings, sender=self._room, answered=self._answered)
            except LinkLostError as trouble:
                log.warning("broker not reached", why=str(trouble))
                await asyncio.sleep(_jitter(_RECONNECT_S[0], wait_s))
                wait_s = min(wait_s * 2, _RECONNECT_S[1])
                continue
            log.info("broker reached")
            wait_s = _RECONNECT_S[0]
            self._linked.set()
            consuming = asyncio.create_task(self._consume(self._link))
            try:
                await self._link.lost.wait()
            finally:
                consuming.cancel()
            log.warning("broker lost")
            lost, self._link = self._link, None
            await lost.close()

    async def _consume(self, link: Link) -> None:
        await self._serving.wait()
        self._metrics.may_hold(PREFETCH[self._room])
        for queue in queues_of(self._room):
            await link.consume(queue, prefetch=PREFETCH[self._room], deliver=self._deliver)

    def _envelope(
        self,
        type_: str,
        recipient: str,
        operation_id: str,
        body: bytes,
        *,
        until: datetime,
        message_id: str | None = None,
        answers: str = "",
    ) -> Envelope:
        return Envelope(
            type=type_,
            sender=self._room,
            recipient=recipient,
            message_id=message_id or secrets.token_hex(16),
            answers=answers,
            operation_id=operation_id,
            issued_at=datetime.now(UTC),
            expires_at=until,
            epoch=self._trust.epoch,
            body=body,
        )


def _read_answer(answer: Envelope, request: Request[R]) -> Reply:
    try:
        if answer.type.endswith(FAILURE):
            failure = Failure.model_validate_json(answer.body)
            raise RakkanError(failure.code, failure.detail)
        return request.REPLY.model_validate_json(answer.body)
    except ValidationError as fault:
        raise RakkanError(Code.INTERNAL, f"an answer to {request.TYPE} is not as agreed: {_where(fault)}") from None


def _where(fault: ValidationError) -> str:
    """Which fields are wrong and how, without what they hold."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in fault.errors(include_input=False))[:500]


async def _first(answer: "asyncio.Future[Envelope]", lost: asyncio.Event) -> None:
    """Return when the answer is there or the link is lost."""
    watch: asyncio.Future[Any] = asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait({answer, watch}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watch.cancel()

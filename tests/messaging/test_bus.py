"""Asking, answering and jobs over the real broker, with everything that can happen to them on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from deploy.local.stack import Stack
from shared.contracts.sam import PrepareCredential
from shared.contracts.tsa_connector import Timestamp, Timestamps
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.messaging.bus import Bus
from shared.messaging.outbox import Posted
from shared.messaging.topology import PREFETCH
from tests.support.buses import bus_of, connected
from tests.support.timestamps import ANSWER, asking

ASKED = asking()


@dataclass
class Listener:
    """A TSA connector that answers as it is told."""

    asked: list[str] = field(default_factory=list)
    in_hand: int = 0
    most_in_hand: int = 0
    refusal: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def timestamp(self, _: Timestamp) -> Timestamps:
        self.asked.append(operation.current().message_id)
        self.in_hand += 1
        self.most_in_hand = max(self.most_in_hand, self.in_hand)
        try:
            await self.gate.wait()
        finally:
            self.in_hand -= 1
        if self.refusal:
            raise self.refusal
        return ANSWER


@asynccontextmanager
async def serving(stack: Stack, listener: Listener) -> AsyncIterator[Bus]:
    async with bus_of(stack, "tsa_connector").connected() as bus:
        bus.serve({Timestamp: listener.timestamp})
        yield bus


@pytest.fixture
async def listener(broker: Stack) -> AsyncIterator[Listener]:
    listener = Listener()
    listener.gate.set()
    async with serving(broker, listener):
        yield listener


@pytest.fixture
async def gateway(broker: Stack) -> AsyncIterator[Bus]:
    async with connected(broker, "gateway") as bus:
        yield bus


async def ask(bus: Bus, *, timeout_s: float = 10.0) -> Timestamps:
    with operation.begin("gateway", timeout_s=timeout_s):
        return await bus.ask(ASKED)


async def refusal_of(bus: Bus, *, timeout_s: float = 10.0) -> Code:
    with pytest.raises(RakkanError) as refused:
        await ask(bus, timeout_s=timeout_s)
    return refused.value.code


async def until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # the condition has no event
            await asyncio.sleep(0.01)


async def test_an_ask_is_answered(gateway: Bus, listener: Listener) -> None:
    assert await ask(gateway) == ANSWER
    assert len(listener.asked) == 1


async def test_a_refusal_crosses_the_wire_with_its_code(gateway: Bus, listener: Listener) -> None:
    listener.refusal = RakkanError(Code.TSA_REFUSED, "badAlg")
    with pytest.raises(RakkanError, match="tsa_refused: badAlg"):
        await ask(gateway)


async def test_a_bug_in_a_handler_is_answered_without_words(gateway: Bus, listener: Listener) -> None:
    listener.refusal = ZeroDivisionError("the PIN was 4711")
    with pytest.raises(RakkanError) as refused:
        await ask(gateway)
    assert (refused.value.code, refused.value.detail) == (Code.INTERNAL, "")


async def test_nobody_listening_is_unavailable_at_the_deadline(gateway: Bus) -> None:
    assert await refusal_of(gateway, timeout_s=0.3) is Code.UNAVAILABLE


async def test_an_operation_without_time_left_asks_nobody(gateway: Bus, listener: Listener) -> None:
    assert await refusal_of(gateway, timeout_s=-1) is Code.EXPIRED
    assert listener.asked == []


async def test_an_expired_request_is_not_handled(broker: Stack, gateway: Bus) -> None:
    assert await refusal_of(gateway, timeout_s=0.2) is Code.UNAVAILABLE
    late = Listener()
    late.gate.set()
    async with serving(broker, late):
        await ask(gateway)
        assert len(late.asked) == 1


async def test_no_more_is_in_hand_than_the_prefetch(broker: Stack, gateway: Bus) -> None:
    slow = Listener()
    async with serving(broker, slow):
        asks = [asyncio.create_task(ask(gateway)) for _ in range(PREFETCH["tsa_connector"] + 20)]
        await until(lambda: slow.in_hand == PREFETCH["tsa_connector"])
        await asyncio.sleep(0.2)
        assert slow.most_in_hand == PREFETCH["tsa_connector"]
        slow.gate.set()
        assert await asyncio.gather(*asks) == [ANSWER] * len(asks)


async def test_draining_finishes_what_is_in_hand_and_takes_no_more(broker: Stack, gateway: Bus) -> None:
    slow = Listener()
    async with serving(broker, slow) as bus:
        asked = asyncio.create_task(ask(gateway))
        await until(lambda: slow.in_hand == 1)
        draining = asyncio.create_task(bus.drain(timeout_s=5))
        await asyncio.sleep(0.2)
        late = asyncio.create_task(ask(gateway))
        await asyncio.sleep(0.2)
        assert len(slow.asked) == 1
        slow.gate.set()
        await draining
        assert await asked == ANSWER
    # What came during the drain stays in the queue for the next process.
    async with serving(broker, slow):
        assert await late == ANSWER


async def test_work_in_hand_survives_the_connection_and_is_delivered_again(broker: Stack, gateway: Bus) -> None:
    slow = Listener()
    async with serving(broker, slow) as bus:
        asked = asyncio.create_task(ask(gateway))
        await until(lambda: slow.in_hand == 1)
        first = bus._link
        assert first is not None
        await first.close()
        # aio_pika would have cancelled the handler; ours goes on (T5), and the message comes once more (T15).
        await until(lambda: len(slow.asked) == 2)
        assert slow.in_hand == 2
        assert slow.asked[0] == slow.asked[1]
        slow.gate.set()
        assert await asked == ANSWER


async def test_an_ask_outlives_a_lost_connection_of_the_asker(gateway: Bus, listener: Listener) -> None:
    listener.gate.clear()
    asked = asyncio.create_task(ask(gateway))
    await until(lambda: len(gateway._waiting) == 1)
    (message_id,) = gateway._waiting
    # Told by its id: a copy of another test's message may be delivered again meanwhile.
    await until(lambda: listener.asked.count(message_id) == 1)
    link = gateway._link
    assert link is not None
    await link.close()
    await until(lambda: listener.asked.count(message_id) == 2)
    listener.gate.set()
    assert await asked == ANSWER


async def test_an_unroutable_message_is_not_taken_for_sent(gateway: Bus) -> None:
    """Without on_return_raises the library counts it as delivered (T1), and its callbacks end at a reconnect (T2)."""
    await until(lambda: gateway._link is not None)
    for _ in range(2):
        link = gateway._link
        assert link is not None
        with pytest.raises(RakkanError, match="no queue takes"):
            await link.publish(
                b"x",
                exchange="tsa_connector",
                key="nowhere",
                message_id="1",
                type_="t",
                reply_to=None,
                expires_s=1,
            )
        await link.close()
        await until(lambda lost=link: gateway._link not in (None, lost))


async def test_a_forbidden_exchange_is_said_to_be_forbidden(gateway: Bus) -> None:
    await until(lambda: gateway._link is not None)
    link = gateway._link
    assert link is not None
    with pytest.raises(RakkanError) as refused:
        await link.publish(b"x", exchange="svg", key="requests", message_id="1", type_="t", reply_to=None, expires_s=1)
    assert refused.value.code is Code.FORBIDDEN


async def test_a_wrong_password_reaches_nobody_and_is_not_guest(broker: Stack) -> None:
    """A URL without more would log in as guest (T16)."""
    bus = bus_of(broker, "gateway")
    wrong = broker.keys.password_file("sam", "broker")
    bus._settings = bus._settings.model_copy(update={"password_file": wrong})
    async with bus.connected():
        await asyncio.sleep(0.5)
        with pytest.raises(RakkanError, match="no connection to the broker"):
            await bus.check()


@dataclass
class Jobs:
    """A SAM that prepares credentials, failing as often as it is told."""

    failures: list[Exception]
    served: list[str] = field(default_factory=list)

    async def prepare(self, job: PrepareCredential) -> None:
        self.served.append(job.credential_id)
        if self.failures:
            raise self.failures.pop(0)


def posted(credential_id: str) -> Posted:
    job = PrepareCredential(credential_id=credential_id)
    return Posted(f"prepare:{credential_id}", job.TYPE, "op", job.model_dump_json().encode())


async def test_a_job_is_tried_again_while_that_can_help(broker: Stack) -> None:
    jobs = Jobs([RakkanError(Code.UNAVAILABLE), ZeroDivisionError()])
    async with connected(broker, "sam") as bus:
        bus.serve({PrepareCredential: jobs.prepare})
        await until(lambda: bus._link is not None)
        await bus.send_job(posted("c1"))
        await until(lambda: len(jobs.served) == 3, timeout_s=20)
        await asyncio.sleep(0.3)
        assert jobs.served == ["c1"] * 3


async def test_a_hopeless_job_goes_to_the_dead_letters(broker: Stack) -> None:
    jobs = Jobs([RakkanError(Code.NOT_FOUND)])
    async with connected(broker, "sam") as bus:
        bus.serve({PrepareCredential: jobs.prepare})
        await until(lambda: bus._link is not None)
        await bus.send_job(posted("c2"))
        await until(lambda: len(jobs.served) == 1)
        await asyncio.sleep(1)
        assert jobs.served == ["c2"]

"""What aio_pika and RabbitMQ do to those who do not know them: each trap, sprung against the real broker."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aio_pika
import pytest

from deploy.local.stack import Stack
from shared.contracts.tsa_connector import Timestamp, Timestamps
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.messaging.bus import Bus
from shared.messaging.rabbitmq import Delivery, Link, LinkLostError, open_link
from tests.support.buses import broker_settings, bus_of
from tests.support.timestamps import ANSWER, asking

ASKED = asking()


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """A broker that neither answers nor says goodbye: a black hole."""
    pid = stack.rabbitmq.node_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
async def link(broker: Stack) -> AsyncIterator[Link]:
    settings = broker_settings(broker, "gateway", heartbeat_s=1, publish_timeout_s=30)
    link = await open_link(settings, sender="gateway", answered=lambda _: None)
    yield link
    await link.close()


async def send(link: Link, message_id: str = "1") -> None:
    await link.publish(
        b"x",
        exchange="tsa_connector",
        key="requests",
        message_id=message_id,
        type_="t",
        reply_to=None,
        expires_s=5,
    )


async def test_t3_messages_are_persistent(broker: Stack, link: Link) -> None:
    await send(link)
    connection = await aio_pika.connect(
        host="127.0.0.1",
        port=broker.rabbitmq.port,
        login="tsa_connector",
        password=broker.keys.password("tsa_connector", "broker"),
        virtualhost="rakkan",
    )
    async with connection:
        queue = await (await connection.channel()).get_queue("tsa_connector.requests", ensure=False)
        message = await queue.get(timeout=5)
        assert message is not None
        assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
        await message.ack()


async def test_t6_a_publish_that_times_out_is_unknown_and_ends_the_link(broker: Stack) -> None:
    settings = broker_settings(broker, "gateway", publish_timeout_s=0.3)
    link = await open_link(settings, sender="gateway", answered=lambda _: None)
    with frozen(broker):
        with pytest.raises(LinkLostError, match="outcome unknown"):
            await send(link)
        assert link.lost.is_set()
    await link.close()


async def test_t6_an_ask_under_a_frozen_broker_is_answered_once_it_thaws(broker: Stack) -> None:
    served: list[str] = []

    async def timestamp(_: Timestamp) -> Timestamps:
        served.append(operation.current().message_id)
        return ANSWER

    async with (
        bus_of(broker, "tsa_connector").connected() as listener,
        bus_of(broker, "gateway", publish_timeout_s=0.3).connected() as gateway,
    ):
        listener.serve({Timestamp: timestamp})
        await _linked(gateway)
        with operation.begin("gateway", timeout_s=15):
            with frozen(broker):
                asked = asyncio.create_task(gateway.ask(ASKED))
                await asyncio.sleep(1)
            assert await asked == ANSWER
    assert len(set(served)) == 1


async def test_t7_a_broker_under_alarm_is_not_ready(broker: Stack, link: Link) -> None:
    await link.check()
    await asyncio.to_thread(broker.rabbitmq.control, "set_vm_memory_high_watermark", "0.0000001")
    try:
        # The broker says it is blocked when somebody publishes, and then the publisher waits without a word.
        waiting = asyncio.create_task(send(link))
        async with asyncio.timeout(10):
            while True:
                try:
                    await link.check()
                except RakkanError as refusal:
                    assert refusal.code is Code.UNAVAILABLE  # noqa: PT017  # raised late: polled for
                    break
                await asyncio.sleep(0.1)
    finally:
        await asyncio.to_thread(broker.rabbitmq.control, "set_vm_memory_high_watermark", "0.6")
    await waiting
    await link.check()


async def test_t8_t9_a_black_hole_is_noticed_and_cancels_nobody(broker: Stack, link: Link) -> None:
    with frozen(broker):
        async with asyncio.timeout(15):
            with pytest.raises(LinkLostError):
                await send(link)
    await asyncio.wait_for(link.lost.wait(), 5)


async def test_t11_a_killed_broker_is_found_again(broker: Stack) -> None:
    async def timestamp(_: Timestamp) -> Timestamps:
        return ANSWER

    async with (
        bus_of(broker, "tsa_connector").connected() as listener,
        bus_of(broker, "gateway").connected() as gateway,
    ):
        listener.serve({Timestamp: timestamp})
        with operation.begin("gateway", timeout_s=10):
            assert await gateway.ask(ASKED) == ANSWER
        # A quorum queue younger than a few seconds does not survive a kill.
        await asyncio.sleep(10)
        await asyncio.to_thread(broker.rabbitmq.kill)
        with pytest.raises(RakkanError):
            await gateway.check()
        await asyncio.to_thread(broker.rabbitmq.start)
        with operation.begin("gateway", timeout_s=30):
            async with asyncio.timeout(30):
                while True:
                    try:
                        assert await gateway.ask(ASKED) == ANSWER
                    except RakkanError:
                        continue
                    break


async def test_t12_a_room_may_declare_nothing_but_its_reply_queue(link: Link) -> None:
    channel = await link._channel(publisher_confirms=False)
    with pytest.raises(aio_pika.exceptions.ChannelClosed, match="ACCESS_REFUSED"):
        await channel.declare_queue("tsa_connector.requests", durable=True)


async def test_t14_a_repeated_message_takes_another_link(broker: Stack) -> None:
    """Two publishes of one id in flight on one channel would share a confirm."""
    bus = bus_of(broker, "gateway", publish_timeout_s=0.3)
    async with bus.connected():
        await _linked(bus)
        first = bus._link
        with frozen(broker), operation.begin("gateway", timeout_s=3):
            asked = asyncio.create_task(bus.ask(ASKED))
            await asyncio.sleep(1)
            assert bus._link is not first
        with pytest.raises(RakkanError):
            await asked


async def _linked(bus: Bus) -> None:
    async with asyncio.timeout(10):
        while bus._link is None:  # noqa: ASYNC110  # the link has no event for tests
            await asyncio.sleep(0.01)


async def test_asks_under_a_killed_broker_leave_the_floor_to_others(broker: Stack) -> None:
    """Asks that tried a dead link again and again without waiting once held up the whole process."""
    bus = bus_of(broker, "gateway")
    async with bus.connected():
        await _linked(bus)
        link = bus._link
        assert link is not None
        await link.close()
        with operation.begin("gateway", timeout_s=3):
            asks = [asyncio.create_task(bus.ask(ASKED)) for _ in range(20)]
            async with asyncio.timeout(2):
                await _linked(bus)
                while bus._link is link:  # noqa: ASYNC110  # the link has no event for tests
                    await asyncio.sleep(0.01)
            outcomes = await asyncio.gather(*asks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {RakkanError}


class Gone:
    """A message whose link ended while it was settled."""

    def __init__(self, end: BaseException) -> None:
        self._end = end

    async def ack(self) -> None:
        raise self._end

    async def reject(self, *, requeue: bool) -> None:
        assert requeue
        raise self._end


def delivery_of(message: Any) -> Delivery:
    return Delivery(queue="sam.requests", body=b"", reply_to="", _message=message)


@pytest.mark.parametrize(
    "end", [Exception(), asyncio.CancelledError(), ConnectionResetError(), RuntimeError("closed")], ids=repr
)
async def test_t9_a_delivery_whose_link_ends_is_not_settled_and_nobody_fails(end: BaseException) -> None:
    await delivery_of(Gone(end)).accept()
    await delivery_of(Gone(end)).reject(again=True)


async def test_a_fault_of_ours_in_settling_is_not_taken_for_a_lost_link() -> None:
    with pytest.raises(ValueError, match="ours"):
        await delivery_of(Gone(ValueError("ours"))).accept()

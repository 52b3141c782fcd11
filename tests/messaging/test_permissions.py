"""What RabbitMQ itself refuses each room, whatever the room's own code does: the real broker, raw AMQP."""

from collections.abc import AsyncIterator

import aio_pika
import pytest
from aiormq.exceptions import AMQPError, ChannelAccessRefused, ProbableAuthenticationError

from deploy.local.stack import Stack
from shared.messaging.topology import LISTENERS, queues_of, reply_queue


async def connect(stack: Stack, user: str, password: str | None = None) -> aio_pika.abc.AbstractConnection:
    secret = password if password is not None else stack.keys.password(user, "broker")
    return await aio_pika.connect(
        host="127.0.0.1", port=stack.rabbitmq.port, login=user, password=secret, virtualhost="rakkan"
    )


@pytest.fixture
async def gateway(broker: Stack) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    connection = await connect(broker, "gateway")
    yield connection
    await connection.close()


@pytest.fixture
async def svg(broker: Stack) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    connection = await connect(broker, "svg")
    yield connection
    await connection.close()


async def publish(connection: aio_pika.abc.AbstractConnection, exchange: str, key: str) -> None:
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
    await target.publish(aio_pika.Message(b"x", expiration=1), routing_key=key, timeout=5)


async def test_every_queue_of_the_topology_exists_and_gateway_may_ask_sam(
    gateway: aio_pika.abc.AbstractConnection,
) -> None:
    channel = await gateway.channel()
    for listener in LISTENERS:
        for queue in (*queues_of(listener), f"{listener}.dead"):
            await channel.declare_queue(queue, passive=True)
    await publish(gateway, "sam", "requests")


async def test_gateway_may_not_publish_to_svg(gateway: aio_pika.abc.AbstractConnection) -> None:
    with pytest.raises(ChannelAccessRefused):
        await publish(gateway, "svg", "requests")


async def test_gateway_may_not_publish_to_the_default_exchange(gateway: aio_pika.abc.AbstractConnection) -> None:
    with pytest.raises(ChannelAccessRefused):
        await publish(gateway, "", "svg.requests")


async def test_gateway_may_not_answer_in_the_name_of_a_room(gateway: aio_pika.abc.AbstractConnection) -> None:
    with pytest.raises(ChannelAccessRefused):
        await publish(gateway, "replies", reply_queue("sam", "0a"))


async def test_svg_may_answer_sam_but_not_gateway(svg: aio_pika.abc.AbstractConnection) -> None:
    with pytest.raises(aio_pika.exceptions.PublishError):  # allowed, and nobody there
        await publish(svg, "replies", reply_queue("sam", "0a"))
    with pytest.raises(ChannelAccessRefused):
        await publish(svg, "replies", reply_queue("gateway", "0a"))


async def test_gateway_may_not_consume_the_requests_of_sam(gateway: aio_pika.abc.AbstractConnection) -> None:
    channel = await gateway.channel()
    queue = await channel.get_queue("sam.requests", ensure=False)
    with pytest.raises(ChannelAccessRefused):
        await queue.get(fail=False)
    channel = await gateway.channel()
    queue = await channel.get_queue("sam.requests", ensure=False)

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await message.ack()

    with pytest.raises(ChannelAccessRefused):
        await queue.consume(take)


async def test_gateway_may_declare_its_replies_and_nothing_else(gateway: aio_pika.abc.AbstractConnection) -> None:
    channel = await gateway.channel()
    mine = await channel.declare_queue(reply_queue("gateway", "0a"), exclusive=True)
    await mine.bind("replies", reply_queue("gateway", "0a"))
    with pytest.raises(ChannelAccessRefused):
        await mine.bind("replies", reply_queue("sam", "0a"))
    for name in ("sam.requests", "mine", reply_queue("sam", "0a")):
        channel = await gateway.channel()
        with pytest.raises(AMQPError) as refused:
            await channel.declare_queue(name, durable=True)
        assert "ACCESS_REFUSED" in str(refused.value)


async def test_gateway_may_not_remove_or_empty_a_queue(gateway: aio_pika.abc.AbstractConnection) -> None:
    for deed in ("delete", "purge"):
        channel = await gateway.channel()
        queue = await channel.get_queue("sam.requests", ensure=False)
        with pytest.raises(ChannelAccessRefused):
            await (queue.delete(if_unused=False, if_empty=False) if deed == "delete" else queue.purge())


async def test_nobody_enters_without_the_right_password(broker: Stack) -> None:
    for user, password in (("gateway", "wrong"), ("gateway", ""), ("guest", "guest")):
        with pytest.raises(ProbableAuthenticationError):
            await connect(broker, user, password)

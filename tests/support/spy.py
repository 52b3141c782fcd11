"""An administrator of the broker, who hears every message and may put anything anywhere. What no room can do."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika

from deploy.local.stack import Stack
from shared.messaging.topology import LISTENERS, REPLIES
from tests.support.waiting import until


@dataclass(frozen=True)
class Heard:
    exchange: str
    type: str
    body: bytes
    reply_to: str


@dataclass
class Spy:
    connection: aio_pika.abc.AbstractConnection
    channel: aio_pika.abc.AbstractChannel
    heard: list[Heard] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def on(cls, stack: Stack) -> AsyncIterator["Spy"]:
        """Hear everything from now on."""
        user, password = f"spy-{secrets.token_hex(4)}", secrets.token_hex(16)
        await asyncio.to_thread(stack.rabbitmq.control, "add_user", user, password)
        await asyncio.to_thread(stack.rabbitmq.control, "set_permissions", "-p", "rakkan", user, ".*", ".*", ".*")
        connection = await aio_pika.connect(
            host="127.0.0.1", port=stack.rabbitmq.port, login=user, password=password, virtualhost="rakkan"
        )
        async with connection:
            spy = cls(connection, await connection.channel())
            queue = await spy.channel.declare_queue(exclusive=True)
            for listener in LISTENERS:
                for key in ("requests", "jobs"):
                    await queue.bind(listener, routing_key=key)
            await queue.bind(REPLIES, routing_key="#")
            await queue.consume(spy._hear, no_ack=True)
            yield spy

    async def _hear(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        self.heard.append(Heard(message.exchange or "", message.type or "", message.body, message.reply_to or ""))

    def of_type(self, type_: str) -> list[Heard]:
        return [heard for heard in self.heard if heard.type == type_]

    async def until_heard(self, type_: str, count: int) -> list[Heard]:
        async def came() -> bool:
            return len(self.of_type(type_)) >= count

        await until(came, within_s=15)
        return self.of_type(type_)

    async def say(self, body: bytes, *, exchange: str, key: str = "requests", reply_to: str = "") -> None:
        """Put it there, as if the broker's permissions did not exist."""
        target = await self.channel.get_exchange(exchange, ensure=False)
        message = aio_pika.Message(body, reply_to=reply_to or None, type="", expiration=20)
        await target.publish(message, routing_key=key, mandatory=True)

    async def dead(self, listener: str) -> int:
        """How many messages the listener would have nothing to do with."""
        channel = await self.connection.channel()
        queue = await channel.declare_queue(f"{listener}.dead", passive=True)
        count = queue.declaration_result.message_count or 0
        await channel.close()
        return count

    async def refused(self, listener: str, body: bytes, *, key: str = "requests", reply_to: str = "") -> None:
        """Say it, and wait until it lies among the dead letters."""
        before = await self.dead(listener)
        await self.say(body, exchange=listener, key=key, reply_to=reply_to)

        async def lies_there() -> bool:
            return await self.dead(listener) == before + 1

        await until(lies_there, within_s=15)

"""The one file that knows aio_pika: one connection to RabbitMQ, what it publishes and what it takes. Knows no envelope.

A link lives until its connection or any of its channels ends; then it is thrown away whole and a new one is opened.
So nothing is ever re-declared behind our back, and no half-restored channel is used.
"""

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import aio_pika
import aiormq.abc
import aiormq.exceptions
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from pamqp.commands import Basic

from shared.errors import Code, RakkanError
from shared.messaging.topology import REPLIES, reply_queue
from shared.settings import Broker, secret

T = TypeVar("T")

_PERSISTENT = 2

_TROUBLE = (
    aio_pika.exceptions.AMQPException,
    aiormq.exceptions.AMQPException,
    ConnectionError,
    OSError,
    RuntimeError,  # what aiormq says of a channel or a connection that has just been closed
)


class LinkLostError(Exception):
    """The connection ended; whether what was on its way arrived is unknown."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message from a queue, and the two ways to settle it."""

    queue: str
    body: bytes
    reply_to: str
    _message: AbstractIncomingMessage

    async def accept(self) -> None:
        """The broker may forget it. It does not confirm that it did: effects must be repeatable."""
        await self._settle(self._message.ack())

    async def reject(self, *, again: bool) -> None:
        """Deliver again (counted towards the delivery limit), or send to the dead letters.

        Always `basic.reject`: newer brokers do not count `basic.nack`, and a message could go round for ever.
        """
        await self._settle(self._message.reject(requeue=again))

    async def _settle(self, settling: Awaitable[None]) -> None:
        with suppress(*_TROUBLE, LinkLostError):  # the link is gone, and with it the delivery: it comes again
            await _uncancelled(settling)


class Link:
    """One open connection with its publishing channel, its reply queue and its consumers."""

    def __init__(self, connection: AbstractConnection, settings: Broker) -> None:
        self._connection = connection
        self._settings = settings
        self._consumers: list[tuple[Any, str]] = []
        self._out: aiormq.abc.AbstractChannel
        self.reply_queue = ""
        self.lost = asyncio.Event()

    async def start(self, sender: str, answered: Callable[[bytes], None]) -> None:
        """Open the publishing channel, and the reply queue under a name of its own.

        The name is new each time: the broker may still hold the old queue for a connection it has not missed yet.
        """
        self._connection.close_callbacks.add(self._end)
        # Without on_return_raises an unroutable message counts as sent (T1).
        self._out = await (await self._channel(publisher_confirms=True)).get_underlay_channel()
        replies = await self._channel(publisher_confirms=False)
        self.reply_queue = reply_queue(sender, secrets.token_hex(8))
        queue = await replies.declare_queue(self.reply_queue, exclusive=True, auto_delete=True, durable=False)
        await queue.bind(REPLIES, routing_key=self.reply_queue)

        async def answer(message: AbstractIncomingMessage) -> None:
            answered(message.body)

        await queue.consume(answer, no_ack=True)

    async def consume(self, queue: str, *, prefetch: int, deliver: Callable[[Delivery], None]) -> None:
        """Take messages from a queue that exists already; `prefetch` bounds what is in hand (T10)."""

        async def take(message: AbstractIncomingMessage) -> None:
            # Only handed over: aio_pika cancels its callbacks when the connection dies, and a signature in the
            # HSM cannot be cancelled (T5).
            deliver(
                Delivery(
                    queue=queue,
                    body=message.body,
                    reply_to=message.reply_to or "",
                    _message=message,
                )
            )

        try:
            channel = await self._channel(publisher_confirms=False)
            await channel.set_qos(prefetch_count=prefetch)
            source = await channel.get_queue(queue, ensure=False)
            self._consumers.append((source, await source.consume(take, no_ack=False)))
        except _TROUBLE:
            self.lost.set()

    async def stop_consuming(self) -> None:
        """Take no more; what is in hand can still be settled."""
        for source, tag in self._consumers:
            try:
                await source.cancel(tag)
            except _TROUBLE:
                return
        self._consumers.clear()

    async def publish(
        self,
        body: bytes,
        *,
        exchange: str,
        key: str,
        message_id: str,
        type_: str,
        reply_to: str | None,
        expires_s: float,
    ) -> None:
        """Return once the broker has confirmed it.

        LinkLostError leaves it unknown (T6). Refused: OVERLOADED when the queue is full, UNAVAILABLE
        when no queue takes it, FORBIDDEN when the broker does not let us.
        """
        properties = Basic.Properties(
            delivery_mode=_PERSISTENT,  # the default is not (T3)
            content_type="application/vnd.rakkan.sealed",
            message_id=message_id,
            message_type=type_,
            reply_to=reply_to,
            expiration=str(max(int(expires_s * 1000), 1)),
        )
        # The channel below aio_pika's: its own Message and Exchange do nothing more, and cost as much again.
        publishing = self._out.basic_publish(
            body,
            exchange=exchange,
            routing_key=key,
            properties=properties,
            mandatory=True,
            timeout=self._settings.publish_timeout_s,
        )
        await self._confirmed(publishing, type_)

    async def _confirmed(self, publishing: Awaitable[Any], type_: str) -> None:
        try:
            result = await _uncancelled(publishing)
        except aio_pika.exceptions.PublishError:
            raise RakkanError(Code.UNAVAILABLE, f"no queue takes {type_}") from None
        except aio_pika.exceptions.DeliveryError:
            raise RakkanError(Code.OVERLOADED, f"the queue for {type_} is full") from None
        except aiormq.exceptions.ChannelAccessRefused:
            raise RakkanError(Code.FORBIDDEN, f"the broker does not let us send {type_}") from None
        except TimeoutError as trouble:
            # A black hole or an alarm. The next try takes a new link, so that no two messages of one id are
            # on their way over one channel, whose confirms would be mixed up (T14).
            self.lost.set()
            raise LinkLostError(f"no confirmation of {type_} in time: outcome unknown") from trouble
        except LinkLostError:
            self.lost.set()
            raise
        except _TROUBLE as trouble:
            self.lost.set()
            raise LinkLostError(str(trouble)) from trouble
        if not isinstance(result, Basic.Ack):
            raise RakkanError(Code.UNAVAILABLE, f"the broker did not confirm {type_}")

    async def check(self) -> None:
        """UNAVAILABLE when the link is lost or the broker blocks publishers, which no flag shows (T7)."""
        transport = self._connection.transport
        if self.lost.is_set() or transport is None:
            raise RakkanError(Code.UNAVAILABLE, "no connection to the broker")
        try:
            async with asyncio.timeout(0.05):
                await transport.ready()
        except TimeoutError:
            raise RakkanError(Code.UNAVAILABLE, "the broker blocks publishers: memory or disk alarm") from None

    async def close(self) -> None:
        with suppress(*_TROUBLE, TimeoutError):  # gone is what was wanted
            async with asyncio.timeout(5):
                await self._connection.close()

    async def _channel(self, *, publisher_confirms: bool) -> AbstractChannel:
        channel = await self._connection.channel(
            publisher_confirms=publisher_confirms, on_return_raises=publisher_confirms
        )
        channel.close_callbacks.add(self._end)
        underlay = await channel.get_underlay_channel()
        # A queue that is deleted or changes its leader ends a consumer without a word to its callback.
        underlay.on_consumer_cancel_callbacks.add(self._end_on_cancel)
        return channel

    def _end(self, *_: object) -> None:
        self.lost.set()

    def _end_on_cancel(self, _: object) -> None:
        self.lost.set()


async def open_link(
    settings: Broker,
    *,
    sender: str,
    answered: Callable[[bytes], None],
) -> Link:
    """Connect, or LinkLostError."""
    try:
        async with asyncio.timeout(10):
            connection = await _uncancelled(_connect(settings, sender))
            link = Link(connection, settings)
            try:
                await _uncancelled(link.start(sender, answered))
            except BaseException:
                await link.close()
                raise
            return link
    except (*_TROUBLE, TimeoutError) as trouble:
        raise LinkLostError(f"{type(trouble).__name__}: {trouble}") from trouble


async def _connect(settings: Broker, sender: str) -> AbstractConnection:
    # Never a URL: one without auth=EXTERNAL silently logs in as guest, and one parameter in it ends the
    # verification of certificates (T16).
    context = None
    if settings.ca_file is not None:
        context = ssl.create_default_context(cafile=str(settings.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    return await aio_pika.connect(
        host=settings.host,
        port=settings.port,
        login=sender,
        password=secret(settings.password_file),
        virtualhost=settings.virtual_host,
        ssl=context is not None,
        ssl_context=context,
        timeout=8,
        heartbeat=settings.heartbeat_s,
        client_properties={"connection_name": f"rakkan-{sender}"},
    )


async def _uncancelled(work: Awaitable[T]) -> T:
    """A vanished peer shows as CancelledError although nobody cancelled us, and would stop the service (T9).

    Or as an Exception of no kind at all: what aiormq ends its waiters with when it knows no reason.
    """
    task = asyncio.current_task()
    try:
        return await work
    except asyncio.CancelledError:
        if task is not None and task.cancelling() == 0:
            raise LinkLostError("the connection died under us") from None
        raise
    except Exception as error:  # only the one that has no kind is taken for a lost link
        if type(error) is not Exception:
            raise
        raise LinkLostError("the connection ended without a reason") from None

"""Buses of rooms on the real broker, for tests of messaging."""

from contextlib import AbstractAsyncContextManager

from deploy.local.stack import Stack
from shared.messaging.bus import Bus
from shared.settings import Broker
from shared.trust import Purpose, SigningKey, Trust


def broker_settings(stack: Stack, room: str, *, heartbeat_s: int = 10, publish_timeout_s: float = 5.0) -> Broker:
    return Broker(
        port=stack.rabbitmq.port,
        password_file=stack.keys.password_file(room, "broker"),
        heartbeat_s=heartbeat_s,
        publish_timeout_s=publish_timeout_s,
    )


def bus_of(stack: Stack, room: str, *, heartbeat_s: int = 10, publish_timeout_s: float = 5.0) -> Bus:
    settings = broker_settings(stack, room, heartbeat_s=heartbeat_s, publish_timeout_s=publish_timeout_s)
    key = SigningKey.load(stack.keys.key_file(room, Purpose.MESSAGES))
    return Bus(settings, room, key, Trust.load(stack.keys.bundle_file))


def connected(stack: Stack, room: str) -> AbstractAsyncContextManager[Bus]:
    return bus_of(stack, room).connected()

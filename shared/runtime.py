"""How a room comes up, works and goes down: settings, logs, database, bus, side port, SIGTERM. Knows no room."""

import asyncio
import gc
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import asyncpg
import structlog
import uvloop
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from shared import logs
from shared.audit import AuditWriter
from shared.database import Pool, connect_pool
from shared.health import Health
from shared.messaging import operation
from shared.messaging.bus import Bus, Handlers
from shared.messaging.metrics import Metrics
from shared.messaging.outbox import Outbox
from shared.messaging.relay import relay
from shared.settings import Database, RoomSettings, SettingsError, load
from shared.trust import SigningKey, Trust, load_sealing_key

log = structlog.get_logger()

S = TypeVar("S", bound=RoomSettings)
_DATABASE_WAIT_S = 60.0


@dataclass
class Room(Generic[S]):
    """What the runtime hands to a room's wiring."""

    name: str
    instance: str
    settings: S
    trust: Trust
    messages_key: SigningKey
    sealing_key: X25519PrivateKey
    registry: CollectorRegistry
    bus: Bus
    health: Health
    stopping: asyncio.Event
    database: "Pool | None" = None

    @property
    def pool(self) -> Pool:
        if self.database is None:
            raise LookupError(f"{self.name} has no database in its settings")
        return self.database

    @property
    def audit(self) -> AuditWriter:
        return AuditWriter(self.name, self.instance)


Build = Callable[[Room[S]], AbstractAsyncContextManager[Handlers]]


def run(name: str, settings_type: type[S], build: Build[S]) -> None:
    """Run a room until SIGTERM. The exit status is 2 when the settings are wrong, with the fault on standard error."""
    try:
        settings = load(settings_type)
        trust, messages_key, sealing_key = read_keys(settings)
    except (SettingsError, OSError, ValueError, TypeError) as fault:
        sys.stderr.write(f"rakkan {name}: {fault}\n")
        sys.exit(2)
    instance = secrets.token_hex(4)
    logs.configure(settings.logs.level, room=name, instance=instance)
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    # Long-lived objects are set aside, so that a collection does not walk them under a request.
    gc.freeze()
    bus = Bus(settings.broker, name, messages_key, trust, Metrics(registry))

    async def live() -> None:
        room = Room(
            name, instance, settings, trust, messages_key, sealing_key, registry, bus, Health(registry), asyncio.Event()
        )
        await _live(room, build)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(live())
    except SettingsError as fault:  # found only when the room was wired, such as a key missing in the bundle
        sys.stderr.write(f"rakkan {name}: {fault}\n")
        sys.exit(2)


def read_keys(settings: RoomSettings) -> tuple[Trust, SigningKey, X25519PrivateKey]:
    """The trust bundle and the private keys of the settings."""
    return (
        Trust.load(settings.trust.bundle_file),
        SigningKey.load(settings.trust.messages_key_file),
        load_sealing_key(settings.trust.sealing_key_file),
    )


async def _live(room: Room[S], build: Build[S]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, room.stopping.set)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(room.health.door(room.settings.health))
        room.health.check("room", _starting)
        database = getattr(room.settings, "database", None)
        if isinstance(database, Database):
            await stack.enter_async_context(_database(room, database))
        # The bus closes after the room's own doors: a request still in hand there has to ask.
        await stack.enter_async_context(room.bus.connected())
        handlers = await stack.enter_async_context(build(room))
        room.bus.serve(handlers)
        if room.database is not None:
            await stack.enter_async_context(_background(relay(Outbox(room.pool), room.bus)))
        room.health.check("room", _started)
        room.health.check("broker", room.bus.check)
        log.info("room started", port=port)
        await room.stopping.wait()
        log.info("room stopping")
        room.health.draining()
        await room.bus.drain(timeout_s=room.settings.drain_timeout_s)
    log.info("room stopped")


@asynccontextmanager
async def _database(room: Room[S], settings: Database) -> AsyncIterator[None]:
    pool = await _connect(settings, room.name)
    try:
        room.database = pool
        await room.audit.start(pool)
        room.health.check("database", lambda: pool.execute("select 1"))
        with operation.begin(room.name, timeout_s=_DATABASE_WAIT_S):
            async with pool.acquire() as connection, connection.transaction():
                await room.audit.write(connection, "room.started", actor_type="room", actor_id=room.name)
        yield
        with operation.begin(room.name, timeout_s=_DATABASE_WAIT_S):
            async with pool.acquire() as connection, connection.transaction():
                await room.audit.write(connection, "room.stopped", actor_type="room", actor_id=room.name)
    finally:
        pool.terminate()


async def _connect(settings: Database, room: str) -> Pool:
    """Wait for the database a while: at a start of everything it may come up after us."""
    async with asyncio.timeout(_DATABASE_WAIT_S):
        while True:
            try:
                return await connect_pool(settings, room)
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as trouble:
                log.warning("database not reached", why=str(trouble))
                await asyncio.sleep(1)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _starting() -> None:
    raise RuntimeError("still starting")


async def _started() -> None:
    """Nothing is in the way any more."""

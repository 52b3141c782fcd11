"""The wiring of the gateway: settings, the application, its HTTP door. It listens to nobody on the bus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from services.gateway.app import make_app
from services.gateway.settings import Settings
from shared.http import serve_http
from shared.messaging.bus import Handlers
from shared.registry import RegistrySource
from shared.runtime import Room, run

log = structlog.get_logger(__name__)


@asynccontextmanager
async def build(room: Room[Settings]) -> AsyncIterator[Handlers]:
    """Open the door while the room lives."""
    registries = RegistrySource(room.settings.registry, room.trust, room.registry)
    room.health.check("registry", registries.check)
    app = make_app(room.bus, room.trust, room.sealing_key, room.settings, registries)
    async with registries.watched(), serve_http(app, room.settings.http) as port:
        log.info("door open", port=port)
        yield {}


if __name__ == "__main__":
    run("gateway", Settings, build)

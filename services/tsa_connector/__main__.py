"""The TSA connector's table of contents: what is wired to what."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.tsa_connector.client import TSAClient
from services.tsa_connector.handlers import Handlers
from services.tsa_connector.settings import Settings, trusted
from shared import runtime
from shared.contracts.tsa_connector import Timestamp
from shared.messaging.bus import Handlers as Wiring


@asynccontextmanager
async def build(room: runtime.Room[Settings]) -> AsyncIterator[Wiring]:
    settings = room.settings.tsa
    client = TSAClient.open(settings)
    try:
        handlers = Handlers(endpoint=client, tsa=trusted(settings), hashes=settings.hashes, policy=settings.policy)
        yield {Timestamp: handlers.timestamp}
    finally:
        await client.close()


if __name__ == "__main__":
    runtime.run("tsa_connector", Settings, build)

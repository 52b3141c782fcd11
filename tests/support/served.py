"""Authentication behind a real socket, with a page that grants whatever is asked in the place of the signer."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import FastAPI
from fastapi.responses import Response

from services.authentication.app import make_app
from services.authentication.clients import Client
from services.authentication.requests import Requests
from shared.http import HTTPDoor, serve_http
from shared.tokens import AccessToken, read_token, verifying_keys
from tests.support.authentication import Clock, World, settings
from tests.support.oauth import add_clients


class WallClock(Clock):
    """For clients that have a clock of their own."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Served:
    world: World
    issuer: str

    def read(self, text: str) -> AccessToken:
        return read_token(text, verifying_keys(self.world.trust), now=datetime.now(UTC))

    def client(self, client_id: str) -> Client:
        return self.world.store.rows.clients[client_id]


@asynccontextmanager
async def serve() -> AsyncIterator[Served]:
    """The application, listening while the context lasts, with the clients of `tests.support.oauth`."""
    world = World(clock=WallClock(), attempts_max=1000)
    await add_clients(world.store)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    issuer = f"http://127.0.0.1:{port}"
    own = settings().model_copy(update={"issuer": issuer})
    app = make_app(
        world.store, world.sam, world.trust, world.new_key, own, add_pages=_grant_at_once, now=world.clock.now
    )
    async with serve_http(app, HTTPDoor(port=port, leave_s=0)):
        yield Served(world, issuer)


def _grant_at_once(app: FastAPI, requests: Requests) -> None:
    @app.get("/approve/{request_id}", response_model=None)
    async def approve(request_id: str) -> Response:
        request = await requests.open(request_id, session_id="s")
        credential = request.scope == "credential"
        location = await requests.granted(
            request_id,
            session_id="s",
            tenant_id=request.tenant_id,
            user_id="alice",
            authorization_id="a-1" if credential else None,
            credential_id=request.credential_id if credential else None,
        )
        return Response(status_code=303, headers={"Location": location})

"""Authentication's HTTP door: its parts put together, and what every path answers when it refuses. Decides nothing."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog
from cryptography import x509
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from services.authentication import doorkeeper, metadata, requests, revoking, tokens
from services.authentication.choosing import Choosing, Registries
from services.authentication.doorkeeper import Doorkeeper
from services.authentication.endpoints import add_oauth, add_publications
from services.authentication.oauth import Refusal
from services.authentication.requests import Lifetimes, Requests
from services.authentication.revoking import Bus, Revocations
from services.authentication.settings import Settings
from services.authentication.throttle import Throttle
from services.authentication.tokens import Tokens
from shared.errors import RETRYABLE, RakkanError
from shared.http import Edge
from shared.settings import SettingsError
from shared.tokens import verifying_keys
from shared.trust import SigningKey, Trust

log = structlog.get_logger()

ROOM = "authentication"


class Change(doorkeeper.Change, requests.Change, tokens.Change, revoking.Change, Protocol):
    """All that the OAuth endpoints do in a transaction."""


class Store(doorkeeper.Store, requests.Store, tokens.Store, revoking.Store, Protocol):
    """All that the OAuth endpoints keep."""

    def change(self) -> AbstractAsyncContextManager[Change]: ...


@dataclass(frozen=True)
class OAuth:
    """The authorization server behind its endpoints."""

    issuer: str
    mtls_url: str | None
    requests: Requests
    tokens: Tokens
    revocations: Revocations


def make_app(
    store: Store,
    bus: Bus,
    trust: Trust,
    tokens_key: SigningKey,
    settings: Settings,
    *,
    add_pages: Callable[[FastAPI, Requests], None] = lambda _app, _requests: None,
    registries: Registries | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ASGIApp:
    """The application behind its edge. `add_pages` adds what signers meet in the browser."""
    app = FastAPI(title="Rakkan authentication", openapi_url="/openapi.json", docs_url=None, redoc_url=None)
    oauth = make_oauth(store, bus, trust, tokens_key, settings, registries=registries, now=now)
    add_oauth(app, oauth)
    add_publications(app, metadata.describe(settings), metadata.jwks(trust))
    add_pages(app, oauth.requests)
    _add_refusals(app)
    return Edge(app, door=settings.http, room=ROOM)


def make_oauth(
    store: Store,
    bus: Bus,
    trust: Trust,
    tokens_key: SigningKey,
    settings: Settings,
    *,
    registries: Registries | None = None,
    now: Callable[[], datetime],
) -> OAuth:
    """The parts, wired."""
    attempts = Throttle(attempts_max=settings.attempts_max, attempt_again_s=settings.attempt_again_s)
    doorkeeper = Doorkeeper(store=store, throttle=attempts, issuer=settings.issuer, anchors=_anchors(settings), now=now)
    lifetimes = Lifetimes(
        request=timedelta(seconds=settings.request_lifetime_s),
        pushed=timedelta(seconds=settings.pushed_lifetime_s),
        code=timedelta(seconds=settings.code_lifetime_s),
        refresh=timedelta(seconds=settings.refresh_lifetime_s),
    )
    return OAuth(
        issuer=settings.issuer,
        mtls_url=settings.mtls.url,
        requests=Requests(
            store=store,
            doorkeeper=doorkeeper,
            throttle=Throttle(attempts_max=settings.requests_burst, attempt_again_s=settings.request_again_s),
            issuer=settings.issuer,
            lifetimes=lifetimes,
            qualifiers=settings.signature_qualifiers,
            choosing=Choosing(registries),
            now=now,
        ),
        tokens=Tokens(
            store=store,
            bus=bus,
            doorkeeper=doorkeeper,
            signing_key=tokens_key,
            issuer=settings.issuer,
            lifetime_s=settings.token_lifetime_s,
            now=now,
        ),
        revocations=Revocations(store=store, bus=bus, doorkeeper=doorkeeper, keys=verifying_keys(trust), now=now),
    )


def _anchors(settings: Settings) -> list[x509.Certificate]:
    if settings.mtls.ca_file is None:
        return []
    try:
        return x509.load_pem_x509_certificates(settings.mtls.ca_file.read_bytes())
    except (OSError, ValueError):
        raise SettingsError(f"{settings.mtls.ca_file} holds no certificates in PEM") from None


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> JSONResponse:
        headers = {"Pragma": "no-cache"}
        if refusal.status == 401:  # noqa: PLR2004 - an HTTP status is its own name
            headers["WWW-Authenticate"] = 'Basic realm="rakkan", charset="UTF-8"'
        if refusal.retry_after_s is not None:
            headers["Retry-After"] = str(refusal.retry_after_s)
        return _error(refusal.status, refusal.error, refusal.description, headers)

    @app.exception_handler(RakkanError)
    async def unavailable(_: Request, error: RakkanError) -> JSONResponse:
        if error.code in RETRYABLE:
            log.warning("request not served", code=error.code, detail=error.detail)
            return _error(
                503, "temporarily_unavailable", "The service is not available now, try again", {"Retry-After": "2"}
            )
        log.error("request failed", code=error.code, detail=error.detail)
        return _error(500, "server_error", "", {})

    @app.exception_handler(HTTPException)
    async def no_such_page(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, "invalid_request", str(error.detail), dict(error.headers or {}))


def _error(status: int, error: str, description: str, headers: dict[str, str]) -> JSONResponse:
    body = {"error": error} | ({"error_description": description} if description else {})
    return JSONResponse(body, status_code=status, headers=headers)

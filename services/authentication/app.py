"""The HTTP faces of authentication: token, revocation, metadata, keys. Turns refusals into answers, decides nothing."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from services.authentication.clients import ALGORITHMS
from services.authentication.oauth import Refusal, read_client, read_form
from services.authentication.settings import Settings
from services.authentication.throttle import Throttle
from services.authentication.tokens import SCOPE, Bus, Store, Tokens
from shared.errors import RETRYABLE, RakkanError
from shared.http import Edge
from shared.tokens import verifying_keys
from shared.trust import SigningKey, Trust

log = structlog.get_logger()

ROOM = "authentication"
_AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
_PUBLIC_FOR_A_WHILE = {"Cache-Control": "public, max-age=300"}


def make_app(
    store: Store,
    bus: Bus,
    trust: Trust,
    tokens_key: SigningKey,
    settings: Settings,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ASGIApp:
    """The application behind its edge."""
    tokens = Tokens(
        store=store,
        bus=bus,
        keys=verifying_keys(trust),
        signing_key=tokens_key,
        throttle=Throttle(attempts_max=settings.attempts_max, attempt_again_s=settings.attempt_again_s),
        issuer=settings.issuer,
        lifetime_s=settings.token_lifetime_s,
        now=now,
    )
    app = FastAPI(title="Rakkan authentication", openapi_url="/openapi.json", docs_url=None, redoc_url=None)
    _add_endpoints(app, tokens)
    _add_publications(app, _metadata(settings.issuer), _jwks(trust))
    _add_refusals(app)
    return Edge(app, door=settings.http, room=ROOM)


def _add_endpoints(app: FastAPI, tokens: Tokens) -> None:
    @app.post("/oauth2/token", openapi_extra=_form("grant_type", "scope", "client_id", "client_secret"))
    async def token(request: Request) -> JSONResponse:
        """Issue an access token (CSC API `oauth2/token`)."""
        form = await _read(request)
        granted = await tokens.grant(form, read_client(form, _authorization(request)), _address(request))
        return JSONResponse(granted, headers={"Pragma": "no-cache"})

    # Clients derive the address from info.oauth2 in two ways: with and without "oauth2/" in it.
    @app.post("/revoke", include_in_schema=False, status_code=204)
    @app.post(
        "/oauth2/revoke", status_code=204, openapi_extra=_form("token", "token_type_hint", "client_id", "client_secret")
    )
    async def revoke(request: Request) -> Response:
        """Revoke an access token (CSC API `oauth2/revoke`)."""
        form = await _read(request)
        await tokens.revoke(form, read_client(form, _authorization(request)), _address(request))
        return Response(status_code=204)


def _add_publications(app: FastAPI, metadata: dict[str, Any], jwks: dict[str, Any]) -> None:
    @app.get("/oauth2/.well-known/oauth-authorization-server", include_in_schema=False)
    @app.get("/.well-known/oauth-authorization-server/{issuer_path:path}", include_in_schema=False)
    @app.get("/.well-known/oauth-authorization-server")
    async def describe() -> JSONResponse:
        """What this authorization server can do (RFC 8414)."""
        return JSONResponse(metadata, headers=_PUBLIC_FOR_A_WHILE)

    @app.get("/oauth2/jwks")
    async def keys() -> JSONResponse:
        """The keys that access tokens are signed with, the coming and the going one too (RFC 7517)."""
        return JSONResponse(jwks, headers=_PUBLIC_FOR_A_WHILE)


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


async def _read(request: Request) -> dict[str, str]:
    body = await request.body()
    return dict(read_form(body, request.headers.get("content-type", ""), request.url.query))


def _authorization(request: Request) -> str | None:
    return request.headers.get("authorization")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _metadata(issuer: str) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth2/token",
        "revocation_endpoint": f"{issuer}/oauth2/revoke",
        "jwks_uri": f"{issuer}/oauth2/jwks",
        "scopes_supported": [SCOPE],
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": list(_AUTHENTICATION_METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "revocation_endpoint_auth_methods_supported": list(_AUTHENTICATION_METHODS),
        "revocation_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
    }


def _jwks(trust: Trust) -> dict[str, Any]:
    keys = verifying_keys(trust).as_dict(private=False)["keys"]
    return {"keys": [{**key, "alg": "Ed25519"} for key in keys]}


def _form(*names: str) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in names}
    schema = {"type": "object", "properties": properties, "required": [names[0]]}
    return {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}}

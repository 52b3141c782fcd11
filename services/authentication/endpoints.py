"""The OAuth endpoints on their paths: reads a request, hands it on, writes the answer. Decides nothing."""

from typing import Any, Protocol
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from services.authentication.oauth import Call, Refusal, read_client, read_form
from services.authentication.requests import Requests
from services.authentication.revoking import Revocations
from services.authentication.throttle import site_of
from services.authentication.tokens import Tokens
from shared.errors import RETRYABLE, RakkanError
from shared.proxies import certificate_of

log = structlog.get_logger()

_PUBLIC_FOR_A_WHILE = {"Cache-Control": "public, max-age=300"}
_AUTHORIZE = ("client_id", "request_uri", "response_type", "redirect_uri", "scope", "state", "authorization_details")


class OAuth(Protocol):
    """What stands behind the endpoints."""

    @property
    def issuer(self) -> str: ...
    @property
    def mtls_url(self) -> str | None: ...
    @property
    def requests(self) -> Requests: ...
    @property
    def tokens(self) -> Tokens: ...
    @property
    def revocations(self) -> Revocations: ...


# Clients derive an address from info.oauth2 in two ways: with and without "oauth2/" in it.
def add_oauth(app: FastAPI, oauth: OAuth) -> None:
    """The endpoints and their aliases."""
    _add_authorization(app, oauth)

    @app.post("/token", include_in_schema=False)
    @app.post("/oauth2/token", openapi_extra=_form("grant_type", "scope", "client_id", "client_secret", "code"))
    async def token(request: Request) -> JSONResponse:
        """Issue an access token (CSC API `oauth2/token`)."""
        granted = await oauth.tokens.grant(await _call(request, oauth))
        return JSONResponse(granted, headers={"Pragma": "no-cache"})

    @app.post("/revoke", include_in_schema=False, status_code=204)
    @app.post(
        "/oauth2/revoke", status_code=204, openapi_extra=_form("token", "token_type_hint", "client_id", "client_secret")
    )
    async def revoke(request: Request) -> Response:
        """Revoke an access token or a refresh token (CSC API `oauth2/revoke`)."""
        await oauth.revocations.revoke(await _call(request, oauth))
        return Response(status_code=204)


def _add_authorization(app: FastAPI, oauth: OAuth) -> None:
    @app.post("/pushed_authorize", include_in_schema=False, status_code=201)
    @app.post("/oauth2/pushed_authorize", status_code=201, openapi_extra=_form(*_AUTHORIZE))
    async def pushed_authorize(request: Request) -> JSONResponse:
        """Take an authorization request from a client (CSC API `oauth2/pushed_authorize`, RFC 9126)."""
        pushed = await oauth.requests.push(await _call(request, oauth))
        return JSONResponse(pushed, status_code=201, headers={"Pragma": "no-cache"})

    @app.api_route("/authorize", methods=["GET", "POST"], include_in_schema=False, response_model=None)
    @app.post("/oauth2/authorize", include_in_schema=False, response_model=None)
    @app.get("/oauth2/authorize", response_model=None, status_code=303)
    async def authorize(request: Request) -> Response:
        """Send a signer's browser to the page that asks (CSC API `oauth2/authorize`)."""
        try:
            form = read_form(await request.body(), request.headers.get("content-type", ""), request.url.query)
            # Not by RedirectResponse: it escapes anew what was registered to the letter.
            return Response(status_code=303, headers={"Location": await oauth.requests.begin(form, _address(request))})
        except Refusal as refusal:
            return _page(refusal)
        except RakkanError as trouble:
            if trouble.code not in RETRYABLE:
                raise
            log.warning("request not served", code=trouble.code, detail=trouble.detail)
            return _page(Refusal("temporarily_unavailable", "Try again in a minute", status=503, retry_after_s=2))


def add_publications(app: FastAPI, metadata: dict[str, Any], jwks: dict[str, Any]) -> None:
    """What anybody may read."""

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


def _page(refusal: Refusal) -> Response:
    """For the person: until the redirect URI is known to be the client's, nobody else is told. No markup, no script."""
    text = (
        "このサイトからの依頼に応じられません。元のサイトに戻り、この内容をお伝えください。\n"
        "This request cannot be answered. Go back to the site you came from and tell it:\n\n"
        f"{refusal.error}: {refusal.description}\n"
    )
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return PlainTextResponse(text, status_code=refusal.status, headers=headers)


async def _call(request: Request, oauth: OAuth) -> Call:
    query = request.url.query
    form = read_form(await request.body(), request.headers.get("content-type", ""), query)
    return Call(
        form=form,
        presented=read_client(form, request.headers.get("authorization")),
        address=_address(request),
        url=_base(request, oauth) + request.url.path,
        certificate=certificate_of(request.scope),
        proofs=tuple(request.headers.getlist("dpop")),
        in_query=bool(query),
    )


def _base(request: Request, oauth: OAuth) -> str:
    """What the client used, as its proof names it: there may be a second address, where certificates are shown."""
    alias = oauth.mtls_url
    return alias if alias and request.headers.get("host") == urlsplit(alias).netloc else oauth.issuer


def _address(request: Request) -> str:
    return site_of(request.client.host) if request.client else ""


def _form(*names: str) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in names}
    schema = {"type": "object", "properties": properties, "required": [names[0]]}
    return {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}}

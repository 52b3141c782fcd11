"""The gateway as an ASGI application: paths, who comes in and how often, refusals in CSC words. Decides no more."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from services.gateway import pages, settings
from services.gateway.csc import v1, v2
from services.gateway.csc.facade import Facade, Limits, Method
from services.gateway.csc.model import Version
from services.gateway.csc.parameters import read_body
from services.gateway.handlers import Bus, Caller, Handlers
from services.gateway.info import info_document
from services.gateway.limits import Buckets
from services.gateway.refusals import (
    MALFORMED_HEADER,
    NOT_IMPLEMENTED,
    REFUSALS,
    UNKNOWN_METHOD,
    WRONG_VERB,
    CSCError,
    Refusal,
    refusal_of,
)
from shared.errors import Code, RakkanError
from shared.http import Edge
from shared.messaging import operation
from shared.tokens import TokenReader, verifying_keys
from shared.trust import Trust

log = structlog.get_logger(__name__)

FACADES = (v1.FACADE, v2.FACADE)
Endpoint = Callable[[Request], Awaitable[Response]]

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)
_TOKEN_MAX = 8192


def make_app(bus: Bus, trust: Trust, sealing_key: X25519PrivateKey, settings: settings.Settings) -> ASGIApp:
    """The whole door, limits and all. Nothing outside is touched until a request comes."""
    entrance = Entrance(settings.limits, trust)
    handlers = Handlers(bus, trust=trust, sealing_key=sealing_key)
    app = _Paths(
        title=settings.name,
        summary=settings.description,
        description=pages.DESCRIPTION,
        version="0.1.0",
        docs_url=None,  # its page loads scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/openapi.json",
        exception_handlers={HTTPException: _not_routed},
    )
    for facade in FACADES:
        _add_methods(app, facade, entrance, handlers, settings)
    pages.add_pages(app, FACADES, settings)
    return Edge(app, door=settings.http, room="gateway")


class _Paths(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        # Starlette's outermost layer answers unexpected exceptions in plain text. The edge does it in CSC words.
        outermost = super().build_middleware_stack()
        return outermost.app if isinstance(outermost, ServerErrorMiddleware) else outermost


class Entrance:
    """Who comes in: the Authorization header, the token, and how often."""

    def __init__(self, limits: settings.Limits, trust: Trust) -> None:
        self._tokens = TokenReader(verifying_keys(trust))
        self._clients = Buckets(per_s=limits.requests_per_s, burst=limits.burst, callers_max=limits.callers_max)
        self._strangers = Buckets(
            per_s=limits.anonymous_requests_per_s, burst=limits.anonymous_burst, callers_max=limits.callers_max
        )

    def client(self, request: Request, version: Version) -> Caller:
        """The client of a good token, within its rate. The token is checked again by the room that acts on it."""
        try:
            token = _bearer(request, version)
            facts = self._tokens.read(token, now=datetime.now(UTC))
        except (CSCError, RakkanError):
            self.stranger(request)
            raise
        structlog.contextvars.bind_contextvars(client_id=facts.client_id, tenant_id=facts.tenant_id)
        self._clients.take(facts.client_id, now_s=monotonic())
        return Caller(token, facts.client_id, facts.tenant_id)

    def stranger(self, request: Request) -> None:
        """Anybody, within the rate of an address."""
        self._strangers.take(request.client.host if request.client else "", now_s=monotonic())


def _bearer(request: Request, version: Version) -> str:
    headers = request.headers.getlist("authorization")
    found = _BEARER.fullmatch(headers[0]) if len(headers) == 1 else None
    if found is None:
        raise CSCError(MALFORMED_HEADER.of(version))
    if len(found[1]) > _TOKEN_MAX:
        raise RakkanError(Code.TOKEN_INVALID, "longer than any of ours")
    return found[1]


def _add_methods(
    app: FastAPI, facade: Facade, entrance: Entrance, handlers: Handlers, settings: settings.Settings
) -> None:
    base = f"/csc/{facade.version}"
    tag = f"CSC {facade.specs}"
    limits = Limits(hashes_max=settings.limits.hashes_per_call_max)
    document = info_document(facade, settings)
    app.add_api_route(
        f"{base}/info",
        _info(document, entrance),
        methods=["POST"],
        tags=[tag],
        **pages.described("info", "Describe this service", example={}, answer=document, version=facade.version),
    )
    app.add_api_route(f"{base}/info", _info(document, entrance), methods=["GET"], include_in_schema=False)
    for method in facade.methods:
        app.add_api_route(
            f"{base}/{method.name}",
            _method(facade.version, method, limits, entrance, handlers),
            methods=["POST"],
            tags=[tag],
            **pages.described(
                method.name, method.summary, example=method.example, answer=method.answer, version=facade.version
            ),
        )
    for name in facade.missing:
        app.add_api_route(f"{base}/{name}", _not_implemented, methods=["GET", "POST"], include_in_schema=False)


def _info(document: Mapping[str, Any], entrance: Entrance) -> Endpoint:
    body = json.dumps(document).encode()

    async def info(request: Request) -> Response:
        try:
            entrance.stranger(request)
            if request.method == "POST":
                read_body(await request.body()).optional_string("lang", most=64)
        except CSCError as error:
            return _refused(request, error.refusal)
        return _answered(request, HTTPStatus.OK, body)

    return info


def _method(version: Version, method: Method, limits: Limits, entrance: Entrance, handlers: Handlers) -> Endpoint:
    actions = handlers.actions()

    async def endpoint(request: Request) -> Response:
        structlog.contextvars.bind_contextvars(type=method.name, version=str(version))
        caller = call = None
        try:
            caller = entrance.client(request, version)
            call = method.read(read_body(await request.body()), limits)
            answer = method.write(call, await actions[type(call)](caller, call), limits)
        except CSCError as error:
            return _refused(request, error.refusal)
        except RakkanError as error:
            refusal = refusal_of(error.code, version, method.name)
            _note(error, refusal)
            if "{subject}" in refusal.description and caller is not None and call is not None:
                refusal = await _with_subject(refusal, handlers, caller, call)
            return _refused(request, refusal)
        if answer is None:
            return _answered(request, HTTPStatus.NO_CONTENT, b"")
        return _answered(request, HTTPStatus.OK, json.dumps(answer).encode())

    return endpoint


async def _with_subject(refusal: Refusal, handlers: Handlers, caller: Caller, call: Any) -> Refusal:
    """v1 names whose certificate it is. Where that cannot be found out now, the refusal stands without it."""
    try:
        subject = await handlers.subject_of(caller, call.credential_id)
    except RakkanError:
        return REFUSALS[Code.CERTIFICATE_EXPIRED].of(Version.V2)
    return replace(refusal, description=refusal.description.replace("{subject}", subject))


def _note(error: RakkanError, refusal: Refusal) -> None:
    """A fault of ours is an error in the log; a refusal is everyday life."""
    note = log.error if refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR else log.info
    note("request refused", operation=operation.current().operation_id, code=error.code, detail=error.detail)


async def _not_implemented(request: Request) -> Response:
    return _refused(request, NOT_IMPLEMENTED)


async def _not_routed(request: Request, error: Exception) -> Response:
    """Wrong path or verb, in the words of the CSC."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _refused(request, WRONG_VERB, error.headers)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _refused(request, UNKNOWN_METHOD)
    raise error


def _refused(request: Request, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    said = {"error": refusal.error}
    if refusal.description:
        said["error_description"] = refusal.description
    sent = dict(headers or {})
    if refusal.retry_after_s is not None:
        sent["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        # RFC 6750 knows one word for every token that does not do; which it was stands in the body.
        sent["WWW-Authenticate"] = f'Bearer realm="rakkan", error="invalid_token", error_description="{said["error"]}"'
    structlog.contextvars.bind_contextvars(outcome=refusal.error)
    return _answered(request, refusal.status, json.dumps(said).encode(), sent)


def _answered(request: Request, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    sent = dict(headers or {})
    if "x-request-id" not in request.headers:  # the edge echoes one that was given
        sent["X-Request-ID"] = operation.current().operation_id
    media_type = "application/json" if body else None
    return Response(body, status_code=int(status), headers=sent, media_type=media_type)

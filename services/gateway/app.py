"""The gateway as an ASGI application: paths, the way of one request, refusals in CSC words. Decides no more."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from services.gateway import pages, settings, stamping
from services.gateway.bases import Bases
from services.gateway.csc import v1, v2
from services.gateway.csc.facade import Facade, Limits, Method, Told
from services.gateway.csc.model import SignHash, Version
from services.gateway.csc.parameters import read_body
from services.gateway.entrance import Entrance, Registries, challenge
from services.gateway.handlers import Action, Bus, Caller, Handlers
from services.gateway.info import info_document
from services.gateway.issuing import Issuing
from services.gateway.refusals import (
    NOT_IMPLEMENTED,
    REFUSALS,
    UNKNOWN_METHOD,
    WRONG_VERB,
    CSCError,
    Refusal,
    refusal_of,
)
from services.gateway.scopes import authorizes, check_scope
from shared import VERSION
from shared.errors import Code, RakkanError
from shared.http import Edge
from shared.messaging import operation
from shared.trust import Trust

log = structlog.get_logger(__name__)

FACADES = (v1.FACADE, v2.FACADE)
Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(
    bus: Bus, trust: Trust, sealing_key: X25519PrivateKey, settings: settings.Settings, registries: Registries
) -> ASGIApp:
    """The whole door, limits and all. Nothing outside is touched until a request comes."""
    entrance = Entrance(settings, trust, registries)
    handlers = Handlers(bus, trust=trust, sealing_key=sealing_key)
    issuing = Issuing(bus, handlers, settings.limits.issuance_wait_s)
    actions = {**handlers.actions(), **issuing.actions()}
    app = _Paths(
        title=settings.name,
        summary=settings.description,
        description=pages.DESCRIPTION,
        version=VERSION,
        docs_url=None,  # its page loads scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/openapi.json",
        root_path_in_servers=False,  # the path of a virtual service is the caller's word
        exception_handlers={HTTPException: _not_routed},
    )
    for facade in FACADES:
        _add_methods(app, facade, entrance, handlers, actions, settings)
    timestamps = stamping.endpoint_of(stamping.Stamping(handlers, registries, settings.limits), _refused_error)
    app.add_api_route(stamping.PATH, timestamps, methods=["POST"], **pages.described_timestamps())
    pages.add_pages(app, FACADES, settings)
    return Edge(Bases(app), door=settings.http, room="gateway")


class _Paths(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        # Starlette's outermost layer answers unexpected exceptions in plain text. The edge does it in CSC words.
        outermost = super().build_middleware_stack()
        return outermost.app if isinstance(outermost, ServerErrorMiddleware) else outermost


def _add_methods(
    app: FastAPI,
    facade: Facade,
    entrance: Entrance,
    handlers: Handlers,
    actions: Mapping[type, Action],
    settings: settings.Settings,
) -> None:
    base = f"/csc/{facade.version}"
    tag = f"CSC {facade.specs}"
    limits = Limits(hashes_max=settings.limits.hashes_per_call_max)
    info = _info(facade, settings, entrance)
    words = pages.described_info(facade, settings)
    app.add_api_route(f"{base}/info", info, methods=["POST"], tags=[tag], **words)
    app.add_api_route(f"{base}/info", info, methods=["GET"], include_in_schema=False)
    for method in facade.methods:
        endpoint = _method(facade.version, method, limits, entrance, handlers, actions)
        words = pages.described(method, facade.version)
        app.add_api_route(f"{base}/{method.name}", endpoint, methods=["POST"], tags=[tag], **words)
    for name in facade.missing:
        app.add_api_route(f"{base}/{name}", _not_implemented, methods=["GET", "POST"], include_in_schema=False)


def _info(facade: Facade, settings: settings.Settings, entrance: Entrance) -> Endpoint:
    async def info(request: Request) -> Response:
        try:
            selection = entrance.anybody(request, facade.version)
            if request.method == "POST":
                read_body(await request.body()).optional_string("lang", most=64)
        except CSCError as error:
            return _refused(request, error.refusal)
        document = info_document(facade, settings, selection, today=datetime.now(UTC).date())
        return _answered(request, HTTPStatus.OK, json.dumps(document).encode())

    return info


def _method(
    version: Version,
    method: Method,
    limits: Limits,
    entrance: Entrance,
    handlers: Handlers,
    actions: Mapping[type, Action],
) -> Endpoint:

    async def endpoint(request: Request) -> Response:
        structlog.contextvars.bind_contextvars(type=method.name, version=str(version))
        caller = call = None
        try:
            caller = entrance.client(request, version)
            found = replace(
                limits,
                token_authorizes=authorizes(caller.facts, version),
                extension=caller.selection.extension,
            )
            _check_offered(method, caller)
            call = method.read(read_body(await request.body()), found)
            check_scope(caller.facts, call, version)
            if isinstance(call, SignHash) and call.sad is not None:
                entrance.check_sad(call.sad, caller)
            answer = method.write(call, await actions[type(call)](caller, call), found)
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
        if isinstance(answer, Told):
            return _answered(request, answer.status, json.dumps(answer.members).encode())
        return _answered(request, HTTPStatus.OK, json.dumps(answer).encode())

    return endpoint


def _check_offered(method: Method, caller: Caller) -> None:
    """Raise where the operator keeps our extension off: then its methods are not there at all."""
    if method.extension and not caller.selection.extension:
        raise CSCError(UNKNOWN_METHOD)


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


def _refused_error(request: Request, error: CSCError) -> Response:
    return _refused(request, error.refusal)


def _refused(request: Request, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    said = {"error": refusal.error}
    if refusal.description:
        said["error_description"] = refusal.description
    sent = dict(headers or {}) | challenge(request, refusal.status, refusal.error)
    if refusal.retry_after_s is not None:
        sent["Retry-After"] = str(refusal.retry_after_s)
    structlog.contextvars.bind_contextvars(outcome=refusal.error)
    return _answered(request, refusal.status, json.dumps(said).encode(), sent)


def _answered(request: Request, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    sent = dict(headers or {})
    if "x-request-id" not in request.headers:  # the edge echoes one that was given
        sent["X-Request-ID"] = operation.current().operation_id
    media_type = "application/json" if body else None
    return Response(body, status_code=int(status), headers=sent, media_type=media_type)

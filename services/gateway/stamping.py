"""RFC 3161 over plain HTTP at a virtual service: who may come, how often, and the way of one query.

For clients that know no CSC: `openssl ts`, jarsigner, pyHanko. They bring no token; the operator names their networks.
"""

from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address
from time import monotonic

import structlog
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import settings, tsp
from services.gateway.entrance import Registries
from services.gateway.handlers import Handlers
from services.gateway.limits import Buckets
from services.gateway.refusals import FOREIGN_ADDRESS, LONG_QUERY, NO_QUERY, UNKNOWN_SERVICE, CSCError
from services.gateway.selection import Selection
from shared.errors import RakkanError
from shared.messaging import operation
from shared.registry import VirtualService

log = structlog.get_logger(__name__)

PATH = "/s/{service}/tsa"
Refuse = Callable[[Request, CSCError], Response]


class Stamping:
    """Lets in addresses of a service's networks, on behalf of the one tenant that answers for them."""

    def __init__(self, handlers: Handlers, registries: Registries, limits: settings.Limits) -> None:
        self._handlers = handlers
        self._registries = registries
        self._query_bytes_max = limits.timestamp_query_bytes_max
        self._addresses = Buckets(
            per_s=limits.timestamps_per_s, burst=limits.timestamps_burst, callers_max=limits.callers_max
        )

    async def answer(self, request: Request) -> bytes:
        """A TimeStampResp, which may say no; CSCError when it does not come to that."""
        selection, service = self._enter(request)
        query = await self._query(request)
        try:
            asked = tsp.read_query(query)
            token = await self._handlers.stamp(
                asked,
                selection.default_timestamps,
                tenant_id=service.stamps_for,
                client_id=f"service:{selection.service_name}",
            )
        except tsp.RejectionError as rejection:
            structlog.contextvars.bind_contextvars(outcome="rejected")
            return tsp.rejected(rejection.failure, rejection.text)
        except RakkanError as error:
            log.info("query rejected", operation=operation.current().operation_id, code=error.code, detail=error.detail)
            structlog.contextvars.bind_contextvars(outcome=error.code)
            return tsp.rejected(*tsp.failure_of(error.code))
        return tsp.granted(token.token)

    def _enter(self, request: Request) -> tuple[Selection, VirtualService]:
        host = request.client.host if request.client else ""
        self._addresses.take(host, now_s=monotonic())
        registry, name = self._registries.current, request.path_params["service"]
        service = registry.services.get(name)
        if service is None or not service.timestamp_networks:
            raise CSCError(UNKNOWN_SERVICE)
        if not _is_in(host, service):
            raise CSCError(FOREIGN_ADDRESS)
        structlog.contextvars.bind_contextvars(type="tsa", service=name, tenant_id=service.stamps_for)
        return Selection(registry, name, service.stamps_for), service

    async def _query(self, request: Request) -> bytes:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != tsp.QUERY:
            raise CSCError(NO_QUERY)
        body = await request.body()
        if len(body) > self._query_bytes_max:
            raise CSCError(LONG_QUERY)
        return body


def _is_in(host: str, service: VirtualService) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in service.networks)


def endpoint_of(stamping: Stamping, refused: Refuse) -> Callable[[Request], Awaitable[Response]]:
    """What the application routes to; `refused` writes a refusal as everywhere else at this door."""

    async def timestamp(request: Request) -> Response:
        try:
            reply = await stamping.answer(request)
        except CSCError as error:
            return refused(request, error)
        return Response(reply, media_type=tsp.REPLY)

    return timestamp

"""Base URLs: `/s/<service>` before `/csc` is taken for what it is, so that one table of paths serves every service.

What is left for the table is the path behind it (`root_path` of ASGI); the URL that the client called stays whole.
"""

import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

_BASE = re.compile(r"(/s/([^/]+))/csc/")
_SERVICE = "rakkan.service"


class Bases:
    """ASGI around an application. Whether there is such a service is not asked here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _BASE.match(scope["path"])
        if found is not None:
            scope = {**scope, "root_path": found[1], _SERVICE: found[2]}
        await self._app(scope, receive, send)


def service_of(request: Request) -> str | None:
    """The virtual service that the base URL names."""
    name: str | None = request.scope.get(_SERVICE)
    return name

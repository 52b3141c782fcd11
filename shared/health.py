"""The side port of a room: `/healthz`, `/readyz`, `/metrics` and public pages of the room. Never the partners' door."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from shared.settings import HealthDoor

log = structlog.get_logger()

Check = Callable[[], Awaitable[object]]
Page = Callable[[], Coroutine[Any, Any, bytes]]

_ANSWER_S = 3.0


class Health:
    """What is asked when somebody wants to know whether the room can work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._checks: dict[str, Check] = {}
        self._pages: dict[str, tuple[str, Page]] = {}
        self._draining = False

    def check(self, name: str, check: Check) -> None:
        """Readiness needs this; it raises when it is bad."""
        self._checks[name] = check

    def page(self, path: str, content_type: str, page: Page) -> None:
        """A public page on the side port, such as a CRL."""
        self._pages[path] = (content_type, page)

    def draining(self) -> None:
        """From now on not ready: the load balancer shall send nothing new."""
        self._draining = True

    async def faults(self) -> dict[str, str]:
        """What is not ready, and why. Empty when all is well."""
        if self._draining:
            return {"room": "draining"}
        names = list(self._checks)
        results = await asyncio.gather(
            *(asyncio.wait_for(self._checks[name](), _ANSWER_S) for name in names), return_exceptions=True
        )
        return {
            name: f"{type(result).__name__}: {result}"[:200]
            for name, result in zip(names, results, strict=True)
            if isinstance(result, BaseException)
        }

    @asynccontextmanager
    async def door(self, settings: HealthDoor) -> AsyncIterator[int]:
        """Serve the side port; yields its number. A thread of its own, so that a stuck room is seen as stuck."""
        server = ThreadingHTTPServer((settings.host, settings.port), _handler(self, asyncio.get_running_loop()))
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            await asyncio.to_thread(server.shutdown)
            server.server_close()

    async def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a GET."""
        if path == "/healthz":
            return 200, "text/plain; charset=utf-8", b"alive\n"
        if path == "/readyz":
            faults = await self.faults()
            return (503 if faults else 200), "application/json", json.dumps({"faults": faults}).encode() + b"\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path in self._pages:
            content_type, page = self._pages[path]
            return 200, content_type, await page()
        return 404, "text/plain; charset=utf-8", b"nothing here: try /healthz, /readyz or /metrics\n"


def _handler(health: Health, loop: asyncio.AbstractEventLoop) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            answer = asyncio.run_coroutine_threadsafe(health.answer(self.path), loop)
            try:
                status, content_type, body = answer.result(_ANSWER_S + 2)
            except Exception as fault:  # noqa: BLE001  # the edge: a page that fails must not end the side port
                answer.cancel()
                log.warning("side port failed", path=self.path[:100], why=type(fault).__name__)
                status, content_type, body = 500, "text/plain; charset=utf-8", b"the room does not answer\n"
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            with suppress(ConnectionError):  # who asked has hung up
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes come every few seconds and say nothing new."""

    return Handler

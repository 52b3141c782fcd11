"""A second process of a room beside the stack's own: for rolling restarts, other settings, and exit statuses."""

import asyncio
import json
import secrets
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deploy.local.home import CHECKOUT
from deploy.local.program import MARK
from deploy.local.stack import Stack

DOORS = ("gateway", "authentication")


@dataclass(frozen=True)
class Replica:
    process: asyncio.subprocess.Process
    health_url: str
    url: str
    """Of its door, where the room has one."""

    @classmethod
    @asynccontextmanager
    async def started(cls, stack: Stack, room: str, more: Mapping[str, str] | None = None) -> AsyncIterator["Replica"]:
        """Ready when entered; ended when left, if it still runs."""
        name = f"{room}-{secrets.token_hex(3)}"
        ports = {kind: str(stack.ports[f"{name} {kind}"]) for kind in ("health", "http")}
        environment = stack.rooms.environment(room) | {"RAKKAN_HEALTH__PORT": ports["health"], MARK: str(stack.folder)}
        if room in DOORS:
            environment["RAKKAN_HTTP__PORT"] = ports["http"]
        with (stack.folder / "logs" / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{room}",
                env=environment | dict(more or {}),
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
                **stack.rooms.account.identity(),
            )
        replica = cls(process, f"http://127.0.0.1:{ports['health']}", f"http://127.0.0.1:{ports['http']}")
        try:
            await replica._until_ready()
            yield replica
        finally:
            if process.returncode is None:
                await replica.end()

    async def end(self) -> int:
        """SIGTERM; the exit status once it has ended by itself."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), 60)
        except TimeoutError:
            self.process.kill()
            raise

    async def _until_ready(self) -> None:
        async with asyncio.timeout(60):
            while await asyncio.to_thread(_faults, self.health_url) != {}:
                assert self.process.returncode is None
                await asyncio.sleep(0.05)


def _faults(health_url: str) -> object:
    try:
        with urllib.request.urlopen(f"{health_url}/readyz", timeout=5) as answer:  # noqa: S310 - our own loopback URL
            return json.load(answer)["faults"]
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except OSError:
        return None

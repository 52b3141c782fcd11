"""How a room holds the registry: read and checked at the start, looked at again while it runs, never half changed.

A registry that is not signed, not whole or older than the one in use is refused aloud, and the one in use stays.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import structlog
from prometheus_client import CollectorRegistry, Gauge

from shared.errors import Code, RakkanError
from shared.registry.model import Registry
from shared.registry.signing import read_registry
from shared.settings import RegistryFiles, SettingsError, secret
from shared.trust import Trust

log = structlog.get_logger()

Listener = Callable[[Registry], Awaitable[None]]


class RegistrySource:
    """`current` is always a registry that was checked whole. Listeners hear of each new one before it becomes current.

    A listener that raises RakkanError refuses the new registry: a room that could not work by it stays with the old.
    """

    def __init__(self, files: RegistryFiles, trust: Trust, figures: CollectorRegistry | None = None) -> None:
        """`figures` is the room's own page of metrics."""
        page = CollectorRegistry() if figures is None else figures
        self._version = Gauge("rakkan_registry_version", "Version of the registry in use", registry=page)
        self._refused = Gauge("rakkan_registry_refused", "1 while its file is refused here", registry=page)
        self._files = files
        self._trust = trust
        self._listeners: list[Listener] = []
        self._seen: tuple[bytes, bytes] = (b"", b"")
        self._watching: asyncio.Task[NoReturn] | None = None
        self.current = self._load()
        self._use(self.current)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def secret(self, name: str) -> str:
        """The secret that the registry calls by this name, from this room's own folder. Raises SettingsError."""
        return secret(self.secret_file(name))

    def secret_file(self, name: str) -> Path:
        if self._files.secrets_folder is None:
            raise SettingsError(f"the registry names the secret {name}, but REGISTRY__SECRETS_FOLDER is not set")
        if not name or Path(name).name != name or name.startswith("."):
            raise SettingsError(f"{name!r} is not the name of a secret")
        return self._files.secrets_folder / name

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watch while the context lasts; `check` then says whether it does."""
        self._watching = asyncio.create_task(self.watch(), name="registry")
        try:
            yield
        finally:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def check(self) -> None:
        """Raise when the file is no longer watched, for the room's readiness."""
        if self._watching is not None and self._watching.done():
            self._watching.result()

    async def watch(self) -> NoReturn:
        while True:
            await asyncio.sleep(self._files.reload_s)
            await self.reload()

    async def reload(self) -> bool:
        """Take up a changed registry; true when one was. What is wrong with a new one is logged, once for each."""
        try:
            content = self._read()
            if content == self._seen:
                return False
            self._seen = content
            new = read_registry(*content, self._trust.registry)
            self._check_newer(new)
            for listener in self._listeners:
                await listener(new)
        except (RakkanError, SettingsError, OSError) as fault:
            self._refused.set(1)
            log.error("registry refused", why=str(fault), in_use=self.current.version)  # noqa: TRY400 - an expected fault
            return False
        self.current = new
        self._use(new)
        log.info("registry in use", version=new.version)
        return True

    def _check_newer(self, new: Registry) -> None:
        if new.version <= self.current.version and new != self.current:
            raise RakkanError(Code.CONFLICT, f"version {new.version} is not above {self.current.version}")

    def _load(self) -> Registry:
        try:
            self._seen = self._read()
            return read_registry(*self._seen, self._trust.registry)
        except OSError as fault:
            raise SettingsError(f"the registry cannot be read: {fault}") from None
        except RakkanError as refusal:
            raise SettingsError(f"{self._files.file}: {refusal.detail}") from None

    def _read(self) -> tuple[bytes, bytes]:
        return self._files.file.read_bytes(), self._files.signatures_file.read_bytes()

    def _use(self, registry: Registry) -> None:
        self._version.set(registry.version)
        self._refused.set(0)

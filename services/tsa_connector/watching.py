"""What is done without being asked: a changed registry taken up, TSAs that rest looked after, figures kept true."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import NoReturn, Protocol

import structlog

from services.tsa_connector.memory import Memories, Memory, State
from shared.errors import Code, RakkanError
from shared.registry import Registry, TimeStampingAuthority
from shared.registry.model import Quota

log = structlog.get_logger()

TSAs = Mapping[str, TimeStampingAuthority]
_FIGURES_S = 15.0
_FORGET_S = 600.0


class Client(Protocol):
    async def connect(self) -> None: ...


class Clients(Protocol):
    def of(self, name: str) -> Client: ...

    def use(self, tsas: TSAs) -> None: ...


class Readers(Protocol):
    @property
    def restarts(self) -> int: ...

    def use(self, tsas: TSAs) -> None: ...


class Store(Protocol):
    async def left(self, quotas: Mapping[str, Sequence[Quota]]) -> dict[str, tuple[int, ...]]: ...

    async def forget_old(self) -> None: ...


class Metrics(Protocol):
    def stands(self, name: str, memory: Memory, state: State) -> None: ...

    def left(self, tsas: TSAs, left: Mapping[str, tuple[int, ...]]) -> None: ...

    def own_clock(self, offset_s: float | None) -> None: ...

    def readers(self, restarts: int) -> None: ...

    def forget(self, name: str) -> None: ...


class Watch:
    def __init__(
        self,
        *,
        registry: Registry,
        clients: Clients,
        readers: Readers,
        store: Store,
        memories: Memories,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._tsas: TSAs = registry.time_stamping_authorities
        self._clients = clients
        self._readers = readers
        self._store = store
        self._memories = memories
        self._metrics = metrics
        self._now = now

    async def take_up(self, registry: Registry) -> None:
        """A new registry. What was remembered of an entry that officers changed is forgotten: it may be mended."""
        new = registry.time_stamping_authorities
        self._clients.use(new)
        self._readers.use(new)
        for name, former in self._tsas.items():
            if new.get(name) != former:
                self._memories.forget(name)
                self._metrics.forget(name)
        self._tsas = new

    async def check_clock(self) -> None:
        """UNAVAILABLE while most TSAs say that our own clock is off."""
        own_s = self._memories.sightings.own_offset_s(self._now())
        if own_s is not None:
            raise RakkanError(Code.UNAVAILABLE, f"most TSAs say that our own clock is off by {own_s:+.0f} s")

    async def run(self, *, every_s: float) -> NoReturn:
        figures_at = forget_at = 0.0
        while True:
            await self.look()
            try:
                if monotonic() >= figures_at:
                    figures_at = monotonic() + _FIGURES_S
                    await self._count()
                if monotonic() >= forget_at:
                    forget_at = monotonic() + _FORGET_S
                    await self._store.forget_old()
            except RakkanError as trouble:
                log.warning("figures not kept", why=str(trouble))
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Knock at those whose rest is over: only who lets us connect is given a request again."""
        now = self._now()
        waiting = [name for name in self._tsas if self._memories.of(name).wants_connecting(now)]
        await asyncio.gather(*(self._knock(name) for name in waiting))
        for name, condition in self._memories.conditions(self._tsas, now=self._now()).items():
            self._metrics.stands(name, self._memories.of(name), condition.state)
        self._metrics.own_clock(self._memories.sightings.own_offset_s(now))
        self._metrics.readers(self._readers.restarts)

    async def _knock(self, name: str) -> None:
        try:
            await self._clients.of(name).connect()
        except RakkanError as fault:
            now, why = self._now(), fault.detail
            self._memories.change(name, lambda memory: memory.was_away(None, why, now=now))
            return
        self._memories.change(name, Memory.connected)

    async def _count(self) -> None:
        tsas = self._tsas
        self._metrics.left(tsas, await self._store.left({name: tsa.quotas for name, tsa in tsas.items()}))

"""RSA keys made in advance, while nobody waits for the HSM. They belong to nobody until the SAM orders a key."""

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol

import structlog

from services.svg.wrapping import NewKey
from shared.algorithms import KeyAlgorithm
from shared.errors import RakkanError

log = structlog.get_logger()


class Store(Protocol):
    async def count_pooled(self, algorithm: KeyAlgorithm, kek: str) -> int: ...
    async def add_pooled(self, algorithm: KeyAlgorithm, new: NewKey) -> None: ...


class Token(Protocol):
    async def generate(self, algorithm: KeyAlgorithm) -> NewKey: ...


class KeyPool:
    """Fills the pool up to its targets, one key at a time, each after a while without work."""

    def __init__(
        self,
        *,
        store: Store,
        token: Token,
        kek: str,
        targets: Mapping[KeyAlgorithm, int],
        idle_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._store = store
        self._token = token
        self._kek = kek
        self._targets = {algorithm: target for algorithm, target in targets.items() if target > 0}
        self._idle_s = idle_s
        self._clock = clock
        self._last_work = clock()

    def work_began(self) -> None:
        """Somebody needs the HSM now."""
        self._last_work = self._clock()

    async def keep_filled(self) -> None:
        """Never ends. Trouble with the HSM or the database is theirs to report: the pool just waits."""
        while self._targets:
            await asyncio.sleep(self._idle_s)
            if self._clock() - self._last_work < self._idle_s:
                continue
            try:
                await self.fill_one()
            except RakkanError as trouble:
                log.warning("key pool not filled", code=trouble.code, detail=trouble.detail)

    async def fill_one(self) -> KeyAlgorithm | None:
        """Make the first key that is missing; None when the pool is full."""
        for algorithm, target in self._targets.items():
            if await self._store.count_pooled(algorithm, self._kek) < target:
                await self._store.add_pooled(algorithm, await self._token.generate(algorithm))
                log.info("key pooled", algorithm=algorithm)
                return algorithm
        return None

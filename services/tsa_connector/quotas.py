"""Spending of the TSAs' quotas, before anybody is asked. All replicas spend from the same counts, in the database."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from services.tsa_connector.batching import Batching
from services.tsa_connector.store import Spent
from shared.registry import TimeStampingAuthority
from shared.registry.model import Quota

_TOGETHER_MAX = 256


class Store(Protocol):
    async def spend(self, authority: str, quotas: Sequence[Quota], *, wanted: int) -> Spent: ...


class Quotas:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._batches: dict[tuple[str, tuple[Quota, ...]], Batching[None, int | None]] = {}

    async def spend(self, name: str, tsa: TimeStampingAuthority) -> int | None:
        """The second in which one request was counted; nothing when a quota is used up. Whoever has none is free: 0."""
        if not tsa.quotas:
            return 0
        batch = self._batches.get((name, tsa.quotas))
        if batch is None:
            batch = Batching(partial(self._spend, name, tsa.quotas), items_max=_TOGETHER_MAX)
            self._batches[name, tsa.quotas] = batch
        return await batch.do(None)

    async def _spend(self, name: str, quotas: tuple[Quota, ...], wanted: Sequence[None]) -> Sequence[int | None]:
        spent = await self._store.spend(name, quotas, wanted=len(wanted))
        return [spent.second] * spent.granted + [None] * (len(wanted) - spent.granted)

"""Work that is cheaper together: while one round is under way, the next gathers. Knows no database."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from shared.errors import Code, RakkanError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

Work = Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]]


class Batching(Generic[Item, Outcome]):
    """One round at a time; a lone item waits for nobody."""

    def __init__(self, work: Work[Item, Outcome], *, items_max: int) -> None:
        self._work = work
        self._items_max = items_max
        self._waiting: list[tuple[Item, asyncio.Future[Outcome]]] = []
        self._working: asyncio.Task[None] | None = None

    async def do(self, item: Item) -> Outcome:
        """What came of this item; the refusal of its round is the refusal of each in it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._rounds(), name="batch")
        # A caller who gives up leaves its item in the round: it may be under way.
        return await future

    async def _rounds(self) -> None:
        while self._waiting:
            now, self._waiting = self._waiting[: self._items_max], self._waiting[self._items_max :]
            is_told = False
            try:
                outcomes = await self._work([item for item, _ in now])
                for (_, future), outcome in zip(now, outcomes, strict=True):
                    if not future.done():
                        future.set_result(outcome)
                is_told = True
            except RakkanError as refusal:
                _refuse([future for _, future in now], refusal)
                is_told = True
            finally:
                if not is_told:  # a bug, or the end of the room: nobody is left waiting for it
                    now, self._waiting = now + self._waiting, []
                    _refuse([future for _, future in now], RakkanError(Code.INTERNAL, "the round failed"))


def _refuse(futures: "Sequence[asyncio.Future[Outcome]]", refusal: RakkanError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(refusal)

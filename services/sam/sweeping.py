"""Looks after what got stuck: enrollments and endings whose job was lost, refusals that may be forgotten."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

import asyncpg
import structlog

from services.sam.rows import State
from shared.contracts.base import Job
from shared.contracts.sam import EndCredential, PrepareCredential
from shared.database import Connection
from shared.errors import RakkanError
from shared.messaging import operation, outbox

log = structlog.get_logger()

_EVERY_S = 5.0
_CHORE_S = 60.0
_KEPT_AFTER_EXPIRY = timedelta(hours=1)
_STUCK_AFTER = timedelta(seconds=30)


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def touch_stuck(self, connection: Connection, *, older: timedelta) -> list[tuple[str, State]]: ...

    async def forget_tokens(self, *, now: datetime) -> None: ...

    async def forget_challenges(self, *, before: datetime) -> None: ...

    async def forget_contexts(self, *, before: datetime) -> None: ...


Chore = Callable[[], Awaitable[None]]


async def sweep(store: Store, *, now: Callable[[], datetime], chores: Sequence[Chore] = ()) -> None:
    """Run until cancelled. The jobs go out again under the same message id: a double is harmless.

    What fails is left for the next round, and keeps nothing else waiting.
    """
    while True:
        try:
            with operation.begin("sam", timeout_s=_EVERY_S):
                async with store.transaction() as connection:
                    for credential_id, state in await store.touch_stuck(connection, older=_STUCK_AFTER):
                        await _repost(connection, credential_id, state)
                await store.forget_tokens(now=now())
                await store.forget_challenges(before=now() - _KEPT_AFTER_EXPIRY)
                await store.forget_contexts(before=now() - _KEPT_AFTER_EXPIRY)
        except (asyncpg.PostgresError, RakkanError) as trouble:
            log.warning("sweep failed", why=str(trouble))
        for chore in chores:
            await _do(chore)
        await asyncio.sleep(_EVERY_S)


async def _do(chore: Chore) -> None:
    try:
        with operation.begin("sam", timeout_s=_CHORE_S):
            await chore()
    except (asyncpg.PostgresError, RakkanError) as trouble:
        log.warning("sweep failed", chore=getattr(chore, "__name__", ""), why=str(trouble))


async def _repost(connection: Connection, credential_id: str, state: State) -> None:
    ending = state in (State.ENDED, State.REFUSED)
    job: Job = EndCredential(credential_id=credential_id) if ending else PrepareCredential(credential_id=credential_id)
    await outbox.post(connection, job, message_id=f"{'end' if ending else 'prepare'}:{credential_id}")
    log.info("stuck step taken up again", credential_id=credential_id, state=state)

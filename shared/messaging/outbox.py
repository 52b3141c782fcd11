"""Jobs promised in a transaction, and the table they wait in. `shared.messaging.rabbitmq` relays them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shared.contracts.base import Job
from shared.database import Connection, Pool
from shared.messaging import operation

_POST = """
    insert into outbox (message_id, type, operation_id, body) values ($1, $2, $3, $4)
    on conflict (message_id) do nothing
"""
_TAKE = """
    select message_id, type, operation_id, body from outbox order by posted_at limit $1 for update skip locked
"""
_DELETE = "delete from outbox where message_id = any($1)"


@dataclass(frozen=True, slots=True)
class Posted:
    """A job as it waits: the body is the JSON that will be sealed when it is sent."""

    message_id: str
    type: str
    operation_id: str
    body: bytes


async def post(connection: Connection, job: Job, *, message_id: str) -> None:
    """Promise a job, in the caller's transaction. The same message id again is the same promise."""
    body = job.model_dump_json().encode()
    await connection.execute(_POST, message_id, job.TYPE, operation.current().operation_id, body)


class Outbox:
    """The waiting jobs of one room."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def take(self, jobs_max: int) -> AsyncIterator[tuple[list[Posted], list[str]]]:
        """Some jobs, locked, and a list to put the ids of those in that the broker confirmed: they are deleted."""
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(_TAKE, jobs_max)
            confirmed: list[str] = []
            yield [Posted(*row) for row in rows], confirmed
            if confirmed:
                await connection.execute(_DELETE, confirmed)

"""The open orders of an authority that works by files, and the orders of a key. Foreign errors stop here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from services.ca_connector.orders import Order
from services.ca_connector.store import ORDER, order_of
from shared.audit import AuditWriter
from shared.database import Connection, Pool, reachable
from shared.messaging import operation

_OPEN = f"""
    select {ORDER} from orders
    where authority = $1 and order_id > $2 and state in ('PENDING', 'UNKNOWN')
    order by order_id limit $3
"""
_RENEWED = f"select {ORDER} from orders where order_id = any($1)"
_OF_KEY = f"""
    select {ORDER} from orders
    where authority = $1 and key_hash = $2 and state <> 'REJECTED' order by submitted_at desc
"""


class BatchStore:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    async def export(self, authority: str, *, after: str, orders_max: int) -> list[Order]:
        """Open orders by their ids, each with the one it takes over from. That they left is noted."""
        async with self._transaction() as connection:
            rows = await connection.fetch(_OPEN, authority, after, orders_max)
            wanted = [row["renews"] for row in rows if row["renews"] is not None]
            found = {row["order_id"]: order_of(row) for row in await connection.fetch(_RENEWED, wanted)}
            await self._audit.write(
                connection,
                "requests.exported",
                actor_type="room",
                actor_id=operation.current().caller,
                subject={"authority": authority, "after": after, "requests": str(len(rows))},
            )
            return [replace(order_of(row), previous=found.get(row["renews"])) for row in rows]

    async def of_key(self, authority: str, key_hash: bytes) -> list[Order]:
        """Those that were not rejected, the latest first."""
        async with self._transaction() as connection:
            return [order_of(row) for row in await connection.fetch(_OF_KEY, authority, key_hash)]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

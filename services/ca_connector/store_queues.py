"""What is due at which authority, in the database, so that any number of processes share the work of each.

Whoever claims something has it until its lease ends. A quota counts what all of them asked.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg

from services.ca_connector.orders import Order, Revocation, State
from services.ca_connector.store import COLUMNS, ORDER, REVOCATION, order_of
from shared.database import Connection, Pool, reachable
from shared.registry.model import Quota

# `due` says what stood there before: an order that was being placed already must be looked at with care.
_CLAIM = f"""
    update orders set due_at = $2::timestamptz + $3::interval,
        asked_at = case when state = 'SUBMITTED' then $2::timestamptz end
    from (
        select order_id as due_id, asked_at is not null as asked_before from orders
        where authority = $1 and due_at <= $2 and state = any($5)
            and (state in ('SUBMITTED', 'PENDING') or confirm_due)
        order by due_at limit $4 for update skip locked
    ) as due
    where order_id = due_id
    returning {COLUMNS}, due.asked_before
"""
_RENEWED = f"select {ORDER} from orders where order_id = any($1)"
_CLAIM_REVOCATIONS = f"""
    update revocations set due_at = $2::timestamptz + $3::interval
    where order_id in (
        select revocations.order_id from revocations join orders using (order_id)
        where authority = $1 and revoked_at is null and cardinality(chain) > 0 and revocations.due_at <= $2
        order by revocations.due_at limit $4 for update of revocations skip locked
    )
    returning {REVOCATION}
"""
_ONE_ASKS_AT_A_TIME = "select pg_advisory_xact_lock(hashtext('quota'), hashtext($1))"
_FORGET = "delete from askings where authority = $1 and asked_at <= $2"
_ASKED = "select count(*) from askings where authority = $1 and asked_at > $2"
_ASK = "insert into askings (authority, asked_at) select $1, $2 from generate_series(1, $3::integer)"


_NEW = [State.SUBMITTED]
_UNDER_WAY = [State.PENDING, State.CONFIRMED, State.REJECTED]


class QueueStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(
        self, authority: str, *, now: datetime, lease: timedelta, orders_max: int, quotas: tuple[Quota, ...]
    ) -> list[Order]:
        """Orders to place, to poll and to confirm, as many as may be begun; the longest due first."""
        async with self._transaction() as connection:
            if not quotas:
                rows = await connection.fetch(_CLAIM, authority, now, lease, orders_max, [*_NEW, *_UNDER_WAY])
            else:
                rows = await self._claim_within(connection, authority, now, lease, orders_max, quotas)
            return await _with_renewed(connection, rows)

    async def claim_open(self, authority: str, *, now: datetime, lease: timedelta, orders_max: int) -> list[Order]:
        """Only what is under way, for an authority that takes no new orders."""
        async with self._transaction() as connection:
            rows = await connection.fetch(_CLAIM, authority, now, lease, orders_max, _UNDER_WAY)
            return await _with_renewed(connection, rows)

    async def claim_revocations(
        self, authority: str, *, now: datetime, lease: timedelta, orders_max: int
    ) -> list[Revocation]:
        """Revocations that have not been done though there is a certificate."""
        async with self._transaction() as connection:
            rows = await connection.fetch(_CLAIM_REVOCATIONS, authority, now, lease, orders_max)
            return [Revocation(*row) for row in rows]

    async def _claim_within(
        self,
        connection: Connection,
        authority: str,
        now: datetime,
        lease: timedelta,
        orders_max: int,
        quotas: tuple[Quota, ...],
    ) -> list[asyncpg.Record]:
        await connection.execute(_ONE_ASKS_AT_A_TIME, authority)
        longest = max(quota.seconds for quota in quotas)
        await connection.execute(_FORGET, authority, now - timedelta(seconds=longest))
        free = orders_max
        for quota in quotas:
            asked = await connection.fetchval(_ASKED, authority, now - timedelta(seconds=quota.seconds))
            free = min(free, quota.requests - asked)
        # What is under way costs no quota and waits for none.
        rows = await connection.fetch(_CLAIM, authority, now, lease, orders_max, _UNDER_WAY)
        free = min(free, orders_max - len(rows))
        if free > 0:
            new = await connection.fetch(_CLAIM, authority, now, lease, free, _NEW)
            await connection.execute(_ASK, authority, now, len(new))
            rows = [*rows, *new]
        return rows

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection


async def _with_renewed(connection: Connection, rows: Iterable[asyncpg.Record]) -> list[Order]:
    wanted = [row["renews"] for row in rows if row["renews"] is not None]
    found = {row["order_id"]: order_of(row) for row in await connection.fetch(_RENEWED, wanted)} if wanted else {}
    return [replace(order_of(row), previous=found.get(row["renews"])) for row in rows]

"""How things stand, in the database: for metrics, for the self-test, for an operator's tables. Changes nothing."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from shared.database import Connection, Pool, reachable

_OPEN = """
    select authority, state, count(*) as number, min(submitted_at) as oldest from orders
    where state in ('SUBMITTED', 'PENDING', 'UNKNOWN', 'ISSUED') group by authority, state
"""
_ENDED = """
    select authority, state, count(*) as number from orders
    where state in ('CONFIRMED', 'REJECTED') group by authority, state
"""
_REVOCATIONS = """
    select authority, count(*) as number from revocations join orders using (order_id)
    where revoked_at is null and cardinality(chain) > 0 group by authority
"""
_EXPIRING = """
    select authority, days, count(*) as number from orders, unnest($2::integer[]) as days
    where state = 'CONFIRMED' and status <> 'revoked' and expires_at > $1
        and expires_at <= $1::timestamptz + make_interval(days => days)
        and not exists (
            select 1 from orders as later where later.renews = orders.order_id and later.state = 'CONFIRMED'
        )
    group by authority, days
"""
_STATUS = """
    select authority, min(coalesce(status_checked_at, submitted_at)) as oldest from orders
    where state = 'CONFIRMED' and status <> 'revoked' and expires_at > $1
        and (crl_url is not null or ocsp_url is not null or authority = any($2))
    group by authority
"""
_LISTS = "select authority, url, number, next_update, fetched_at, trouble from status_lists order by authority, url"
_ORDERS = """
    select orders.order_id, authority, profile, state, serial_number, submitted_at, orders.due_at,
        coalesce(orders.reason, orders.trouble) as why, revocations.wanted_at as revocation_wanted_at,
        revocations.trouble as revocation_trouble
    from orders left join revocations on revocations.order_id = orders.order_id and revoked_at is null
    where ($1::text is null or authority = $1) and ($2::text is null or state = $2)
        and ($2 is not null or state in ('SUBMITTED', 'PENDING', 'UNKNOWN', 'ISSUED')
            or (revocations.order_id is not null and cardinality(chain) > 0))
    order by state <> 'UNKNOWN', submitted_at limit $3
"""


@dataclass
class Standing:
    """Of one CA."""

    orders: dict[str, int] = field(default_factory=dict)
    oldest: datetime | None = None
    """Of the orders that wait for the CA or for an operator."""
    revocations: int = 0
    expiring: dict[int, int] = field(default_factory=dict)
    status_of: datetime | None = None
    """Of the certificate whose status is the oldest."""


class StandingStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def standings(
        self, *, now: datetime, days: Sequence[int], with_ended: bool = False, lists_of: Sequence[str] = ()
    ) -> Mapping[str, Standing]:
        """Of each CA that has any order. `lists_of` are those whose list officers named."""
        found: dict[str, Standing] = {}

        def of(row: asyncpg.Record) -> Standing:
            return found.setdefault(row["authority"], Standing())

        async with self._transaction() as connection:
            for row in await connection.fetch(_OPEN):
                standing = of(row)
                standing.orders[row["state"]] = row["number"]
                if row["state"] != "ISSUED":
                    standing.oldest = min(standing.oldest or row["oldest"], row["oldest"])
            for row in await connection.fetch(_ENDED) if with_ended else ():
                of(row).orders[row["state"]] = row["number"]
            for row in await connection.fetch(_REVOCATIONS):
                of(row).revocations = row["number"]
            for row in await connection.fetch(_EXPIRING, now, list(days)):
                of(row).expiring[row["days"]] = row["number"]
            for row in await connection.fetch(_STATUS, now, list(lists_of)):
                of(row).status_of = row["oldest"]
        return found

    async def lists(self) -> list[dict[str, Any]]:
        async with self._transaction() as connection:
            return [dict(row) for row in await connection.fetch(_LISTS)]

    async def orders(self, *, authority: str | None, state: str | None, orders_max: int) -> list[dict[str, Any]]:
        """What has not ended, and what is still to be revoked; or those in one state. In doubt first, then oldest."""
        async with self._transaction() as connection:
            return [dict(row) for row in await connection.fetch(_ORDERS, authority, state, orders_max)]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction(readonly=True):
                yield connection


def age_s(since: datetime | None, *, now: datetime) -> float:
    return 0.0 if since is None else max(timedelta(), now - since).total_seconds()

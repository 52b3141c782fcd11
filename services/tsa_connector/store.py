"""All SQL of the TSA connector: what was spent of each TSA's quotas, and the audit leaves. Foreign errors stop here."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shared.audit import AuditWriter, Leaf
from shared.database import Connection, Pool, reachable
from shared.registry.model import Quota

_SPEND = "select granted, seconds from spend($1, $2, $3::integer[], $4::integer[])"
_LEFT = "select quota_left($1, $2::integer[], $3::integer[])"
_GIVE_BACK = "select give_back($1, $2)"
_FORGET = """
    delete from spending
    where (unit_s = 1 and slot < extract(epoch from now()) - 7200)
        or (unit_s = 60 and slot < (extract(epoch from now()) - 259200) / 60)
        or (unit_s = 3600 and slot < (extract(epoch from now()) - 31708800) / 3600)
"""


@dataclass(frozen=True)
class Spent:
    """Requests of one TSA that may be made now."""

    granted: int
    second: int
    """When, in unix time: what is given back is given back there."""


@dataclass(frozen=True)
class Entry:
    """What one request to this room leaves behind: its leaves, and what it did not need of a quota after all."""

    leaves: tuple[Leaf, ...]
    given_back: tuple[tuple[str, int], ...] = ()
    """TSA and the second it was spent in."""


class Store:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    async def spend(self, authority: str, quotas: Sequence[Quota], *, wanted: int) -> Spent:
        """As many of the wanted requests as every quota allows, counted for good."""
        with reachable():
            row = await self._pool.fetchrow(_SPEND, authority, wanted, *_columns(quotas))
        if row is None:
            raise LookupError("spend() gives a row")
        return Spent(row["granted"], row["seconds"])

    async def left(self, quotas: Mapping[str, Sequence[Quota]]) -> dict[str, tuple[int, ...]]:
        """What is left now of each quota of each of these TSAs."""
        with reachable():
            return {
                authority: tuple(await self._pool.fetchval(_LEFT, authority, *_columns(of_it)))
                for authority, of_it in quotas.items()
                if of_it
            }

    async def record(self, entries: Sequence[Entry]) -> None:
        """All of them durable, or none."""
        given_back = sorted(one for entry in entries for one in entry.given_back)
        async with self._transaction() as connection:
            if given_back:
                await connection.executemany(_GIVE_BACK, given_back)
            await self._audit.append(connection, [leaf for entry in entries for leaf in entry.leaves])

    async def forget_old(self) -> None:
        """What no quota reaches back to."""
        with reachable():
            await self._pool.execute(_FORGET)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection


def _columns(quotas: Sequence[Quota]) -> tuple[list[int], list[int]]:
    return [quota.requests for quota in quotas], [quota.seconds for quota in quotas]

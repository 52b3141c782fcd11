"""What every part of the store stands on: the pool, the seal, and rows turned into parameters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

import asyncpg

from services.sam.rows import RowSeal
from shared.database import Connection, Pool, reachable
from shared.errors import Code, RakkanError


class _Reads:
    """Statements outside a transaction. A database that is away is UNAVAILABLE: whoever asked may ask again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        with reachable():
            return await self._pool.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: object) -> asyncpg.Record | None:
        with reachable():
            return await self._pool.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: object) -> Any:
        with reachable():
            return await self._pool.fetchval(sql, *arguments)

    async def execute(self, sql: str, *arguments: object) -> None:
        with reachable():
            await self._pool.execute(sql, *arguments)


class StoreBase:
    """Reads outside a transaction go through the pool; changes take the connection of their transaction.

    A read inside a transaction takes its connection too: a second one for each would starve the pool.
    """

    def __init__(self, pool: Pool, seal: RowSeal) -> None:
        self._pool = pool
        self._reads = _Reads(pool)
        self._seal = seal

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection


def columns(row: type[Any]) -> str:
    return ", ".join(field.name for field in fields(row))


def places(row: type[Any]) -> str:
    """`$1, $2, …`, one for each column."""
    return ", ".join(f"${number}" for number, _ in enumerate(fields(row), 1))


def values(row: Any) -> tuple[object, ...]:
    found = (getattr(row, field.name) for field in fields(row))
    return tuple(list(value) if isinstance(value, tuple) else value for value in found)


def changed_one(status: str) -> None:
    if status != "UPDATE 1":
        raise RakkanError(Code.OVERLOADED, "changed by somebody else at the same moment")

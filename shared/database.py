"""The pool of one room's connections to PostgreSQL, and the migrations of every room. Knows no table of a room.

Every wait has an end: a black hole between us and the server costs seconds, not minutes.
"""

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg

from shared.errors import Code, RakkanError
from shared.settings import Database, secret

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_SHARED_SCHEMA = Path(__file__).parent / "schema"
_LOCK = 0x72616B6B616E  # "rakkan": one migration at a time, in the whole database


async def connect_pool(settings: Database, room: str) -> Pool:
    """A pool as the role of the room, that sees the schema of the room."""
    return await asyncpg.create_pool(
        host=settings.host,
        port=settings.port,
        database=settings.name,
        user=room,
        password=secret(settings.password_file),
        ssl=ssl.create_default_context(cafile=str(settings.ca_file)) if settings.ca_file else False,
        min_size=1,
        max_size=settings.connections_max,
        timeout=settings.connect_timeout_s,
        command_timeout=settings.command_timeout_s,
        reset=_leave_as_it_is,
        server_settings={
            "application_name": f"rakkan-{room}",
            "search_path": room,
            "statement_timeout": str(settings.statement_timeout_ms),
            "lock_timeout": str(settings.lock_timeout_ms),
            "idle_in_transaction_session_timeout": str(settings.idle_in_transaction_timeout_ms),
            "tcp_user_timeout": "10000",
            "timezone": "UTC",
            "jit": "off",
        },
    )


async def _leave_as_it_is(_: Connection) -> None:
    """Nothing to undo.

    asyncpg would ask the server to forget settings, cursors, channels and session locks at every release: a quarter of
    what an operation costs. No room leaves any of these behind, and an open transaction is rolled back before.
    """


_AWAY = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg raises when the server ended the connection at just that moment
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.DiskFullError,
)


@contextmanager
def reachable() -> Iterator[None]:
    """Around a store's statements: a database that is away, full or busy is UNAVAILABLE, the rest is a bug.

    After an UNAVAILABLE commit the outcome is unknown, so what is done must bear being asked for again.
    """
    try:
        yield
    except _AWAY as trouble:
        raise RakkanError(Code.UNAVAILABLE, f"the database: {type(trouble).__name__}") from None


async def migrate(connection: Connection, room: str, folder: Path) -> tuple[str, ...]:
    """Bring one room's schema up to date as the owner role `<room>_owner`; names of the files that ran.

    The shared files (audit, outbox) come first. A file that ran is never run again and may never be edited: a changed
    digest stops everything.
    """
    ran: list[str] = []
    owner = f"{room}_owner"
    files = [*sorted(_SHARED_SCHEMA.glob("*.sql")), *sorted(folder.glob("*.sql"))]
    await connection.execute("select pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(f'create schema if not exists "{room}" authorization "{owner}"')
        await connection.execute(f'grant usage on schema "{room}" to "{room}"')
        await connection.execute(
            f'create table if not exists "{room}".migrations '
            "(file text primary key, digest bytea not null, ran_at timestamptz not null default now())"
        )
        rows = await connection.fetch(f'select file, digest from "{room}".migrations')
        done: dict[str, bytes] = {row["file"]: row["digest"] for row in rows}
        for file in files:
            ran += await _run_once(connection, room, owner, file, done)
    finally:
        await connection.execute("select pg_advisory_unlock($1)", _LOCK)
    return tuple(ran)


async def _run_once(connection: Connection, room: str, owner: str, file: Path, done: dict[str, bytes]) -> list[str]:
    name = file.name if file.parent != _SHARED_SCHEMA else f"shared/{file.name}"
    sql = file.read_text(encoding="utf-8")
    digest = hashlib.sha256(sql.encode()).digest()
    if name in done:
        if done[name] != digest:
            raise RuntimeError(f"{room}: {name} was edited after it ran; write a new migration instead")
        return []
    async with connection.transaction():
        await connection.execute(f'set local role "{owner}"')
        await connection.execute(f'set local search_path = "{room}"')
        await connection.execute(sql.replace("$room", f'"{room}"'))
        await connection.execute("reset role")
        await connection.execute(f'insert into "{room}".migrations (file, digest) values ($1, $2)', name, digest)
    return [f"{room}: {name}"]

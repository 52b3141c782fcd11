"""`python -m deploy.postgres.migrate` brings roles and schemas up to date. Safe to run again, and by two at once.

Connects as an administrator: RAKKAN_DATABASE__HOST, __PORT, __NAME, __PASSWORD_FILE, __CA_FILE, RAKKAN_DATABASE_USER.
With RAKKAN_DATABASE_PASSWORDS_FOLDER each room's role gets the password in `<folder>/<room>/database_password`;
without it an operator gives one, or uses client certificates.
"""

import asyncio
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from shared.database import migrate
from shared.messaging.topology import ROOMS
from shared.settings import secret

_SERVICES = Path(__file__).parents[2] / "services"


def rooms_with_schema(services: Path = _SERVICES) -> tuple[str, ...]:
    return tuple(room for room in ROOMS if any((services / room / "schema").glob("*.sql")))


async def prepare(connection: asyncpg.Connection, passwords: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Roles, then the migrations of every room with a schema; what ran."""
    ran: list[str] = []
    for room in rooms_with_schema():
        await _make_role(connection, f"{room}_owner", "nologin")
        await _make_role(connection, room, "login")
        if passwords and room in passwords:
            await _set_password(connection, room, passwords[room])
        ran += await migrate(connection, room, _SERVICES / room / "schema")
    await connection.execute("revoke all on schema public from public")
    return tuple(ran)


async def _make_role(connection: asyncpg.Connection, role: str, may: str) -> None:
    exists = await connection.fetchval("select true from pg_roles where rolname = $1", role)
    if not exists:
        await connection.execute(f'create role "{role}" {may} nosuperuser nocreatedb nocreaterole noinherit')


async def _set_password(connection: asyncpg.Connection, role: str, password: str) -> None:
    # A statement of this kind takes no parameters; format() quotes for us.
    statement = await connection.fetchval(
        "select format('alter role %I password %L', $1::text, $2::text)", role, password
    )
    await connection.execute(statement)


async def _run() -> None:
    ca_file = os.environ.get("RAKKAN_DATABASE__CA_FILE")
    connection = await asyncpg.connect(
        host=os.environ.get("RAKKAN_DATABASE__HOST", "127.0.0.1"),
        port=int(os.environ.get("RAKKAN_DATABASE__PORT", "5432")),
        database=os.environ.get("RAKKAN_DATABASE__NAME", "rakkan"),
        user=os.environ.get("RAKKAN_DATABASE_USER", "postgres"),
        password=secret(Path(os.environ["RAKKAN_DATABASE__PASSWORD_FILE"])),
        ssl=ssl.create_default_context(cafile=ca_file) if ca_file else False,
        timeout=10.0,
    )
    try:
        for line in await prepare(connection, _passwords()):
            sys.stdout.write(f"{line}\n")
    finally:
        await connection.close()


def _passwords() -> dict[str, str]:
    folder = os.environ.get("RAKKAN_DATABASE_PASSWORDS_FOLDER")
    if not folder:
        return {}
    return {room: secret(Path(folder) / room / "database_password") for room in rooms_with_schema()}


if __name__ == "__main__":
    asyncio.run(_run())

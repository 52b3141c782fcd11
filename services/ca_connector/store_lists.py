"""The CRLs that an authority in this room publishes, in the database. One after the other, none lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import MakeCRL
from services.ca_connector.profile import RevokedCertificate
from shared.audit import AuditWriter
from shared.database import Connection, Pool, reachable

_ONE_CRL_AT_A_TIME = "select pg_advisory_xact_lock(hashtext('crl'), hashtext($1))"
_LIST = """
    insert into revoked_certificates (authority, serial_number, reason, revoked_at) values ($1, $2, $3, $4)
    on conflict (authority, serial_number) do nothing
    returning serial_number
"""
_LISTED = """
    select serial_number, reason, revoked_at from revoked_certificates
    where authority = $1 order by revoked_at, serial_number
"""
_LAST_NUMBER = "select coalesce(max(number), 0) from crls where authority = $1"
_PUBLISH = "insert into crls (authority, number, crl, this_update, next_update) values ($1, $2, $3, $4, $5)"
_LATEST_CRL = "select crl from crls where authority = $1 order by number desc limit 1"
_LATEST_CRL_TIMES = "select this_update, next_update from crls where authority = $1 order by number desc limit 1"


class ListStore:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    async def latest_crl(self, authority: str) -> bytes | None:
        async with self._transaction() as connection:
            der: bytes | None = await connection.fetchval(_LATEST_CRL, authority)
        return der

    async def latest_crl_times(self, authority: str) -> tuple[datetime, datetime] | None:
        async with self._transaction() as connection:
            row = await connection.fetchrow(_LATEST_CRL_TIMES, authority)
        return None if row is None else (row["this_update"], row["next_update"])

    async def publish_crl(
        self, authority: str, make: MakeCRL, *, now: datetime, revoked: RevokedCertificate | None = None
    ) -> None:
        """The next CRL, with one more certificate on it when there is one to add that is not on it yet."""
        async with self._transaction() as connection:
            await connection.execute(_ONE_CRL_AT_A_TIME, authority)
            if revoked is not None:
                entry = (authority, f"{revoked.serial_number:x}", revoked.reason, revoked.revoked_at)
                if await connection.fetchval(_LIST, *entry) is None:
                    return
            number = await connection.fetchval(_LAST_NUMBER, authority) + 1
            rows = await connection.fetch(_LISTED, authority)
            listed = tuple(RevokedCertificate(int(serial, 16), reason, at) for serial, reason, at in rows)
            crl = await make(number, listed, now)
            der = crl.public_bytes(Encoding.DER)
            await connection.execute(_PUBLISH, authority, number, der, crl.last_update_utc, crl.next_update_utc)
            await self._audit.write(
                connection,
                "crl.published",
                actor_type="room",
                actor_id="ca_connector",
                subject={"authority": authority, "number": str(number), "certificates": str(len(listed))},
            )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

"""What was read about certificates in use, in the database: lists, statuses, who was told. Any number may read."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.ca_connector.orders import Order
from services.ca_connector.store import ORDER, certificate_leaf, order_of
from shared.audit import AuditWriter
from shared.certificate_status import CertificateStatus, RevocationList
from shared.contracts.sam import NoteCertificateStatus
from shared.database import Connection, Pool, reachable
from shared.messaging import outbox

_EVIDENCE_BYTES_MAX = 120_000
"""What a message can carry beside all else; a longer list is told of without it."""

_IN_USE = "state = 'CONFIRMED' and status <> 'revoked' and expires_at > $2"
_GROUPS = f"""
    select distinct on (crl_url, issuer_id) crl_url, issuer_id, chain from orders
    where authority = $1 and {_IN_USE} and issuer_id is not null order by crl_url, issuer_id, submitted_at desc
"""
_SERIALS = f"""
    select order_id, serial_number, status from orders
    where authority = $1 and {_IN_USE} and issuer_id = $3 and ($4::text is null or crl_url = $4)
"""
_CLAIM_LIST = """
    insert into status_lists (authority, url, due_at) values ($1, $2, $3::timestamptz + $4::interval)
    on conflict (authority, url) do update set due_at = excluded.due_at where status_lists.due_at <= $3
    returning url
"""
_KEEP_LIST = """
    update status_lists set crl = $3, number = $4, this_update = $5, next_update = $6, delta = $7, fetched_at = $8,
        trouble = null
    where authority = $1 and url = $2
"""
_LIST_FAILED = "update status_lists set trouble = $3 where authority = $1 and url = $2"
_LAST_NUMBER = "select number from status_lists where authority = $1 and url = $2"
_CHECKED = f"""
    update orders set status_checked_at = $5
    where authority = $1 and {_IN_USE} and issuer_id = $3 and ($4::text is null or crl_url = $4)
"""
_CHANGE = """
    update orders set status = $2, status_checked_at = $3, status_told_at = $3
    where order_id = $1 and status not in ('revoked', $2)
    returning order_id
"""
_UNTOLD = f"""
    update orders set status_told_at = $2
    where order_id in (
        select order_id from orders
        where authority = $1 and {_IN_USE} and status = 'valid' and status_checked_at = $2
            and (status_told_at is null or status_told_at <= $2::timestamptz - $3::interval)
        order by status_told_at nulls first limit $4 for update skip locked
    )
    returning order_id
"""
_CHECKED_ONE = "update orders set status_checked_at = $2 where order_id = $1"
_CLAIM_ASKING = f"""
    update orders set status_due_at = $2::timestamptz + $3::interval
    where order_id in (
        select order_id from orders
        where authority = $1 and {_IN_USE} and status_due_at <= $2
            and ($4 or (crl_url is null and ocsp_url is not null))
        order by status_due_at limit $5 for update skip locked
    )
    returning {ORDER}
"""
_EXPIRING = f"""
    update orders set expiry_warned_at = $1
    where order_id in (
        select order_id from orders
        where state = 'CONFIRMED' and status <> 'revoked' and expires_at > $1
            and expires_at <= $1::timestamptz + $2::interval
            and (expiry_warned_at is null or expiry_warned_at < expires_at - $2::interval)
            and not exists (
                select 1 from orders as later where later.renews = orders.order_id and later.state = 'CONFIRMED'
            )
        order by expires_at limit $3 for update skip locked
    )
    returning {ORDER}
"""


@dataclass(frozen=True)
class Group:
    """Certificates in use of one issuer that name the same list, and one of them with its chain."""

    crl_url: str | None
    issuer_id: bytes
    chain: tuple[bytes, ...]


@dataclass(frozen=True)
class Known:
    """A certificate in use, as it was last known."""

    order_id: str
    serial_number: int
    status: str


class StatusStore:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    async def groups(self, authority: str, *, now: datetime) -> list[Group]:
        async with self._transaction() as connection:
            rows = await connection.fetch(_GROUPS, authority, now)
        return [Group(row["crl_url"], row["issuer_id"], tuple(row["chain"])) for row in rows]

    async def known(self, authority: str, issuer_id: bytes, url: str | None, *, now: datetime) -> list[Known]:
        """Those of an issuer; with a URL only those that name it."""
        async with self._transaction() as connection:
            rows = await connection.fetch(_SERIALS, authority, now, issuer_id, url)
        return [Known(row["order_id"], int(row["serial_number"], 16), row["status"]) for row in rows]

    async def claim_list(self, authority: str, url: str, *, now: datetime, every: timedelta) -> bool:
        """Whether the list is due, and the caller's to fetch."""
        async with self._transaction() as connection:
            return await connection.fetchval(_CLAIM_LIST, authority, url, now, every) is not None

    async def last_number(self, authority: str, url: str) -> int | None:
        """Of the list that was kept: an older one is nobody's status."""
        async with self._transaction() as connection:
            number = await connection.fetchval(_LAST_NUMBER, authority, url)
        return None if number is None else int(number)

    async def keep_list(self, authority: str, url: str, der: bytes, read: RevocationList, *, now: datetime) -> None:
        times = (read.this_update, read.next_update)
        is_delta = read.base_number is not None
        async with self._transaction() as connection:
            await connection.execute(_KEEP_LIST, authority, url, der, read.number, *times, is_delta, now)

    async def list_failed(self, authority: str, url: str, trouble: str) -> None:
        async with self._transaction() as connection:
            await connection.execute(_LIST_FAILED, authority, url, trouble[:255])

    async def checked(self, authority: str, issuer_id: bytes, url: str | None, *, now: datetime) -> None:
        """All certificates of the issuer that this list is about have been looked at."""
        async with self._transaction() as connection:
            await connection.execute(_CHECKED, authority, now, issuer_id, url, now)

    async def claim_askings(
        self, authority: str, *, now: datetime, every: timedelta, all_of_them: bool, orders_max: int
    ) -> list[Order]:
        """Certificates that an OCSP responder is to be asked about; without `all_of_them` those that name no list."""
        async with self._transaction() as connection:
            rows = await connection.fetch(_CLAIM_ASKING, authority, now, every, all_of_them, orders_max)
            return [order_of(row) for row in rows]

    async def reassure(
        self, authority: str, *, said_at: datetime, now: datetime, every: timedelta, orders_max: int
    ) -> None:
        """Tell the SAM of those found valid just now whose last news is so old, or it would stop believing them."""
        async with self._transaction() as connection:
            rows = await connection.fetch(_UNTOLD, authority, now, every, orders_max)
            for row in rows:
                await _tell(connection, row["order_id"], CertificateStatus("valid"), None, said_at=said_at, now=now)

    async def note(
        self, order_id: str, status: CertificateStatus, evidence: bytes, *, said_at: datetime, now: datetime
    ) -> bool:
        """Record what was said at that time, and tell the SAM when it is a change. Whether it was one."""
        async with self._transaction() as connection:
            if await connection.fetchval(_CHANGE, order_id, status.state, now) is None:
                await connection.execute(_CHECKED_ONE, order_id, now)
                return False
            await _tell(connection, order_id, status, evidence, said_at=said_at, now=now)
            facts = {"outcome": "success" if status.state == "valid" else "refused", "reason_code": status.reason}
            await certificate_leaf(connection, self._audit, f"certificate.{status.state}", order_id, **facts)
            return True

    async def expiring(self, *, now: datetime, within: timedelta, orders_max: int) -> Iterable[Order]:
        """Certificates in use that end so soon, that nothing renews, and that were not told of for it yet."""
        async with self._transaction() as connection:
            orders = [order_of(row) for row in await connection.fetch(_EXPIRING, now, within, orders_max)]
            for order in orders:
                await certificate_leaf(connection, self._audit, "certificate.expiring", order.order_id)
            return orders

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection


async def _tell(
    connection: Connection,
    order_id: str,
    status: CertificateStatus,
    evidence: bytes | None,
    *,
    said_at: datetime,
    now: datetime,
) -> None:
    job = NoteCertificateStatus(
        order_id=order_id,
        status=status.state,
        at=status.at or said_at,
        checked_at=said_at,
        evidence=evidence if evidence is not None and len(evidence) <= _EVIDENCE_BYTES_MAX else None,
    )
    await outbox.post(connection, job, message_id=f"status:{order_id}:{status.state}:{now:%Y%m%dT%H%M%S}")

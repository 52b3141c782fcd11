"""All SQL of the CA connector, jobs and audit leaves in the same transactions. Foreign errors stop here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import MakeCRL
from services.ca_connector.orders import Order, Revocation, State
from services.ca_connector.profile import RevokedCertificate
from shared.audit import AuditWriter
from shared.contracts.sam import AcceptCertificate, NoteCertificateStatus, RefuseOrder
from shared.database import Connection, Pool, reachable
from shared.errors import Code, RakkanError
from shared.messaging import operation, outbox

_ORDER = "order_id, authority, csr, operation_id, submitted_at as created_at, state, handle, not_before, chain, reason"
_REVOCATION = "order_id, reason, wanted_at, revoked_at"

_SUBMIT = f"""
    insert into orders (order_id, authority, csr, operation_id, submitted_at, attempted_at)
    values ($1, $2, $3, $4, $5, $5)
    on conflict (order_id) do nothing
    returning {_ORDER}
"""
_FIND = f"select {_ORDER} from orders where order_id = $1"
# Whoever saw the order in the state it still has may move it; a second one finds no row, and what it brings is dropped.
_MOVE = """
    update orders set state = $3, handle = $4, not_before = $5, chain = $6, serial_number = $7, reason = $8
    where order_id = $1 and state = $2
    returning order_id
"""
_CLAIM = f"""
    update orders set
        attempted_at = $1::timestamptz,
        not_before = case when state = 'PENDING' then $1::timestamptz + $2::interval else not_before end
    where order_id in (
        select order_id from orders
        where (state in ('SUBMITTED', 'ISSUED') and attempted_at <= $1::timestamptz - $2::interval)
            or (state = 'PENDING' and not_before <= $1)
        order by attempted_at limit $3 for update skip locked
    )
    returning {_ORDER}
"""
_WANT = f"""
    insert into revocations (order_id, reason, wanted_at, attempted_at) values ($1, $2, $3, $3)
    on conflict (order_id) do nothing
    returning {_REVOCATION}
"""
_FIND_REVOCATION = f"select {_REVOCATION} from revocations where order_id = $1"
_CLAIM_REVOCATIONS = f"""
    update revocations set attempted_at = $1::timestamptz
    where order_id in (
        select revocations.order_id from revocations join orders using (order_id)
        where revoked_at is null and cardinality(chain) > 0
            and revocations.attempted_at <= $1::timestamptz - $2::interval
        order by revocations.attempted_at limit $3 for update of revocations skip locked
    )
    returning {_REVOCATION}
"""
_REVOKED = "update revocations set revoked_at = $2 where order_id = $1 and revoked_at is null returning order_id"

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


class Store:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    # Orders

    async def submit(self, *, order_id: str, authority: str, csr: bytes, now: datetime) -> tuple[Order, bool]:
        """The order, and whether it is new. A new one is the caller's to work on; an old one is somebody's already."""
        async with self._transaction() as connection:
            work = operation.current().operation_id
            row = await connection.fetchrow(_SUBMIT, order_id, authority, csr, work, now)
            if row is not None:
                order = _order(row)
                await self._leaf(connection, "certificate.ordered", order)
                return order, True
            return _order(await _one(connection, _FIND, order_id)), False

    async def order(self, order_id: str) -> Order:
        """NOT_FOUND when there is none."""
        async with self._transaction() as connection:
            row = await connection.fetchrow(_FIND, order_id)
        if row is None:
            raise RakkanError(Code.NOT_FOUND, f"no order {order_id}")
        return _order(row)

    async def record(self, before: Order, after: Order) -> bool:
        """Make a move durable with what follows from it; False when another was first, and nothing happens."""
        async with self._transaction() as connection:
            moved = await connection.fetchval(
                _MOVE,
                before.order_id,
                before.state,
                after.state,
                after.handle,
                after.not_before,
                list(after.chain),
                _serial_number(after),
                after.reason,
            )
            if moved is None:
                return False
            await self._follow(connection, before, after)
            return True

    async def repeat(self, order: Order) -> None:
        """Post the certificate once more: the same job with the same id, for a SAM that has not answered."""
        async with self._transaction() as connection:
            await _accept(connection, order)

    async def claim(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Order]:
        """Orders that nobody works on and that wait for something; they are the caller's for a while."""
        async with self._transaction() as connection:
            return [_order(row) for row in await connection.fetch(_CLAIM, now, stuck, orders_max)]

    async def _follow(self, connection: Connection, before: Order, after: Order) -> None:
        if after.state is State.ISSUED:
            await _accept(connection, after)
            await self._leaf(connection, "certificate.issued", after)
        elif after.state is State.CONFIRMED:
            await self._leaf(connection, "certificate.confirmed", after)
        elif after.state is State.REJECTED and before.state is State.ISSUED:
            await self._leaf(connection, "certificate.rejected", after, outcome="refused")
        elif after.state is State.REJECTED:
            job = RefuseOrder(order_id=after.order_id, reason=after.reason or "")
            await outbox.post(connection, job, message_id=f"refuse:{after.order_id}")
            await self._leaf(connection, "order.refused", after, outcome="refused")
        elif before.state is not State.PENDING:
            await self._leaf(connection, "order.pending", after)

    # Revocations

    async def want_revocation(self, order: Order, *, reason: int, now: datetime) -> Revocation:
        """The revocation of an order's certificate; the first reason stays."""
        async with self._transaction() as connection:
            row = await connection.fetchrow(_WANT, order.order_id, reason, now)
            if row is not None:
                await self._leaf(connection, "revocation.ordered", order, reason_code=str(reason))
                return Revocation(*row)
            return Revocation(*await _one(connection, _FIND_REVOCATION, order.order_id))

    async def record_revoked(self, order: Order, revocation: Revocation, *, now: datetime) -> None:
        """The authority did it. The SAM is told, unless it was the SAM that did not want the certificate."""
        async with self._transaction() as connection:
            if await connection.fetchval(_REVOKED, order.order_id, now) is None:
                return
            if order.state is not State.REJECTED:
                job = NoteCertificateStatus(order_id=order.order_id, status="revoked", at=revocation.wanted_at)
                await outbox.post(connection, job, message_id=f"status:{order.order_id}:revoked")
            await self._leaf(connection, "certificate.revoked", order, reason_code=str(revocation.reason))

    async def claim_revocations(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Revocation]:
        """Revocations that have not been done though there is a certificate."""
        async with self._transaction() as connection:
            return [Revocation(*row) for row in await connection.fetch(_CLAIM_REVOCATIONS, now, stuck, orders_max)]

    # The lists of an authority in this room

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

    async def _leaf(self, connection: Connection, event_type: str, order: Order, **facts: str) -> None:
        subject = {"order_id": order.order_id, "authority": order.authority}
        if serial_number := _serial_number(order):
            subject["serial_number"] = serial_number
        await self._audit.write(
            connection,
            event_type,
            actor_type="room",
            actor_id=operation.current().caller,
            correlation_id=order.operation_id,
            subject=subject,
            **facts,
        )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection


async def _accept(connection: Connection, order: Order) -> None:
    job = AcceptCertificate(order_id=order.order_id, chain=order.chain)
    await outbox.post(connection, job, message_id=f"accept:{order.order_id}")


async def _one(connection: Connection, sql: str, key: str) -> asyncpg.Record:
    """A row that is known to be there, since nothing deletes one."""
    row = await connection.fetchrow(sql, key)
    if row is None:
        raise RakkanError(Code.INTERNAL, f"the row of {key} is gone")
    return row


def _order(row: asyncpg.Record) -> Order:
    return Order(**{**dict(row), "state": State(row["state"]), "chain": tuple(row["chain"])})


def _serial_number(order: Order) -> str | None:
    return f"{x509.load_der_x509_certificate(order.chain[0]).serial_number:x}" if order.chain else None

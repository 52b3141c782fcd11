"""The orders and revocations in the database, jobs and audit leaves in the same transactions. Foreign errors stop here.

Beside it: `store_queues` (what is due at which authority), `store_lists` (the CRLs of an authority in this room) and
`store_status` (what was read about certificates).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import asyncpg
from cryptography import x509

from services.ca_connector.orders import Order, Revocation, State
from shared.audit import AuditWriter
from shared.certificate_status import list_urls, responder_urls
from shared.contracts.sam import AcceptCertificate, NoteCertificateStatus, RefuseOrder
from shared.database import Connection, Pool, reachable
from shared.errors import Code, RakkanError
from shared.messaging import operation, outbox

COLUMNS = """order_id, authority, profile, csr, renews, origin, operation_id, submitted_at as created_at, state, handle,
    not_before, chain, reason, failures, polls, confirm_due"""
ORDER = f"{COLUMNS}, asked_at is not null as asked_before"
REVOCATION = "order_id, reason, wanted_at, revoked_at, failures"

_SUBMIT = f"""
    insert into orders
        (order_id, authority, profile, csr, renews, origin, operation_id, key_hash, submitted_at, due_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
    on conflict do nothing
    returning {ORDER}
"""
_FIND = f"select {ORDER} from orders where order_id = $1"
# Whoever saw the order in the state it still has may move it; a second one finds no row, and what it brings is dropped.
_MOVE = """
    update orders set state = $3, handle = $4, not_before = $5, chain = $6, serial_number = $7, reason = $8,
        asked_at = null, failures = $9, polls = $10, trouble = null, confirm_due = $11, expires_at = $12,
        due_at = $13, status_due_at = $13, crl_url = $14, ocsp_url = $15, issuer_id = $16
    where order_id = $1 and state = $2
    returning order_id
"""
_POSTPONE = """
    update orders set due_at = $3, asked_at = null, failures = failures + 1, trouble = $4
    where order_id = $1 and state = $2
"""
_CONFIRMED = "update orders set confirm_due = false, failures = 0, trouble = null where order_id = $1"
_KEEP_STRAY = """
    update orders set chain = $2, serial_number = $3
    where order_id = $1 and state = 'REJECTED' and cardinality(chain) = 0
    returning order_id
"""
_UNTOLD = f"""
    update orders set due_at = $1
    where order_id in (
        select order_id from orders where state = 'ISSUED' and due_at <= $1::timestamptz - $2::interval
        order by due_at limit $3 for update skip locked
    )
    returning {ORDER}
"""
_HOMELESS = f"""
    select {ORDER} from orders
    where state = 'SUBMITTED' and due_at <= $1 and not authority = any($2) order by due_at limit $3
"""
_WANT = f"""
    insert into revocations (order_id, reason, wanted_at, due_at) values ($1, $2, $3, $3)
    on conflict (order_id) do nothing
    returning {REVOCATION}
"""
_FIND_REVOCATION = f"select {REVOCATION} from revocations where order_id = $1"
_POSTPONE_REVOCATION = """
    update revocations set due_at = $2, failures = failures + 1, trouble = $3
    where order_id = $1 and revoked_at is null
"""
_ENDED = "update orders set status = 'revoked' where order_id = $1"
_REVOKED = """
    update revocations set revoked_at = $2, trouble = null where order_id = $1 and revoked_at is null returning order_id
"""

_TROUBLE_MAX = 255


class Store:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    # Orders

    async def submit(self, wanted: Order, *, renews: str | None, key_hash: bytes) -> Order:
        """The order as it is now. CONFLICT when another order for the same key is under way or was filled."""
        values = (wanted.order_id, wanted.authority, wanted.profile, wanted.csr, renews, wanted.origin)
        async with self._transaction() as connection:
            work = operation.current().operation_id
            row = await connection.fetchrow(_SUBMIT, *values, work, key_hash, wanted.created_at)
            if row is not None:
                order = order_of(row)
                await self._leaf(connection, "certificate.ordered", order)
                return order
            row = await connection.fetchrow(_FIND, wanted.order_id)
        if row is None:
            detail = f"there is another order at {wanted.authority} for the key of {wanted.order_id}"
            raise RakkanError(Code.CONFLICT, detail)
        return order_of(row)

    async def order(self, order_id: str) -> Order:
        """NOT_FOUND when there is none."""
        async with self._transaction() as connection:
            row = await connection.fetchrow(_FIND, order_id)
        if row is None:
            raise RakkanError(Code.NOT_FOUND, f"no order {order_id}")
        return order_of(row)

    async def record(self, before: Order, after: Order, *, now: datetime) -> bool:
        """Make a move durable with what follows from it; False when another was first, and nothing happens."""
        certificate = _certificate(after)
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
                after.failures,
                after.polls,
                after.confirm_due,
                certificate.not_valid_after_utc if certificate else None,
                after.not_before if after.state is State.PENDING else now,
                *_sources(certificate),
            )
            if moved is None:
                return False
            await self._follow(connection, before, after)
            return True

    async def postpone(self, order: Order, *, due_at: datetime, trouble: str) -> None:
        """The authority surely did nothing: again later."""
        async with self._transaction() as connection:
            await connection.execute(_POSTPONE, order.order_id, order.state, due_at, trouble[:_TROUBLE_MAX])

    async def confirmed(self, order: Order) -> None:
        """The authority has heard the SAM's word."""
        async with self._transaction() as connection:
            await connection.execute(_CONFIRMED, order.order_id)

    async def keep_stray(self, order: Order, chain: tuple[bytes, ...]) -> bool:
        """Keep a certificate that came for an order which had ended, so that it can be revoked."""
        stray = replace(order, chain=chain)
        async with self._transaction() as connection:
            kept = await connection.fetchval(_KEEP_STRAY, order.order_id, list(chain), _serial_number(stray))
            if kept is not None:
                await self._leaf(connection, "certificate.unwanted", stray, outcome="failure")
            return kept is not None

    async def repeat(self, order: Order) -> None:
        """Post the certificate once more: the same job with the same id, for a SAM that has not answered."""
        async with self._transaction() as connection:
            await _accept(connection, order)

    async def claim_untold(self, *, now: datetime, stuck: timedelta, orders_max: int) -> list[Order]:
        """Orders whose certificate the SAM has not answered for so long."""
        async with self._transaction() as connection:
            return [order_of(row) for row in await connection.fetch(_UNTOLD, now, stuck, orders_max)]

    async def homeless(self, *, before: datetime, authorities: list[str], orders_max: int) -> list[Order]:
        """Orders due since then at authorities that are none of these."""
        async with self._transaction() as connection:
            return [order_of(row) for row in await connection.fetch(_HOMELESS, before, authorities, orders_max)]

    async def _follow(self, connection: Connection, before: Order, after: Order) -> None:
        if after.state is State.ISSUED:
            await _accept(connection, after)
            await self._leaf(connection, "certificate.issued", after)
        elif after.state is State.CONFIRMED:
            if not before.chain:
                await self._leaf(connection, "certificate.brought", after)
            await self._leaf(connection, "certificate.confirmed", after)
        elif after.state is State.REJECTED and before.state is State.ISSUED:
            await self._leaf(connection, "certificate.rejected", after, outcome="refused")
        elif after.state is State.REJECTED:
            job = RefuseOrder(order_id=after.order_id, reason=after.reason or "")
            await outbox.post(connection, job, message_id=f"refuse:{after.order_id}")
            await self._leaf(connection, "order.refused", after, outcome="refused")
        elif after.state is State.UNKNOWN:
            await self._leaf(connection, "order.unknown", after, outcome="failure")
        elif after.state is State.SUBMITTED:
            await self._leaf(connection, "order.resubmitted", after)
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

    async def revocation(self, order_id: str) -> Revocation:
        """NOT_FOUND when none is wanted."""
        async with self._transaction() as connection:
            row = await connection.fetchrow(_FIND_REVOCATION, order_id)
        if row is None:
            raise RakkanError(Code.NOT_FOUND, f"no revocation of {order_id} is wanted")
        return Revocation(*row)

    async def record_revoked(self, order: Order, revocation: Revocation, *, now: datetime) -> None:
        """The authority did it. The SAM is told, unless it was the SAM that did not want the certificate."""
        async with self._transaction() as connection:
            if await connection.fetchval(_REVOKED, order.order_id, now) is None:
                return
            await connection.execute(_ENDED, order.order_id)
            if order.state is not State.REJECTED:
                job = NoteCertificateStatus(order_id=order.order_id, status="revoked", at=revocation.wanted_at)
                await outbox.post(connection, job, message_id=f"status:{order.order_id}:revoked")
            await self._leaf(connection, "certificate.revoked", order, reason_code=str(revocation.reason))

    async def postpone_revocation(self, revocation: Revocation, *, due_at: datetime, trouble: str) -> None:
        async with self._transaction() as connection:
            await connection.execute(_POSTPONE_REVOCATION, revocation.order_id, due_at, trouble[:_TROUBLE_MAX])

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


def order_of(row: asyncpg.Record) -> Order:
    """Without the order it renews, which is a row of its own."""
    values = dict(row)
    del values["renews"]
    return Order(**{**values, "state": State(row["state"]), "chain": tuple(row["chain"])})


async def certificate_leaf(
    connection: Connection, audit: AuditWriter, event_type: str, order_id: str, **facts: Any
) -> None:
    """An audit leaf about the certificate of an order."""
    order = order_of(await _one(connection, _FIND, order_id))
    await audit.write(
        connection,
        event_type,
        actor_type="room",
        actor_id=operation.current().caller,
        correlation_id=order.operation_id,
        subject={
            "order_id": order.order_id,
            "authority": order.authority,
            "serial_number": _serial_number(order) or "",
        },
        **facts,
    )


def _sources(certificate: x509.Certificate | None) -> tuple[str | None, str | None, bytes | None]:
    """Where its status is read, and which issuer's it is."""
    if certificate is None:
        return None, None, None
    try:
        key_id = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        key_id = None
    issuer_id = sha256(certificate.issuer.public_bytes() + (key_id or b"")).digest()
    return next(iter(list_urls(certificate)), None), next(iter(responder_urls(certificate)), None), issuer_id


def _certificate(order: Order) -> x509.Certificate | None:
    return x509.load_der_x509_certificate(order.chain[0]) if order.chain else None


def _serial_number(order: Order) -> str | None:
    certificate = _certificate(order)
    return None if certificate is None else f"{certificate.serial_number:x}"

"""All SQL of the SVG, and its audit leaves in the same transactions. Knows no HSM and no message."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from services.svg.checks import Key, Operation, content_hash_of
from services.svg.wrapping import KeyAttributes, NewKey, Wrapped
from shared.activation import Activation
from shared.algorithms import KeyAlgorithm, Profile
from shared.audit import AuditWriter, digest_set_hash
from shared.database import Connection, Pool, reachable
from shared.errors import Code, RakkanError

_KEY = """
    key_id, owner, kind, key_algorithm, profile, signatures_max, public_key, public_key_hash, kek, envelope_version,
    wrapped, resident, content_hash
"""
_FIND_KEY = f"select {_KEY} from keys where key_id = $1"
_LOCK_KEY = f"{_FIND_KEY} for update"
_FIND_OPERATION = "select operation_id, content_hash, state, signature_values from operations where operation_id = $1"
_LOCK_OPERATION = f"{_FIND_OPERATION} for update"

# One statement is one round trip and one commit. It records the intent of a new operation with a living key that has
# every attribute of the activation, and gives that key; in any other case it changes nothing and gives no row.
_INTEND = f"""
    with living as (
        select {_KEY} from keys
        where key_id = $2 and state = 'active' and public_key_hash = $8
            and (owner, kind, key_algorithm, profile, signatures_max) = ($3, $4, $5, $6, $7)
    ), intended as (
        insert into operations (operation_id, key_id, use, content_hash, activation, digests)
        select $1, key_id, $9, $10, $11, $12 from living
        on conflict (operation_id) do nothing
        returning operation_id
    ), spent as (
        insert into spent_occurrences (authorization_id, occurrence, operation_id)
        select $13, occurrence, operation_id from intended, unnest($14::integer[]) as occurrence
    )
    select {_KEY} from living where exists (select 1 from intended)
"""
_TRY_AGAIN = "update operations set attempts = attempts + 1 where operation_id = $1 and state = 'intent'"
_FINISH = """
    update operations set state = 'done', signature_values = $2, done_at = now()
    where operation_id = $1 and state = 'intent'
"""
_ADD_KEY = """
    insert into keys (key_id, owner, kind, key_algorithm, profile, signatures_max, public_key, public_key_hash, kek,
                      envelope_version, wrapped, resident, content_hash, activation)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    on conflict (key_id) do nothing
    returning key_id
"""
_DESTROY_KEY = """
    update keys set state = 'destroyed', wrapped = null, resident = null, destroyed_at = now()
    where key_id = $1 and state = 'active'
"""
_TAKE_POOLED = """
    delete from key_pool where pooled_id = (
        select pooled_id from key_pool where key_algorithm = $1 and kek = $2
        order by pooled_id limit 1 for update skip locked
    )
    returning public_key, inner_wrapped, kek
"""
_ADD_POOLED = "insert into key_pool (key_algorithm, kek, public_key, inner_wrapped) values ($1, $2, $3, $4)"
_COUNT_POOLED = "select count(*) from key_pool where key_algorithm = $1 and kek = $2"


class Finishing:
    """An operation whose row is locked until the value is recorded or given up."""

    def __init__(self, operation: Operation, connection: Connection, audit: AuditWriter) -> None:
        self.operation = operation
        self._connection = connection
        self._audit = audit

    async def done(self, activation: Activation, values: tuple[bytes, ...], *, hsm_serial: str) -> None:
        """Record the values and the audit leaf; both are durable when the block ends, and only then."""
        await self._connection.execute(_FINISH, activation.operation_id, values)
        await self._audit.write(self._connection, "key.used", **facts(activation), hsm_serial=hsm_serial)


class Store:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    async def key(self, key_id: str) -> Key | None:
        with reachable():
            record = await self._pool.fetchrow(_FIND_KEY, key_id)
        return None if record is None else _key(record)

    async def operation(self, operation_id: str) -> Operation | None:
        with reachable():
            record = await self._pool.fetchrow(_FIND_OPERATION, operation_id)
        return None if record is None else _operation(record)

    async def intend(self, activation: Activation, token: bytes) -> Key | None:
        """Commit the intent of a new operation and give its key; None when it is not new or there is no such key.

        ACTIVATION_SPENT when another operation has spent one of the occurrences.
        """
        with reachable():
            try:
                record = await self._pool.fetchrow(
                    _INTEND,
                    activation.operation_id,
                    activation.key_id,
                    activation.owner,
                    activation.kind,
                    activation.key_algorithm,
                    activation.profile,
                    activation.signatures_max,
                    activation.public_key_hash,
                    activation.use,
                    content_hash_of(activation),
                    token,
                    len(activation.digests),
                    activation.authorization_id,
                    activation.occurrences,
                )
            except asyncpg.UniqueViolationError:
                raise RakkanError(Code.ACTIVATION_SPENT, "an occurrence is spent by another operation") from None
        return None if record is None else _key(record)

    async def try_again(self, activation: Activation) -> None:
        """Commit that an operation without a recorded value is tried once more."""
        async with self._transaction() as connection:
            await connection.execute(_TRY_AGAIN, activation.operation_id)
            await self._audit.write(connection, "key.use_repeated", **facts(activation))

    @asynccontextmanager
    async def finishing(self, operation_id: str) -> AsyncIterator[Finishing]:
        """Hold the operation alone: a message that was delivered twice at the same time waits here for the first."""
        async with self._transaction() as connection:
            record = await connection.fetchrow(_LOCK_OPERATION, operation_id)
            yield Finishing(_operation(record), connection, self._audit)

    async def add_key(
        self, activation: Activation, token: bytes, attributes: KeyAttributes, public_key: bytes, wrapped: Wrapped
    ) -> bool:
        """Whether the key is new. An id that was ever used is not."""
        async with self._transaction() as connection:
            added = await connection.fetchval(
                _ADD_KEY,
                attributes.key_id,
                attributes.owner,
                attributes.kind,
                attributes.key_algorithm,
                attributes.profile,
                attributes.signatures_max,
                public_key,
                attributes.public_key_hash,
                attributes.kek,
                attributes.envelope_version,
                wrapped.wrapped,
                wrapped.resident,
                content_hash_of(activation),
                token,
            )
            if added is not None:
                more = {"public_key_hash": attributes.public_key_hash.hex(), "kek": attributes.kek}
                await self._audit.write(connection, "key.generated", **facts(activation, more))
        return added is not None

    @asynccontextmanager
    async def destroying(self, activation: Activation) -> AsyncIterator[Key | None]:
        """Hold the key alone; it is destroyed when the block ends without an error."""
        async with self._transaction() as connection:
            record = await connection.fetchrow(_LOCK_KEY, activation.key_id)
            key = None if record is None else _key(record)
            yield key
            if key is not None and key.wrapped is not None:
                await connection.execute(_DESTROY_KEY, activation.key_id)
                await self._audit.write(connection, "key.destroyed", **facts(activation))

    async def refuse(self, event: str, activation: Activation | None, refusal: RakkanError) -> None:
        """Leave a leaf of a decision against."""
        known = facts(activation) if activation else {"actor_type": "room", "actor_id": "sam"}
        async with self._transaction() as connection:
            await self._audit.write(connection, event, **known, outcome="refused", reason_code=refusal.code)

    async def take_pooled(self, algorithm: KeyAlgorithm, kek: str) -> NewKey | None:
        """A key made in advance. It is in the pool no more, whatever follows."""
        with reachable():
            record = await self._pool.fetchrow(_TAKE_POOLED, algorithm, kek)
        return None if record is None else NewKey(record["public_key"], record["inner_wrapped"], record["kek"])

    async def add_pooled(self, algorithm: KeyAlgorithm, new: NewKey) -> None:
        with reachable():
            await self._pool.execute(_ADD_POOLED, algorithm, new.kek, new.public_key, new.inner)

    async def count_pooled(self, algorithm: KeyAlgorithm, kek: str) -> int:
        with reachable():
            return int(await self._pool.fetchval(_COUNT_POOLED, algorithm, kek))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection


def facts(activation: Activation, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What an audit leaf tells of an activation."""
    subject = {"key_id": activation.key_id, "owner": activation.owner, "activated_operation": activation.operation_id}
    if activation.authorization_id is not None:
        subject["authorization_id"] = activation.authorization_id
    return {
        "actor_type": "room",
        "actor_id": "sam",
        "tenant": activation.owner.partition("/")[0],
        "subject": {**subject, "use": activation.use.value, **(more or {})},
        "digest_set_hash": digest_set_hash(activation.digests) if activation.digests else None,
        "policy_id": activation.profile.value,
    }


def _key(record: asyncpg.Record) -> Key:
    return Key(
        attributes=KeyAttributes(
            key_id=record["key_id"],
            owner=record["owner"],
            kind=record["kind"],
            key_algorithm=KeyAlgorithm(record["key_algorithm"]),
            profile=Profile(record["profile"]),
            signatures_max=record["signatures_max"],
            public_key_hash=record["public_key_hash"],
            kek=record["kek"],
            envelope_version=record["envelope_version"],
        ),
        public_key=record["public_key"],
        wrapped=record["wrapped"],
        content_hash=record["content_hash"],
        resident=record["resident"],
    )


def _operation(record: asyncpg.Record | None) -> Operation:
    if record is None:
        raise LookupError("an operation is finished that was never intended")
    return Operation(
        operation_id=record["operation_id"],
        content_hash=record["content_hash"],
        state=record["state"],
        values=tuple(record["signature_values"] or ()),
    )

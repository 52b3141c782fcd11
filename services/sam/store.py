"""All SQL of the SAM. Every row that carries a MAC is checked as it is read and sealed as it is written."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.sam.authorizations import AuthorizedHash
from services.sam.rows import Authorization, Credential, RowSeal, Signer, State
from shared.algorithms import Hash, KeyAlgorithm, Profile
from shared.database import Connection, Pool, reachable
from shared.errors import Code, RakkanError
from shared.tokens import AccessToken

_SIGNER = ", ".join(field.name for field in fields(Signer))
_CREDENTIAL = ", ".join(field.name for field in fields(Credential))
_AUTHORIZATION = ", ".join(field.name for field in fields(Authorization))
_BOTH = ", ".join(f"{row.TABLE}.{field.name}" for row in (Credential, Signer) for field in fields(row))

_IS_REFUSED = """
    select exists (select from refused_tokens where token_id = $1)
        or exists (select from refused_clients where client_id = $2 and issued_before >= $3)
"""
_PARTIES = f"""
    select ({_IS_REFUSED}), {_BOTH}
    from (select) as one
        left join credentials on credentials.credential_id = $4
        left join signers on signers.signer_id = credentials.signer_id
"""
_REFUSE_ONE = """
    insert into refused_tokens (token_id, until) values ($1, $2) on conflict (token_id) do nothing
"""
_REFUSE_ALL_OF_CLIENT = """
    insert into refused_clients (client_id, issued_before, until) values ($1, $2, $3)
    on conflict (client_id) do update
        set issued_before = greatest(refused_clients.issued_before, excluded.issued_before),
            until = greatest(refused_clients.until, excluded.until)
"""
_FORGET_ONES = "delete from refused_tokens where until < $1"
_FORGET_CLIENTS = "delete from refused_clients where until < $1"

_SIGNER_BY_ID = f"select {_SIGNER} from signers where signer_id = $1"
_SIGNER_BY_USER = f"select {_SIGNER} from signers where tenant_id = $1 and user_id = $2"
_SIGNERS = f"select {_SIGNER} from signers where $1::text is null or tenant_id = $1 order by tenant_id, user_id"
_ADD_SIGNER = f"""
    insert into signers ({_SIGNER}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    on conflict do nothing
"""
_CHANGE_SIGNER = """
    update signers set pin_salt = $3, pin_verifier = $4, pin_tries_left = $5, otp_tries_left = $6, otp_last_step = $7,
        version = version + 1, mac = $8
    where signer_id = $1 and version = $2
"""

_CREDENTIAL_BY_ID = f"select {_CREDENTIAL} from credentials where credential_id = $1"
_CREDENTIAL_BY_ORDER = f"select {_CREDENTIAL} from credentials where order_id = $1"
_CREDENTIALS_OF = f"""
    select {_CREDENTIAL} from credentials where signer_id = $1 and credential_id > $2 order by credential_id limit $3
"""
_CREDENTIALS = f"""
    select {_CREDENTIAL} from credentials where $1::text is null or tenant_id = $1 order by tenant_id, credential_id
"""
_ADD_CREDENTIAL = f"""
    insert into credentials ({_CREDENTIAL})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
    on conflict (credential_id) do nothing
"""
_CHANGE_CREDENTIAL = """
    update credentials set state = $3, reason = $4, share = $5, public_key = $6, order_id = $7, chain = $8,
        certificate_status = $9, not_after = $10, version = version + 1, mac = $11, touched_at = now()
    where credential_id = $1 and version = $2
"""
_STUCK = """
    update credentials set touched_at = now()
    where credential_id in (
        select credential_id from credentials
        where state in ('requested', 'generated', 'ended') and touched_at < now() - $1::interval
        limit 100 for update skip locked
    )
    returning credential_id, state
"""

_AUTHORIZATION_BY_SAD = f"select {_AUTHORIZATION} from authorizations where sad_hash = $1"
_ADD_AUTHORIZATION = f"""
    insert into authorizations ({_AUTHORIZATION})
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, false
    where (select count(*) from authorizations where credential_id = $4 and expires_at > now() and not replaced) < $14
    on conflict (request_id) do nothing
"""
_ADD_HASHES = """
    insert into authorized_hashes (authorization_id, occurrence, digest, hash)
    select $1, t.occurrence, t.digest, t.hash
    from unnest($2::int[], $3::bytea[], $4::text[]) as t (occurrence, digest, hash)
"""
_HASHES = """
    select occurrence, digest, hash, operation_id from authorized_hashes where authorization_id = $1 order by occurrence
"""
_ACTIVATION = "select token from activations where operation_id = $1"
# One statement, so that no part of it can be left out: the uses are counted, the hashes named, the activation kept.
_SPEND = """
    with spent as (
        update authorizations set used = used + $2
        where authorization_id = $1 and not replaced and used + $2 <= signatures
        returning authorization_id
    ), named as (
        update authorized_hashes set operation_id = $3 from spent
        where authorized_hashes.authorization_id = spent.authorization_id
            and occurrence = any($4) and operation_id is null
        returning occurrence
    ), kept as (
        insert into activations (operation_id, authorization_id, token) select $3, authorization_id, $5 from spent
    )
    select (select count(*) from spent), (select count(*) from named)
"""
_REPLACE = "update authorizations set replaced = true where authorization_id = $1 and not replaced"


@dataclass(frozen=True, slots=True)
class Bound:
    """An authorization with its hashes, ready to be written."""

    authorization: Authorization
    hashes: tuple[AuthorizedHash, ...]


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


class Store:
    """Reads outside a transaction go through the pool; changes take the connection of their transaction."""

    def __init__(self, pool: Pool, seal: RowSeal) -> None:
        self._pool = pool
        self._reads = _Reads(pool)
        self._seal = seal

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

    # --- tokens ---

    async def check_token(self, token: AccessToken) -> None:
        """TOKEN_EXPIRED, the word of the CSC for it, when it was revoked, alone or with all of its client."""
        if await self._reads.fetchval(_IS_REFUSED, token.token_id, token.client_id, token.issued_at):
            raise RakkanError(Code.TOKEN_EXPIRED, "revoked")

    async def refuse_token(self, connection: Connection, token_id: str, *, until: datetime) -> None:
        await connection.execute(_REFUSE_ONE, token_id, until)

    async def refuse_client(
        self, connection: Connection, client_id: str, *, issued_before: datetime, until: datetime
    ) -> None:
        await connection.execute(_REFUSE_ALL_OF_CLIENT, client_id, issued_before, until)

    async def forget_tokens(self, *, now: datetime) -> None:
        await self._reads.execute(_FORGET_ONES, now)
        await self._reads.execute(_FORGET_CLIENTS, now)

    async def parties(self, token: AccessToken, credential_id: str) -> tuple[Credential, Signer] | None:
        """The credential and its signer, if there is one; TOKEN_EXPIRED as `check_token` says."""
        arguments = (token.token_id, token.client_id, token.issued_at, credential_id)
        record = await self._reads.fetchrow(_PARTIES, *arguments)
        refused, *values = record or (True,)
        if refused:
            raise RakkanError(Code.TOKEN_EXPIRED, "revoked")
        split = len(fields(Credential))
        if values[0] is None:
            return None
        return self._credential(_named(Credential, values[:split])), self._signer(_named(Signer, values[split:]))

    # --- signers ---

    async def signer(self, signer_id: str) -> Signer:
        return self._signer(await self._reads.fetchrow(_SIGNER_BY_ID, signer_id))

    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer:
        return self._signer(await self._reads.fetchrow(_SIGNER_BY_USER, tenant_id, user_id))

    async def locked_signer(self, connection: Connection, signer_id: str) -> Signer:
        """The signer, nobody else's to change until the transaction ends."""
        return self._signer(await connection.fetchrow(f"{_SIGNER_BY_ID} for update", signer_id))

    async def signers(self, tenant_id: str | None) -> list[Signer]:
        return [self._signer(row) for row in await self._reads.fetch(_SIGNERS, tenant_id)]

    async def add_signer(self, connection: Connection, signer: Signer) -> None:
        """CONFLICT when the tenant has a signer of this name."""
        sealed = self._seal.seal(signer)
        if await connection.execute(_ADD_SIGNER, *_values(sealed)) == "INSERT 0 0":
            raise RakkanError(Code.CONFLICT, f"{signer.tenant_id} has a signer {signer.user_id} already")

    async def change_signer(self, connection: Connection, signer: Signer) -> None:
        """Write the row that was read with this version; OVERLOADED when somebody else was faster."""
        sealed = self._seal.seal(replace(signer, version=signer.version + 1))
        changed = await connection.execute(
            _CHANGE_SIGNER,
            signer.signer_id,
            signer.version,
            signer.pin_salt,
            signer.pin_verifier,
            signer.pin_tries_left,
            signer.otp_tries_left,
            signer.otp_last_step,
            sealed.mac,
        )
        _changed_one(changed)

    # --- credentials ---

    async def credential(self, credential_id: str) -> Credential | None:
        row = await self._reads.fetchrow(_CREDENTIAL_BY_ID, credential_id)
        return self._credential(row) if row else None

    async def locked_credential(self, connection: Connection, credential_id: str) -> Credential:
        row = await connection.fetchrow(f"{_CREDENTIAL_BY_ID} for update", credential_id)
        if row is None:
            raise RakkanError(Code.NOT_FOUND, f"no credential {credential_id}")
        return self._credential(row)

    async def locked_credential_of_order(self, connection: Connection, order_id: str) -> Credential:
        row = await connection.fetchrow(f"{_CREDENTIAL_BY_ORDER} for update", order_id)
        if row is None:
            raise RakkanError(Code.NOT_FOUND, f"no credential with order {order_id}")
        return self._credential(row)

    async def credentials_of(self, signer_id: str, *, after: str, limit: int) -> list[Credential]:
        return [self._credential(row) for row in await self._reads.fetch(_CREDENTIALS_OF, signer_id, after, limit)]

    async def credentials(self, tenant_id: str | None) -> list[Credential]:
        return [self._credential(row) for row in await self._reads.fetch(_CREDENTIALS, tenant_id)]

    async def add_credential(self, connection: Connection, credential: Credential) -> bool:
        """False when there is one of this name already."""
        sealed = self._seal.seal(credential)
        return await connection.execute(_ADD_CREDENTIAL, *_values(sealed)) != "INSERT 0 0"

    async def change_credential(self, connection: Connection, credential: Credential) -> Credential:
        """Write the row that was read with this version; OVERLOADED when somebody else was faster."""
        sealed = self._seal.seal(replace(credential, version=credential.version + 1))
        changed = await connection.execute(
            _CHANGE_CREDENTIAL,
            credential.credential_id,
            credential.version,
            credential.state.value,
            credential.reason,
            credential.share,
            credential.public_key,
            credential.order_id,
            list(credential.chain),
            credential.certificate_status,
            credential.not_after,
            sealed.mac,
        )
        _changed_one(changed)
        return sealed

    async def touch_stuck(self, connection: Connection, *, older: timedelta) -> list[tuple[str, State]]:
        """Credentials whose next step has not come for so long, taken so that nobody else takes them now."""
        return [(row["credential_id"], State(row["state"])) for row in await connection.fetch(_STUCK, older)]

    # --- authorizations ---

    async def authorization(self, sad_hash: bytes) -> Authorization | None:
        row = await self._reads.fetchrow(_AUTHORIZATION_BY_SAD, sad_hash)
        return self._authorization(row) if row else None

    async def locked_authorization(self, connection: Connection, sad_hash: bytes) -> Authorization | None:
        row = await connection.fetchrow(f"{_AUTHORIZATION_BY_SAD} for update", sad_hash)
        return self._authorization(row) if row else None

    async def hashes(self, connection: Connection, authorization_id: str) -> tuple[AuthorizedHash, ...]:
        return tuple(
            AuthorizedHash(row[0], row[1], Hash(row[2]) if row[2] else None, row[3])
            for row in await connection.fetch(_HASHES, authorization_id)
        )

    async def add_authorization(self, connection: Connection, bound: Bound, *, waiting_max: int) -> None:
        """OVERLOADED when too many wait unspent for the credential, or when this very request was served before."""
        sealed = self._seal.seal(bound.authorization)
        added = await connection.execute(_ADD_AUTHORIZATION, *_values(sealed)[:-2], waiting_max)
        if added == "INSERT 0 0":
            raise RakkanError(
                Code.OVERLOADED, "too many authorizations wait for this credential, or a repeated request"
            )
        if bound.hashes:
            await connection.execute(
                _ADD_HASHES,
                bound.authorization.authorization_id,
                [entry.occurrence for entry in bound.hashes],
                [entry.digest for entry in bound.hashes],
                [entry.hash.value if entry.hash else None for entry in bound.hashes],
            )

    async def activation(self, connection: Connection, operation_id: str) -> bytes | None:
        """The activation that already left for this operation."""
        token: bytes | None = await connection.fetchval(_ACTIVATION, operation_id)
        return token

    async def spend(
        self,
        connection: Connection,
        authorization: Authorization,
        occurrences: tuple[int, ...],
        *,
        operation_id: str,
        activation: bytes,
    ) -> None:
        """Compare and set, and keep the activation that may leave when this is committed.

        SAD_INVALID or HASH_NOT_AUTHORIZED when not all of them were still to be spent: the transaction must end then.
        """
        listed = list(occurrences) if authorization.bound else []
        arguments = (authorization.authorization_id, len(occurrences), operation_id, listed, activation)
        record = await connection.fetchrow(_SPEND, *arguments)
        spent, named = record or (0, 0)
        if not spent:
            raise RakkanError(Code.SAD_INVALID, "used up")
        if named != len(listed):
            raise RakkanError(Code.HASH_NOT_AUTHORIZED, "spent meanwhile")

    async def replace_authorization(self, connection: Connection, authorization_id: str) -> None:
        if await connection.execute(_REPLACE, authorization_id) == "UPDATE 0":
            raise RakkanError(Code.SAD_INVALID, "replaced by an extended one")

    def _signer(self, row: asyncpg.Record | dict[str, Any] | None) -> Signer:
        if row is None:
            raise RakkanError(Code.NOT_FOUND, "no such signer")
        return self._seal.check(Signer(**row))

    def _credential(self, row: asyncpg.Record | dict[str, Any]) -> Credential:
        values = dict(row)
        values["key_algorithm"] = KeyAlgorithm(values["key_algorithm"])
        values["profile"] = Profile(values["profile"])
        values["state"] = State(values["state"])
        values["chain"] = tuple(values["chain"])
        return self._seal.check(Credential(**values))

    def _authorization(self, row: asyncpg.Record) -> Authorization:
        return self._seal.check(Authorization(**row))


def _named(row: type[Signer | Credential], values: list[Any]) -> dict[str, Any]:
    return {field.name: value for field, value in zip(fields(row), values, strict=True)}


def _values(row: Signer | Credential | Authorization) -> tuple[object, ...]:
    values = (getattr(row, field.name) for field in fields(row))
    return tuple(list(value) if isinstance(value, tuple) else value for value in values)


def _changed_one(status: str) -> None:
    if status != "UPDATE 1":
        raise RakkanError(Code.OVERLOADED, "changed by somebody else at the same moment")

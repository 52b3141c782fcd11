"""SQL of authorizations, the hashes they cover, and the activations they were spent on."""

from dataclasses import dataclass

import asyncpg

from services.sam.authorizations import AuthorizedHash
from services.sam.rows import Authorization
from services.sam.store.base import StoreBase, columns, values
from shared.algorithms import Hash
from shared.database import Connection
from shared.errors import Code, RakkanError

_AUTHORIZATION = columns(Authorization)
_AUTHORIZATION_BY_SAD = f"select {_AUTHORIZATION} from authorizations where sad_hash = $1"
# A token leads only to what was approved in a context, never to an authorization that has a SAD.
_AUTHORIZATION_BY_ID = f"""
    select {_AUTHORIZATION} from authorizations where authorization_id = $1 and sad_hash is null
"""
_AUTHORIZATION_BY_REQUEST = f"select {_AUTHORIZATION} from authorizations where request_id = $1"
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


class AuthorizationStore(StoreBase):
    async def locked_authorization(self, connection: Connection, sad_hash: bytes) -> Authorization | None:
        row = await connection.fetchrow(f"{_AUTHORIZATION_BY_SAD} for update", sad_hash)
        return self._authorization(row) if row else None

    async def locked_authorization_of_token(
        self, connection: Connection, authorization_id: str
    ) -> Authorization | None:
        """One that was approved in a context."""
        row = await connection.fetchrow(f"{_AUTHORIZATION_BY_ID} for update", authorization_id)
        return self._authorization(row) if row else None

    async def authorization_of_request(self, connection: Connection, request_id: str) -> Authorization | None:
        row = await connection.fetchrow(_AUTHORIZATION_BY_REQUEST, request_id)
        return self._authorization(row) if row else None

    async def hashes(self, connection: Connection, authorization_id: str) -> tuple[AuthorizedHash, ...]:
        return tuple(
            AuthorizedHash(row[0], row[1], Hash(row[2]) if row[2] else None, row[3])
            for row in await connection.fetch(_HASHES, authorization_id)
        )

    async def add_authorization(self, connection: Connection, bound: Bound, *, waiting_max: int) -> None:
        """OVERLOADED when too many wait unspent for the credential, or when this very request was served before."""
        sealed = self._seal.seal(bound.authorization)
        added = await connection.execute(_ADD_AUTHORIZATION, *values(sealed)[:-2], waiting_max)
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

    def _authorization(self, row: asyncpg.Record) -> Authorization:
        return self._seal.check(Authorization(**row))

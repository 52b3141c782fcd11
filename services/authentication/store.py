"""The SQL of tenants, clients, tokens and spent assertions; that of requests and grants is in `store_oauth`."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.authentication.clients import Assertion, Client
from services.authentication.store_oauth import SWEEP, GrantsChange, GrantsStore
from shared.audit import AuditWriter
from shared.contracts.authentication import Accounts, AddClient, ClientRow, TenantRow
from shared.database import Connection, Pool, reachable
from shared.errors import Code, RakkanError
from shared.tokens import AccessToken

_CLIENT = """
    select c.client_id, c.tenant_id, c.method, c.secret_hash, c.jwks, c.suspended or t.suspended as suspended,
        c.name, c.profile, c.redirect_uris, c.flags, c.account_token_key, c.certificate_name
    from clients c join tenants t using (tenant_id)
    where c.client_id = $1
"""
_LOCK_CLIENT = """
    select c.suspended or t.suspended as suspended, c.tokens_from
    from clients c join tenants t using (tenant_id)
    where c.client_id = $1
    for share
"""
_ENDED = """
    select k.revoked_at is not null or k.issued_at < c.tokens_from or c.suspended or t.suspended
    from tokens k join clients c using (client_id) join tenants t using (tenant_id)
    where k.token_hash = $1 and k.client_id = $2
"""
_ISSUE = """
    insert into tokens (token_hash, client_id, issued_at, expires_at, grant_id, token_id)
    values ($1, $2, $3, $4, $5, $6)
"""
_REVOKE = """
    insert into tokens (token_hash, client_id, issued_at, expires_at, revoked_at) values ($1, $2, $3, $4, $5)
    on conflict (token_hash) do update set revoked_at = coalesce(tokens.revoked_at, excluded.revoked_at)
"""
_SPEND = """
    insert into spent_assertions (digest, expires_at) values ($1, $2) on conflict (digest) do nothing returning digest
"""
_ADD_TENANT = "insert into tenants (tenant_id, name) values ($1, $2) on conflict (tenant_id) do nothing"
_TENANT_NAME = "select name from tenants where tenant_id = $1"
_ADD_CLIENT = """
    insert into clients (
        client_id, tenant_id, name, method, secret_hash, jwks, profile, redirect_uris, flags, account_token_key,
        certificate_name
    ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_TENANTS = "select tenant_id, name, suspended from tenants order by tenant_id"
_CLIENTS = "select client_id, tenant_id, name, method, suspended, added_at from clients order by tenant_id, client_id"
_SUSPEND_CLIENT = "update clients set suspended = $2 where client_id = $1 returning client_id"
_SUSPEND_TENANT = "update tenants set suspended = $2 where tenant_id = $1 returning tenant_id"
_CLIENTS_OF_TENANT = "select client_id from clients where tenant_id = $1 order by client_id"
_END_TOKENS = "update clients set tokens_from = greatest(tokens_from, $2) where client_id = $1"
_SWEEP = (
    "delete from tokens where token_hash in (select token_hash from tokens where expires_at < $1 limit 5000)",
    """delete from spent_assertions
       where digest in (select digest from spent_assertions where expires_at < $1 limit 5000)""",
    *SWEEP,
)
_KEPT_AFTER_EXPIRY = timedelta(minutes=5)  # clocks of two machines differ


class Change(GrantsChange):
    """What is done in one transaction."""

    def __init__(self, connection: Connection, audit: AuditWriter) -> None:
        super().__init__(connection)
        self._audit = audit

    async def lock_client(self, client_id: str) -> datetime:
        """Keep the client and its tenant from being suspended until this is done; CLIENT_REFUSED when they are.

        Answers the moment from which tokens of this client may be.
        """
        row = await self._connection.fetchrow(_LOCK_CLIENT, client_id)
        if row is None or row["suspended"]:
            raise RakkanError(Code.CLIENT_REFUSED, "the client is suspended")
        tokens_from: datetime = row["tokens_from"]
        return tokens_from

    async def issue(self, token: AccessToken, *, grant_id: bytes | None = None) -> None:
        token_id = token.token_id if grant_id else None
        await self._connection.execute(
            _ISSUE,
            _token_hash(token.token_id),
            token.client_id,
            token.issued_at,
            token.expires_at,
            grant_id,
            token_id,
        )

    async def revoke(self, token: AccessToken, *, at: datetime) -> None:
        """Once more is no other revocation. A token that a restored database has forgotten is revoked as well."""
        await self._connection.execute(
            _REVOKE, _token_hash(token.token_id), token.client_id, token.issued_at, token.expires_at, at
        )

    async def add_tenant(self, tenant_id: str, name: str) -> None:
        await self._connection.execute(_ADD_TENANT, tenant_id, name)
        if await self._connection.fetchval(_TENANT_NAME, tenant_id) != name:
            raise RakkanError(Code.CONFLICT, f"the tenant {tenant_id} exists with another name")

    async def add_client(
        self, client: AddClient, *, secret_hash: bytes | None, account_token_key: bytes | None = None
    ) -> None:
        try:
            await self._connection.execute(
                _ADD_CLIENT,
                client.client_id,
                client.tenant_id,
                client.name,
                client.method,
                secret_hash,
                client.jwks,
                client.profile,
                list(client.redirect_uris),
                list(client.flags),
                account_token_key,
                client.certificate_name,
            )
        except asyncpg.UniqueViolationError:
            raise RakkanError(Code.CONFLICT, f"the client {client.client_id} exists") from None
        except asyncpg.ForeignKeyViolationError:
            raise RakkanError(Code.NOT_FOUND, f"no tenant {client.tenant_id}") from None

    async def suspend_client(self, client_id: str, *, suspended: bool) -> None:
        if await self._connection.fetchval(_SUSPEND_CLIENT, client_id, suspended) is None:
            raise RakkanError(Code.NOT_FOUND, f"no client {client_id}")

    async def suspend_tenant(self, tenant_id: str, *, suspended: bool) -> tuple[str, ...]:
        """The tenant's clients."""
        if await self._connection.fetchval(_SUSPEND_TENANT, tenant_id, suspended) is None:
            raise RakkanError(Code.NOT_FOUND, f"no tenant {tenant_id}")
        return tuple(row["client_id"] for row in await self._connection.fetch(_CLIENTS_OF_TENANT, tenant_id))

    async def end_tokens(self, client_id: str, *, issued_before: datetime) -> None:
        await self._connection.execute(_END_TOKENS, client_id, issued_before)

    async def write(self, event_type: str, **facts: Any) -> None:
        """The audit leaf. Last."""
        await self._audit.write(self._connection, event_type, **facts)


class Store(GrantsStore):
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        super().__init__(pool)
        self._audit = audit

    async def client(self, client_id: str) -> Client | None:
        with reachable():
            row = await self._pool.fetchrow(_CLIENT, client_id)
        if row is None:
            return None
        lists = {"redirect_uris": tuple(row["redirect_uris"]), "flags": frozenset(row["flags"])}
        return Client(**{**row, **lists})

    async def check_alive(self, token: AccessToken) -> None:
        """TOKEN_INVALID unless we issued it, to this client; TOKEN_EXPIRED, the word of the CSC, once it was ended."""
        with reachable():
            ended = await self._pool.fetchval(_ENDED, _token_hash(token.token_id), token.client_id)
        if ended is None:
            raise RakkanError(Code.TOKEN_INVALID, "not issued here")
        if ended:
            raise RakkanError(Code.TOKEN_EXPIRED, "revoked, or of a suspended client")

    async def spend_assertion(self, assertion: Assertion) -> None:
        """CLIENT_REFUSED when it was used before."""
        with reachable():
            spent = await self._pool.fetchval(_SPEND, assertion.digest, assertion.expires_at)
        if spent is None:
            raise RakkanError(Code.CLIENT_REFUSED, "the assertion was used before")

    async def accounts(self) -> Accounts:
        with reachable():
            async with self._pool.acquire() as connection:
                tenants = await connection.fetch(_TENANTS)
                clients = await connection.fetch(_CLIENTS)
        return Accounts(
            tenants=tuple(TenantRow(**row) for row in tenants), clients=tuple(ClientRow(**row) for row in clients)
        )

    async def sweep(self, *, now: datetime) -> None:
        """Forget what expired, some thousands at a time."""
        with reachable():
            for statement in _SWEEP:
                await self._pool.execute(statement, now - _KEPT_AFTER_EXPIRY)

    async def check(self) -> None:
        with reachable():
            await self._pool.fetchval("select 1")

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Change]:
        """One transaction: all of it or nothing."""
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                yield Change(connection, self._audit)


def _token_hash(token_id: str) -> bytes:
    return hashlib.sha256(token_id.encode()).digest()

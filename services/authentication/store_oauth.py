"""The SQL of authorization requests, grants, codes and refresh tokens. `store` builds on it."""

from datetime import datetime
from typing import Literal

from services.authentication.grants import Grant, RefreshToken
from services.authentication.requests import StoredRequest
from services.authentication.revoking import LiveToken
from shared.database import Connection, Pool, reachable

_REQUEST_COLUMNS = "client_id, asked, pushed_until, expires_at, session_hash, outcome is not null as ended"
_REQUEST = f"select {_REQUEST_COLUMNS} from authorization_requests where request_hash = $1"
_ADD_REQUEST = """
    insert into authorization_requests (request_hash, client_id, asked, pushed_until, expires_at)
    values ($1, $2, $3, $4, $5)
"""
_BIND_REQUEST = f"""
    update authorization_requests set session_hash = $2
    where request_hash = $1 and (session_hash is null or session_hash = $2) and outcome is null and expires_at > $3
    returning {_REQUEST_COLUMNS}
"""
_END_REQUEST = f"""
    update authorization_requests set outcome = $3, ended_at = $4
    where request_hash = $1 and session_hash = $2 and outcome is null and expires_at > $4
    returning {_REQUEST_COLUMNS}
"""
_GRANT_COLUMNS = """
    g.grant_id, g.client_id, g.tenant_id, g.user_id, g.scope, g.authorization_id, g.credential_id, g.redirect_uri,
    g.redirect_uri_given, g.code_challenge, g.key_thumbprint, g.details, g.code_expires_at, g.code_spent_at,
    g.granted_at, g.expires_at, g.revoked_at, g.authority, g.certificate_profile
"""
_ADD_GRANT = """
    insert into grants (
        grant_id, client_id, tenant_id, user_id, scope, authorization_id, credential_id, redirect_uri,
        redirect_uri_given, code_challenge, key_thumbprint, details, code_hash, code_expires_at, granted_at, expires_at,
        authority, certificate_profile
    ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
"""
_GRANT_OF_CODE = f"select {_GRANT_COLUMNS} from grants g where g.code_hash = $1 for update"
# Locked by its grant first: every token of a grant is issued and ended one after the other.
_LOCK_GRANT_OF_REFRESHING = """
    select g.grant_id from grants g
    where g.grant_id = (select grant_id from refresh_tokens where token_hash = $1)
    for update
"""
_GRANT_OF_REFRESHING = f"""
    select {_GRANT_COLUMNS}, r.expires_at as refresh_expires_at, r.spent_at as refresh_spent_at
    from refresh_tokens r join grants g using (grant_id)
    where r.token_hash = $1
"""
_SPEND_CODE = "update grants set code_spent_at = $2 where grant_id = $1 and code_spent_at is null"
_ADD_REFRESHING = "insert into refresh_tokens (token_hash, grant_id, expires_at) values ($1, $2, $3)"
_SPEND_REFRESHING = "update refresh_tokens set spent_at = $2 where token_hash = $1 and spent_at is null"
_LIVE_TOKENS = """
    select token_id, expires_at from tokens
    where grant_id = $1 and revoked_at is null and expires_at > $2
    order by expires_at
"""
_REVOKE_GRANT = "update grants set revoked_at = $2 where grant_id = $1 and revoked_at is null"
_REVOKE_TOKENS = "update tokens set revoked_at = $2 where grant_id = $1 and revoked_at is null"
SWEEP = (
    """delete from authorization_requests
       where request_hash in (select request_hash from authorization_requests where expires_at < $1 limit 5000)""",
    "delete from grants where grant_id in (select grant_id from grants where expires_at < $1 limit 1000)",
)
"""What may be forgotten; tokens and refresh tokens go with their grant, which outlives them."""


class GrantsChange:
    """What is done with requests and grants in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add_request(self, request_hash: bytes, request: StoredRequest) -> None:
        await self._connection.execute(
            _ADD_REQUEST, request_hash, request.client_id, request.asked, request.pushed_until, request.expires_at
        )

    async def bind_request(self, request_hash: bytes, *, session_hash: bytes, now: datetime) -> StoredRequest | None:
        """The request, when it is this session's or nobody's yet, and goes on."""
        row = await self._connection.fetchrow(_BIND_REQUEST, request_hash, session_hash, now)
        return None if row is None else StoredRequest(**row)

    async def end_request(
        self, request_hash: bytes, *, session_hash: bytes, outcome: Literal["granted", "denied"], at: datetime
    ) -> StoredRequest | None:
        """The request, when it was this session's and went on until now."""
        row = await self._connection.fetchrow(_END_REQUEST, request_hash, session_hash, outcome, at)
        return None if row is None else StoredRequest(**row)

    async def add_grant(self, grant: Grant, *, code_hash: bytes) -> None:
        await self._connection.execute(
            _ADD_GRANT,
            grant.grant_id,
            grant.client_id,
            grant.tenant_id,
            grant.user_id,
            grant.scope,
            grant.authorization_id,
            grant.credential_id,
            grant.redirect_uri,
            grant.redirect_uri_given,
            grant.code_challenge,
            grant.key_thumbprint,
            grant.details,
            code_hash,
            grant.code_expires_at,
            grant.granted_at,
            grant.expires_at,
            grant.authority,
            grant.certificate_profile,
        )

    async def grant_of_code(self, code_hash: bytes) -> Grant | None:
        """Locked until this is done: of two who redeem a code at once, one finds it spent."""
        row = await self._connection.fetchrow(_GRANT_OF_CODE, code_hash)
        return None if row is None else Grant(**row)

    async def spend_code(self, grant_id: bytes, *, at: datetime) -> None:
        await self._connection.execute(_SPEND_CODE, grant_id, at)

    async def grant_of_refresh_token(self, token_hash: bytes) -> tuple[Grant, RefreshToken] | None:
        """Locked until this is done."""
        await self._connection.fetchval(_LOCK_GRANT_OF_REFRESHING, token_hash)
        row = await self._connection.fetchrow(_GRANT_OF_REFRESHING, token_hash)
        if row is None:
            return None
        facts = dict(row)
        token = RefreshToken(expires_at=facts.pop("refresh_expires_at"), spent_at=facts.pop("refresh_spent_at"))
        return Grant(**facts), token

    async def add_refresh_token(self, token_hash: bytes, grant_id: bytes, *, expires_at: datetime) -> None:
        await self._connection.execute(_ADD_REFRESHING, token_hash, grant_id, expires_at)

    async def spend_refresh_token(self, token_hash: bytes, *, at: datetime) -> None:
        await self._connection.execute(_SPEND_REFRESHING, token_hash, at)

    async def live_tokens(self, grant_id: bytes, *, now: datetime) -> tuple[LiveToken, ...]:
        rows = await self._connection.fetch(_LIVE_TOKENS, grant_id, now)
        return tuple(LiveToken(**row) for row in rows)

    async def revoke_grant(self, grant_id: bytes, *, at: datetime) -> None:
        await self._connection.execute(_REVOKE_GRANT, grant_id, at)
        await self._connection.execute(_REVOKE_TOKENS, grant_id, at)


class GrantsStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def request(self, request_hash: bytes) -> StoredRequest | None:
        with reachable():
            row = await self._pool.fetchrow(_REQUEST, request_hash)
        return None if row is None else StoredRequest(**row)

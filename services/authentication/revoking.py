"""How a token ends before its time: revoked by its client, or with the grant it came from. Knows no HTTP and no SQL.

The SAM first: when it cannot be reached nothing has happened and the client may ask again, and nobody ever believes in
a revocation that the SAM does not know of.
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from joserfc.jwk import KeySet

from services.authentication import oauth
from services.authentication.clients import Client
from services.authentication.doorkeeper import Doorkeeper
from services.authentication.grants import REFRESH_PREFIX, Grant, RefreshToken, digest_of
from services.authentication.oauth import Call, Refusal
from shared.contracts.base import R, Request
from shared.contracts.sam import RevokeTokens
from shared.errors import RakkanError
from shared.tokens import AccessToken, read_token

_KNOWN_HINTS = (None, "access_token", "refresh_token")


@dataclass(frozen=True)
class LiveToken:
    token_id: str
    expires_at: datetime


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


class Ending(Protocol):
    """What ending a grant needs of a transaction."""

    async def live_tokens(self, grant_id: bytes, *, now: datetime) -> tuple[LiveToken, ...]: ...
    async def revoke_grant(self, grant_id: bytes, *, at: datetime) -> None: ...
    async def write(self, event_type: str, **facts: Any) -> None: ...


class Change(Ending, Protocol):
    async def revoke(self, token: AccessToken, *, at: datetime) -> None: ...
    async def grant_of_refresh_token(self, token_hash: bytes) -> tuple[Grant, RefreshToken] | None: ...


class Store(Protocol):
    def change(self) -> AbstractAsyncContextManager[Change]: ...


async def end_grant(change: Ending, bus: Bus, grant: Grant, event_type: str, *, now: datetime) -> None:
    """End every token that came of it. The grant's row is locked, so none is being issued."""
    for token in await change.live_tokens(grant.grant_id, now=now):
        await bus.ask(RevokeTokens(token_id=token.token_id, until=token.expires_at))
    await change.revoke_grant(grant.grant_id, at=now)
    await change.write(
        event_type,
        actor_type="client",
        actor_id=grant.client_id,
        tenant=grant.tenant_id,
        subject={"grant_id": grant.grant_id.hex(), "user_id": grant.user_id},
    )


class Revocations:
    def __init__(
        self, *, store: Store, bus: Bus, doorkeeper: Doorkeeper, keys: KeySet, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._bus = bus
        self._doorkeeper = doorkeeper
        self._keys = keys
        self._now = now

    async def revoke(self, call: Call) -> None:
        """End a token at once (RFC 7009, CSC API 8.4.4); a refresh token with everything that came of its grant."""
        text = call.form.get("token")
        if text is None:
            raise oauth.missing("token")
        if call.form.get("token_type_hint") not in _KNOWN_HINTS:
            raise oauth.invalid("token_type_hint")
        client = await self._doorkeeper.admit(call)
        if text.startswith(REFRESH_PREFIX):
            await self._revoke_refresh_token(client, text)
        else:
            await self._revoke_access_token(client, text)

    async def _revoke_refresh_token(self, client: Client, text: str) -> None:
        async with self._store.change() as change:
            found = await change.grant_of_refresh_token(digest_of(text))
            if found is None or found[0].client_id != client.client_id:
                raise _bad_token()
            await end_grant(change, self._bus, found[0], "grant.revoked", now=self._now())

    async def _revoke_access_token(self, client: Client, text: str) -> None:
        try:
            token = read_token(text, self._keys, now=self._now())
        except RakkanError:
            raise _bad_token() from None
        if token.client_id != client.client_id:
            raise _bad_token()
        await self._bus.ask(RevokeTokens(token_id=token.token_id, until=token.expires_at))
        async with self._store.change() as change:
            await change.revoke(token, at=self._now())
            await change.write(
                "token.revoked",
                actor_type="client",
                actor_id=client.client_id,
                tenant=client.tenant_id,
                token_hash=token_hash(token),
            )


def _bad_token() -> Refusal:
    return Refusal("invalid_request", "Invalid string parameter token")


def token_hash(token: AccessToken) -> str:
    """What an audit leaf knows a token by."""
    return hashlib.sha256(token.token_id.encode()).hexdigest()

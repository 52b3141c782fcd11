"""The story of a token: issued to a client that proved itself, for itself or for a signer. Knows no HTTP and no SQL."""

import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from services.authentication import oauth
from services.authentication.clients import Client
from services.authentication.documents import echo
from services.authentication.doorkeeper import Doorkeeper, suspended
from services.authentication.grants import (
    BAD_CODE,
    BAD_REFRESH_TOKEN,
    Binding,
    Grant,
    RefreshToken,
    check_code,
    digest_of,
    new_refresh_token,
)
from services.authentication.oauth import Call, Refusal
from services.authentication.revoking import Bus, Ending, end_grant, token_hash
from shared.errors import Code, RakkanError
from shared.tokens import AccessToken, write_token
from shared.trust import SigningKey

SCOPE = "service"
_LIVE_TOKENS_MAX = 20
"""Access tokens of one grant at once: each of them is named to the SAM when the grant ends."""
_NEEDED = {"authorization_code": "code", "refresh_token": "refresh_token", "client_credentials": "grant_type"}

Answer = dict[str, Any]


class Change(Ending, Protocol):
    """One transaction of the store."""

    async def lock_client(self, client_id: str) -> datetime: ...
    async def issue(self, token: AccessToken, *, grant_id: bytes | None = None) -> None: ...
    async def grant_of_code(self, code_hash: bytes) -> Grant | None: ...
    async def spend_code(self, grant_id: bytes, *, at: datetime) -> None: ...
    async def grant_of_refresh_token(self, token_hash: bytes) -> tuple[Grant, RefreshToken] | None: ...
    async def add_refresh_token(self, token_hash: bytes, grant_id: bytes, *, expires_at: datetime) -> None: ...
    async def spend_refresh_token(self, token_hash: bytes, *, at: datetime) -> None: ...
    async def write(self, event_type: str, **facts: Any) -> None: ...


class Store(Protocol):
    def change(self) -> AbstractAsyncContextManager[Change]: ...


class Tokens:
    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        doorkeeper: Doorkeeper,
        signing_key: SigningKey,
        issuer: str,
        lifetime_s: int,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._bus = bus
        self._doorkeeper = doorkeeper
        self._signing_key = signing_key
        self._issuer = issuer
        self._lifetime = timedelta(seconds=lifetime_s)
        self._now = now

    async def grant(self, call: Call) -> Answer:
        """The answer of the token endpoint (RFC 6749 5.1)."""
        grant_type = call.form.get("grant_type")
        if grant_type is None:
            raise oauth.missing("grant_type")
        if _NEEDED.get(grant_type, "grant_type") not in call.form:
            raise oauth.missing(_NEEDED[grant_type])
        client = await self._doorkeeper.admit(call)
        async with self._doorkeeper.noting(client):
            if grant_type not in _NEEDED:
                raise oauth.invalid("grant_type")
            binding = await self._doorkeeper.binding(call, client)
            if grant_type == "authorization_code":
                return await self._redeem(client, call.form, binding)
            if grant_type == "refresh_token":
                return await self._refresh(client, call.form, binding)
            return await self._serve(client, call.form, binding)

    async def _serve(self, client: Client, form: Mapping[str, str], binding: Binding) -> Answer:
        """A token of the client itself."""
        _check_scope(form)
        async with self._store.change() as change:
            token = await self._issue(change, client, None, binding)
            await _note(change, client, token)
        return self._answer(token)

    async def _redeem(self, client: Client, form: Mapping[str, str], binding: Binding) -> Answer:
        """Spend the code first, whatever comes of it: one that comes with a wrong proof was stolen or mixed up."""
        async with self._store.change() as change:
            grant = await change.grant_of_code(digest_of(form["code"]))
            # Another's code stays what it is: else whoever saw it could spend it for its owner.
            if grant is None or grant.client_id != client.client_id:
                raise Refusal("invalid_grant", BAD_CODE)
            refusal, answer = None, {}
            if grant.code_spent_at is not None:
                await end_grant(change, self._bus, grant, "code.reused", now=self._now())
                refusal = Refusal("invalid_grant", BAD_CODE)
            else:
                await change.spend_code(grant.grant_id, at=self._now())
                try:
                    check_code(grant, form, binding, now=self._now())
                    answer = await self._first_tokens(change, client, grant, binding)
                except Refusal as refused:
                    refusal = refused
        if refusal is not None:
            raise refusal
        return answer

    async def _first_tokens(self, change: Change, client: Client, grant: Grant, binding: Binding) -> Answer:
        token = await self._issue(change, client, grant, binding)
        answer = self._answer(token)
        if grant.scope == SCOPE:
            answer |= await self._add_refresh_token(change, grant)
        await _note(change, client, token)
        if grant.scope == SCOPE:
            return answer
        if grant.details is not None:
            answer["authorization_details"] = echo(grant.details, grant.credential_id)
        if grant.scope != "credential":
            return answer
        answer["credentialID"] = grant.credential_id
        if "token-type-sad" in client.flags and binding.key_thumbprint is None:
            answer["token_type"] = "SAD"  # noqa: S105 - a type of token
        return answer

    async def _refresh(self, client: Client, form: Mapping[str, str], binding: Binding) -> Answer:
        _check_scope(form)
        async with self._store.change() as change:
            found = await change.grant_of_refresh_token(digest_of(form["refresh_token"]))
            if found is None or found[0].client_id != client.client_id or found[0].revoked_at is not None:
                raise Refusal("invalid_grant", BAD_REFRESH_TOKEN)
            grant, presented = found
            if presented.expires_at <= self._now():
                raise Refusal("invalid_grant", "Refresh token expired")
            if presented.spent_at is not None:
                await end_grant(change, self._bus, grant, "refresh_token.reused", now=self._now())
                answer = None
            else:
                token = await self._issue(change, client, grant, binding)
                answer = self._answer(token) | await self._rotate(change, client, grant, form)
                await _note(change, client, token)
        if answer is None:
            raise Refusal("invalid_grant", BAD_REFRESH_TOKEN)
        return answer

    async def _rotate(self, change: Change, client: Client, grant: Grant, form: Mapping[str, str]) -> Answer:
        # FAPI 2.0 5.3.2.1 wants no rotation: the token is bound to a client with keys, and a lost answer ends nothing.
        if client.is_hardened:
            return {"refresh_token": form["refresh_token"]}
        await change.spend_refresh_token(digest_of(form["refresh_token"]), at=self._now())
        return await self._add_refresh_token(change, grant)

    async def _add_refresh_token(self, change: Change, grant: Grant) -> Answer:
        text = new_refresh_token()
        await change.add_refresh_token(digest_of(text), grant.grant_id, expires_at=grant.expires_at)
        return {"refresh_token": text}

    async def _issue(self, change: Change, client: Client, grant: Grant | None, binding: Binding) -> AccessToken:
        try:
            tokens_from = await change.lock_client(client.client_id)
        except RakkanError as refusal:
            if refusal.code is not Code.CLIENT_REFUSED:
                raise
            raise suspended() from None
        if grant is not None:
            await self._check_issuable(change, grant, tokens_from)
        # Tokens count whole seconds. One that is given in the second of a suspension that has ended would count as
        # older than it and be dead: it begins with the next second.
        issued_at = max(self._now().replace(microsecond=0), _whole_second_from(tokens_from))
        ends_at = issued_at + self._lifetime
        token = AccessToken(
            token_id=secrets.token_urlsafe(24),
            issuer=self._issuer,
            client_id=client.client_id,
            tenant_id=client.tenant_id,
            scope=grant.scope if grant else SCOPE,
            issued_at=issued_at,
            expires_at=min(ends_at, grant.expires_at.replace(microsecond=0)) if grant else ends_at,
            user_id=grant.user_id if grant else None,
            credential_id=grant.credential_id if grant else None,
            authorization_id=grant.authorization_id if grant else None,
            key_thumbprint=binding.key_thumbprint,
            certificate_thumbprint=binding.certificate_thumbprint,
            authority=grant.authority if grant else None,
            certificate_profile=grant.certificate_profile if grant else None,
        )
        await change.issue(token, grant_id=grant.grant_id if grant else None)
        return token

    async def _check_issuable(self, change: Change, grant: Grant, tokens_from: datetime) -> None:
        # What was granted before the client was suspended ended with its tokens.
        if grant.revoked_at is not None or grant.granted_at < tokens_from or grant.expires_at <= self._now():
            raise Refusal("invalid_grant", "The grant has ended")
        if len(await change.live_tokens(grant.grant_id, now=self._now())) >= _LIVE_TOKENS_MAX:
            raise Refusal(
                "temporarily_unavailable", "Too many access tokens of one grant", status=429, retry_after_s=60
            )

    def _answer(self, token: AccessToken) -> Answer:
        return {
            "access_token": write_token(token, self._signing_key),
            "token_type": "DPoP" if token.key_thumbprint else "Bearer",
            "expires_in": int((token.expires_at - token.issued_at).total_seconds()),
            "scope": token.scope,
        }


def _check_scope(form: Mapping[str, str]) -> None:
    if form.get("scope", SCOPE) != SCOPE:
        raise Refusal("invalid_scope", "Invalid parameter scope")


def _whole_second_from(moment: datetime) -> datetime:
    return datetime.fromtimestamp(math.ceil(moment.timestamp()), UTC)


async def _note(change: Change, client: Client, token: AccessToken) -> None:
    subject = {"scope": token.scope, "user_id": token.user_id, "authorization_id": token.authorization_id}
    await change.write(
        "token.issued",
        actor_type="client",
        actor_id=client.client_id,
        tenant=client.tenant_id,
        subject={name: value for name, value in subject.items() if value is not None},
        token_hash=token_hash(token),
    )

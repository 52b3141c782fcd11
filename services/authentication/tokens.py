"""The story of a token: issued to a client that proved itself, revoked by the same. Knows no HTTP and no SQL."""

import hashlib
import math
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from joserfc.jwk import KeySet

from services.authentication import oauth
from services.authentication.clients import (
    Assertion,
    Client,
    check_assertion,
    check_secret,
    claimed_client_id,
)
from services.authentication.oauth import Presented, Refusal
from services.authentication.throttle import Throttle
from shared.contracts.base import R, Request
from shared.contracts.sam import RevokeTokens
from shared.errors import Code, RakkanError
from shared.tokens import AccessToken, read_token, write_token
from shared.trust import SigningKey

SCOPE = "service"
_KNOWN_HINTS = (None, "access_token", "refresh_token")
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


class Change(Protocol):
    """One transaction of the store."""

    async def lock_client(self, client_id: str) -> datetime: ...
    async def issue(self, token: AccessToken) -> None: ...
    async def revoke(self, token: AccessToken, *, at: datetime) -> None: ...
    async def write(self, event_type: str, **facts: Any) -> None: ...


class Store(Protocol):
    async def client(self, client_id: str) -> Client | None: ...
    async def spend_assertion(self, assertion: Assertion) -> None: ...
    def change(self) -> AbstractAsyncContextManager[Change]: ...


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


class Tokens:
    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        keys: KeySet,
        signing_key: SigningKey,
        throttle: Throttle,
        issuer: str,
        lifetime_s: int,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._bus = bus
        self._keys = keys
        self._signing_key = signing_key
        self._throttle = throttle
        self._issuer = issuer
        self._lifetime = timedelta(seconds=lifetime_s)
        self._now = now

    async def grant(self, form: Mapping[str, str], presented: Presented, address: str) -> dict[str, str | int]:
        """The answer of the token endpoint (RFC 6749 5.1)."""
        grant_type = form.get("grant_type")
        if grant_type is None:
            raise oauth.missing("grant_type")
        for grant, needed in (("authorization_code", "code"), ("refresh_token", "refresh_token")):
            if grant_type == grant and needed not in form:
                raise oauth.missing(needed)
        client = await self._authenticate(presented, address)
        try:
            _check_grant(form)
            text, token = await self._issue(client)
        except Refusal as refusal:
            await self._note_refusal(client.client_id, client.tenant_id, refusal)
            raise
        return {
            "access_token": text,
            "token_type": "Bearer",
            "expires_in": int((token.expires_at - token.issued_at).total_seconds()),
            "scope": token.scope,
        }

    async def revoke(self, form: Mapping[str, str], presented: Presented, address: str) -> None:
        """End a token at once (RFC 7009, CSC API 4.5): the SAM refuses it before we say that it is revoked."""
        text, hint = form.get("token"), form.get("token_type_hint")
        if text is None:
            raise oauth.missing("token")
        if hint not in _KNOWN_HINTS:
            raise oauth.invalid("token_type_hint")
        client = await self._authenticate(presented, address)
        try:
            token = read_token(text, self._keys, now=self._now())
        except RakkanError:
            if hint == "refresh_token":
                raise Refusal("unsupported_token_type", "This service issues no refresh tokens") from None
            raise _bad_token() from None
        if token.client_id != client.client_id:
            raise _bad_token()
        # The SAM first: when it cannot be reached nothing has happened and the client may ask again, and it never
        # believes in a revocation that the SAM does not know of.
        await self._bus.ask(RevokeTokens(token_id=token.token_id, until=token.expires_at))
        async with self._store.change() as change:
            await change.revoke(token, at=self._now())
            await change.write(
                "token.revoked",
                actor_type="client",
                actor_id=client.client_id,
                tenant=client.tenant_id,
                token_hash=_token_hash(token),
            )

    async def _authenticate(self, presented: Presented, address: str) -> Client:
        """The client that this proves to be, or a Refusal. Failures are counted, and noted while they are few."""
        client_id = _client_id(presented)
        client = await self._store.client(client_id) if _PLAIN_ID.fullmatch(client_id) else None
        counted = client.client_id if client else ""  # invented names share one count
        wait_s = self._throttle.wait_s(counted, address, now=self._now())
        if wait_s > 0:
            raise Refusal(
                "temporarily_unavailable",
                "Too many failed attempts to authenticate",
                status=429,
                retry_after_s=math.ceil(wait_s),
            )
        try:
            return await self._check(client, presented)
        except Refusal as refusal:
            self._throttle.failed(counted, address, now=self._now())
            await self._note_refusal(
                client.client_id if client else "unknown", client.tenant_id if client else None, refusal
            )
            raise

    async def _check(self, client: Client | None, presented: Presented) -> Client:
        if client is None:
            raise oauth.invalid("client_id")
        if presented.secret is not None:
            try:
                check_secret(client, presented.secret)
            except RakkanError:
                raise oauth.invalid("client_secret") from None
        elif presented.assertion is not None:
            try:
                assertion = check_assertion(client, presented.assertion, issuer=self._issuer, now=self._now())
                await self._store.spend_assertion(assertion)
            except RakkanError as refusal:
                if refusal.code is not Code.CLIENT_REFUSED:
                    raise
                raise _bad_assertion() from None
        else:
            raise Refusal("invalid_request", oauth.CLIENT_AUTHORIZATION_REQUIRED)
        if client.suspended:
            raise _suspended()
        return client

    async def _issue(self, client: Client) -> tuple[str, AccessToken]:
        async with self._store.change() as change:
            try:
                tokens_from = await change.lock_client(client.client_id)
            except RakkanError as refusal:
                if refusal.code is not Code.CLIENT_REFUSED:
                    raise
                raise _suspended() from None
            # Tokens count whole seconds. One that is given in the second of a suspension that has ended would count
            # as older than it and be dead: it begins with the next second.
            issued_at = max(self._now().replace(microsecond=0), _whole_second_from(tokens_from))
            token = AccessToken(
                token_id=secrets.token_urlsafe(24),
                issuer=self._issuer,
                client_id=client.client_id,
                tenant_id=client.tenant_id,
                scope=SCOPE,
                issued_at=issued_at,
                expires_at=issued_at + self._lifetime,
            )
            await change.issue(token)
            await change.write(
                "token.issued",
                actor_type="client",
                actor_id=client.client_id,
                tenant=client.tenant_id,
                token_hash=_token_hash(token),
            )
        return write_token(token, self._signing_key), token

    async def _note_refusal(self, client_id: str, tenant_id: str | None, refusal: Refusal) -> None:
        async with self._store.change() as change:
            await change.write(
                "token.refused",
                actor_type="client",
                actor_id=client_id,
                tenant=tenant_id,
                outcome="refused",
                reason_code=f"{refusal.error}: {refusal.description}",
            )


def _client_id(presented: Presented) -> str:
    if presented.client_id is not None:
        return presented.client_id
    if presented.assertion is None:
        raise oauth.missing("client_id")
    try:
        return claimed_client_id(presented.assertion)
    except RakkanError:
        raise _bad_assertion() from None


def _check_grant(form: Mapping[str, str]) -> None:
    grant_type = form["grant_type"]
    # No code and no refresh token was ever issued here, so none is valid.
    if grant_type == "authorization_code":
        raise Refusal("invalid_grant", "Invalid parameter code")
    if grant_type == "refresh_token":
        raise Refusal("invalid_grant", "Invalid parameter refresh_token")
    if grant_type != "client_credentials":
        raise oauth.invalid("grant_type")
    if form.get("scope", SCOPE) != SCOPE:
        raise Refusal("invalid_scope", "Invalid parameter scope")


def _bad_token() -> Refusal:
    return Refusal("invalid_request", "Invalid string parameter token")


def _bad_assertion() -> Refusal:
    return Refusal("invalid_client", "Invalid parameter client_assertion", status=401)


def _suspended() -> Refusal:
    return Refusal("invalid_client", "The client is suspended", status=401)


def _token_hash(token: AccessToken) -> str:
    return hashlib.sha256(token.token_id.encode()).hexdigest()


def _whole_second_from(moment: datetime) -> datetime:
    return datetime.fromtimestamp(math.ceil(moment.timestamp()), UTC)

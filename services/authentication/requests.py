"""The story of an authorization request: asked by a client, shown to one browser session, granted or denied once.

What the pages know of OAuth is `Requests.open`, `granted` and `denied`. Knows no HTTP and no SQL.
"""

import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

from services.authentication.account_tokens import check_account_token
from services.authentication.asking import Asked, read_asked, read_redirect_uri, read_state
from services.authentication.choosing import Choosing
from services.authentication.clients import Assertion, Client
from services.authentication.doorkeeper import Doorkeeper
from services.authentication.grants import Grant, digest_of, new_code, new_id
from services.authentication.oauth import Call, Refusal, invalid, missing
from services.authentication.throttle import Throttle
from shared.algorithms import Hash
from shared.audit import digest_set_hash
from shared.contracts.approval import Document
from shared.contracts.issuance import CREATION
from shared.errors import Code, RakkanError

REQUEST_URI = "urn:ietf:params:oauth:request_uri:"
CREDENTIAL_LIFETIME_S = 300
"""Of a token that names an authorization, counted from the signer's approval."""
_DENIALS = ("access_denied", "server_error", "temporarily_unavailable", "invalid_request", "login_required")
_GRANT_ID_BYTES = 16


@dataclass(frozen=True)
class AuthorizationRequest:
    """What a signer is asked, for the page that asks."""

    request_id: str
    client_id: str
    client_name: str
    tenant_id: str
    scope: Literal["service", "credential", "credential-creation", "credential-deletion"]
    credential_id: str | None
    signatures: int
    documents: tuple[Document, ...]
    hash: Hash | None
    description: str
    lang: str | None
    login_hint: str | None
    """The user that the client's account token named: `granted` takes nobody else."""
    redirect_uri: str
    expires_at: datetime
    authority: str | None = None
    certificate_profile: str | None = None
    labels: tuple[str, str] = ("", "")
    """Of that CA and that profile, for people."""


@dataclass(frozen=True)
class StoredRequest:
    client_id: str
    asked: str
    pushed_until: datetime | None
    expires_at: datetime
    session_hash: bytes | None
    ended: bool


@dataclass(frozen=True)
class Lifetimes:
    request: timedelta
    pushed: timedelta
    code: timedelta
    refresh: timedelta


class Change(Protocol):
    """One transaction of the store."""

    async def lock_client(self, client_id: str) -> datetime: ...
    async def add_request(self, request_hash: bytes, request: StoredRequest) -> None: ...
    async def bind_request(
        self, request_hash: bytes, *, session_hash: bytes, now: datetime
    ) -> StoredRequest | None: ...
    async def end_request(
        self, request_hash: bytes, *, session_hash: bytes, outcome: Literal["granted", "denied"], at: datetime
    ) -> StoredRequest | None: ...
    async def add_grant(self, grant: Grant, *, code_hash: bytes) -> None: ...
    async def write(self, event_type: str, **facts: Any) -> None: ...


class Store(Protocol):
    async def client(self, client_id: str) -> Client | None: ...
    async def request(self, request_hash: bytes) -> StoredRequest | None: ...
    async def spend_assertion(self, assertion: Assertion) -> None: ...
    def change(self) -> AbstractAsyncContextManager[Change]: ...


class Requests:
    def __init__(
        self,
        *,
        store: Store,
        doorkeeper: Doorkeeper,
        throttle: Throttle,
        issuer: str,
        lifetimes: Lifetimes,
        qualifiers: tuple[str, ...],
        choosing: Choosing,
        now: Callable[[], datetime],
    ) -> None:
        self._choosing = choosing
        self._store = store
        self._doorkeeper = doorkeeper
        self._throttle = throttle
        self._issuer = issuer
        self._lifetimes = lifetimes
        self._qualifiers = qualifiers
        self._now = now

    # --- for the endpoints ---

    async def push(self, call: Call) -> dict[str, str | int]:
        """The answer of the pushed authorization request endpoint (RFC 9126 2.2)."""
        client = await self._doorkeeper.admit(call)
        async with self._doorkeeper.noting(client):
            if "request_uri" in call.form:
                raise invalid("request_uri")
            redirect_uri = read_redirect_uri(call.form, client)
            proof = await self._doorkeeper.proof(call, required=False)
            asked = await self._read(call.form, client, redirect_uri, proof.key_thumbprint if proof else None)
        pushed_until = self._now() + self._lifetimes.pushed
        request_id = await self._add(client, asked, pushed_until)
        return {"request_uri": REQUEST_URI + request_id, "expires_in": int(self._lifetimes.pushed.total_seconds())}

    async def begin(self, form: Mapping[str, str], address: str) -> str:
        """Where the browser goes from the authorization endpoint: to the page that asks, or back with an error.

        A Refusal is shown to the person: until the redirect URI is known to be the client's, nothing is sent there.
        """
        client_id = form.get("client_id")
        if client_id is None:
            raise missing("client_id")
        client = await self._doorkeeper.find(client_id)
        self._count(client, address)
        if client is None or client.suspended:
            raise invalid("client_id")
        if "request_uri" in form:
            return await self._begin_pushed(form["request_uri"], client)
        redirect_uri = read_redirect_uri(form, client)
        try:
            _check_pushed(client)
            asked = await self._read(form, client, redirect_uri, None)
        except Refusal as refusal:
            error = {"error": refusal.error, "error_description": refusal.description}
            return self._answer(redirect_uri, read_state(form), error)
        return self._page(await self._add(client, asked, None))

    # --- for the pages ---

    async def open(self, request_id: str, *, session_id: str) -> AuthorizationRequest:
        """The request, from now on this browser session's alone.

        NOT_FOUND when there is none, or it ended or expired; FORBIDDEN when another session has it; CLIENT_REFUSED
        when its client is suspended.
        """
        async with self._store.change() as change:
            stored = await change.bind_request(
                digest_of(request_id), session_hash=digest_of(session_id), now=self._now()
            )
        if stored is None:
            raise await self._why_not(request_id)
        client = await self._store.client(stored.client_id)
        if client is None or client.suspended:
            raise RakkanError(Code.CLIENT_REFUSED, "the client is suspended")
        asked = Asked.model_validate_json(stored.asked)
        return AuthorizationRequest(
            request_id=request_id,
            client_id=client.client_id,
            client_name=client.name,
            tenant_id=client.tenant_id,
            scope=asked.scope,
            credential_id=asked.credential_id,
            signatures=asked.signatures,
            documents=asked.documents,
            hash=asked.hash,
            description=asked.description,
            lang=asked.lang,
            login_hint=asked.user_id,
            redirect_uri=asked.redirect_uri,
            expires_at=stored.expires_at,
            authority=asked.authority,
            certificate_profile=asked.certificate_profile,
            labels=self._choosing.labels(asked.authority, asked.certificate_profile),
        )

    async def granted(
        self,
        request_id: str,
        *,
        session_id: str,
        tenant_id: str,
        user_id: str,
        authorization_id: str | None,
        credential_id: str | None,
        expires_in_s: int | None = None,
    ) -> str:
        """End the request with a code; where the browser takes it. Refused like `open`.

        FORBIDDEN also for a signer of another tenant, another account than the client named, another credential than
        it asked for. `expires_in_s`: how much longer the authorization holds, when it is less than five minutes.
        """
        now, code = self._now(), new_code()
        async with self._store.change() as change:
            stored = await self._end(change, request_id, session_id, "granted", now)
            client = await self._store.client(stored.client_id)
            await change.lock_client(stored.client_id)
            asked = Asked.model_validate_json(stored.asked)
            if client is None or client.tenant_id != tenant_id or asked.user_id not in (None, user_id):
                raise RakkanError(Code.FORBIDDEN, "not a signer that the client may ask")
            _check_grantable(asked, authorization_id, credential_id)
            lifetime = self._grant_lifetime(asked, expires_in_s)
            grant = Grant(
                grant_id=secrets.token_bytes(_GRANT_ID_BYTES),
                client_id=stored.client_id,
                tenant_id=tenant_id,
                user_id=user_id,
                scope=asked.scope,
                authorization_id=authorization_id,
                credential_id=credential_id,
                redirect_uri=asked.redirect_uri,
                redirect_uri_given=asked.redirect_uri_given,
                code_challenge=asked.code_challenge,
                key_thumbprint=asked.key_thumbprint,
                details=asked.details,
                code_expires_at=now + min(self._lifetimes.code, lifetime),
                code_spent_at=None,
                granted_at=now,
                expires_at=now + lifetime,
                revoked_at=None,
                authority=asked.authority if asked.scope == CREATION else None,
                certificate_profile=asked.certificate_profile if asked.scope == CREATION else None,
            )
            await change.add_grant(grant, code_hash=digest_of(code))
            await change.write("authorization.granted", **_facts(stored.client_id, tenant_id, user_id, asked, grant))
        return self._answer(asked.redirect_uri, asked.state, {"code": code})

    async def denied(
        self, request_id: str, *, session_id: str, error: str = "access_denied", description: str = ""
    ) -> str:
        """End the request without a code; where the browser takes the news. Refused like `open`."""
        if error not in _DENIALS:
            raise RakkanError(Code.MALFORMED, "not an error of the authorization endpoint")
        now = self._now()
        async with self._store.change() as change:
            stored = await self._end(change, request_id, session_id, "denied", now)
            await change.write(
                "authorization.denied",
                actor_type="client",
                actor_id=stored.client_id,
                outcome="refused",
                reason_code=error,
            )
        asked = Asked.model_validate_json(stored.asked)
        told = {"error": error} | ({"error_description": description} if description else {})
        return self._answer(asked.redirect_uri, asked.state, told)

    # --- within ---

    def _count(self, client: Client | None, address: str) -> None:
        """Anybody can ask at the authorization endpoint, and each time a row is kept for a while."""
        counted = client.client_id if client else ""
        wait_s = self._throttle.wait_s(counted, address, now=self._now())
        if wait_s > 0:
            raise Refusal("temporarily_unavailable", "Too many requests", status=429, retry_after_s=math.ceil(wait_s))
        self._throttle.failed(counted, address, now=self._now())

    async def _read(
        self, form: Mapping[str, str], client: Client, redirect_uri: str, key_thumbprint: str | None
    ) -> Asked:
        account = None
        if "account_token" in form:
            account = check_account_token(client, form["account_token"], now=self._now())
        asked = read_asked(
            form,
            client,
            redirect_uri=redirect_uri,
            qualifiers=self._choosing.qualifiers(self._qualifiers, client),
            user_id=account.user_id if account else None,
            key_thumbprint=key_thumbprint,
        )
        asked = self._choosing.chosen(asked, client)
        if account is not None:
            try:
                await self._store.spend_assertion(account.spending)
            except RakkanError as refusal:
                if refusal.code is not Code.CLIENT_REFUSED:
                    raise
                raise invalid("account_token") from None
        return asked

    async def _add(self, client: Client, asked: Asked, pushed_until: datetime | None) -> str:
        request_id = new_id()
        request = StoredRequest(
            client_id=client.client_id,
            asked=asked.model_dump_json(exclude_defaults=True),
            pushed_until=pushed_until,
            expires_at=self._now() + self._lifetimes.request,
            session_hash=None,
            ended=False,
        )
        async with self._store.change() as change:
            await change.add_request(digest_of(request_id), request)
        return request_id

    async def _begin_pushed(self, request_uri: str, client: Client) -> str:
        """It may be opened again until it has ended: browsers reload. Its page belongs to the first session."""
        refused = Refusal("invalid_request_uri", "Invalid parameter request_uri")
        if not request_uri.startswith(REQUEST_URI):
            raise refused
        request_id = request_uri.removeprefix(REQUEST_URI)
        stored = await self._store.request(digest_of(request_id))
        if stored is None or stored.client_id != client.client_id or stored.ended:
            raise refused
        if stored.pushed_until is None or stored.pushed_until <= self._now():
            raise refused
        return self._page(request_id)

    async def _end(
        self,
        change: Change,
        request_id: str,
        session_id: str,
        outcome: Literal["granted", "denied"],
        now: datetime,
    ) -> StoredRequest:
        stored = await change.end_request(
            digest_of(request_id), session_hash=digest_of(session_id), outcome=outcome, at=now
        )
        if stored is None:
            raise await self._why_not(request_id)
        return stored

    async def _why_not(self, request_id: str) -> RakkanError:
        stored = await self._store.request(digest_of(request_id))
        if stored is None or stored.ended or stored.expires_at <= self._now():
            return RakkanError(Code.NOT_FOUND, "no such request, or it has ended")
        return RakkanError(Code.FORBIDDEN, "the request is another session's")

    def _grant_lifetime(self, asked: Asked, expires_in_s: int | None) -> timedelta:
        if asked.scope == "service":
            return self._lifetimes.refresh
        return timedelta(seconds=min(CREDENTIAL_LIFETIME_S, expires_in_s or CREDENTIAL_LIFETIME_S))

    def _page(self, request_id: str) -> str:
        return f"{self._issuer}/approve/{request_id}"

    def _answer(self, redirect_uri: str, state: str | None, told: dict[str, str]) -> str:
        """The redirect URI with the answer, and with who answers (RFC 9207)."""
        answer = told | ({"state": state} if state is not None else {}) | {"iss": self._issuer}
        return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(answer)}"


def _check_pushed(client: Client) -> None:
    if client.is_hardened:
        raise Refusal("invalid_request", "This client pushes its requests (RFC 9126)")


def _check_grantable(asked: Asked, authorization_id: str | None, credential_id: str | None) -> None:
    if asked.scope != "credential":
        if authorization_id is not None or credential_id != asked.credential_id:
            raise RakkanError(Code.FORBIDDEN, f"scope {asked.scope} names no authorization")
    elif authorization_id is None or credential_id is None or asked.credential_id not in (None, credential_id):
        raise RakkanError(Code.FORBIDDEN, "scope credential names the authorization of the credential asked for")


def _facts(client_id: str, tenant_id: str, user_id: str, asked: Asked, grant: Grant) -> dict[str, Any]:
    subject = {"client_id": client_id, "scope": asked.scope}
    if grant.credential_id and grant.authorization_id:
        subject |= {"credential_id": grant.credential_id, "authorization_id": grant.authorization_id}
    return {
        "actor_type": "signer",
        "actor_id": user_id,
        "tenant": tenant_id,
        "subject": subject,
        "digest_set_hash": digest_set_hash(tuple(d.digest for d in asked.documents)) if asked.documents else None,
    }

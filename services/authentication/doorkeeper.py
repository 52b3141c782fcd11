"""Clients at the endpoints: who they prove to be, and with which key; failures are counted. Knows no HTTP, no SQL."""

import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, Protocol

import structlog
from cryptography import x509

from services.authentication import certificates, oauth
from services.authentication.clients import Assertion, Client, check_assertion, check_secret, claimed_client_id
from services.authentication.grants import Binding
from services.authentication.oauth import Call, Presented, Refusal
from services.authentication.throttle import Throttle
from shared.dpop import Proof, read_proof
from shared.errors import Code, RakkanError

log = structlog.get_logger()

_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


class Change(Protocol):
    """One transaction of the store."""

    async def write(self, event_type: str, **facts: Any) -> None: ...


class Store(Protocol):
    async def client(self, client_id: str) -> Client | None: ...
    async def spend_assertion(self, assertion: Assertion) -> None: ...
    def change(self) -> AbstractAsyncContextManager[Change]: ...


class Doorkeeper:
    def __init__(
        self,
        *,
        store: Store,
        throttle: Throttle,
        issuer: str,
        anchors: Sequence[x509.Certificate],
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._throttle = throttle
        self._issuer = issuer
        self._anchors = tuple(anchors)
        self._now = now

    async def find(self, client_id: str) -> Client | None:
        """The client of this id, proven or not."""
        return await self._store.client(client_id) if _PLAIN_ID.fullmatch(client_id) else None

    async def admit(self, call: Call) -> Client:
        """The client that this proves to be, or a Refusal. Failures are counted, and noted while they are few."""
        client = await self.find(_client_id(call.presented))
        counted = client.client_id if client else ""  # invented names share one count
        wait_s = self._throttle.wait_s(counted, call.address, now=self._now())
        if wait_s > 0:
            raise Refusal(
                "temporarily_unavailable",
                "Too many failed attempts to authenticate",
                status=429,
                retry_after_s=math.ceil(wait_s),
            )
        try:
            return await self._check(client, call)
        except Refusal as refusal:
            self._throttle.failed(counted, call.address, now=self._now())
            await self._note(client.client_id if client else "unknown", client.tenant_id if client else None, refusal)
            raise

    async def proof(self, call: Call, *, required: bool) -> Proof | None:
        """The key that the client proves, by a proof used once (RFC 9449 5)."""
        if not call.proofs:
            if required:
                raise Refusal(
                    "invalid_dpop_proof",
                    "This client's tokens are bound: a DPoP proof or a client certificate is required",
                )
            return None
        if len(call.proofs) > 1:
            raise Refusal("invalid_dpop_proof", "More than one DPoP proof")
        try:
            proof = read_proof(call.proofs[0], method="POST", url=call.url, now=self._now())
            await self._store.spend_assertion(Assertion(digest=proof.digest, expires_at=proof.expires_at))
        except RakkanError as refusal:
            if refusal.code not in (Code.TOKEN_INVALID, Code.CLIENT_REFUSED):
                raise
            raise Refusal("invalid_dpop_proof", refusal.detail) from None
        return proof

    async def binding(self, call: Call, client: Client) -> Binding:
        """What the client's tokens are bound to: the key that it proves, or else the certificate that it shows.

        A certificate that a client shows by the way binds nothing unless it is one that needs binding: its gateway
        calls may come another way.
        """
        shown = call.certificate if client.is_hardened or client.method in certificates.METHODS else None
        proof = await self.proof(call, required=client.is_hardened and shown is None)
        if proof is not None:
            return Binding(key_thumbprint=proof.key_thumbprint)
        if shown is None:
            return Binding()
        if not shown.is_in_time(now=self._now()):
            raise Refusal("invalid_request", "The client certificate has expired or is not valid yet")
        return Binding(certificate_thumbprint=shown.thumbprint)

    @asynccontextmanager
    async def noting(self, client: Client) -> AsyncIterator[None]:
        """What is refused a client that has proven itself leaves its leaf."""
        try:
            yield
        except Refusal as refusal:
            await self._note(client.client_id, client.tenant_id, refusal)
            raise

    async def _check(self, client: Client | None, call: Call) -> Client:
        presented = call.presented
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
        elif client.method in certificates.METHODS:
            self._check_certificate(client, call)
        else:
            raise Refusal("invalid_request", oauth.CLIENT_AUTHORIZATION_REQUIRED)
        if client.suspended:
            raise suspended()
        if client.is_hardened and call.in_query:
            raise Refusal("invalid_request", "Parameters must be sent in the body")
        return client

    def _check_certificate(self, client: Client, call: Call) -> None:
        if call.certificate is None:
            raise Refusal("invalid_client", "A client certificate is required", status=401)
        try:
            if client.certificate_name is not None:
                certificates.check_issued(call.certificate, client.certificate_name, self._anchors, now=self._now())
            else:
                certificates.check_own(call.certificate, client.jwks or "", now=self._now())
        except RakkanError as refusal:
            log.info("client certificate refused", client_id=client.client_id, detail=refusal.detail)
            raise Refusal("invalid_client", "Invalid client certificate", status=401) from None

    async def _note(self, client_id: str, tenant_id: str | None, refusal: Refusal) -> None:
        async with self._store.change() as change:
            await change.write(
                "token.refused",
                actor_type="client",
                actor_id=client_id,
                tenant=tenant_id,
                outcome="refused",
                reason_code=f"{refusal.error}: {refusal.description}",
            )


def suspended() -> Refusal:
    return Refusal("invalid_client", "The client is suspended", status=401)


def _client_id(presented: Presented) -> str:
    if presented.client_id is not None:
        return presented.client_id
    if presented.assertion is None:
        raise oauth.missing("client_id")
    try:
        return claimed_client_id(presented.assertion)
    except RakkanError:
        raise _bad_assertion() from None


def _bad_assertion() -> Refusal:
    return Refusal("invalid_client", "Invalid parameter client_assertion", status=401)

"""Credentials that come over the CSC (2.2 `credentials/create`), and those that are made for one authorization."""

import os
import secrets as random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Protocol

from services.sam.access import Access, created_by
from services.sam.activating import Activator
from services.sam.authorities import Registries, check_may_order, find_profile
from services.sam.handlers.enrolling import SHARE_BYTES, post_prepare
from services.sam.rows import PASSKEY, Assurance, Authenticator, Credential, Signer, State
from shared.algorithms import Profile
from shared.audit import AuditWriter
from shared.contracts.issuance import CREATION, CheckIssuance, CreateCredential, IssuanceChecked, PrepareOnce
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.registry import CertificateProfile
from shared.tokens import AccessToken

_SIGNATURES_MAX = 100
_FOR_ONCE_MAX = 5
"""One-time credentials of one signer at once: each costs a key, and a certificate at the CA."""
_PENDING = frozenset({State.REQUESTED, State.GENERATED, State.ORDERED})


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer: ...

    async def authenticators_of(self, signer_id: str) -> tuple[Authenticator, ...]: ...

    async def credential(self, credential_id: str) -> Credential | None: ...

    async def add_credential(self, connection: Connection, credential: Credential) -> bool: ...

    async def pending(self, signer_id: str, *, authority: str, profile: str) -> Credential | None: ...

    async def count_for_once(self, signer_id: str) -> int: ...


@dataclass(frozen=True)
class CreatingHandlers:
    store: Store
    access: Access
    activator: Activator
    audit: AuditWriter
    registries: Registries
    now: Callable[[], datetime]

    async def create_credential(self, request: CreateCredential) -> IssuanceChecked:
        """Write down what is wanted; the rest follows as a job. What was wanted before is not wanted twice."""
        now = self.now()
        _, token = await self.access.caller(
            request.secrets, message=request.TYPE, subject="", now=now, scopes=frozenset({CREATION})
        )
        user_id = _user_of(token, request)
        signer = await self._signer(token.tenant_id, user_id)
        if request.one_time:
            credential_id = _new_id("o")
            assurance: Assurance | None = "SCAL1-pin"
        else:
            credential_id = created_by(token) if token.scope == CREATION else _new_id("c")
            assurance = None
            under_way = await self._existing(token, signer, request)
            if under_way is not None:
                return checked(under_way)
        wanted = await self._wanted(
            signer,
            credential_id=credential_id,
            authority=request.authority,
            profile=request.profile,
            description=request.description,
            assurance=assurance,
            one_time=request.one_time,
            now=now,
        )
        return await self._add(wanted, actor_type="signer" if token.user_id else "client", actor_id=token.client_id)

    async def check_issuance(self, request: CheckIssuance) -> IssuanceChecked:
        """How far it is, for whom the token reaches; what a token made, it may ask about."""
        now = self.now()
        _, token = await self.access.caller(
            request.secrets, message=request.TYPE, subject=request.credential_id, now=now, scopes=frozenset({CREATION})
        )
        credential = await self.access.credential(request.credential_id, token)
        return checked(credential)

    async def prepare_once(self, request: PrepareOnce) -> IssuanceChecked:
        """For what a signer is about to approve on the page; she approves it by passkey, as everything there."""
        credential_id = f"o{sha256(request.request_id.encode()).hexdigest()[:31]}"
        signer = await self._signer(request.tenant_id, request.user_id)
        existing = await self.store.credential(credential_id)
        if existing is not None:
            if existing.signer_id != signer.signer_id:
                raise RakkanError(Code.CREDENTIAL_UNKNOWN)
            return checked(existing)
        wanted = await self._wanted(
            signer,
            credential_id=credential_id,
            authority=request.authority,
            profile=request.profile,
            description="",
            assurance=PASSKEY,
            one_time=True,
            now=self.now(),
        )
        return await self._add(wanted, actor_type="signer", actor_id=signer.signer_id)

    async def _existing(self, token: AccessToken, signer: Signer, request: CreateCredential) -> Credential | None:
        if token.scope == CREATION:
            return await self.store.credential(created_by(token))
        # A client that got no answer in time asks again; it must not be sold a second certificate for that.
        return await self.store.pending(signer.signer_id, authority=request.authority, profile=request.profile)

    async def _wanted(
        self,
        signer: Signer,
        *,
        credential_id: str,
        authority: str,
        profile: str,
        description: str,
        assurance: Assurance | None,
        one_time: bool,
        now: datetime,
    ) -> Credential:
        ca, found = find_profile(self.registries.current, authority, profile)
        await self._check(signer, authority, profile, found, one_time=one_time, now=now)
        chosen = await self._assurance(signer, assurance)
        key_id = random.token_hex(16)
        return Credential(
            credential_id=credential_id,
            signer_id=signer.signer_id,
            tenant_id=signer.tenant_id,
            description=description or f"{found.label} ({ca.label})"[:255],
            key_algorithm=found.key_algorithms[0],
            profile=Profile.EU,
            authority=authority,
            otp_required=chosen != PASSKEY and signer.totp_secret is not None,
            hashes_required=one_time or chosen == PASSKEY,
            signatures_max=_SIGNATURES_MAX,
            state=State.REQUESTED,
            reason=None,
            key_id=key_id,
            share=self.activator.new_share(key_id, os.urandom(SHARE_BYTES)),
            public_key=None,
            order_id=None,
            chain=(),
            certificate_status="none",
            not_after=None,
            version=1,
            assurance=chosen,
            certificate_profile=profile,
            one_time=one_time,
        )

    async def _check(
        self,
        signer: Signer,
        authority: str,
        profile: str,
        found: CertificateProfile,
        *,
        one_time: bool,
        now: datetime,
    ) -> None:
        if found.short_term is not one_time:
            is_or_not = "not" if one_time else "only"
            raise RakkanError(Code.PROFILE_UNKNOWN, f"{authority}/{profile} is {is_or_not} for one use")
        check_may_order(
            self.registries.current,
            authority=authority,
            profile=profile,
            signer=signer,
            key_algorithm=found.key_algorithms[0],
            algorithms=Profile.EU,
            now=now,
        )
        if one_time and await self.store.count_for_once(signer.signer_id) >= _FOR_ONCE_MAX:
            raise RakkanError(Code.OVERLOADED, f"{_FOR_ONCE_MAX} one-time keys of this signer wait already")

    async def _assurance(self, signer: Signer, wanted: Assurance | None) -> Assurance:
        """What the signer can approve with: the passkey before the PIN. FACTOR_UNKNOWN when it could never be used."""
        has_authenticator = any(one.removed_at is None for one in await self.store.authenticators_of(signer.signer_id))
        if wanted in (None, PASSKEY) and has_authenticator:
            return PASSKEY
        if wanted != PASSKEY and signer.pin_verifier:
            return "SCAL1-pin"
        raise RakkanError(Code.FACTOR_UNKNOWN, "the signer has nothing to approve it with")

    async def _add(self, wanted: Credential, *, actor_type: str, actor_id: str) -> IssuanceChecked:
        async with self.store.transaction() as connection:
            if await self.store.add_credential(connection, wanted):
                await post_prepare(connection, wanted.credential_id)
                chosen = {"authority": wanted.authority, "certificate_profile": wanted.certificate_profile}
                await self.audit.write(
                    connection,
                    "credential.requested",
                    actor_type=actor_type,
                    actor_id=actor_id,
                    tenant=wanted.tenant_id,
                    subject=wanted.audit_subject | chosen,
                    policy_id="one-time" if wanted.one_time else None,
                    correlation_id=operation.current().message_id,
                )
        return checked(wanted)

    async def _signer(self, tenant_id: str, user_id: str) -> Signer:
        try:
            return await self.store.signer_of_user(tenant_id, user_id)
        except RakkanError as refusal:
            raise RakkanError(Code.USER_ID_UNKNOWN) if refusal.code is Code.NOT_FOUND else refusal from None


def checked(credential: Credential) -> IssuanceChecked:
    """How far a credential is, in the words of who waits for it."""
    if credential.state in _PENDING:
        return IssuanceChecked(credential_id=credential.credential_id, state="pending")
    if credential.state in (State.ACTIVE, State.SUSPENDED):
        return IssuanceChecked(credential_id=credential.credential_id, state="active")
    is_refused = credential.state is State.REFUSED
    return IssuanceChecked(
        credential_id=credential.credential_id, state="refused" if is_refused else "ended", reason=credential.reason
    )


def _user_of(token: AccessToken, request: CreateCredential) -> str:
    """Whose credential it is to be. Of a signer's own log-in no credential is made without her word on just that."""
    if token.scope == CREATION:
        if (token.authority, token.certificate_profile) != (request.authority, request.profile):
            raise RakkanError(Code.SCOPE_REFUSED, "granted for another certification authority or profile")
        if token.user_id is None or request.user_id is not None:
            raise RakkanError(Code.FORBIDDEN, "the token names its user")
        return token.user_id
    if token.user_id is not None:
        if not request.one_time:
            raise RakkanError(Code.SCOPE_REFUSED, "the signer grants a creation through authorization_details")
        if request.user_id is not None:
            raise RakkanError(Code.FORBIDDEN, "the token names its user")
        return token.user_id
    if not request.user_id:
        raise RakkanError(Code.USER_ID_REQUIRED)
    return request.user_id


def _new_id(kind: str) -> str:
    return f"{kind}{random.token_hex(12)}"

"""From what a partner wants signed to what its signer approved: contexts, evidence, and the authorization it makes."""

import hashlib
import secrets as random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from services.sam import authenticators, authorizations, certificates, contexts, evidence
from services.sam.contexts import Context, Document
from services.sam.evidence import RelyingParty
from services.sam.rows import PASSKEY, Authenticator, Authorization, ContextRow, Credential, Evidence, Signer
from services.sam.settings import Authorizations, WebAuthn
from services.sam.store import Bound
from shared.audit import AuditWriter
from shared.contracts.approval import (
    ApprovableCredential,
    ApproveContext,
    ContextApproved,
    ContextOpened,
    DeviceSignature,
    ListApprovable,
    OpenContext,
    PasskeyAssertion,
    RefuseContext,
    SignerCredentials,
)
from shared.contracts.base import Done
from shared.database import Connection
from shared.errors import Code, RakkanError

_CREDENTIALS_MAX = 1000


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer: ...

    async def credential(self, credential_id: str, connection: "Connection | None" = None) -> Credential | None: ...

    async def credentials_of(self, signer_id: str, *, after: str, limit: int) -> list[Credential]: ...

    async def authenticators_of(self, signer_id: str) -> tuple[Authenticator, ...]: ...

    async def locked_authenticator(self, connection: Connection, authenticator_id: str) -> Authenticator | None: ...

    async def locked_passkey(self, connection: Connection, webauthn_id: bytes) -> Authenticator | None: ...

    async def note_use(self, connection: Connection, authenticator: Authenticator, *, sign_count: int) -> None: ...

    async def context(self, context_id: str) -> ContextRow | None: ...

    async def locked_context(self, connection: Connection, context_id: str) -> ContextRow | None: ...

    async def add_context(self, connection: Connection, context: ContextRow, *, waiting_max: int) -> None: ...

    async def decide_context(self, connection: Connection, context_id: str, outcome: str, *, at: datetime) -> None: ...

    async def add_evidence(self, connection: Connection, evidence: Evidence) -> None: ...

    async def evidence(self, context_id: str, connection: "Connection | None" = None) -> Evidence | None: ...

    async def add_authorization(self, connection: Connection, bound: Bound, *, waiting_max: int) -> None: ...

    async def authorization_of_request(self, connection: Connection, request_id: str) -> Authorization | None: ...


@dataclass(frozen=True)
class ApprovingHandlers:
    store: Store
    audit: AuditWriter
    party: RelyingParty
    rules: WebAuthn
    limits: Authorizations
    epoch: int
    now: Callable[[], datetime]

    async def list_approvable(self, request: ListApprovable) -> SignerCredentials:
        """What the signer could approve with now."""
        now = self.now()
        signer = await self.store.signer_of_user(request.tenant_id, request.user_id)
        rows = await self.store.credentials_of(signer.signer_id, after="", limit=_CREDENTIALS_MAX)
        return SignerCredentials(credentials=tuple(_shown(row) for row in rows if _is_approvable(row, now=now)))

    async def open_context(self, request: OpenContext) -> ContextOpened:
        """Write down what is asked, so that it is this and nothing else that is approved."""
        now = self.now()
        signer = await self._signer(request)
        credential = await self._credential(request.credential_id, signer.signer_id)
        digests = tuple(document.digest for document in request.documents)
        self._check(credential, request, digests, now=now)
        own = authenticators.usable(await self.store.authenticators_of(signer.signer_id), now=now)
        context = Context(
            nonce=random.token_bytes(contexts.NONCE_BYTES),
            epoch=self.epoch,
            credential_id=credential.credential_id,
            public_key_hash=_key_hash(credential),
            tenant_id=signer.tenant_id,
            client_id=request.client_id,
            hash=request.hash,
            signatures=request.signatures,
            documents=tuple(Document(document.digest, document.label) for document in request.documents),
            expires_at=now.replace(microsecond=0) + timedelta(seconds=self.rules.context_lifetime_s),
        )
        row = ContextRow(
            context_id=random.token_hex(16),
            signer_id=signer.signer_id,
            tenant_id=signer.tenant_id,
            credential_id=credential.credential_id,
            client_id=request.client_id,
            client_name=request.client_name,
            context=contexts.encode(context),
            opened_at=now,
            expires_at=context.expires_at,
        )
        async with self.store.transaction() as connection:
            await self.store.add_context(connection, row, waiting_max=self.limits.waiting_max_per_credential)
            await self._note(connection, "context.opened", row, actor_type="client", actor_id=row.client_id)
        return ContextOpened(
            context_id=row.context_id,
            challenge=contexts.challenge(row.context),
            context=row.context,
            reference_code=contexts.reference_code(request.client_id, digests),
            credential=_shown(credential),
            authenticators=authenticators.webauthn_ids(own),
            expires_at=row.expires_at,
        )

    async def approve_context(self, request: ApproveContext) -> ContextApproved:
        """Verify what the signer's authenticator said, keep it, and only then authorize what it was said over."""
        if (request.passkey is None) == (request.device is None):
            raise RakkanError(Code.MALFORMED, "exactly one kind of evidence")
        now = self.now()
        row = self._known(await self.store.context(request.context_id))
        try:
            async with self.store.transaction() as connection:
                return await self._approve(connection, request, now=now)
        except RakkanError as refusal:
            async with self.store.transaction() as connection:
                await self._note(
                    connection,
                    "context.approval_refused",
                    row,
                    actor_type="signer",
                    actor_id=row.signer_id,
                    outcome="refused",
                    reason_code=refusal.code.value,
                )
            raise

    async def refuse_context(self, request: RefuseContext) -> Done:
        """The signer said no, and it stays at that."""
        now = self.now()
        async with self.store.transaction() as connection:
            row = self._known(await self.store.locked_context(connection, request.context_id))
            if row.outcome == "refused":
                return Done()
            _check_open(row, now=now)
            await self.store.decide_context(connection, row.context_id, "refused", at=now)
            await self._note(connection, "context.refused", row, actor_type="signer", actor_id=row.signer_id)
        return Done()

    async def _approve(self, connection: Connection, request: ApproveContext, *, now: datetime) -> ContextApproved:
        row = self._known(await self.store.locked_context(connection, request.context_id))
        if row.outcome == "approved":
            return await self._approved_before(connection, row, request, now=now)
        _check_open(row, now=now)
        context = contexts.read(row.context)
        credential = await self._credential(context.credential_id, row.signer_id, connection)
        authorizations.check_usable(credential, now=now)
        if context.epoch != self.epoch or context.public_key_hash != _key_hash(credential):
            raise RakkanError(Code.CONTEXT_UNKNOWN, "from before a restore, or for another key")
        kept = await self._verify(connection, request, row, now=now)
        bound = self._authorization(context, _request_id(row, credential), now=now)
        await self.store.decide_context(connection, row.context_id, "approved", at=now)
        await self.store.add_evidence(connection, kept)
        await self.store.add_authorization(connection, bound, waiting_max=self.limits.waiting_max_per_credential)
        await self._note(
            connection,
            "authorization.made",
            row,
            actor_type="signer",
            actor_id=row.signer_id,
            subject={
                "authorization_id": bound.authorization.authorization_id,
                "authenticator_id": kept.authenticator_id,
                "evidence_id": kept.evidence_id,
            },
            digest_set_hash=bound.authorization.digest_set_hash.hex(),
            policy_id=f"{PASSKEY} {kept.kind}",
        )
        return _answer(bound.authorization, now=now)

    async def _approved_before(
        self, connection: Connection, row: ContextRow, request: ApproveContext, *, now: datetime
    ) -> ContextApproved:
        """A lost answer is asked for again with the very same evidence. All else would be a second use."""
        kept = await self.store.evidence(row.context_id, connection)
        credential = await self._credential(row.credential_id, row.signer_id, connection)
        authorization = await self.store.authorization_of_request(connection, _request_id(row, credential))
        if kept is None or authorization is None or not _is_same(kept, request):
            raise RakkanError(Code.CONTEXT_SPENT)
        if now >= authorization.expires_at:
            raise RakkanError(Code.CONTEXT_EXPIRED)
        return _answer(authorization, now=now)

    async def _verify(
        self, connection: Connection, request: ApproveContext, row: ContextRow, *, now: datetime
    ) -> Evidence:
        """The evidence, as it will be kept. The authenticator stays locked until the commit: one counter, one use."""
        if request.passkey is not None:
            return await self._verify_passkey(connection, request.passkey, row, now=now)
        if request.device is None:
            raise RakkanError(Code.MALFORMED, "no evidence")
        return await self._verify_device(connection, request.device, row, now=now)

    async def _verify_passkey(
        self, connection: Connection, assertion: PasskeyAssertion, row: ContextRow, *, now: datetime
    ) -> Evidence:
        authenticator = authenticators.check_may_answer(
            await self.store.locked_passkey(connection, assertion.credential_id),
            kind="passkey",
            signer_id=row.signer_id,
            now=now,
        )
        sign_count = evidence.verify_assertion(
            assertion,
            party=self.party,
            challenge=contexts.challenge(row.context),
            webauthn_id=authenticator.webauthn_id,
            public_key=authenticator.public_key,
            sign_count=authenticator.sign_count,
            backup_eligible=authenticator.backup_eligible,
            user_handle=authenticators.user_handle(row.signer_id),
        )
        await self.store.note_use(connection, authenticator, sign_count=sign_count)
        return evidence.kept(
            row,
            authenticator,
            signature=assertion.signature,
            client_data_json=assertion.client_data_json,
            authenticator_data=assertion.authenticator_data,
            user_handle=assertion.user_handle,
            now=now,
        )

    async def _verify_device(
        self, connection: Connection, device: DeviceSignature, row: ContextRow, *, now: datetime
    ) -> Evidence:
        authenticator = authenticators.check_may_answer(
            await self.store.locked_authenticator(connection, device.key_id),
            kind="device",
            signer_id=row.signer_id,
            now=now,
        )
        evidence.verify_device_signature(device.signature, public_key=authenticator.public_key, data=row.context)
        return evidence.kept(row, authenticator, signature=device.signature, now=now)

    def _authorization(self, context: Context, request_id: str, *, now: datetime) -> Bound:
        digests = tuple(document.digest for document in context.documents)
        hashes = authorizations.listed(digests, context.hash)
        authorization = Authorization(
            authorization_id=random.token_hex(16),
            sad_hash=None,
            request_id=request_id,
            credential_id=context.credential_id,
            tenant_id=context.tenant_id,
            client_id=context.client_id,
            signatures=context.signatures,
            bound=True,
            digest_set_hash=authorizations.set_hash(hashes),
            epoch=context.epoch,
            began_at=now,
            expires_at=now + timedelta(seconds=self.limits.lifetime_s),
        )
        return Bound(authorization, hashes)

    async def _signer(self, request: OpenContext) -> Signer:
        try:
            return await self.store.signer_of_user(request.tenant_id, request.user_id)
        except RakkanError as refusal:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN) if refusal.code is Code.NOT_FOUND else refusal from None

    async def _credential(
        self, credential_id: str, signer_id: str, connection: "Connection | None" = None
    ) -> Credential:
        """The signer's own. Another's looks as if it did not exist."""
        credential = await self.store.credential(credential_id, connection)
        if credential is None or credential.signer_id != signer_id:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        return credential

    def _check(
        self, credential: Credential, request: OpenContext, digests: tuple[bytes, ...], *, now: datetime
    ) -> None:
        contexts.check_shown(request.client_name, *(document.label for document in request.documents))
        authorizations.check_by_approval(credential)
        authorizations.check_usable(credential, now=now)
        authorizations.check_wish(credential, signatures=request.signatures, digests=digests, hash_=request.hash)

    def _known(self, row: ContextRow | None) -> ContextRow:
        if row is None:
            raise RakkanError(Code.CONTEXT_UNKNOWN)
        return row

    async def _note(
        self,
        connection: Connection,
        event: str,
        row: ContextRow,
        *,
        subject: dict[str, str] | None = None,
        **facts: str | None,
    ) -> None:
        about = {
            "context_id": row.context_id,
            "context_hash": contexts.challenge(row.context).hex(),
            "credential_id": row.credential_id,
            "signer_id": row.signer_id,
            "client_id": row.client_id,
        }
        await self.audit.write(connection, event, tenant=row.tenant_id, subject=about | (subject or {}), **facts)


def _check_open(row: ContextRow, *, now: datetime) -> None:
    if row.outcome != "open":
        raise RakkanError(Code.CONTEXT_SPENT)
    if now >= row.expires_at:
        raise RakkanError(Code.CONTEXT_EXPIRED)


def _is_same(kept: Evidence, request: ApproveContext) -> bool:
    if request.passkey is not None:
        said = request.passkey
        return (kept.webauthn_id, kept.client_data_json, kept.authenticator_data, kept.signature) == (
            said.credential_id,
            said.client_data_json,
            said.authenticator_data,
            said.signature,
        )
    return request.device is not None and (kept.authenticator_id, kept.signature) == (
        request.device.key_id,
        request.device.signature,
    )


def _answer(authorization: Authorization, *, now: datetime) -> ContextApproved:
    return ContextApproved(
        authorization_id=authorization.authorization_id,
        expires_in_s=int((authorization.expires_at - now).total_seconds()),
    )


def _request_id(row: ContextRow, credential: Credential) -> str:
    """One context makes one authorization: the column is unique."""
    return authorizations.request_id_of(credential, f"context:{row.context_id}")


def _key_hash(credential: Credential) -> bytes:
    return hashlib.sha256(credential.public_key or b"").digest()


def _is_approvable(credential: Credential, *, now: datetime) -> bool:
    try:
        authorizations.check_by_approval(credential)
        authorizations.check_usable(credential, now=now)
    except RakkanError:
        return False
    return True


def _shown(credential: Credential) -> ApprovableCredential:
    subject, issuer = certificates.names_of(credential.chain[0])
    if credential.not_after is None:
        raise RakkanError(Code.CREDENTIAL_DISABLED)
    return ApprovableCredential(
        credential_id=credential.credential_id,
        description=credential.description,
        subject=subject,
        issuer=issuer,
        not_after=credential.not_after,
        scal="2" if credential.hashes_required else "1",
    )

"""Stopping, unlocking and ending: by the operator, by the authority, by a revoked token."""

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.sam import factors, status
from services.sam.activating import Activator
from services.sam.authorities import Registries, find_profile
from services.sam.chores import for_each
from services.sam.endings import CESSATION_OF_OPERATION, OVER, end
from services.sam.rows import Credential, Signer, State
from services.sam.settings import Factors
from shared.audit import AuditWriter
from shared.contracts.base import Done
from shared.contracts.ca_connector import RevokeCertificate
from shared.contracts.sam import (
    DeleteCredential,
    EndCredential,
    NoteCertificateStatus,
    RevokeTokens,
    SuspendCredential,
    UnlockSigner,
)
from shared.contracts.svg import DestroyKey, KeyDestroyed
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import operation, outbox
from shared.sealing import unseal

log = structlog.get_logger()

SUSPENDED_BY_OPERATOR = "suspended by the operator"
_KEPT_AFTER_SPENDING = timedelta(seconds=60)
_UNUSED = timedelta(minutes=15)


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer(self, signer_id: str) -> Signer: ...

    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer: ...

    async def locked_signer(self, connection: Connection, signer_id: str) -> Signer: ...

    async def change_signer(self, connection: Connection, signer: Signer) -> None: ...

    async def credential(self, credential_id: str) -> Credential | None: ...

    async def locked_credential(self, connection: Connection, credential_id: str) -> Credential: ...

    async def locked_credential_of_order(self, connection: Connection, order_id: str) -> Credential: ...

    async def change_credential(self, connection: Connection, credential: Credential) -> Credential: ...

    async def superseding(self, connection: Connection, credential_id: str) -> Credential | None: ...

    async def expired(self, after: str, *, now: datetime) -> list[str]: ...

    async def spent(self, after: str, *, unused: timedelta, kept: timedelta) -> list[str]: ...

    async def note_checked(self, connection: Connection, credential: Credential) -> None: ...

    async def refuse_token(self, connection: Connection, token_id: str, *, until: datetime) -> None: ...

    async def refuse_client(
        self, connection: Connection, client_id: str, *, issued_before: datetime, until: datetime
    ) -> None: ...


class PINs(Protocol):
    async def verifier(self, signer_id: str, pin: str, salt: bytes) -> bytes: ...


class Bus(Protocol):
    async def ask(self, request: DestroyKey) -> KeyDestroyed: ...


@dataclass(frozen=True)
class EndingHandlers:
    store: Store
    pins: PINs
    activator: Activator
    bus: Bus
    audit: AuditWriter
    sealing_key: X25519PrivateKey
    registries: Registries
    limits: Factors
    now: Callable[[], datetime]

    async def revoke_tokens(self, request: RevokeTokens) -> Done:
        """Refuse them from this commit on."""
        async with self.store.transaction() as connection:
            if request.token_id is not None:
                await self.store.refuse_token(connection, request.token_id, until=request.until)
            if request.client_id is not None:
                issued_before = request.issued_before or self.now()
                await self.store.refuse_client(
                    connection, request.client_id, issued_before=issued_before, until=request.until
                )
            subject = {"client_id": request.client_id} if request.client_id else {"token_id": request.token_id or ""}
            await self._note(connection, "tokens.revoked", None, subject)
        return Done()

    async def suspend_credential(self, request: SuspendCredential) -> Done:
        """Stop or resume, at once. What has ended does not come back."""
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential(connection, request.credential_id)
            wanted = State.SUSPENDED if request.suspended else State.ACTIVE
            if credential.state is wanted:
                return Done()
            if credential.state not in (State.ACTIVE, State.SUSPENDED):
                raise RakkanError(Code.CONFLICT, f"the credential is {credential.state}")
            reason = SUSPENDED_BY_OPERATOR if request.suspended else None
            await self.store.change_credential(connection, replace(credential, state=wanted, reason=reason))
            event = "credential.suspended" if request.suspended else "credential.resumed"
            await self._note(connection, event, credential.tenant_id, credential.audit_subject)
        return Done()

    async def unlock_signer(self, request: UnlockSigner) -> Done:
        """Give the tries back, and set a new PIN when one came."""
        signer = await self.store.signer_of_user(request.tenant_id, request.user_id)
        salt, verifier = signer.pin_salt, signer.pin_verifier
        if request.secrets is not None:
            given = unseal(request.secrets, key=self.sealing_key, message=request.TYPE, subject=request.user_id)
            pin = given.pin.get_secret_value() if given.pin else ""
            factors.check_new_pin(pin)
            salt = os.urandom(factors.SALT_BYTES)
            verifier = await self.pins.verifier(signer.signer_id, pin, salt)
        async with self.store.transaction() as connection:
            current = await self.store.locked_signer(connection, signer.signer_id)
            await self.store.change_signer(
                connection,
                replace(
                    current,
                    pin_salt=salt,
                    pin_verifier=verifier,
                    pin_tries_left=self.limits.pin_tries,
                    otp_tries_left=self.limits.otp_tries,
                ),
            )
            await self._note(connection, "signer.unlocked", signer.tenant_id, {"signer_id": signer.signer_id})
        return Done()

    async def delete_credential(self, request: DeleteCredential) -> Done:
        """End it now: it signs no more. Destroying the key and revoking the certificate follow as a job."""
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential(connection, request.credential_id)
            if credential.state in OVER:
                return Done()
            await end(
                self.store,
                connection,
                credential,
                ending="deleted",
                reason="deleted by the operator",
                revoke_as=CESSATION_OF_OPERATION,
            )
            await self._note(connection, "credential.ended", credential.tenant_id, credential.audit_subject)
        return Done()

    async def end_credential(self, job: EndCredential) -> None:
        """Destroy the key, forget its share, have the certificate revoked where that is wanted.

        A refused credential keeps its state, for who asks why; its key goes all the same.
        """
        credential = await self.store.credential(job.credential_id)
        if credential is None or not _is_to_destroy(credential):
            return
        signer = await self.store.signer(credential.signer_id)
        _, activation = self.activator.to_destroy(credential, signer)
        try:
            destroyed = await self.bus.ask(DestroyKey(activation=activation))
        except RakkanError as refusal:
            # Ended before its key was made: there is nothing to destroy.
            if refusal.code is not Code.KEY_UNKNOWN:
                raise
            destroyed = None
        async with self.store.transaction() as connection:
            current = await self.store.locked_credential(connection, job.credential_id)
            if not _is_to_destroy(current):
                return
            state = State.DESTROYED if current.state is State.ENDED else current.state
            await self.store.change_credential(connection, replace(current, state=state, share=None))
            if current.state is State.ENDED:
                await _post_revocations(connection, current)
            subject = current.audit_subject | {"ending": current.ending or current.state}
            if destroyed is not None:
                subject |= {
                    "public_key_hash": destroyed.public_key_hash.hex(),
                    "destruction_record": destroyed.audit_reference,
                }
            await self._note(connection, "key.destroyed", current.tenant_id, subject)

    async def note_certificate_status(self, job: NoteCertificateStatus) -> None:
        """Follow the authority. Bad news stops the key with this commit; good news is believed with evidence only."""
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential_of_order(connection, job.order_id)
            over = credential.certificate_status in ("none", "revoked") or credential.state in OVER
            if over or credential.order_id != job.order_id:
                return
            checked_at = min(job.checked_at or job.at, self.now())
            outcome = "success"
            if job.status == credential.certificate_status:
                await self._note_checked(connection, credential, checked_at)
                return
            if job.status == "valid":
                outcome = await self._resume(connection, credential, job)
            else:
                heard_at = _later(credential.status_checked_at, checked_at)
                stopped = replace(credential, certificate_status=job.status, status_checked_at=heard_at)
                stopped = await self.store.change_credential(connection, stopped)
                if job.status == "revoked":
                    await end(
                        self.store,
                        connection,
                        stopped,
                        ending="revoked",
                        reason="revoked by its authority",
                        revoke_as=None,
                    )
            await self._note(
                connection, f"certificate.{job.status}", credential.tenant_id, credential.audit_subject, outcome=outcome
            )

    async def end_expired(self) -> None:
        """What has run out is destroyed: the same key is not certified again."""
        await for_each(lambda after: self.store.expired(after, now=self.now()), self._end_expired)

    async def end_spent(self) -> None:
        """One-time keys go when their authorization is spent or over, and when none was made in time."""
        unused, kept = _UNUSED, _KEPT_AFTER_SPENDING
        await for_each(lambda after: self.store.spent(after, unused=unused, kept=kept), self._end_spent)

    async def _end_expired(self, credential_id: str) -> None:
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential(connection, credential_id)
            if credential.state in OVER or credential.not_after is None or credential.not_after > self.now():
                return
            reason = "its certificate has expired"
            await end(self.store, connection, credential, ending="expired", reason=reason, revoke_as=None)
            await self._note(connection, "credential.expired", credential.tenant_id, credential.audit_subject)

    async def _end_spent(self, credential_id: str) -> None:
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential(connection, credential_id)
            if credential.state in OVER:
                return
            # What came of an order that nobody waits for any more is not to be used.
            revoke_as = None if credential.chain else CESSATION_OF_OPERATION
            reason = "made for one authorization, which is over"
            await end(self.store, connection, credential, ending="spent", reason=reason, revoke_as=revoke_as)
            await self._note(connection, "credential.spent", credential.tenant_id, credential.audit_subject)

    async def _resume(
        self, connection: Connection, credential: Credential, job: NoteCertificateStatus
    ) -> Literal["success", "refused"]:
        now = self.now()
        try:
            ca, _ = find_profile(self.registries.current, credential.authority, credential.certificate_profile)
            said_at = status.check_good(
                job.evidence, chain=credential.chain, ca=ca, since=credential.status_checked_at, now=now
            )
        except RakkanError as refusal:
            log.warning("good news not believed", credential_id=credential.credential_id, why=refusal.detail)
            return "refused"
        resumed = replace(credential, certificate_status="valid", status_checked_at=said_at)
        await self.store.change_credential(connection, resumed)
        return "success"

    async def _note_checked(self, connection: Connection, credential: Credential, at: datetime) -> None:
        if credential.status_checked_at is None or credential.status_checked_at < at:
            await self.store.note_checked(connection, replace(credential, status_checked_at=at))

    async def _note(
        self,
        connection: Connection,
        event: str,
        tenant_id: str | None,
        subject: dict[str, str],
        *,
        outcome: str = "success",
    ) -> None:
        caller = operation.current().caller
        actor_type = "operator" if caller == "operator" else "room"
        await self.audit.write(
            connection,
            event,
            actor_type=actor_type,
            actor_id=caller,
            tenant=tenant_id,
            subject=subject,
            outcome=outcome,
        )


def _later(known: datetime | None, heard: datetime) -> datetime:
    return heard if known is None else max(known, heard)


def _is_to_destroy(credential: Credential) -> bool:
    return credential.state is State.ENDED or (credential.state is State.REFUSED and credential.share is not None)


async def _post_revocations(connection: Connection, credential: Credential) -> None:
    """Of its certificate where that is wanted; of one that is still under way, always: nobody will use it."""
    wanted = {credential.order_id: credential.revoke_as, credential.renewal_id: CESSATION_OF_OPERATION}
    for order_id, reason in wanted.items():
        if order_id is not None and reason is not None:
            revocation = RevokeCertificate(order_id=order_id, reason=reason)
            await outbox.post(connection, revocation, message_id=f"revoke:{order_id}")

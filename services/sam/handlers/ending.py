"""Stopping, unlocking and ending: by the operator, by the authority, by a revoked token."""

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.sam import factors
from services.sam.activating import Activator
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
from shared.contracts.svg import DestroyKey
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import operation, outbox
from shared.sealing import unseal

_CESSATION_OF_OPERATION = 5  # RFC 5280 5.3.1


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

    async def refuse_token(self, connection: Connection, token_id: str, *, until: datetime) -> None: ...

    async def refuse_client(
        self, connection: Connection, client_id: str, *, issued_before: datetime, until: datetime
    ) -> None: ...


class PINs(Protocol):
    async def verifier(self, signer_id: str, pin: str, salt: bytes) -> bytes: ...


class Bus(Protocol):
    async def ask(self, request: DestroyKey) -> Done: ...


@dataclass(frozen=True)
class EndingHandlers:
    store: Store
    pins: PINs
    activator: Activator
    bus: Bus
    audit: AuditWriter
    sealing_key: X25519PrivateKey
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
            await self.store.change_credential(connection, replace(credential, state=wanted))
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
            if credential.state in (State.ENDED, State.DESTROYED):
                return Done()
            ended = replace(credential, state=State.ENDED, reason="deleted by the operator")
            await self.store.change_credential(connection, ended)
            job = EndCredential(credential_id=credential.credential_id)
            await outbox.post(connection, job, message_id=f"end:{credential.credential_id}")
            await self._note(connection, "credential.ended", credential.tenant_id, credential.audit_subject)
        return Done()

    async def end_credential(self, job: EndCredential) -> None:
        """Destroy the key, forget its share, have the certificate revoked."""
        credential = await self.store.credential(job.credential_id)
        if credential is None or credential.state is not State.ENDED:
            return
        signer = await self.store.signer(credential.signer_id)
        _, activation = self.activator.to_destroy(credential, signer)
        try:
            await self.bus.ask(DestroyKey(activation=activation))
        except RakkanError as refusal:
            # Ended before its key was made: there is nothing to destroy.
            if refusal.code is not Code.KEY_UNKNOWN:
                raise
        async with self.store.transaction() as connection:
            current = await self.store.locked_credential(connection, job.credential_id)
            if current.state is not State.ENDED:
                return
            await self.store.change_credential(connection, replace(current, state=State.DESTROYED, share=None))
            if current.order_id is not None:
                revocation = RevokeCertificate(order_id=current.order_id, reason=_CESSATION_OF_OPERATION)
                await outbox.post(connection, revocation, message_id=f"revoke:{current.order_id}")
            await self._note(connection, "key.destroyed", current.tenant_id, current.audit_subject)

    async def note_certificate_status(self, job: NoteCertificateStatus) -> None:
        """Follow the authority: a revoked certificate signs no more."""
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential_of_order(connection, job.order_id)
            if credential.certificate_status in ("none", "revoked", job.status) or credential.state is State.DESTROYED:
                return
            await self.store.change_credential(connection, replace(credential, certificate_status=job.status))
            await self._note(connection, f"certificate.{job.status}", credential.tenant_id, credential.audit_subject)

    async def _note(self, connection: Connection, event: str, tenant_id: str | None, subject: dict[str, str]) -> None:
        caller = operation.current().caller
        actor_type = "operator" if caller == "operator" else "room"
        await self.audit.write(
            connection, event, actor_type=actor_type, actor_id=caller, tenant=tenant_id, subject=subject
        )

"""Who is enrolled, and which credentials the operator, who speaks for the registration authority, wants for them."""

import os
import secrets as random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyotp
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from services.sam import factors
from services.sam.activating import Activator
from services.sam.authorities import Registries, check_may_order
from services.sam.certificates import dns_name_of
from services.sam.rows import PASSKEY, Credential, RowSeal, Signer, State
from services.sam.settings import Factors
from shared.audit import AuditWriter
from shared.contracts.sam import AddCredential, AddSigner, CredentialAdded, PrepareCredential, SignerAdded
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import operation, outbox
from shared.sealing import Secrets, seal, unseal

SHARE_BYTES = 32


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer: ...

    async def add_signer(self, connection: Connection, signer: Signer) -> None: ...

    async def credential(self, credential_id: str) -> Credential | None: ...

    async def add_credential(self, connection: Connection, credential: Credential) -> bool: ...


class PINs(Protocol):
    async def verifier(self, signer_id: str, pin: str, salt: bytes) -> bytes: ...


@dataclass(frozen=True)
class EnrollingHandlers:
    store: Store
    pins: PINs
    activator: Activator
    seal: RowSeal
    audit: AuditWriter
    sealing_key: X25519PrivateKey
    operator_key: X25519PublicKey
    registries: Registries
    limits: Factors
    now: Callable[[], datetime]

    async def add_signer(self, request: AddSigner) -> SignerAdded:
        """Enrol a signer; what is kept of the PIN is useless without the HSM. Without a PIN only passkeys approve."""
        given = unseal(request.secrets, key=self.sealing_key, message=request.TYPE, subject=request.user_id)
        pin = given.pin.get_secret_value() if given.pin is not None else None
        if pin is not None:
            factors.check_new_pin(pin)
        signer_id = random.token_hex(8)
        salt = os.urandom(factors.SALT_BYTES)
        totp_secret = pyotp.random_base32() if request.with_totp else None
        signer = Signer(
            signer_id=signer_id,
            tenant_id=request.tenant_id,
            user_id=request.user_id,
            common_name=request.common_name,
            organization=request.organization,
            country=request.country,
            pin_salt=salt,
            pin_verifier=await self.pins.verifier(signer_id, pin, salt) if pin is not None else b"",
            pin_tries_left=self.limits.pin_tries,
            totp_secret=self.seal.conceal(totp_secret.encode(), subject=signer_id) if totp_secret else None,
            otp_tries_left=self.limits.otp_tries,
            otp_last_step=0,
            version=1,
            organization_identifier=request.organization_identifier,
            subject_type=request.subject_type,
        )
        async with self.store.transaction() as connection:
            await self.store.add_signer(connection, signer)
            await self._note(connection, "signer.enrolled", signer.tenant_id, {"signer_id": signer_id})
        sealed = None
        if totp_secret:
            shown = Secrets.of(totp_secret=totp_secret)
            sealed = seal(shown, to=self.operator_key, message=request.TYPE, subject=request.user_id)
        return SignerAdded(signer_id=signer_id, totp_secret=sealed)

    async def add_credential(self, request: AddCredential) -> CredentialAdded:
        """Write down what is wanted; the rest follows as a job."""
        signer = await self.store.signer_of_user(request.tenant_id, request.user_id)
        _check_factors(request, signer)
        registry = self.registries.current
        ca = registry.certification_authorities.get(request.authority)
        certificate_profile = request.certificate_profile or (ca.default_profile if ca else "")
        found = check_may_order(
            registry,
            authority=request.authority,
            profile=certificate_profile,
            signer=signer,
            key_algorithm=request.key_algorithm,
            algorithms=request.profile,
            now=self.now(),
        )
        key_id = random.token_hex(16)
        wanted = Credential(
            credential_id=request.credential_id,
            signer_id=signer.signer_id,
            tenant_id=request.tenant_id,
            description=request.description,
            key_algorithm=request.key_algorithm,
            profile=request.profile,
            authority=request.authority,
            otp_required=request.otp_required,
            hashes_required=request.hashes_required or request.assurance == PASSKEY,  # who approves is shown hashes
            signatures_max=request.signatures_max,
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
            assurance=request.assurance,
            certificate_profile=certificate_profile,
        )
        dns_name_of(request.credential_id, found)  # refused now, not when its key is made
        async with self.store.transaction() as connection:
            if not await self.store.add_credential(connection, wanted):
                existing = await self.store.credential(request.credential_id)
                _check_same(existing, wanted)
                return CredentialAdded(credential_id=request.credential_id)
            await post_prepare(connection, request.credential_id)
            await self._note(connection, "credential.requested", request.tenant_id, wanted.audit_subject)
        return CredentialAdded(credential_id=request.credential_id)

    async def _note(
        self, connection: Connection, event: str, tenant_id: str, subject: dict[str, str], **facts: str
    ) -> None:
        caller = operation.current().caller
        actor_type = "operator" if caller == "operator" else "room"
        await self.audit.write(
            connection, event, actor_type=actor_type, actor_id=caller, tenant=tenant_id, subject=subject, **facts
        )


async def post_prepare(connection: Connection, credential_id: str) -> None:
    await outbox.post(connection, PrepareCredential(credential_id=credential_id), message_id=f"prepare:{credential_id}")


def _check_factors(request: AddCredential, signer: Signer) -> None:
    if request.assurance == PASSKEY:
        if request.otp_required:
            raise RakkanError(Code.FACTOR_UNKNOWN, "a credential that is approved by passkey asks for no OTP")
        return
    if not signer.pin_verifier:
        raise RakkanError(Code.FACTOR_UNKNOWN, "the signer has no PIN; set one first")
    if request.otp_required and signer.totp_secret is None:
        raise RakkanError(Code.FACTOR_UNKNOWN, "the signer has no TOTP; enrol with it first")


def _check_same(existing: Credential | None, wanted: Credential) -> None:
    """Asked again is fine; the same id for something else is not."""
    same = (
        *("signer_id", "description", "key_algorithm", "profile", "authority", "certificate_profile"),
        *("assurance", "otp_required", "hashes_required"),
    )
    if existing is None or any(getattr(existing, name) != getattr(wanted, name) for name in same):
        raise RakkanError(Code.CONFLICT, f"there is another credential {wanted.credential_id}")

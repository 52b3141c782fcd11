"""From a name to a credential that can sign: signer, key, request, order, certificate. Each step once, in its order."""

import os
import secrets as random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Protocol

import pyotp
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from services.sam import certificates, factors
from services.sam.activating import Activator
from services.sam.rows import PASSKEY, Credential, RowSeal, Signer, State
from services.sam.settings import Factors
from shared.algorithms import check_key_allowed
from shared.audit import AuditWriter
from shared.contracts.base import R, Request
from shared.contracts.ca_connector import ConfirmOrder, OrderCertificate
from shared.contracts.sam import (
    AcceptCertificate,
    AddCredential,
    AddSigner,
    CredentialAdded,
    PrepareCredential,
    RefuseOrder,
    SignerAdded,
)
from shared.contracts.svg import GenerateKey, SignDigests
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import operation, outbox
from shared.sealing import Secrets, seal, unseal

_SHARE_BYTES = 32


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer(self, signer_id: str) -> Signer: ...

    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer: ...

    async def add_signer(self, connection: Connection, signer: Signer) -> None: ...

    async def credential(self, credential_id: str) -> Credential | None: ...

    async def add_credential(self, connection: Connection, credential: Credential) -> bool: ...

    async def locked_credential(self, connection: Connection, credential_id: str) -> Credential: ...

    async def locked_credential_of_order(self, connection: Connection, order_id: str) -> Credential: ...

    async def change_credential(self, connection: Connection, credential: Credential) -> Credential: ...


class PINs(Protocol):
    async def verifier(self, signer_id: str, pin: str, salt: bytes) -> bytes: ...


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


@dataclass(frozen=True)
class EnrollingHandlers:
    store: Store
    pins: PINs
    activator: Activator
    seal: RowSeal
    bus: Bus
    audit: AuditWriter
    sealing_key: X25519PrivateKey
    operator_key: X25519PublicKey
    anchors: Mapping[str, tuple[x509.Certificate, ...]]
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
        if request.authority not in self.anchors:
            raise RakkanError(Code.AUTHORITY_UNKNOWN, f"known are {', '.join(sorted(self.anchors))}")
        _check_factors(request, signer)
        check_key_allowed(request.key_algorithm, request.profile, now=self.now())
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
            # What is approved by passkey is a list of hashes.
            hashes_required=request.hashes_required or request.assurance == PASSKEY,
            signatures_max=request.signatures_max,
            state=State.REQUESTED,
            reason=None,
            key_id=key_id,
            share=self.activator.new_share(key_id, os.urandom(_SHARE_BYTES)),
            public_key=None,
            order_id=None,
            chain=(),
            certificate_status="none",
            not_after=None,
            version=1,
            assurance=request.assurance,
        )
        async with self.store.transaction() as connection:
            if not await self.store.add_credential(connection, wanted):
                existing = await self.store.credential(request.credential_id)
                _check_same(existing, wanted)
                return CredentialAdded(credential_id=request.credential_id)
            await _post_prepare(connection, request.credential_id)
            await self._note(connection, "credential.requested", request.tenant_id, wanted.audit_subject)
        return CredentialAdded(credential_id=request.credential_id)

    async def prepare_credential(self, job: PrepareCredential) -> None:
        """Take the next step of an enrollment from where it stands, then the one after it."""
        credential = await self.store.credential(job.credential_id)
        if credential is None:
            raise RakkanError(Code.NOT_FOUND, f"no credential {job.credential_id}")
        signer = await self.store.signer(credential.signer_id)
        if credential.state is State.REQUESTED:
            credential = await self._generate(credential, signer)
        if credential.state is State.GENERATED:
            await self._order(credential, signer)

    async def accept_certificate(self, job: AcceptCertificate) -> None:
        """Link a certificate that holds; refuse the order when it does not. The connector is not believed."""
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential_of_order(connection, job.order_id)
            if credential.state is not State.ORDERED:
                return  # delivered before, or ended meanwhile
            signer = await self.store.signer(credential.signer_id)
            try:
                not_after = certificates.check_certificate(
                    job.chain,
                    public_key=credential.public_key or b"",
                    subject=certificates.subject_of(signer),
                    anchors=self.anchors.get(credential.authority, ()),
                    now=self.now(),
                )
            except RakkanError as refusal:
                await self._refuse(connection, credential, refusal.detail, confirm=True)
                return
            linked = await self.store.change_credential(
                connection,
                replace(
                    credential,
                    state=State.ACTIVE,
                    chain=job.chain,
                    certificate_status="valid",
                    not_after=not_after,
                ),
            )
            await outbox.post(
                connection, ConfirmOrder(order_id=job.order_id, accepted=True), message_id=f"confirm:{job.order_id}"
            )
            subject = linked.audit_subject | {"certificate_hash": sha256(job.chain[0]).hexdigest()}
            await self._note(connection, "certificate.linked", credential.tenant_id, subject)

    async def refuse_order(self, job: RefuseOrder) -> None:
        """The authority will not issue: say so where the operator looks."""
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential_of_order(connection, job.order_id)
            if credential.state is State.ORDERED:
                await self._refuse(connection, credential, job.reason, confirm=False)

    async def _generate(self, credential: Credential, signer: Signer) -> Credential:
        operation_id, activation = self.activator.to_generate(credential, signer)
        share = self.activator.sealed_share(credential, message=GenerateKey.TYPE, operation_id=operation_id)
        made = await self.bus.ask(GenerateKey(activation=activation, share=share))
        if made.key_id != credential.key_id or made.algorithm is not credential.key_algorithm:
            raise RakkanError(Code.INTERNAL, "the SVG made another key than was asked for")
        async with self.store.transaction() as connection:
            current = await self.store.locked_credential(connection, credential.credential_id)
            if current.state is not State.REQUESTED:
                return current
            generated = await self.store.change_credential(
                connection, replace(current, state=State.GENERATED, public_key=made.public_key)
            )
            await self._note(connection, "key.assigned", credential.tenant_id, generated.audit_subject)
        return generated

    async def _order(self, credential: Credential, signer: Signer) -> None:
        request = certificates.request_for(signer, credential.public_key or b"", credential.key_algorithm)
        operation_id, activation = self.activator.for_request(
            credential, signer, request.algorithm, request.to_be_signed
        )
        share = self.activator.sealed_share(credential, message=SignDigests.TYPE, operation_id=operation_id)
        signed = await self.bus.ask(SignDigests(activation=activation, share=share))
        order = OrderCertificate(
            order_id=credential.credential_id,
            authority=credential.authority,
            csr=request.signed(signed.values[0]),
        )
        async with self.store.transaction() as connection:
            current = await self.store.locked_credential(connection, credential.credential_id)
            if current.state is not State.GENERATED:
                return
            await self.store.change_credential(
                connection, replace(current, state=State.ORDERED, order_id=order.order_id)
            )
            await outbox.post(connection, order, message_id=f"order:{order.order_id}")
            await self._note(connection, "certificate.ordered", credential.tenant_id, current.audit_subject)

    async def _refuse(self, connection: Connection, credential: Credential, reason: str, *, confirm: bool) -> None:
        order_id = credential.order_id or ""
        await self.store.change_credential(
            connection, replace(credential, state=State.REFUSED, reason=reason[:255] or "refused")
        )
        if confirm:
            rejection = ConfirmOrder(order_id=order_id, accepted=False, reason=reason[:255] or "refused")
            await outbox.post(connection, rejection, message_id=f"confirm:{order_id}")
        await self._note(
            connection, "certificate.refused", credential.tenant_id, credential.audit_subject, outcome="refused"
        )

    async def _note(
        self, connection: Connection, event: str, tenant_id: str, subject: dict[str, str], **facts: str
    ) -> None:
        caller = operation.current().caller
        actor_type = "operator" if caller == "operator" else "room"
        await self.audit.write(
            connection, event, actor_type=actor_type, actor_id=caller, tenant=tenant_id, subject=subject, **facts
        )


async def _post_prepare(connection: Connection, credential_id: str) -> None:
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
        *("signer_id", "description", "key_algorithm", "profile", "authority"),
        *("assurance", "otp_required", "hashes_required"),
    )
    if existing is None or any(getattr(existing, name) != getattr(wanted, name) for name in same):
        raise RakkanError(Code.CONFLICT, f"there is another credential {wanted.credential_id}")

"""From a wish to a certificate that is linked: key, request, order, check. Each step once, in its order.

A certificate may come for a credential, for the same key again (renewal), or for the next key of a credential (rekey).
"""

import secrets as random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Protocol

from services.sam import certificates
from services.sam.activating import Activator
from services.sam.authorities import Registries, find_profile
from services.sam.endings import end, post_destruction
from services.sam.rows import Credential, Signer, State
from shared.audit import AuditWriter
from shared.contracts.base import R, Request
from shared.contracts.ca_connector import ConfirmOrder, NoteCertificate, OrderCertificate
from shared.contracts.sam import AcceptCertificate, PrepareCredential, RefuseOrder
from shared.contracts.svg import GenerateKey, SignDigests
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import operation, outbox
from shared.origin import KeyOrigin, sign_origin
from shared.registry import CertificateProfile

_REASON_MAX = 255


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer(self, signer_id: str, connection: "Connection | None" = None) -> Signer: ...

    async def credential(self, credential_id: str) -> Credential | None: ...

    async def locked_credential(self, connection: Connection, credential_id: str) -> Credential: ...

    async def locked_credential_of_order(self, connection: Connection, order_id: str) -> Credential: ...

    async def superseding(self, connection: Connection, credential_id: str) -> Credential | None: ...

    async def change_credential(self, connection: Connection, credential: Credential) -> Credential: ...

    async def end_authorizations(self, connection: Connection, credential_id: str) -> None: ...


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


@dataclass(frozen=True)
class OrderingHandlers:
    store: Store
    activator: Activator
    bus: Bus
    audit: AuditWriter
    registries: Registries
    now: Callable[[], datetime]

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
            if job.order_id == credential.renewal_id and credential.state in (State.ACTIVE, State.SUSPENDED):
                await self._accept_renewal(connection, credential, job)
            elif credential.state is State.ORDERED:
                await self._accept(connection, credential, job.chain)
            elif credential.state not in (State.ACTIVE, State.SUSPENDED):
                # It came too late: it must not stay in doubt at the CA.
                await _confirm(connection, job.order_id, refused="the credential has ended")

    async def install(self, connection: Connection, credential: Credential, chain: tuple[bytes, ...]) -> None:
        """Link what came by hand; CERTIFICATE_REFUSED leaves everything as it was, so that the right one can follow."""
        not_after = await self._check(connection, credential, chain)
        order_id = credential.renewal_id or credential.order_id or credential.credential_id
        if credential.renewal_id is not None:
            await self._link_renewed(connection, credential, credential.renewal_id, chain, not_after)
        else:
            await self._link(connection, credential, chain, not_after)
        # The connector watches and revokes only what it knows.
        note = NoteCertificate(order_id=order_id, chain=chain)
        await outbox.post(connection, note, message_id=f"brought:{note.order_id}")

    async def refuse_order(self, job: RefuseOrder) -> None:
        """The authority will not issue: say so where the operator looks."""
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential_of_order(connection, job.order_id)
            if credential.state is State.ORDERED:
                await self._refuse(connection, credential, job.reason)
            elif job.order_id == credential.renewal_id and credential.state in (State.ACTIVE, State.SUSPENDED):
                await self._refuse_renewal(connection, credential, job.reason)

    async def renewal(self, credential: Credential, signer: Signer, renewal_id: str) -> OrderCertificate:
        """The order of a new certificate for the key there is, on the request it once signed."""
        if credential.csr is None:
            credential = replace(credential, csr=await self._request(credential, signer))
        return self._order_of(credential, signer, order_id=renewal_id, renews=credential.order_id)

    def origin_of(self, credential: Credential, signer: Signer, *, order_id: str) -> bytes:
        """The SAM's statement that this key was made in the HSM for this subject."""
        _, profile = find_profile(self.registries.current, credential.authority, credential.certificate_profile)
        generated, _ = self.activator.to_generate(credential, signer)
        origin = KeyOrigin(
            order_id=order_id,
            authority=credential.authority,
            certificate_profile=credential.certificate_profile,
            credential_id=credential.supersedes or credential.credential_id,
            tenant_id=credential.tenant_id,
            subject=certificates.subject_of(signer, profile).public_bytes(),
            public_key_hash=sha256(credential.public_key or b"").digest(),
            key_algorithm=credential.key_algorithm,
            audit_reference=generated,
            stated_at=self.now(),
        )
        return sign_origin(origin, self.activator.key)

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
            await self._note(connection, "key.assigned", credential)
        return generated

    async def _request(self, credential: Credential, signer: Signer) -> bytes:
        """The request, signed by the key: the one thing a key signs before its certificate is linked (X-03)."""
        _, profile = find_profile(self.registries.current, credential.authority, credential.certificate_profile)
        public_key = credential.public_key or b""
        dns_name = _dns_name(credential, profile)
        request = certificates.request_for(signer, public_key, credential.key_algorithm, profile, dns_name=dns_name)
        operation_id, activation = self.activator.for_request(
            credential, signer, request.algorithm, request.to_be_signed
        )
        share = self.activator.sealed_share(credential, message=SignDigests.TYPE, operation_id=operation_id)
        signed = await self.bus.ask(SignDigests(activation=activation, share=share))
        csr = request.signed(signed.values[0])
        subject = certificates.subject_of(signer, profile)
        certificates.check_request(csr, public_key=public_key, subject=subject, dns_name=dns_name)
        return csr

    async def _order(self, credential: Credential, signer: Signer) -> None:
        requested = replace(credential, csr=await self._request(credential, signer))
        renews = None
        if credential.supersedes is not None:
            old = await self.store.credential(credential.supersedes)
            renews = old.order_id if old is not None else None
        order = self._order_of(requested, signer, order_id=credential.credential_id, renews=renews)
        async with self.store.transaction() as connection:
            current = await self.store.locked_credential(connection, credential.credential_id)
            if current.state is not State.GENERATED:
                return
            await self.store.change_credential(
                connection, replace(current, state=State.ORDERED, order_id=order.order_id, csr=requested.csr)
            )
            await outbox.post(connection, order, message_id=f"order:{order.order_id}")
            await self._note(connection, "certificate.ordered", current)

    def _order_of(
        self, credential: Credential, signer: Signer, *, order_id: str, renews: str | None
    ) -> OrderCertificate:
        return OrderCertificate(
            order_id=order_id,
            authority=credential.authority,
            profile=credential.certificate_profile,
            csr=credential.csr or b"",
            renews=renews,
            origin=self.origin_of(credential, signer, order_id=order_id),
        )

    async def _check(self, connection: Connection, credential: Credential, chain: tuple[bytes, ...]) -> datetime:
        """The end of its validity, when the certificate is for this key, this subject, this CA and this profile."""
        signer = await self.store.signer(credential.signer_id, connection)
        ca, profile = find_profile(self.registries.current, credential.authority, credential.certificate_profile)
        key, dns_name = credential.public_key or b"", _dns_name(credential, profile)
        subject = certificates.subject_of(signer, profile)
        if credential.csr is not None:  # orders of before the SAM kept its requests have none
            certificates.check_request(credential.csr, public_key=key, subject=subject, dns_name=dns_name)
        return certificates.check_certificate(
            chain, public_key=key, subject=subject, ca=ca, profile=profile, now=self.now(), dns_name=dns_name
        )

    async def _accept(self, connection: Connection, credential: Credential, chain: tuple[bytes, ...]) -> None:
        try:
            not_after = await self._check(connection, credential, chain)
        except RakkanError as refusal:
            await self._refuse(connection, credential, refusal.detail)
            await _confirm(connection, credential.order_id or "", refused=refusal.detail)
            return
        await self._link(connection, credential, chain, not_after)
        await _confirm(connection, credential.order_id or "")

    async def _link(
        self, connection: Connection, credential: Credential, chain: tuple[bytes, ...], not_after: datetime
    ) -> None:
        linked = replace(
            credential, state=State.ACTIVE, reason=None, chain=chain, certificate_status="valid", not_after=not_after
        )
        if credential.supersedes is None:
            await self.store.change_credential(connection, linked)
        else:
            await self._supersede(connection, linked)
        await self._note(connection, "certificate.linked", linked, certificate_hash=sha256(chain[0]).hexdigest())

    async def _supersede(self, connection: Connection, new: Credential) -> None:
        """The credential takes the new key; the row that brought it takes the old one, which is destroyed.

        The old certificate is not revoked: what was signed under it stays good.
        """
        old = await self.store.locked_credential(connection, new.supersedes or "")
        if old.state not in (State.ACTIVE, State.SUSPENDED):
            await end(self.store, connection, new, ending="superseded", reason="ended meanwhile", revoke_as=5)
            return
        taken = ("key_id", "share", "public_key", "order_id", "csr", "chain", "certificate_status", "not_after")
        renewed = replace(old, reason=None, **{name: getattr(new, name) for name in taken})
        leftover = replace(
            new,
            state=State.ENDED,
            ending="superseded",
            reason="its key was superseded",
            revoke_as=None,
            **{name: getattr(old, name) for name in taken},
        )
        await self.store.change_credential(connection, renewed)
        await self.store.change_credential(connection, leftover)
        await self.store.end_authorizations(connection, old.credential_id)
        await post_destruction(connection, new.credential_id)

    async def _accept_renewal(self, connection: Connection, credential: Credential, job: AcceptCertificate) -> None:
        try:
            not_after = await self._check(connection, credential, job.chain)
        except RakkanError as refusal:
            await self._refuse_renewal(connection, credential, refusal.detail)
            await _confirm(connection, job.order_id, refused=refusal.detail)
            return
        await self._link_renewed(connection, credential, job.order_id, job.chain, not_after)
        await _confirm(connection, job.order_id)

    async def _link_renewed(
        self,
        connection: Connection,
        credential: Credential,
        order_id: str,
        chain: tuple[bytes, ...],
        not_after: datetime,
    ) -> None:
        renewed = replace(
            credential,
            reason=None,
            order_id=order_id,
            renewal_id=None,
            chain=chain,
            certificate_status="valid",
            not_after=not_after,
        )
        await self.store.change_credential(connection, renewed)
        await self.store.end_authorizations(connection, credential.credential_id)
        certificate_hash = sha256(chain[0]).hexdigest()
        await self._note(connection, "certificate.renewed", renewed, certificate_hash=certificate_hash)

    async def _refuse(self, connection: Connection, credential: Credential, reason: str) -> None:
        """Its key is destroyed: nothing would ever be certified for it again."""
        refused = replace(credential, state=State.REFUSED, reason=_cut(reason))
        await self.store.change_credential(connection, refused)
        await post_destruction(connection, credential.credential_id)
        await self._note(connection, "certificate.refused", credential, outcome="refused")

    async def _refuse_renewal(self, connection: Connection, credential: Credential, reason: str) -> None:
        kept = replace(credential, renewal_id=None, reason=_cut(f"not renewed: {reason}"))
        await self.store.change_credential(connection, kept)
        await self._note(connection, "certificate.refused", credential, outcome="refused")

    async def _note(
        self,
        connection: Connection,
        event: str,
        credential: Credential,
        *,
        outcome: str = "success",
        **more: str,
    ) -> None:
        chosen = {"authority": credential.authority, "certificate_profile": credential.certificate_profile}
        await self.audit.write(
            connection,
            event,
            actor_type="room",
            actor_id=operation.current().caller,
            tenant=credential.tenant_id,
            subject=credential.audit_subject | chosen | more,
            outcome=outcome,
        )


def new_order_id() -> str:
    return f"r{random.token_hex(12)}"


def _dns_name(credential: Credential, profile: CertificateProfile) -> str | None:
    """The same for every key of a credential."""
    return certificates.dns_name_of(credential.supersedes or credential.credential_id, profile)


async def _confirm(connection: Connection, order_id: str, *, refused: str | None = None) -> None:
    said = ConfirmOrder(order_id=order_id, accepted=refused is None, reason=None if refused is None else _cut(refused))
    await outbox.post(connection, said, message_id=f"confirm:{order_id}")


def _cut(reason: str) -> str:
    return reason[:_REASON_MAX] or "refused"

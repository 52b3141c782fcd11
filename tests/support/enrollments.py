"""A signer and a credential on the way, over a real PostgreSQL, and a CA that can be told to lie."""

import os
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from services.sam import certificates
from services.sam.rows import Credential
from shared.audit import AuditWriter
from shared.contracts.base import Job
from shared.contracts.sam import (
    AcceptCertificate,
    AddCredential,
    AddSigner,
    EndCredential,
    NoteCertificateStatus,
    PrepareCredential,
    RefuseOrder,
)
from shared.database import Pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.registry import CertificateProfile
from tests.support.certificates import authority, issue
from tests.support.sam import PIN, MemoryToken, SAMUnderTest

HANDLERS: dict[type[Job], str] = {
    PrepareCredential: "ordering.prepare_credential",
    AcceptCertificate: "ordering.accept_certificate",
    RefuseOrder: "ordering.refuse_order",
    EndCredential: "ending.end_credential",
    NoteCertificateStatus: "ending.note_certificate_status",
}


class Enrollment:
    """One signer and one credential of his on the way, and a CA that can be told to lie."""

    def __init__(self, sam: SAMUnderTest) -> None:
        self.sam = sam
        self.tenant = f"tenant-{os.urandom(4).hex()}"
        self.user_id = f"user-{os.urandom(4).hex()}"
        self.credential_id = f"cred-{os.urandom(4).hex()}"
        self.root = authority("local", now=sam.clock.now())
        self.key = authority("unused").key

    @property
    def profile(self) -> CertificateProfile:
        return self.sam.registry.current.certification_authorities["local"].profiles["signing"]

    async def add_signer(self, *, pin: str = PIN, with_totp: bool = False) -> None:
        sealed = self.sam.sealed(AddSigner, self.user_id, pin=pin)
        with operation.begin("operator", timeout_s=20):
            await self.sam.enrolling.add_signer(
                AddSigner(
                    tenant_id=self.tenant, user_id=self.user_id, common_name="花子", secrets=sealed, with_totp=with_totp
                )
            )

    async def add_credential(self, **changes: Any) -> None:
        fields = {
            "credential_id": self.credential_id,
            "tenant_id": self.tenant,
            "user_id": self.user_id,
            "description": "contracts",
        }
        with operation.begin("operator", timeout_s=20):
            await self.sam.enrolling.add_credential(AddCredential(**(fields | changes)))

    async def handle(self, job: Job) -> None:
        group, method = HANDLERS[type(job)].split(".")
        with operation.begin("ca_connector", timeout_s=20):
            await getattr(getattr(self.sam, group), method)(job)

    async def row(self) -> Credential:
        row = await self.sam.store.credential(self.credential_id)
        assert row is not None
        return row

    async def posted(self) -> list[str]:
        """The jobs that wait for this credential."""
        rows = await self.sam.pool.fetch("select message_id from outbox order by posted_at")
        return [row["message_id"] for row in rows if self.credential_id in row["message_id"]]

    async def accept(self, *chain: x509.Certificate) -> None:
        der = tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in chain)
        await self.handle(AcceptCertificate(order_id=self.credential_id, chain=der))

    async def certificate(self) -> x509.Certificate:
        signer = await self.sam.store.signer_of_user(self.tenant, self.user_id)
        return issue(self.root, certificates.subject_of(signer, self.profile), self.key, now=self.sam.clock.now())

    async def ordered(self) -> None:
        await self.add_signer()
        await self.add_credential()
        await self.handle(PrepareCredential(credential_id=self.credential_id))

    async def active(self) -> None:
        await self.ordered()
        await self.accept(await self.certificate())


async def new_enrollment(pool: Pool) -> Enrollment:
    audit = AuditWriter("sam", os.urandom(4).hex())
    await audit.start(pool)
    enrollment = Enrollment(SAMUnderTest(pool, audit, os.urandom(32), MemoryToken()))
    enrollment.sam.registry.add("local", enrollment.root.certificate)
    enrollment.sam.svg.made.append(enrollment.key)
    return enrollment


async def code_of(work: Any) -> Code:
    with pytest.raises(RakkanError) as refused:
        await work
    return refused.value.code

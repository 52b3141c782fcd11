"""What a partner or a signer asks of the SAM about a credential, and what a CA delivers; beside `enrollments`."""

import json
import os
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from services.sam import certificates
from services.sam.rows import Credential
from shared.contracts.base import Message
from shared.contracts.ca_connector import OrderCertificate
from shared.contracts.issuance import CREATION, CreateCredential, IssuanceChecked
from shared.contracts.sam import AcceptCertificate, PrepareCredential
from shared.messaging import operation
from tests.support.certificates import CA, authority, issue
from tests.support.enrollments import Enrollment


class Partner:
    """A client of the signer's tenant, and the signer herself where a token names her."""

    def __init__(self, enrollment: Enrollment) -> None:
        self.enrollment = enrollment
        self.sam = enrollment.sam
        self.rival = authority("local", now=enrollment.sam.clock.now())
        """A CA with the name of the signer's."""

    def token(self, **changes: Any) -> str:
        return self.sam.access_token(tenant=self.enrollment.tenant, **changes)

    def granted(self, *, authority: str = "local", profile: str = "signing", **changes: Any) -> str:
        """A signer's word on one new credential."""
        named = {"scope": CREATION, "user_id": self.enrollment.user_id} | changes
        return self.token(authority=authority, certificate_profile=profile, **named)

    async def ask(self, handler: Any, kind: type[Message], *, token: str | None = None, **members: Any) -> Any:
        subject = members.get("credential_id", "")
        sealed = self.sam.sealed(kind, subject, access_token=token or self.token(), **members.pop("secrets", {}))
        with operation.begin("gateway", timeout_s=20):
            return await handler(kind(secrets=sealed, **members))

    async def create(self, *, token: str | None = None, **members: Any) -> IssuanceChecked:
        asked: dict[str, Any] = {"authority": "local", "profile": "signing"}
        if token is None:
            asked["user_id"] = self.enrollment.user_id
        checked: IssuanceChecked = await self.ask(
            self.sam.creating.create_credential, CreateCredential, token=token, **(asked | members)
        )
        return checked

    async def row(self, credential_id: str) -> Credential:
        row = await self.sam.store.credential(credential_id)
        assert row is not None
        return row

    async def prepare(self, credential_id: str) -> Credential:
        await self.enrollment.handle(PrepareCredential(credential_id=credential_id))
        return await self.row(credential_id)

    async def certificate(self, row: Credential, *, issuer: CA | None = None, **changes: Any) -> x509.Certificate:
        """For the row's key and signer, as its CA would issue it."""
        signer = await self.sam.store.signer(row.signer_id)
        ca = self.sam.registry.current.certification_authorities[row.authority]
        subject = certificates.subject_of(signer, ca.profiles[row.certificate_profile])
        changes.setdefault("now", self.sam.clock.now())
        return issue(issuer or self.enrollment.root, subject, self.sam.svg.keys[row.key_id], **changes)

    async def deliver(self, order_id: str, certificate: x509.Certificate) -> None:
        der = certificate.public_bytes(Encoding.DER)
        await self.enrollment.handle(AcceptCertificate(order_id=order_id, chain=(der,)))

    async def issued(self, credential_id: str) -> Credential:
        """Made, ordered and certified."""
        row = await self.prepare(credential_id)
        await self.deliver(row.order_id or "", await self.certificate(row))
        return await self.row(credential_id)

    async def order(self, order_id: str) -> OrderCertificate:
        body = await self.sam.pool.fetchval("select body from outbox where message_id = $1", f"order:{order_id}")
        return OrderCertificate.model_validate_json(body)

    async def jobs(self) -> list[str]:
        rows = await self.sam.pool.fetch("select message_id from outbox order by posted_at")
        return [row["message_id"] for row in rows]

    async def leaves(self, event: str, credential_id: str) -> list[dict[str, Any]]:
        rows = await self.sam.pool.fetch("select record from audit_leaves order by seq")
        found = [json.loads(row["record"]) for row in rows]
        return [
            leaf
            for leaf in found
            if leaf["event_type"] == event and leaf["subject"].get("credential_id") == credential_id
        ]


def crl(
    issuer: CA, *revoked: x509.Certificate, now: datetime, age: timedelta = timedelta(), on_hold: bool = False
) -> bytes:
    """DER of a complete list that is of now unless it is made older."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - age)
        .next_update(now - age + timedelta(hours=12))
        .add_extension(x509.CRLNumber(int.from_bytes(os.urandom(4), "big")), critical=False)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now - age)
        if on_hold:
            entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags.certificate_hold), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)

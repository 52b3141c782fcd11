"""How an operator carries requests to a CA that has no API, and certificates back."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.contracts.base import Identifier, Name, Part, Reply, Request

PAGE_MAX = 50
ISSUERS_MAX = 10
Certificate = Annotated[bytes, Field(min_length=1, max_length=8192)]
"""DER."""


class SignedRequest(Part):
    """A certification request with what it is ordered as (docs/operating/certificates-by-hand.md)."""

    body: bytes
    """JSON, the exact bytes that are signed."""
    key_id: str
    signature: bytes
    """Ed25519 of the CA connector over `rakkan-requests/1`, a zero byte and the body."""


class RequestsExported(Reply):
    exported_at: datetime
    requests: tuple[SignedRequest, ...]
    next: Identifier | None = None
    """Where to go on when there are more."""


class ExportRequests(Request[RequestsExported]):
    """The open orders at a CA that works by files. Refused with AUTHORITY_UNKNOWN, or CONFLICT for any other CA."""

    TYPE: ClassVar[str] = "ca_connector.export_requests.v1"
    REPLY: ClassVar[type[Reply]] = RequestsExported

    authority: Identifier
    after: Identifier | None = None


class ImportedCertificate(Part):
    """What became of one certificate."""

    serial_number: str
    """In hex; empty when it is no certificate."""
    outcome: Literal["imported", "known", "refused"]
    order_id: str | None = None
    reason: Name | None = None


class CertificatesImported(Reply):
    certificates: tuple[ImportedCertificate, ...]
    """In the order in which they were given."""


class ImportCertificates(Request[CertificatesImported]):
    """Certificates that such a CA has issued; each finds its order by its key. What was imported before is known."""

    TYPE: ClassVar[str] = "ca_connector.import_certificates.v1"
    REPLY: ClassVar[type[Reply]] = CertificatesImported

    authority: Identifier
    certificates: tuple[Certificate, ...] = Field(min_length=1, max_length=10)
    issuers: tuple[Certificate, ...] = Field(default=(), max_length=ISSUERS_MAX)
    """Of the CAs between them and the anchors."""

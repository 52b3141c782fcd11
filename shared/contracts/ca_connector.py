"""What the CA connector does: orders at certification authorities. Jobs only, since a CA may take days."""

from typing import ClassVar

from pydantic import Field

from shared.contracts.base import Identifier, Job, Name


class OrderCertificate(Job):
    """Order a certificate for a key. Answered later by `sam.accept_certificate.v1` or `sam.refuse_order.v1`."""

    TYPE: ClassVar[str] = "ca_connector.order_certificate.v1"

    order_id: Identifier
    authority: Identifier
    profile: Identifier = "signing"
    """Of that authority's profiles in the registry."""
    csr: bytes = Field(max_length=16_384)
    """DER CertificationRequest (RFC 2986), signed by the key itself."""
    renews: Identifier | None = None
    """The order whose certificate this one takes over from; with the same key it is a renewal, else a rekey."""
    origin: bytes | None = Field(default=None, max_length=16_384)
    """The SAM's signed key-origin statement (`shared.origin`): this key was made in the HSM for this subject."""


class ConfirmOrder(Job):
    """What the SAM decided about the certificate that came back: CONFIRMED or REJECTED."""

    TYPE: ClassVar[str] = "ca_connector.confirm_order.v1"

    order_id: Identifier
    accepted: bool
    reason: Name | None = None


class RevokeCertificate(Job):
    """Revoke what was issued on an order (RFC 5280 5.3.1 reason, 7 does not exist)."""

    TYPE: ClassVar[str] = "ca_connector.revoke_certificate.v1"

    order_id: Identifier
    reason: int = Field(ge=0, le=10)

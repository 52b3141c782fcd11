"""What the CA connector does: orders at certification authorities. Orders are jobs, since a CA may take days."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.contracts.base import Done, Identifier, Job, Name, Part, Reply, Request


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


class NoteCertificate(Job):
    """A certificate that somebody else brought is linked: the order is filled, and nobody else is to fill it."""

    TYPE: ClassVar[str] = "ca_connector.note_certificate.v1"

    order_id: Identifier
    chain: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=10)]
    """DER, end entity first, the root may be missing. The SAM has checked it."""


class RevokeCertificate(Job):
    """Revoke what was issued on an order (RFC 5280 5.3.1 reason, 7 does not exist)."""

    TYPE: ClassVar[str] = "ca_connector.revoke_certificate.v1"

    order_id: Identifier
    reason: int = Field(ge=0, le=10)


# --- for the operator ------------------------------------------------------------------------------------------------


class AuthorityRow(Part):
    """One CA of the registry: what its self-test found, and how much waits for it."""

    authority: str
    label: str
    protocol: str
    tested_at: datetime | None = None
    reachable: str
    """`yes`, or what went wrong."""
    chain: str
    """`ok` when what the CA states leads to the registry's anchors; `not stated` where its protocol cannot tell."""
    crl: str
    """`fresh until …`, or what is wrong; `none` when none is known."""
    latency_ms: int | None = None
    breaker: str
    submitted: int = 0
    pending: int = 0
    unknown: int = 0
    issued: int = 0
    confirmed: int = 0
    rejected: int = 0
    revocations_waiting: int = 0


class Authorities(Reply):
    registry_version: int
    authorities: tuple[AuthorityRow, ...]


class ListAuthorities(Request[Authorities]):
    """How each CA is; with `test` after testing it just now."""

    TYPE: ClassVar[str] = "ca_connector.list_authorities.v1"
    REPLY: ClassVar[type[Reply]] = Authorities

    test: bool = False


OrderState = Literal["SUBMITTED", "PENDING", "UNKNOWN", "ISSUED", "CONFIRMED", "REJECTED"]


class OrderRow(Part):
    order_id: str
    authority: str
    profile: str
    state: str
    since: datetime
    due_at: datetime
    """When it is taken up next, for a state that waits for the CA."""
    why: str | None = None
    """The reason of an end or a doubt, or the last failure."""
    serial_number: str | None = None
    revocation: str | None = None
    """Wanted, and not done by the CA: why not."""


class Orders(Reply):
    orders: tuple[OrderRow, ...]


class ListOrders(Request[Orders]):
    """Orders that have not ended or whose revocation is not done; with a state those in it. Those in doubt first."""

    TYPE: ClassVar[str] = "ca_connector.list_orders.v1"
    REPLY: ClassVar[type[Reply]] = Orders

    authority: Identifier | None = None
    state: OrderState | None = None
    orders_max: int = Field(default=100, ge=1, le=500)


class ResolveOrder(Request[Done]):
    """What became of an order in doubt, by an operator who has looked at the CA.

    `again` places it once more, `poll` asks about it by the handle it has, `issued` hands over its certificate (which
    the SAM checks like any other), `refused` ends it. Refused with NOT_FOUND, CONFLICT (not in doubt), MALFORMED.
    """

    TYPE: ClassVar[str] = "ca_connector.resolve_order.v1"
    REPLY: ClassVar[type[Reply]] = Done

    order_id: Identifier
    outcome: Literal["again", "poll", "issued", "refused"]
    chain: Annotated[tuple[bytes, ...], Field(max_length=10)] = ()
    """DER, end entity first; for `issued`."""
    reason: Name | None = None
    """For `refused`."""


class NoteRevoked(Request[Done]):
    """The CA has revoked it by hand, since its protocol cannot or it would not. Refused with NOT_FOUND."""

    TYPE: ClassVar[str] = "ca_connector.note_revoked.v1"
    REPLY: ClassVar[type[Reply]] = Done

    order_id: Identifier

"""What the TSA connector does: time-stamp tokens, verified before anybody sees them."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from shared.algorithms import Hash
from shared.contracts.base import Digest, Identifier, Part, Reply, Request


class TimestampToken(Part):
    """One token, every check passed."""

    token: bytes
    """DER TimeStampToken (RFC 3161 2.4.2)."""
    time: datetime
    """genTime of the TSTInfo."""
    authority: str
    """The TSA it came from, by its name in the registry."""
    policy: str
    serial_number: str
    """Hex, of the TSTInfo."""


class Timestamps(Reply):
    tokens: Annotated[tuple[TimestampToken, ...], Field(min_length=1)]
    """As many as were asked for, each of another authority."""


class Timestamp(Request[Timestamps]):
    """Obtain tokens over a digest, from the named TSA, from any of a class, or as the registry's defaults say.

    Refused with DIGEST_LENGTH, HASH_ALGORITHM_REFUSED, TSA_UNKNOWN (authority or class), TSA_POLICY_REFUSED,
    TSA_UNAVAILABLE (the named one, or all of the class), TSA_UNTRUSTED, TSA_REFUSED, TSA_QUOTA.
    """

    TYPE: ClassVar[str] = "tsa_connector.timestamp.v1"
    REPLY: ClassVar[type[Reply]] = Timestamps

    digest: Digest
    hash: Hash
    nonce: bytes | None = Field(default=None, min_length=1, max_length=32)
    """Unsigned, big-endian. Without one the connector makes its own; a token never comes without a checked nonce."""
    authority: Identifier | None = None
    """This TSA and no other: no failover."""
    assurance_class: Identifier | None = None
    policy: Identifier | None = None
    """The TSA policy OID the token must name (reqPolicy)."""
    certificate_requested: bool = True
    """certReq of the request; the connector asks for the certificate in any case, to check by."""
    distinct: int = Field(default=1, ge=1, le=3)
    """How many tokens, each of another authority (double time-stamping)."""
    tenant_id: Identifier
    client_id: Identifier
    """Whose request it is, for the audit leaf and for what a tenant may use."""

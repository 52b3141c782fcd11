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
    for_archive: bool = False
    """An archive time stamp: from the default's own authority for these, when there is one."""
    tenant_id: Identifier
    client_id: Identifier
    """Whose request it is, for the audit leaf and for what a tenant may use."""


class QuotaState(Part):
    requests: int
    seconds: int
    left: int


class AuthorityState(Part):
    """How a TSA stands, as one process of the room sees it; quotas are what all of them share."""

    authority: str
    label: str
    url: str
    classes: tuple[str, ...]
    """In which it stands today."""
    state: str
    """`working`, `on trial`, `being tried`, `resting` or `maintenance`."""
    why: str
    usual_ms: float | None
    p95_ms: float | None
    offset_ms: float | None
    """Of its clock against ours, by its last token."""
    certificate_until: datetime | None
    quotas: tuple[QuotaState, ...]


class AuthorityStates(Reply):
    instance: str
    """Which process tells."""
    registry_version: int
    own_offset_s: float | None
    """How far most TSAs say that our own clock is off; nothing while it may be right."""
    authorities: tuple[AuthorityState, ...]


class ReadAuthorities(Request[AuthorityStates]):
    """How the TSAs stand."""

    TYPE: ClassVar[str] = "tsa_connector.read_authorities.v1"
    REPLY: ClassVar[type[Reply]] = AuthorityStates


class Reason(Part):
    authority: str
    standing: str
    """`asked`, `if needed` or `left out`."""
    why: str


class Explanation(Reply):
    choice: str
    """What is chosen by: an authority, or a class."""
    refused: str | None
    """The code of the refusal that the request would meet before anybody is asked."""
    reasons: tuple[Reason, ...]
    """In the order of asking; then those who are left out."""


class ExplainTimestamp(Request[Explanation]):
    """Who would be asked for a token now, in which order, and why. Nobody is asked and nothing is spent.

    Refused with TSA_UNKNOWN, TSA_POLICY_REFUSED or HASH_ALGORITHM_REFUSED as Timestamp would be.
    """

    TYPE: ClassVar[str] = "tsa_connector.explain_timestamp.v1"
    REPLY: ClassVar[type[Reply]] = Explanation

    digest: Digest
    """Among TSAs of the same cost the digest decides, so that it can be told beforehand."""
    hash: Hash
    authority: Identifier | None = None
    assurance_class: Identifier | None = None
    policy: Identifier | None = None
    distinct: int = Field(default=1, ge=1, le=3)
    for_archive: bool = False
    tenant_id: Identifier

"""What the TSA connector does: time-stamp tokens, verified before anybody sees them."""

from datetime import datetime
from typing import ClassVar

from pydantic import Field

from shared.algorithms import Hash
from shared.contracts.base import Digest, Reply, Request


class TimestampToken(Reply):
    token: bytes
    """DER TimeStampToken (RFC 3161 2.4.2), every check passed."""
    time: datetime
    """genTime of the TSTInfo."""


class Timestamp(Request[TimestampToken]):
    """Obtain one token over a digest. Refused with DIGEST_LENGTH, TSA_UNAVAILABLE, TSA_UNTRUSTED, TSA_REFUSED."""

    TYPE: ClassVar[str] = "tsa_connector.timestamp.v1"
    REPLY: ClassVar[type[Reply]] = TimestampToken

    digest: Digest
    hash: Hash
    nonce: bytes | None = Field(default=None, min_length=1, max_length=32)
    """Unsigned, big-endian. Without one the connector makes its own; a token never comes without a checked nonce."""

"""The one model behind both versions of the CSC: what is asked, as values. Knows no version, no bus, no HTTP."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from shared.algorithms import Hash, SignatureAlgorithm


class Version(StrEnum):
    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of a credential is shown (CSC 11.5)."""

    certificates: Literal["none", "single", "chain"] = "single"
    certificate_info: bool = False
    authorization_info: bool = False


@dataclass(frozen=True, slots=True)
class ListCredentials:
    user_id: str | None
    only_valid: bool
    results_max: int
    page_token: str | None
    whole: bool
    """Every page in one answer: v2 knows no paging."""
    shape: Shape | None
    """Set when the credentials themselves are asked for, not only their ids."""


@dataclass(frozen=True, slots=True)
class DescribeCredential:
    credential_id: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Authorize:
    credential_id: str
    signatures: int
    digests: tuple[bytes, ...] | None
    hash: Hash | None
    pin: str | None = field(repr=False)
    otp: str | None = field(repr=False)
    description: str | None


@dataclass(frozen=True, slots=True)
class Extend:
    credential_id: str
    sad: str = field(repr=False)
    digests: tuple[bytes, ...] | None
    hash: Hash | None


@dataclass(frozen=True, slots=True)
class AskFactor:
    """sendOTP and getChallenge: may this factor be asked for?"""

    credential_id: str
    factor: str


@dataclass(frozen=True, slots=True)
class SignHash:
    credential_id: str
    sad: str | None = field(repr=False)
    """None where the access token itself names the authorization."""
    digests: tuple[bytes, ...]
    algorithm: SignatureAlgorithm


@dataclass(frozen=True, slots=True)
class Timestamp:
    digest: bytes
    hash: Hash
    nonce: bytes | None
    authority: str | None = None
    """The TSA that the client names, and no other."""
    assurance_class: str | None = None
    """Or the class, of which any TSA will do."""
    policy: str | None = None
    certificate_requested: bool = True


Call = ListCredentials | DescribeCredential | Authorize | Extend | AskFactor | SignHash | Timestamp


@dataclass(frozen=True, slots=True)
class SAD:
    """A SAD on its way to the client."""

    text: str = field(repr=False)
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class Signatures:
    values: tuple[bytes, ...]

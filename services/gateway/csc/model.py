"""The one model behind both versions of the CSC: what is asked, as values. Knows no version, no bus, no HTTP."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from shared.algorithms import Hash, SignatureAlgorithm
from shared.registry.choosing import CertificateWish


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
    authorities: tuple[str, ...] | None = None
    """Of these CAs only (our extension)."""


@dataclass(frozen=True, slots=True)
class DescribeCredential:
    credential_id: str
    shape: Shape
    authorities: tuple[str, ...] | None = None


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


@dataclass(frozen=True, slots=True)
class AuthorizeOnce:
    """An authorization by a key that is made for it."""

    qualifier: str
    user_id: str | None
    wanted: Authorize
    """Without its credential, which is still to come."""

    def on(self, credential_id: str) -> Authorize:
        return replace(self.wanted, credential_id=credential_id)


@dataclass(frozen=True, slots=True)
class CreateCredential:
    wish: CertificateWish
    user_id: str | None
    has_subject_data: bool
    """It said something of the subject, which is not used."""
    waits: bool
    """The client knows no answer but the credential itself."""
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class CheckCreation:
    handle: str


@dataclass(frozen=True, slots=True)
class DeleteCredential:
    credential_id: str
    revoke_as: int | None
    """RFC 5280 5.3.1; None: the certificate is not revoked."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    credential_id: str


@dataclass(frozen=True, slots=True)
class InstallCertificate:
    credential_id: str
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RenewCredential:
    credential_id: str
    rekey: bool


@dataclass(frozen=True, slots=True)
class StopCredential:
    credential_id: str
    stopped: bool


Signing = ListCredentials | DescribeCredential | Authorize | AuthorizeOnce | Extend | AskFactor | SignHash | Timestamp
Issuance = (
    CreateCredential
    | CheckCreation
    | DeleteCredential
    | ReadRequest
    | InstallCertificate
    | RenewCredential
    | StopCredential
)
Call = Signing | Issuance


@dataclass(frozen=True, slots=True)
class SAD:
    """A SAD on its way to the client."""

    text: str = field(repr=False)
    expires_in_s: int
    credential_id: str = ""


@dataclass(frozen=True, slots=True)
class Signatures:
    values: tuple[bytes, ...]

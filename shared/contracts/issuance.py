"""What the SAM does for the gateway beside signing: how credentials come, are renewed, stop and go (CSC 2.2)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.contracts.base import Done, Identifier, Reply, Request, Sealed
from shared.contracts.sam import Visible

CREATION: Literal["credential-creation"] = "credential-creation"
"""Scope of a token that a signer granted for one credential, of the CA and the profile that it names."""
DELETION: Literal["credential-deletion"] = "credential-deletion"
"""Scope of a token that a signer granted for the end of one credential."""


class IssuanceChecked(Reply):
    """How far a credential is on its way."""

    credential_id: str
    state: Literal["pending", "active", "refused", "ended"]
    reason: str | None = None
    """Why it was refused or ended, for who asked for it."""


class CreateCredential(Request[IssuanceChecked]):
    """Order a key and a certificate for a signer, of the CA and the profile that were chosen.

    By a signer's token of scope CREATION, which must name the same CA and profile: the same token again is the same
    credential. Or by a client's own token of scope `service` for `user_id`; while one is under way at that CA and of
    that profile, asking again is asking for that one. `one_time`: for one authorization, by any token of scope
    `service`.

    Refused with TOKEN_*, SCOPE_REFUSED, USER_ID_*, AUTHORITY_UNKNOWN, AUTHORITY_FORBIDDEN, AUTHORITY_UNAVAILABLE,
    PROFILE_UNKNOWN, SIGN_ALGORITHM_REFUSED, FACTOR_UNKNOWN (the signer could not approve with it), OVERLOADED.
    """

    TYPE: ClassVar[str] = "sam.create_credential.v1"
    REPLY: ClassVar[type[Reply]] = IssuanceChecked

    secrets: Sealed
    user_id: str | None = Field(default=None, max_length=255)
    authority: Identifier
    profile: Identifier
    description: str = Field(default="", max_length=255)
    one_time: bool = False


class CheckIssuance(Request[IssuanceChecked]):
    """Refused with TOKEN_*, SCOPE_REFUSED, CREDENTIAL_UNKNOWN (also another's)."""

    TYPE: ClassVar[str] = "sam.check_issuance.v1"
    REPLY: ClassVar[type[Reply]] = IssuanceChecked

    secrets: Sealed
    credential_id: str = Field(max_length=255)


class RemoveCredential(Request[Done]):
    """End a credential for its signer or its tenant's client: it stops at once, then its key is destroyed.

    Twice is once. Refused with TOKEN_*, SCOPE_REFUSED, CREDENTIAL_UNKNOWN.
    """

    TYPE: ClassVar[str] = "sam.remove_credential.v1"
    REPLY: ClassVar[type[Reply]] = Done

    secrets: Sealed
    credential_id: str = Field(max_length=255)
    authorities: Visible = None
    revoke_as: Annotated[int, Field(ge=0, le=10)] | None = None
    """RFC 5280 5.3.1; None: the key is destroyed and the certificate left to run out."""


class StopCredential(Request[Done]):
    """Suspend a credential, or resume one that was suspended in this way. Refused with CREDENTIAL_UNKNOWN,
    CREDENTIAL_DISABLED.
    """

    TYPE: ClassVar[str] = "sam.stop_credential.v1"
    REPLY: ClassVar[type[Reply]] = Done

    secrets: Sealed
    credential_id: str = Field(max_length=255)
    authorities: Visible = None
    stopped: bool


class RenewCredential(Request[IssuanceChecked]):
    """Order a new certificate for the same key, or for a new one. The old one works until the new one is linked.

    While one is under way, asking again changes nothing. Refused with CREDENTIAL_UNKNOWN, CREDENTIAL_DISABLED,
    CERTIFICATE_EXPIRED, and as CreateCredential by the CA.
    """

    TYPE: ClassVar[str] = "sam.renew_credential.v1"
    REPLY: ClassVar[type[Reply]] = IssuanceChecked

    secrets: Sealed
    credential_id: str = Field(max_length=255)
    authorities: Visible = None
    rekey: bool


class RequestRead(Reply):
    csr: bytes
    """DER CertificationRequest."""
    origin: bytes
    """The signed key-origin statement (`shared.origin`)."""


class ReadRequest(Request[RequestRead]):
    """The request of a credential that waits for its CA.

    Refused with CREDENTIAL_UNKNOWN, ISSUANCE_PENDING (no key yet), CREDENTIAL_DISABLED (nothing is wanted from the CA).
    """

    TYPE: ClassVar[str] = "sam.read_request.v1"
    REPLY: ClassVar[type[Reply]] = RequestRead

    secrets: Sealed
    credential_id: str = Field(max_length=255)
    authorities: Visible = None


class InstallCertificate(Request[Done]):
    """Link a certificate that came by hand; it is checked as one that a connector delivers.

    Only of a profile whose issuance is `external`. Refused with CREDENTIAL_UNKNOWN, CREDENTIAL_DISABLED,
    ISSUANCE_PENDING, CERTIFICATE_REFUSED.
    """

    TYPE: ClassVar[str] = "sam.install_certificate.v1"
    REPLY: ClassVar[type[Reply]] = Done

    secrets: Sealed
    credential_id: str = Field(max_length=255)
    authorities: Visible = None
    chain: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=10)]


class PrepareOnce(Request[IssuanceChecked]):
    """A credential for one authorization that a signer is about to approve on the page.

    The same request of authentication is the same credential. Refused as CreateCredential.
    """

    TYPE: ClassVar[str] = "sam.prepare_once.v1"
    REPLY: ClassVar[type[Reply]] = IssuanceChecked

    tenant_id: Identifier
    user_id: Identifier
    request_id: Identifier
    authority: Identifier
    profile: Identifier

"""What the SAM does for the gateway (credentials and signatures), the operator, authentication and the CA connector."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.algorithms import Hash, KeyAlgorithm, Profile, Scheme
from shared.contracts.base import Digests, Done, Identifier, Job, Name, Part, Reply, Request, Sealed

# --- for the gateway -------------------------------------------------------------------------------------------------

Visible = Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=64)] | None
"""CAs of a virtual service: a credential of any other looks unknown. None: of every CA.

No protection, since the caller chooses its service; what a client may do stands in its token.
"""


class CredentialFacts(Part):
    """Everything a `credentials/info` answer is made of."""

    credential_id: str
    description: str
    enabled: bool
    key_algorithm: KeyAlgorithm
    sign_algorithms: tuple[str, ...]
    """signAlgo OIDs, bare and combined, that the credential's profile allows today."""
    certificates: tuple[bytes, ...]
    """DER, end entity first; empty until a certificate is linked."""
    certificate_status: Literal["valid", "expired", "revoked", "suspended"] | None
    assurance: Literal["SCAL1-pin", "SCAL2-passkey"]
    """`SCAL2-passkey` is approved through OAuth only; `credentials/authorize` refuses it."""
    pin_required: bool
    otp_required: bool
    scal: Literal["1", "2"]
    signatures_max: int
    """How many signatures one authorization may cover (`multisign`)."""
    authority: str = ""
    certificate_profile: str = ""
    """Of that CA, in the registry."""
    status_checked_at: datetime | None = None
    """When the CA last said what `certificate_status` says; None: not since it was issued."""
    renewing: bool = False
    """A new certificate is under way; this one goes on until it is linked."""


class CredentialPage(Reply):
    credentials: tuple[CredentialFacts, ...]
    next_page_token: str | None = None


class ListCredentials(Request[CredentialPage]):
    """The credentials of one signer of the token's tenant: the one named here, or the one a signer's own token names.

    Refused with TOKEN_*, SCOPE_REFUSED, USER_ID_REQUIRED, USER_ID_UNKNOWN, PAGE_TOKEN_INVALID, and
    FORBIDDEN (both name one).
    """

    TYPE: ClassVar[str] = "sam.list_credentials.v1"
    REPLY: ClassVar[type[Reply]] = CredentialPage

    secrets: Sealed
    user_id: str | None = Field(default=None, max_length=255)
    only_valid: bool = False
    results_max: int = Field(default=100, ge=1, le=100)
    page_token: str | None = Field(default=None, max_length=255)
    authorities: Visible = None


class CredentialDescribed(Reply):
    credential: CredentialFacts


class DescribeCredential(Request[CredentialDescribed]):
    """Refused with TOKEN_*, CREDENTIAL_UNKNOWN (also when it is another tenant's)."""

    TYPE: ClassVar[str] = "sam.describe_credential.v1"
    REPLY: ClassVar[type[Reply]] = CredentialDescribed

    secrets: Sealed
    credential_id: str = Field(max_length=255)
    authorities: Visible = None


class Authorized(Reply):
    sad: Sealed
    """`Secrets.sad`, sealed to the gateway: a random handle that carries no right by itself."""
    expires_in_s: int


class Authorize(Request[Authorized]):
    """Authorize `signatures` uses of a credential, over exactly these digests when some are given (CSC 11.6).

    Refused with TOKEN_*, CREDENTIAL_UNKNOWN, ASSURANCE_REFUSED, CREDENTIAL_DISABLED, CERTIFICATE_EXPIRED,
    TOO_MANY_SIGNATURES, HASHES_REQUIRED, PIN_*, OTP_*.
    """

    TYPE: ClassVar[str] = "sam.authorize.v1"
    REPLY: ClassVar[type[Reply]] = Authorized

    secrets: Sealed
    """access_token, pin, otp"""
    credential_id: str = Field(max_length=255)
    authorities: Visible = None
    signatures: int
    digests: Digests | None = None
    hash: Hash | None = None
    """The hash of the digests; v1 clients cannot name one and are bound to the bytes."""
    description: str | None = Field(default=None, max_length=500)


class ExtendAuthorization(Request[Authorized]):
    """A new SAD for what is left of a current one (CSC 11.8). New digests only where policy lets SCAL1 take them.

    Refused with TOKEN_*, CREDENTIAL_*, SAD_*, HASH_NOT_AUTHORIZED.
    """

    TYPE: ClassVar[str] = "sam.extend_authorization.v1"
    REPLY: ClassVar[type[Reply]] = Authorized

    secrets: Sealed
    """access_token, sad"""
    credential_id: str = Field(max_length=255)
    authorities: Visible = None
    digests: Digests | None = None
    hash: Hash | None = None


class CheckFactor(Request[Done]):
    """May this factor of the credential be asked for now? (sendOTP, getChallenge)

    Refused with TOKEN_*, CREDENTIAL_UNKNOWN, FACTOR_UNKNOWN, PIN_LOCKED, OTP_LOCKED.
    """

    TYPE: ClassVar[str] = "sam.check_factor.v1"
    REPLY: ClassVar[type[Reply]] = Done

    secrets: Sealed
    credential_id: str = Field(max_length=255)
    authorities: Visible = None
    factor: str = Field(max_length=64)
    """`PIN` or `OTP`, as in the auth objects."""


class Signed(Reply):
    values: tuple[bytes, ...]
    """One for each digest in the order asked. ECDSA as DER ECDSA-Sig-Value."""
    certificate: bytes
    """DER of the end-entity certificate, for the gateway's own check of the values."""


class SignHash(Request[Signed]):
    """Spend an authorization over these digests and return their signature values (CSC 11.9).

    The same request again returns the recorded values. Refused with TOKEN_*, CREDENTIAL_*, CERTIFICATE_EXPIRED, SAD_*,
    HASH_NOT_AUTHORIZED, DIGEST_LENGTH, SIGN_ALGORITHM_REFUSED, SIGN_PARAMETERS_REFUSED, and what the SVG refuses with.
    """

    TYPE: ClassVar[str] = "sam.sign_hash.v1"
    REPLY: ClassVar[type[Reply]] = Signed

    secrets: Sealed
    """access_token, sad"""
    credential_id: str = Field(max_length=255)
    authorities: Visible = None
    digests: Digests
    scheme: Scheme
    hash: Hash
    salt_bytes: int | None = Field(default=None, ge=0, le=512)


# --- for authentication ----------------------------------------------------------------------------------------------


class RevokeTokens(Request[Done]):
    """From now on refuse one token, or every token that a client was given before `issued_before`."""

    TYPE: ClassVar[str] = "sam.revoke_tokens.v1"
    REPLY: ClassVar[type[Reply]] = Done

    token_id: str | None = Field(default=None, max_length=128)
    """The `jti`."""
    client_id: Identifier | None = None
    issued_before: datetime | None = None
    until: datetime
    """When the refusal may be forgotten, because every token it is about has expired."""


# --- for the CA connector --------------------------------------------------------------------------------------------


class AcceptCertificate(Job):
    """A certificate came for an order. The SAM checks it and answers with `ca_connector.confirm_order.v1`."""

    TYPE: ClassVar[str] = "sam.accept_certificate.v1"

    order_id: Identifier
    chain: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=10)]
    """DER, end entity first, the root may be missing."""


class RefuseOrder(Job):
    """The authority will not issue."""

    TYPE: ClassVar[str] = "sam.refuse_order.v1"

    order_id: Identifier
    reason: Name


class NoteCertificateStatus(Job):
    """What the authority says of a certificate. Bad news is believed at once; good news only with evidence."""

    TYPE: ClassVar[str] = "sam.note_certificate_status.v1"

    order_id: Identifier
    status: Literal["valid", "revoked", "suspended"]
    at: datetime
    checked_at: datetime | None = None
    """When the authority said so (thisUpdate of what it said)."""
    evidence: bytes | None = Field(default=None, max_length=131_072)
    """DER CertificateList or OCSPResponse. Without it nothing that was suspended comes back."""


# --- to itself -------------------------------------------------------------------------------------------------------


class PrepareCredential(Job):
    """Generate the key, have the request signed and order the certificate: each step once, from where it stands."""

    TYPE: ClassVar[str] = "sam.prepare_credential.v1"

    credential_id: Identifier


class EndCredential(Job):
    """Destroy the key and have the certificate revoked: each step once, from where it stands."""

    TYPE: ClassVar[str] = "sam.end_credential.v1"

    credential_id: Identifier


# --- for the operator ------------------------------------------------------------------------------------------------


class SignerAdded(Reply):
    signer_id: str
    totp_secret: Sealed | None = None
    """`Secrets.totp_secret` (base32), shown this once, sealed to the operator."""


class AddSigner(Request[SignerAdded]):
    """Enrol a signer, with TOTP when wanted. Without a PIN only what is approved by passkey can be used.

    Refused with CONFLICT, PIN_INVALID (does not meet the rules).
    """

    TYPE: ClassVar[str] = "sam.add_signer.v1"
    REPLY: ClassVar[type[Reply]] = SignerAdded

    tenant_id: Identifier
    user_id: Identifier
    """The `userID` of the CSC: unique in the tenant."""
    common_name: Name
    organization: Name | None = None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "JP"
    organization_identifier: Name | None = None
    """ETSI EN 319 412-1 5.1.4, such as `NTRJP-0100-01-123456`."""
    subject_type: Literal["natural", "legal", "seal"] = "natural"
    secrets: Sealed
    """pin, or nothing"""
    with_totp: bool = False


class CredentialAdded(Reply):
    credential_id: str


class AddCredential(Request[CredentialAdded]):
    """Order a key and a certificate for a signer; `list` shows when it is active.

    Refused with NOT_FOUND (signer), CONFLICT, AUTHORITY_UNKNOWN, AUTHORITY_FORBIDDEN, AUTHORITY_UNAVAILABLE,
    PROFILE_UNKNOWN, SIGN_ALGORITHM_REFUSED, FACTOR_UNKNOWN.
    """

    TYPE: ClassVar[str] = "sam.add_credential.v1"
    REPLY: ClassVar[type[Reply]] = CredentialAdded

    credential_id: Identifier
    """Chosen by the caller, so that asking again does not make a second one."""
    tenant_id: Identifier
    user_id: Identifier
    description: Name
    key_algorithm: KeyAlgorithm = KeyAlgorithm.P256
    profile: Profile = Profile.EU
    authority: Identifier = "local"
    certificate_profile: Identifier | None = None
    """Of that CA, in the registry; nothing: its default."""
    assurance: Literal["SCAL1-pin", "SCAL2-passkey"] = "SCAL1-pin"
    otp_required: bool = False
    hashes_required: bool = False
    """Link every authorization to its digests (SCAL "2" in the words of the CSC). Not EN 419 241-1 SCAL2."""
    signatures_max: int = Field(default=100, ge=1, le=1000)


class SignerRow(Part):
    tenant_id: str
    user_id: str
    common_name: str
    pin_tries_left: int
    otp_tries_left: int | None


class CredentialRow(Part):
    credential_id: str
    tenant_id: str
    user_id: str
    description: str
    key_algorithm: KeyAlgorithm
    authority: str
    state: str
    reason: str | None
    not_after: datetime | None


class Inventory(Reply):
    signers: tuple[SignerRow, ...]
    credentials: tuple[CredentialRow, ...]


class ListInventory(Request[Inventory]):
    TYPE: ClassVar[str] = "sam.list_inventory.v1"
    REPLY: ClassVar[type[Reply]] = Inventory

    tenant_id: Identifier | None = None


class SuspendCredential(Request[Done]):
    """Stop or resume a credential. Refused with NOT_FOUND, CONFLICT (it has ended)."""

    TYPE: ClassVar[str] = "sam.suspend_credential.v1"
    REPLY: ClassVar[type[Reply]] = Done

    credential_id: Identifier
    suspended: bool


class UnlockSigner(Request[Done]):
    """Give a locked signer the tries back, with a new PIN when one is given. Refused with NOT_FOUND, PIN_INVALID."""

    TYPE: ClassVar[str] = "sam.unlock_signer.v1"
    REPLY: ClassVar[type[Reply]] = Done

    tenant_id: Identifier
    user_id: Identifier
    secrets: Sealed | None = None


class DeleteCredential(Request[Done]):
    """End a credential: the key is destroyed, its share forgotten, the certificate revoked. Refused with NOT_FOUND."""

    TYPE: ClassVar[str] = "sam.delete_credential.v1"
    REPLY: ClassVar[type[Reply]] = Done

    credential_id: Identifier

"""What the SAM does for the approval page: contexts to approve, authenticators to approve with, and their history.

Authentication shows and carries; the SAM decides. Everything a signer proves is verified by the SAM itself.
"""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.algorithms import Hash
from shared.contracts.base import Digest, Done, Identifier, Name, Part, Reply, Request, Sealed


class Document(Part):
    """One thing to be signed, as the partner named it."""

    digest: Digest
    label: str = Field(default="", max_length=255)


class ApprovableCredential(Part):
    """What the signer is shown of the certificate."""

    credential_id: str
    description: str
    subject: str
    issuer: str
    not_after: datetime
    scal: Literal["1", "2"]


class SignerCredentials(Reply):
    credentials: tuple[ApprovableCredential, ...]


class ListApprovable(Request[SignerCredentials]):
    """The credentials of a signer that can be approved on the page now."""

    TYPE: ClassVar[str] = "sam.list_approvable.v1"
    REPLY: ClassVar[type[Reply]] = SignerCredentials

    tenant_id: Identifier
    user_id: Identifier


class ContextOpened(Reply):
    context_id: str
    challenge: bytes
    """SHA-256 of the context: the WebAuthn challenge, or what a device key signs."""
    context: bytes
    """The canonical encoding that was hashed, so that a signer's own app can check it (docs/evidence-format.md)."""
    reference_code: str
    """Six characters, derived from the nonce: shown on the page and to the partner, so that both mean the same."""
    credential: ApprovableCredential
    authenticators: tuple[bytes, ...]
    """WebAuthn credential ids that may approve."""
    expires_at: datetime


class OpenContext(Request[ContextOpened]):
    """Open an activation context: nonce, credential, client, count, every hash in order with its label, and the end.

    Refused with CREDENTIAL_UNKNOWN (also another signer's), ASSURANCE_REFUSED (not approved by passkey),
    CREDENTIAL_DISABLED, CERTIFICATE_EXPIRED, TOO_MANY_SIGNATURES, DIGEST_LENGTH, AUTHENTICATOR_REQUIRED (none that may
    be used yet), MALFORMED (control characters in a label), OVERLOADED (too many wait).
    """

    TYPE: ClassVar[str] = "sam.open_context.v1"
    REPLY: ClassVar[type[Reply]] = ContextOpened

    tenant_id: Identifier
    user_id: Identifier
    client_id: Identifier
    client_name: Name
    credential_id: str = Field(max_length=255)
    signatures: int
    documents: Annotated[tuple[Document, ...], Field(min_length=1, max_length=1000)]
    hash: Hash


class PasskeyAssertion(Part):
    """What `navigator.credentials.get` returned, raw."""

    credential_id: bytes = Field(max_length=1024)
    client_data_json: bytes = Field(max_length=4096)
    authenticator_data: bytes = Field(max_length=4096)
    signature: bytes = Field(max_length=1024)
    user_handle: bytes | None = Field(default=None, max_length=64)


class DeviceSignature(Part):
    """What a signer's own app returned: Ed25519 or ECDSA P-256 over the context (docs/evidence-format.md)."""

    key_id: str = Field(max_length=64)
    signature: bytes = Field(max_length=256)


class ContextApproved(Reply):
    authorization_id: str
    expires_in_s: int


class ApproveContext(Request[ContextApproved]):
    """Verify the signer's evidence over a context, keep it, and make the authorization. Exactly one kind of evidence.

    The very same evidence again gets the same answer, so that a lost one can be asked for again. Refused with
    CONTEXT_UNKNOWN, CONTEXT_EXPIRED, CONTEXT_SPENT, EVIDENCE_REFUSED, and what OpenContext refuses with.
    """

    TYPE: ClassVar[str] = "sam.approve_context.v1"
    REPLY: ClassVar[type[Reply]] = ContextApproved

    context_id: Identifier
    passkey: PasskeyAssertion | None = None
    device: DeviceSignature | None = None


class RefuseContext(Request[Done]):
    """The signer said no. The context is spent."""

    TYPE: ClassVar[str] = "sam.refuse_context.v1"
    REPLY: ClassVar[type[Reply]] = Done

    context_id: Identifier


class SignerFound(Reply):
    tenant_id: str
    user_id: str
    display_name: str


class LoginOpened(Reply):
    login_id: str
    challenge: bytes
    expires_at: datetime


class OpenLogin(Request[LoginOpened]):
    """A challenge for a log-in by discoverable passkey."""

    TYPE: ClassVar[str] = "sam.open_login.v1"
    REPLY: ClassVar[type[Reply]] = LoginOpened


class VerifyLogin(Request[SignerFound]):
    """Whose passkey answered the challenge. It logs in and authorizes nothing. EVIDENCE_REFUSED, CONTEXT_*."""

    TYPE: ClassVar[str] = "sam.verify_login.v1"
    REPLY: ClassVar[type[Reply]] = SignerFound

    login_id: Identifier
    passkey: PasskeyAssertion


class EnrollmentOpened(Reply):
    enrollment_id: str
    challenge: bytes
    signer: SignerFound
    user_handle: bytes
    exclude: tuple[bytes, ...]
    """WebAuthn credential ids the signer has already."""
    approving: tuple[bytes, ...]
    """Those that must approve the addition; empty with a ticket."""
    expires_at: datetime


class OpenEnrollment(Request[EnrollmentOpened]):
    """Begin to add an authenticator: with a registration authority's ticket, or approved by an authenticator there is.

    The ticket is spent when the authenticator is added, so who gives up half-way can begin again.

    Refused with TICKET_REFUSED, AUTHENTICATOR_REQUIRED, NOT_FOUND.
    """

    TYPE: ClassVar[str] = "sam.open_enrollment.v1"
    REPLY: ClassVar[type[Reply]] = EnrollmentOpened

    secrets: Sealed | None = None
    """`Secrets.ticket`, subject ""."""
    tenant_id: Identifier | None = None
    user_id: Identifier | None = None
    """Of the log-in, when there is no ticket."""


class AuthenticatorAdded(Reply):
    authenticator_id: str
    usable_from: datetime
    """At once for the first one; after the cooling-off time for every other."""


class AddAuthenticator(Request[AuthenticatorAdded]):
    """Finish it. The approving assertion is over the same challenge.

    Refused with EVIDENCE_REFUSED, CONTEXT_*, TICKET_REFUSED, CONFLICT, MALFORMED (the label).
    """

    TYPE: ClassVar[str] = "sam.add_authenticator.v1"
    REPLY: ClassVar[type[Reply]] = AuthenticatorAdded

    enrollment_id: Identifier
    label: str = Field(max_length=64)
    client_data_json: bytes = Field(default=b"", max_length=4096)
    attestation_object: bytes = Field(default=b"", max_length=16_384)
    device_key: bytes | None = Field(default=None, max_length=256)
    """DER SubjectPublicKeyInfo (Ed25519, P-256) of a signer's app, in place of a WebAuthn attestation."""
    device_proof: bytes | None = Field(default=None, max_length=256)
    """Its signature over the challenge."""
    approving: PasskeyAssertion | None = None


class AuthenticatorRow(Part):
    authenticator_id: str
    label: str
    kind: Literal["passkey", "device"]
    added_at: datetime
    usable_from: datetime
    removed: bool


class HistoryRow(Part):
    """One approval or refusal of the signer."""

    at: datetime
    client_id: str
    client_name: str
    credential_id: str
    outcome: Literal["approved", "refused"]
    reference_code: str
    documents: tuple[Document, ...]
    signed: int
    """How many of them were signed since."""


class SignerOverview(Reply):
    authenticators: tuple[AuthenticatorRow, ...]
    history: tuple[HistoryRow, ...]


class ReadOverview(Request[SignerOverview]):
    """A signer's own authenticators and signing history, newest first."""

    TYPE: ClassVar[str] = "sam.read_overview.v1"
    REPLY: ClassVar[type[Reply]] = SignerOverview

    tenant_id: Identifier
    user_id: Identifier
    history_max: int = Field(default=50, ge=1, le=200)


class RemoveAuthenticator(Request[Done]):
    """Stop an authenticator at once: by its signer (logged in), or by the operator when it was lost."""

    TYPE: ClassVar[str] = "sam.remove_authenticator.v1"
    REPLY: ClassVar[type[Reply]] = Done

    tenant_id: Identifier
    user_id: Identifier
    authenticator_id: Identifier


class TicketIssued(Reply):
    ticket: Sealed
    """`Secrets.ticket`, sealed to the operator (subject = user_id): 256 bits, once, for a day."""
    expires_at: datetime


class IssueTicket(Request[TicketIssued]):
    """The registration authority's statement that this person is the signer: enrol a first or a new authenticator."""

    TYPE: ClassVar[str] = "sam.issue_ticket.v1"
    REPLY: ClassVar[type[Reply]] = TicketIssued

    tenant_id: Identifier
    user_id: Identifier

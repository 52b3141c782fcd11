"""What authentication answers on the bus: about tokens to the gateway, about tenants and clients to the operator."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from shared.contracts.base import Done, Identifier, Job, Name, Part, Reply, Request, Sealed

EmailAddress = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,187}[A-Za-z0-9])$"
    ),
]
"""As it stands in an envelope: ASCII, no quotes, no comments, no names."""


class TokenFacts(Reply):
    client_id: str
    tenant_id: str
    scope: str


class CheckToken(Request[TokenFacts]):
    """Is this access token alive now? Only for methods that do not end in the SAM, which checks for itself.

    Refused with TOKEN_INVALID or TOKEN_EXPIRED.
    """

    TYPE: ClassVar[str] = "authentication.check_token.v1"
    REPLY: ClassVar[type[Reply]] = TokenFacts

    token: Sealed
    """`shared.sealing.Secrets` with `access_token`, sealed to authentication."""


class AddTenant(Request[Done]):
    """Refused with CONFLICT when the tenant exists with another name."""

    TYPE: ClassVar[str] = "authentication.add_tenant.v1"
    REPLY: ClassVar[type[Reply]] = Done

    tenant_id: Identifier
    name: Name


class ClientAdded(Reply):
    client_id: str
    secret: Sealed | None = None
    """The client secret, shown this once, sealed to the operator. None for a client with keys or certificates."""


ClientMethod = Literal["client_secret", "private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"]
"""How a client proves itself. The last two are RFC 8705."""

ClientProfile = Literal["csc-compat", "hardened"]
"""`hardened` is FAPI 2.0: pushed requests only, keys or certificates and no secret, tokens bound by DPoP or mTLS."""

ClientFlag = Literal["pkce-optional", "token-type-sad", "account-tokens"]
"""What a client of an older kind is forgiven or given: requests without PKCE (v1), `token_type: SAD` for scope
`credential` (v1), account tokens (CSC API 4.6), for which SHA-256 of its secret is kept."""


class AddClient(Request[ClientAdded]):
    """Refused with NOT_FOUND (tenant), CONFLICT (client exists), MALFORMED (what cannot go together)."""

    TYPE: ClassVar[str] = "authentication.add_client.v1"
    REPLY: ClassVar[type[Reply]] = ClientAdded

    tenant_id: Identifier
    client_id: Identifier
    name: Name
    method: ClientMethod = "client_secret"
    jwks: str | None = Field(default=None, max_length=16_384)
    """The client's public keys as a JWK Set, for `private_key_jwt`; with `x5c` for `self_signed_tls_client_auth`."""
    certificate_name: str | None = Field(default=None, max_length=1024)
    """For `tls_client_auth`, what its certificate must be issued to: `dn:CN=…`, `dns:…`, `uri:…`, `ip:…`, `email:…`."""
    profile: ClientProfile = "csc-compat"
    redirect_uris: Annotated[tuple[Annotated[str, Field(max_length=2048)], ...], Field(max_length=16)] = ()
    """Where signers may be sent back to, compared character by character."""
    flags: tuple[ClientFlag, ...] = ()


class SetNoticeAddress(Request[Done]):
    """Where a signer is told what changes about her account; None takes it away. Refused with NOT_FOUND (tenant)."""

    TYPE: ClassVar[str] = "authentication.set_notice_address.v1"
    REPLY: ClassVar[type[Reply]] = Done

    tenant_id: Identifier
    user_id: Identifier
    email: EmailAddress | None


class NoticeAuthenticator(Job):
    """Tell a signer that an authenticator was added to her account."""

    TYPE: ClassVar[str] = "authentication.notice_authenticator.v1"

    authenticator_id: Identifier
    tenant_id: Identifier
    user_id: Identifier
    added_at: datetime
    usable_from: datetime


class TenantRow(Part):
    tenant_id: str
    name: str
    suspended: bool


class ClientRow(Part):
    client_id: str
    tenant_id: str
    name: str
    method: str
    suspended: bool
    added_at: datetime


class Accounts(Reply):
    tenants: tuple[TenantRow, ...]
    clients: tuple[ClientRow, ...]


class ListAccounts(Request[Accounts]):
    TYPE: ClassVar[str] = "authentication.list_accounts.v1"
    REPLY: ClassVar[type[Reply]] = Accounts


class SuspendClient(Request[Done]):
    """Stop or resume a client. Its tokens die at once. Refused with NOT_FOUND."""

    TYPE: ClassVar[str] = "authentication.suspend_client.v1"
    REPLY: ClassVar[type[Reply]] = Done

    client_id: Identifier
    suspended: bool


class SuspendTenant(Request[Done]):
    """Stop or resume a tenant with all its clients. Refused with NOT_FOUND."""

    TYPE: ClassVar[str] = "authentication.suspend_tenant.v1"
    REPLY: ClassVar[type[Reply]] = Done

    tenant_id: Identifier
    suspended: bool

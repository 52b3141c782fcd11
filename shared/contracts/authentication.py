"""What authentication answers on the bus: about tokens to the gateway, about tenants and clients to the operator."""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from shared.contracts.base import Done, Identifier, Name, Part, Reply, Request, Sealed


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
    """The client secret, shown this once, sealed to the operator. None for a `private_key_jwt` client."""


class AddClient(Request[ClientAdded]):
    """Refused with NOT_FOUND (tenant), CONFLICT (client exists)."""

    TYPE: ClassVar[str] = "authentication.add_client.v1"
    REPLY: ClassVar[type[Reply]] = ClientAdded

    tenant_id: Identifier
    client_id: Identifier
    name: Name
    method: Literal["client_secret", "private_key_jwt"] = "client_secret"
    jwks: str | None = Field(default=None, max_length=16_384)
    """The client's public keys as a JWK Set, for `private_key_jwt`."""


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

"""The settings of authentication."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from shared.http import HTTPDoor
from shared.settings import Database, Port, RegistryFiles, RoomSettings, Section

TOKEN_LIFETIME_MAX_S = 86_400
_EMAIL = re.compile(r"[^\s@<>]{1,64}@[A-Za-z0-9.-]{1,189}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _issuer(url: str) -> str:
    """RFC 8414 2: https, no query, no fragment. Plain http is for loopback, where there is nobody to listen in."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("the issuer is an https URL (http on loopback only)")
    if not parts.hostname or parts.query or parts.fragment or url.endswith(("/", "?", "#")):
        raise ValueError("the issuer is an absolute URL without query, fragment and final slash")
    return url


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError("no time zone of this name, such as Asia/Tokyo, on this machine") from None
    return name


class IdP(Section):
    """An OpenID Connect provider that logs signers in. It authorizes nothing. Off without an issuer."""

    issuer: str | None = None
    """As its discovery document writes it, without a final slash."""
    name: str = "SSO"
    """What the button says."""
    client_id: str = ""
    client_secret_file: Path | None = None
    tenant_id: str = ""
    """All its users are signers of this one tenant."""
    user_id_claim: str = "sub"
    """The claim of the ID token that is the signer's user id."""
    scope: str = "openid profile"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.issuer is not None:
            parts = urlsplit(self.issuer)
            if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
                raise ValueError("the identity provider's issuer is an https URL (http on loopback only)")
            if not self.client_id or not self.tenant_id or self.client_secret_file is None:
                raise ValueError("an identity provider needs client_id, client_secret_file and tenant_id")
        return self


class Notices(Section):
    """Mails that tell a signer that a passkey was added to her account. Off without a host."""

    host: str | None = None
    """The mail server."""
    port: Port = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    """`none` is for a server on loopback."""
    ca_file: Path | None = None
    """Whom the server's certificate may be from, where that is not whom this machine trusts."""
    user: str | None = None
    password_file: Path | None = None
    sender: str = Field(default="", max_length=254)
    """The address that the mails come from."""
    operator_email: str | None = Field(default=None, max_length=254)
    """Who is told in the place of a signer without an address, or whose address is refused."""
    timeout_s: float = Field(default=30.0, gt=0, le=300)
    """For one mail, from connecting to the server's last word."""
    every_s: float = Field(default=5.0, gt=0)
    """How often it is looked for mails that wait."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.host is None:
            return self
        if not _EMAIL.fullmatch(self.sender) or not _EMAIL.fullmatch(self.operator_email or self.sender):
            raise ValueError("notices need an e-mail address as sender, and the operator's is one too")
        if self.tls == "none" and self.host not in _LOOPBACK:
            raise ValueError("mail goes without TLS to a server on loopback only")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


class MTLS(Section):
    """Clients that show a certificate (RFC 8705), to a proxy (`RAKKAN_HTTP__PROXIES`) or here."""

    ca_file: Path | None = None
    """PEM of the authorities that issue the certificates of `tls_client_auth` clients. Without, there are none."""
    url: Annotated[str, AfterValidator(_issuer)] | None = None
    """These endpoints at a host of their own that asks for certificates, so that no browser asks a signer for one."""


class Settings(RoomSettings):
    database: Database
    http: HTTPDoor = HTTPDoor()
    issuer: Annotated[str, AfterValidator(_issuer)]
    """The `oauth2` URL of the info document, and the audience that client assertions name."""
    tokens_key_file: Path
    """PEM of the Ed25519 key that signs access tokens. Its public half is in the trust bundle."""
    token_lifetime_s: int = Field(default=3600, ge=60, le=TOKEN_LIFETIME_MAX_S)
    refresh_lifetime_s: int = Field(default=2_592_000, ge=3600, le=31_536_000)
    """How long a signer's consent to scope `service` lasts: no refresh token outlives it."""
    code_lifetime_s: int = Field(default=60, ge=5, le=60)
    pushed_lifetime_s: int = Field(default=90, ge=10, le=600)
    """Within which a pushed request must be opened in a browser."""
    request_lifetime_s: int = Field(default=600, ge=60, le=3600)
    """Within which a signer must decide."""
    registry: RegistryFiles | None = None
    """Without it no client can ask a signer for a new credential, nor for a key that is made for one authorization."""
    signature_qualifiers: tuple[str, ...] = ()
    """The `signatureQualifier` values that every credential here fulfills, as the trust service provider declares."""
    requests_burst: int = Field(default=200, ge=1)
    """Authorization requests of one client from one address, not pushed, before it is told to wait; and new browser
    sessions of one address."""
    request_again_s: float = Field(default=0.05, gt=0)
    """After how long one more is taken."""
    attempts_max: int = Field(default=10, ge=1)
    """Failed authentications of one client from one address before it is told to wait."""
    attempt_again_s: float = Field(default=6.0, gt=0)
    """After how long one of them is forgiven."""
    logins_burst: int = Field(default=30, ge=1)
    """Log-ins by passkey that one address (of IPv6: its /64) may begin before it is told to wait."""
    login_again_s: float = Field(default=1.0, gt=0)
    """After how long one more may begin."""
    logins_per_s: float = Field(default=20.0, gt=0)
    """What all addresses together may begin before each has but three, and one more every 20 s."""
    service_name: str = Field(default="Rakkan", min_length=1, max_length=64)
    """What the pages call this service."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Of the times that signers are shown, such as Asia/Tokyo."""
    rp_id: str | None = None
    """The SAM's `RAKKAN_WEBAUTHN__RP_ID`, where that is a domain above the issuer's host. Otherwise leave it out."""
    session_idle_s: int = Field(default=900, ge=60, le=86_400)
    """After how long without a request a browser is logged out."""
    session_lifetime_s: int = Field(default=28_800, ge=60, le=86_400)
    """After how long it is logged out in any case."""
    secrets_key_file: Path | None = None
    """32 random bytes in base64, under which the TOTP secrets of log-ins are kept. Without, no passwords."""
    idp: IdP = IdP()
    mtls: MTLS = MTLS()
    notices: Notices = Notices()

    @property
    def sees_certificates(self) -> bool:
        return bool(self.http.proxies) or self.http.clients_ca_file is not None

"""What an operator can set for the SAM."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from shared.settings import HSM, Database, RegistryFiles, RoomSettings, Section


class Authorizations(Section):
    """How long an authorization holds, and how far extending can carry it."""

    lifetime_s: Annotated[int, Field(ge=10, le=3600)] = 300
    extended_lifetime_max_s: Annotated[int, Field(ge=10, le=86_400)] = 3600
    waiting_max_per_credential: Annotated[int, Field(ge=1)] = 1000
    """Unexpired authorizations of one credential at once: an attacker's requests must not fill the disk."""


class Factors(Section):
    """Tries before a signer is locked. Only the operator's `unlock` gives them back."""

    pin_tries: Annotated[int, Field(ge=1, le=10)] = 5
    otp_tries: Annotated[int, Field(ge=1, le=10)] = 5


class WebAuthn(Section):
    """Passkeys, and the contexts they approve. The origin of `authentication` is the relying party."""

    rp_id: str = ""
    """The host of authentication's address, or a domain above it; it can never be changed. Empty: no passkeys."""
    origins: tuple[str, ...] = ()
    """Where approvals may happen: authentication's own origin, as the browser writes it (`https://sign.example.com`)."""
    allow_backed_up: bool = True
    """Whether passkeys count that their maker can copy to other devices. False: only those bound to one device."""
    cooling_off_s: Annotated[int, Field(ge=0, le=2_592_000)] = 86_400
    """How long an authenticator waits that is not a signer's first: time to see it and to remove it."""
    context_lifetime_s: Annotated[int, Field(ge=30, le=3600)] = 300
    """Of a context to approve, of a challenge to log in with, and of an enrollment under way."""
    ticket_lifetime_s: Annotated[int, Field(ge=60, le=2_592_000)] = 86_400
    """Of a registration authority's ticket for an enrollment."""

    @model_validator(mode="after")
    def _origins_are_of_the_relying_party(self) -> Self:
        if bool(self.rp_id) != bool(self.origins):
            raise ValueError("rp_id and origins go together")
        for origin in self.origins:
            parts = urlsplit(origin)
            host = parts.hostname or ""
            # Browsers give WebAuthn to https, and to http on this one name.
            if parts.scheme != "https" and (parts.scheme, host) != ("http", "localhost"):
                raise ValueError(f"{origin} is not https")
            if origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError(f"{origin} is no origin: scheme, host and port, nothing after")
            if host != self.rp_id and not host.endswith(f".{self.rp_id}"):
                raise ValueError(f"{origin} is not of {self.rp_id}")
        return self


class Settings(RoomSettings):
    database: Database
    hsm: HSM
    activations_key_file: Path
    """PEM of the Ed25519 key the SVG knows the SAM by."""
    registry: RegistryFiles
    authorizations: Authorizations = Authorizations()
    factors: Factors = Factors()
    webauthn: WebAuthn = WebAuthn()

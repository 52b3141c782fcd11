"""What an operator can set for the CA connector."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.settings import HSM, Database, RoomSettings, Section

ObjectIdentifier = Annotated[str, StringConstraints(pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$")]
URL = Annotated[str, StringConstraints(pattern=r"^https?://\S+$", max_length=500)]


class LocalAuthority(Section):
    """The authority `local`: a CA whose key is in this room's own HSM token."""

    certificate_file: Path
    """The root certificate (PEM) that the ceremony wrote."""
    validity_days: int = Field(default=365, ge=1, le=1826)
    policies: tuple[ObjectIdentifier, ...] = ("2.999.3647.1",)
    """certificatePolicies of what is issued, as a JSON list. 2.999 is the arc for examples: name your own."""
    crl_url: URL | None = None
    """Where signers' certificates say the CRL is: a public address of this room's `/crl/local.crl`."""
    issuer_url: URL | None = None
    """Where they say the CA's certificate is: a public address of this room's `/ca/local.cer`."""
    crl_hours: int = Field(default=24, ge=1, le=744)
    """From thisUpdate to nextUpdate. A new CRL comes with every revocation, and at half of this time."""


class Watch(Section):
    """The watch over orders that wait for something."""

    every_s: float = Field(default=2.0, gt=0)
    stuck_s: float = Field(default=20.0, gt=0)
    """An order that nothing happened to for so long is taken up again. An authority gets three quarters of it."""


class Settings(RoomSettings):
    database: Database
    hsm: HSM
    local: LocalAuthority
    watch: Watch = Watch()

"""What an operator can set for the SAM."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared.settings import HSM, Database, RoomSettings, Section


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


class Settings(RoomSettings):
    database: Database
    hsm: HSM
    activations_key_file: Path
    """PEM of the Ed25519 key the SVG knows the SAM by."""
    authorities_file: Path
    """JSON: name of each authority to the file of its trust anchors (PEM)."""
    authorizations: Authorizations = Authorizations()
    factors: Factors = Factors()

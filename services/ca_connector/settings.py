"""What an operator can set for the CA connector. The CAs themselves stand in the registry."""

from pydantic import Field

from shared.settings import HSM, Database, RegistryFiles, RoomSettings, Section


class Watch(Section):
    """The watch over what waits for something."""

    every_s: float = Field(default=2.0, gt=0)
    """How often each CA's queue looks by itself for what is due."""
    stuck_s: float = Field(default=20.0, gt=0)
    """The SAM is told again of a certificate that it has not answered for so long."""
    settle_s: float = Field(default=40.0, gt=0)
    """How long exchanges with CAs in hand may take after SIGTERM."""


class Status(Section):
    """What is read about the certificates in use. A change reaches the SAM within `every_s` and one download."""

    every_s: float = Field(default=300.0, ge=1)
    """How often each CA's revocation list is read."""
    ocsp_every_s: float = Field(default=3600.0, ge=1)
    """How often each certificate of a CA without a list is asked about."""
    list_bytes_max: int = Field(default=20_000_000, ge=10_000)
    """Of one revocation list."""
    warn_days: tuple[int, ...] = (30, 7, 1)
    """A certificate in use that ends within so many days is told of, once for each, as a JSON list."""


class Settings(RoomSettings):
    database: Database
    hsm: HSM
    registry: RegistryFiles
    watch: Watch = Watch()
    status: Status = Status()

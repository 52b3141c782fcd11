"""The settings of the gateway: its door, the addresses it tells partners, and what one client may cost."""

from typing import Annotated

from pydantic import Field, StringConstraints

from shared.http import HTTPDoor
from shared.settings import RegistryFiles, RoomSettings, Section

_URL = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*[^\s?#/])?$", max_length=255)]


class Door(HTTPDoor):
    body_bytes_max: int = Field(default=1_048_576, ge=1024)


class Limits(Section):
    hashes_per_call_max: int = Field(default=250, ge=1, le=1000)
    """Also the most that `multisign` says, since clients cut their batches by it."""
    requests_per_s: float = Field(default=200.0, gt=0)
    """Per client with a good token, over time; `burst` of them may come at once."""
    burst: int = Field(default=400, ge=1)
    anonymous_requests_per_s: float = Field(default=50.0, gt=0)
    """Per address without a good token: `info`, and whoever guesses at tokens."""
    anonymous_burst: int = Field(default=100, ge=1)
    timestamps_per_s: float = Field(default=20.0, gt=0)
    """Per address at `/s/<service>/tsa` (RFC 3161), over time; `timestamps_burst` at once."""
    timestamps_burst: int = Field(default=50, ge=1)
    timestamp_query_bytes_max: int = Field(default=16_384, ge=256)
    issuance_wait_s: float = Field(default=15.0, gt=0, le=20)
    """How long `credentials/create` is held for a CA, before 503. Who asks by operationMode "A" is not."""
    callers_max: int = Field(default=10_000, ge=1)
    """How many clients and addresses are remembered at once."""


class Settings(RoomSettings):
    http: Door = Door()
    registry: RegistryFiles
    public_url: _URL
    """The base of this service as partners reach it, without a slash at the end: `/csc/v1` and `/csc/v2` hang on it."""
    authentication_url: _URL
    """The base of the OAuth endpoints, told to partners as `oauth2` in `info`."""
    name: str = Field(default="Rakkan", min_length=1, max_length=255)
    description: str = Field(default="Remote signing service", max_length=255)
    region: str = Field(default="JP", pattern=r"^[A-Z]{2}$")
    limits: Limits = Limits()

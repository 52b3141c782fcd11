"""What an operator can set for the TSA connector."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cryptography import x509
from pydantic import Field, StringConstraints

from services.tsa_connector.token import TrustedTSA
from shared.algorithms import Hash
from shared.settings import RoomSettings, Section

ObjectIdentifier = Annotated[str, StringConstraints(pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$")]


class TSA(Section):
    """The time-stamping authority. Its token is believed only as far as this says."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
    anchors_file: Path
    """PEM certificates that this TSA's certificate must chain to: the anchors of this TSA, of nothing else."""
    ca_file: Path | None = None
    """PEM certificates to believe the TSA's web server by; without it, those of the system. Only for https."""
    policy: ObjectIdentifier | None = None
    """The policy to ask for; the token must then name it."""
    policies: tuple[ObjectIdentifier, ...] = ()
    """Policies a token may name, as a JSON list. Empty: any."""
    hashes: tuple[Hash, ...] = (Hash.SHA256, Hash.SHA384, Hash.SHA512)
    """Hashes this TSA takes, as a JSON list."""
    timeout_s: float = Field(default=10.0, gt=0)
    """For the whole exchange, a second try included."""
    connect_timeout_s: float = Field(default=3.0, gt=0)
    answer_bytes_max: int = Field(default=65_536, gt=0)
    connections_max: int = Field(default=16, gt=0)
    skew_s: float = Field(default=30.0, ge=0)
    """How far genTime may lie from our clock."""
    accuracy_max_s: float | None = Field(default=None, gt=0)
    """Refuse tokens that state no accuracy or a worse one (EN 319 422: 1 s)."""
    allow_ess_v1: bool = False
    """Accept the SHA-1 certificate identifier of RFC 3161 beside that of RFC 5816. Some old TSAs know no other."""
    username: str | None = None
    """With `password_file`: HTTP Basic."""
    password_file: Path | None = None
    bearer_file: Path | None = None
    """A bearer token for the `Authorization` header."""


class Settings(RoomSettings):
    tsa: TSA


def trusted(settings: TSA) -> TrustedTSA:
    """What the settings let us believe. A file without a certificate stops the start."""
    return TrustedTSA(
        anchors=tuple(x509.load_pem_x509_certificates(settings.anchors_file.read_bytes())),
        skew=timedelta(seconds=settings.skew_s),
        policies=frozenset(settings.policies),
        accuracy_max=None if settings.accuracy_max_s is None else timedelta(seconds=settings.accuracy_max_s),
        allow_ess_v1=settings.allow_ess_v1,
    )

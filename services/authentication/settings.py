"""The settings of authentication."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from shared.http import HTTPDoor
from shared.settings import Database, RoomSettings

TOKEN_LIFETIME_MAX_S = 86_400
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _issuer(url: str) -> str:
    """RFC 8414 2: https, no query, no fragment. Plain http is for loopback, where there is nobody to listen in."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("the issuer is an https URL (http on loopback only)")
    if not parts.hostname or parts.query or parts.fragment or url.endswith(("/", "?", "#")):
        raise ValueError("the issuer is an absolute URL without query, fragment and final slash")
    return url


class Settings(RoomSettings):
    database: Database
    http: HTTPDoor = HTTPDoor()
    issuer: Annotated[str, AfterValidator(_issuer)]
    """The `oauth2` URL of the info document, and the audience that client assertions name."""
    tokens_key_file: Path
    """PEM of the Ed25519 key that signs access tokens. Its public half is in the trust bundle."""
    token_lifetime_s: int = Field(default=3600, ge=60, le=TOKEN_LIFETIME_MAX_S)
    attempts_max: int = Field(default=10, ge=1)
    """Failed authentications of one client from one address before it is told to wait."""
    attempt_again_s: float = Field(default=6.0, gt=0)
    """After how long one of them is forgiven."""

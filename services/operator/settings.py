"""The settings of the operator's door."""

from shared.settings import RoomSettings


class Settings(RoomSettings):
    """Broker and trust, as every room has them; the operator has a broker user and keys of its own."""

    ask_timeout_s: float = 15.0
    """How long one question to a room may take, waiting for the broker included."""
    authentication_url: str | None = None
    """The base of authentication as signers reach it. With it `ticket` gives an address, without it the bare ticket."""

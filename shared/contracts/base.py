"""The kinds of message and the rules they share. Knows no room.

A `Request[R]` is answered by an `R`; a `Job` is answered by nobody. Requests and jobs refuse unknown fields;
replies let them pass, so that a replier can be upgraded before its callers.
"""

from typing import Annotated, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_WIRE = ConfigDict(
    frozen=True,
    strict=True,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    hide_input_in_errors=True,  # an input may be a secret, and validation errors are logged
)


class Reply(BaseModel):
    model_config = _WIRE | ConfigDict(extra="ignore")


R = TypeVar("R", bound=Reply)


class Part(BaseModel):
    """A value inside a message."""

    model_config = _WIRE | ConfigDict(extra="ignore")


class Message(BaseModel):
    """What is sent to a listener. `TYPE` is its name on the wire: `<listener>.<verb>.v<n>`."""

    model_config = _WIRE | ConfigDict(extra="forbid")

    TYPE: ClassVar[str]


class Request(Message, Generic[R]):
    """A message that somebody waits for an answer to, of the type `REPLY`."""

    REPLY: ClassVar[type[Reply]]


class Job(Message):
    """A message that nobody waits for: posted to the outbox, repeated until it is done."""


class Done(Reply):
    """The answer where nothing more is to be said."""


Digest = Annotated[bytes, Field(min_length=1, max_length=128)]
Digests = Annotated[tuple[Digest, ...], Field(min_length=1, max_length=1000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
Sealed = Annotated[bytes, Field(max_length=16_384)]
"""An HPKE ciphertext of a secret; see `shared.sealing`."""

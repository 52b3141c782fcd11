"""The activation: what the SAM signs and the SVG obeys. The exact bytes are kept by both as evidence.

EN 419 241-2 (SAM) and EN 419 221-5 (SVG): a key is used only for data its signer activated it for. An activation names
the key, the algorithm, every digest in order, the occurrences of the authorization it spends, and when it ends.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar

from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.algorithms import Hash, KeyAlgorithm, Profile, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.trust import Purpose, SigningKey, Trust

_DOMAIN = b"rakkan-activation/1\0"
_SIGNATURE_BYTES = 64
_CLOCKS_DIFFER = timedelta(seconds=5)


class Use(StrEnum):
    """What the activation is for. A key activated for one use can be used for no other."""

    SIGN = "sign"
    CSR = "csr"
    GENERATE = "generate"
    DESTROY = "destroy"


class Activation(BaseModel):
    """One use of one key. `operation_id` is unique for ever: the SVG serves each once and repeats its answer."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )

    AUDIENCE: ClassVar[str] = "svg"

    audience: str = AUDIENCE
    epoch: int
    use: Use
    operation_id: str = Field(min_length=1, max_length=128)
    key_id: str = Field(min_length=1, max_length=128)
    owner: str = Field(min_length=1, max_length=255)
    """Whose key it is: `<tenant>/<signer>`. Part of what the wrapped key is bound to."""
    kind: str = "signature"
    key_algorithm: KeyAlgorithm
    profile: Profile
    signatures_max: int = Field(ge=1, le=1000)
    public_key_hash: bytes | None = Field(default=None, min_length=32, max_length=32)
    """SHA-256 of the DER SubjectPublicKeyInfo; None only when the key is still to be generated."""
    authorization_id: str | None = Field(default=None, max_length=128)
    occurrences: tuple[int, ...] = ()
    """Which authorized hash occurrences this spends, beside `digests`. No occurrence is served twice."""
    scheme: Scheme | None = None
    hash: Hash | None = None
    salt_bytes: int | None = None
    digests: Annotated[tuple[bytes, ...], Field(max_length=1000)] = ()
    issued_at: datetime
    expires_at: datetime

    @property
    def algorithm(self) -> SignatureAlgorithm:
        """Scheme, hash and salt; ACTIVATION_REFUSED when the activation names none."""
        if self.scheme is None or self.hash is None:
            raise RakkanError(Code.ACTIVATION_REFUSED, "the activation names no algorithm")
        return SignatureAlgorithm(self.scheme, self.hash, self.salt_bytes)


def sign_activation(activation: Activation, key: SigningKey) -> bytes:
    """The token: key id, signature, then the exact JSON bytes that were signed."""
    body = activation.model_dump_json().encode()
    return key.key_id.encode() + key.key.sign(_DOMAIN + body) + body


def read_activation(token: bytes, trust: Trust, *, now: datetime) -> Activation:
    """The activation, or ACTIVATION_REFUSED unless a SAM key of the trust bundle signed it for us and it holds now."""
    key_id, signature, body = token[:16], token[16 : 16 + _SIGNATURE_BYTES], token[16 + _SIGNATURE_BYTES :]
    key = trust.verifying_keys("sam", Purpose.ACTIVATIONS).get(key_id.decode("ascii", "replace"))
    if key is None:
        raise RakkanError(Code.ACTIVATION_REFUSED, "signed by no SAM key of the trust bundle")
    try:
        key.verify(signature, _DOMAIN + body)
        activation = Activation.model_validate_json(body)
    except (InvalidSignature, ValidationError):
        raise RakkanError(Code.ACTIVATION_REFUSED, "not what the SAM signed") from None
    if activation.audience != Activation.AUDIENCE or activation.epoch != trust.epoch:
        raise RakkanError(Code.ACTIVATION_REFUSED, "for another audience or from before the last restore")
    if activation.issued_at > now + _CLOCKS_DIFFER or now >= activation.expires_at:
        raise RakkanError(Code.ACTIVATION_REFUSED, "expired, or not yet valid")
    return activation

"""Secrets on their way from one room to another: sealed to the room that needs them, unreadable to broker and database.

HPKE base mode (RFC 9180), X25519 / HKDF-SHA256 / AES-256-GCM. The single-shot interface has no associated data, so what
a secret is for goes into `info`: a secret sealed for one message and subject opens in no other.
"""

import json
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import BaseModel, ConfigDict, SecretStr

from shared.errors import Code, RakkanError

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class Secrets(BaseModel):
    """What travels sealed only and is never a field of a message in clear (promise G9)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    access_token: SecretStr | None = None
    sad: SecretStr | None = None
    pin: SecretStr | None = None
    otp: SecretStr | None = None
    client_secret: SecretStr | None = None
    totp_secret: SecretStr | None = None
    ticket: SecretStr | None = None
    share: SecretStr | None = None
    """A key's share, in base64."""

    @classmethod
    def of(cls, **texts: str | None) -> Self:
        return cls(**{name: SecretStr(text) for name, text in texts.items() if text is not None})


def seal(secrets: Secrets, *, to: X25519PublicKey, message: str, subject: str = "") -> bytes:
    """Seal for one message type and one subject (a credential, a client…)."""
    clear = {name: text.get_secret_value() for name, text in secrets if text is not None}
    return bytes(_SUITE.encrypt(_pack(clear), to, _info(message, subject)))


def unseal(sealed: bytes, *, key: X25519PrivateKey, message: str, subject: str = "") -> Secrets:
    """Open what was sealed to us for this message and subject; MALFORMED otherwise."""
    try:
        clear = _SUITE.decrypt(sealed, key, _info(message, subject))
        return Secrets.model_validate_json(clear)
    except (InvalidTag, ValueError):
        raise RakkanError(Code.MALFORMED, "secrets sealed to another room, message or subject") from None


def _info(message: str, subject: str) -> bytes:
    return b"rakkan-sealed/1\0" + message.encode() + b"\0" + subject.encode()


def _pack(clear: dict[str, str]) -> bytes:
    # Padded to a multiple of 256: the length of a PIN is nobody's business.
    text = json.dumps(clear, ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 256)

"""Passwords with one-time codes, the lesser way to log in: what is acceptable, how it is checked and kept. No I/O.

It logs in and approves nothing: for that the SAM wants a passkey, whatever is known here.
"""

import base64
import binascii
import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import argon2
import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import Code, RakkanError
from shared.settings import SettingsError, secret

CHARACTERS = range(12, 129)
_STEP_S = 30
_STEPS_AROUND = 1
_KEY_BYTES = 32
_NONCE_BYTES = 12
# Argon2id, 64 MiB, 3 passes (RFC 9106, second choice): slow on purpose, call it in a bounded pool.
_HASHER = argon2.PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)
# Of a password that nobody knows: a signer who has none costs as much time as one who has.
NOBODYS_HASH = "$argon2id$v=19$m=65536,t=3,p=1$USv5R53y9jdKxPJFUuX1Ug$yPih9WELv87wj1liLS9GR0HFGmiyO982PL20uY9azfg"


@dataclass(frozen=True)
class Password:
    tenant_id: str
    user_id: str
    display_name: str
    password_hash: str = field(repr=False)
    totp_sealed: bytes = field(repr=False)
    totp_step: int


class Vault:
    """Seals small secrets that stand in the database or in a form: AES-256-GCM, bound to what they are about."""

    def __init__(self, key: bytes) -> None:
        self._key = AESGCM(key)

    @classmethod
    def load(cls, file: Path) -> "Vault":
        try:
            key = base64.b64decode(secret(file), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != _KEY_BYTES:
            raise SettingsError(f"{file} must hold {_KEY_BYTES} random bytes in base64")
        return cls(key)

    def seal(self, text: str, *, about: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._key.encrypt(nonce, text.encode(), about.encode())

    def open(self, sealed: bytes, *, about: str) -> str:
        """MALFORMED when it is about something else, or of another key."""
        try:
            return self._key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about.encode()).decode()
        except (InvalidTag, ValueError):
            raise RakkanError(Code.MALFORMED, "sealed for something else or by another key") from None


def normal(password: str) -> str:
    """The same characters however a keyboard composed them (RFC 8265, NIST SP 800-63B 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def check_new(password: str, *, user_id: str) -> None:
    """PIN_INVALID unless it is long and not plainly guessable. No rules about kinds of characters (NIST)."""
    text = normal(password)
    if len(text) not in CHARACTERS:
        raise RakkanError(Code.PIN_INVALID, "a password has 12 to 128 characters")
    if len(set(text.lower())) < 5 or user_id.lower() in text.lower():  # noqa: PLR2004 - "aaaaaaaaaaab" is no password
        raise RakkanError(Code.PIN_INVALID, "a password is neither one's name nor one character repeated")


def hash_new(password: str) -> str:
    return _HASHER.hash(normal(password))


def check(password_hash: str, password: str) -> None:
    """PIN_INVALID unless this is the password."""
    try:
        _HASHER.verify(password_hash, normal(password))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        raise RakkanError(Code.PIN_INVALID) from None


def new_totp_secret() -> str:
    return pyotp.random_base32()


def totp_address(secret: str, *, user_id: str, service: str) -> str:
    return pyotp.TOTP(secret, interval=_STEP_S).provisioning_uri(name=user_id, issuer_name=service)


def read_code(typed: str) -> str:
    """The digits, also of a keyboard that writes them full-width, without what people put between them."""
    return re.sub(r"[\s-]", "", normal(typed))


def check_code(secret: str, code: str, *, last_step: int, unix_s: float) -> int:
    """The time step of a code that is right, within a step of now, and later than the last one used (RFC 6238 5.2)."""
    totp = pyotp.TOTP(secret, interval=_STEP_S)
    now_step = int(unix_s) // _STEP_S
    for step in range(now_step - _STEPS_AROUND, now_step + _STEPS_AROUND + 1):
        if step > last_step and hmac.compare_digest(totp.at(step * _STEP_S).encode(), code.encode()):
            return step
    raise RakkanError(Code.OTP_INVALID)

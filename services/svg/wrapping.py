"""The outer envelope of a wrapped key: what binds it to its owner, limits and public key. Rules only, no I/O.

Inside lies the private key wrapped by the KEK of the HSM. The envelope opens only with an HSM secret (so the database
alone is worth nothing), the key's share (so the HSM and its PIN alone open no idle key) and the attributes unchanged.
"""

import base64
import binascii
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.algorithms import KeyAlgorithm, Profile
from shared.errors import Code, RakkanError
from shared.sealing import Secrets

ENVELOPE_VERSION = 1
_DOMAIN = b"rakkan-wrapped-key/1\0"
_KEY_BYTES = 32
_SHARE_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class KeyAttributes:
    """What a key is bound to for its whole life."""

    key_id: str
    owner: str
    kind: str
    key_algorithm: KeyAlgorithm
    profile: Profile
    signatures_max: int
    public_key_hash: bytes
    """SHA-256 of the DER SubjectPublicKeyInfo, 32 bytes."""
    kek: str
    """Label of the KEK, which holds its version."""
    envelope_version: int = ENVELOPE_VERSION


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that belongs to nobody yet."""

    public_key: bytes
    inner: bytes
    kek: str


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What is kept of a key."""

    wrapped: bytes
    resident: bytes | None


def share_of(opened: Secrets) -> bytes:
    """The share's 32 bytes; MALFORMED when there is no such share."""
    try:
        share = base64.b64decode(opened.share.get_secret_value() if opened.share else "", validate=True)
    except binascii.Error:
        share = b""
    if len(share) != _SHARE_BYTES:
        raise RakkanError(Code.MALFORMED, "no share of 32 bytes")
    return share


def outer_secret_input(key_id: str) -> bytes:
    """What the HSM computes its HMAC over: the result is this key's secret and no other's."""
    return b"rakkan-outer-key/1\0" + key_id.encode()


def close_envelope(inner: bytes, attributes: KeyAttributes, *, secret: bytes, share: bytes) -> bytes:
    """The nonce, then AES-256-GCM of the inner wrapped key with the attributes as associated data."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + _cipher(secret, share).encrypt(nonce, inner, associated_data(attributes))


def open_envelope(wrapped: bytes, attributes: KeyAttributes, *, secret: bytes, share: bytes) -> bytes:
    """The inner wrapped key. KEY_DAMAGED when anything is not as it was closed: bytes, attributes, share or HSM."""
    if attributes.envelope_version != ENVELOPE_VERSION:
        raise RakkanError(Code.KEY_DAMAGED, f"an envelope of version {attributes.envelope_version}")
    nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
    try:
        return _cipher(secret, share).decrypt(nonce, sealed, associated_data(attributes))
    except (InvalidTag, ValueError):
        raise RakkanError(Code.KEY_DAMAGED, "the key, its attributes and its share do not belong together") from None


def associated_data(attributes: KeyAttributes) -> bytes:
    """Every attribute with its length before it, so that no two different sets have the same bytes."""
    fields = (
        attributes.key_id.encode(),
        attributes.owner.encode(),
        attributes.kind.encode(),
        attributes.key_algorithm.encode(),
        attributes.profile.encode(),
        str(attributes.signatures_max).encode(),
        attributes.public_key_hash,
        attributes.kek.encode(),
        str(attributes.envelope_version).encode(),
    )
    return _DOMAIN + b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def _cipher(secret: bytes, share: bytes) -> AESGCM:
    derivation = HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=share, info=_DOMAIN)
    return AESGCM(derivation.derive(secret))

"""The key-origin statement: the SAM's word to a CA that a key was made in the HSM, and for whom. Knows no CA.

ETSI TS 119 431-1 GEN-6.2.1-08: a CA that somebody else runs gets an assertion that signer and key belong together. The
exact bytes travel with the order; whoever has the SAM's public key verifies them offline (docs/evidence-format.md).
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.algorithms import KeyAlgorithm
from shared.errors import Code, RakkanError
from shared.trust import SigningKey

_DOMAIN = b"rakkan-origin/1\0"
"""The key also signs activations; what it signs for one can never be taken for the other."""
_KEY_ID_BYTES = 16
_SIGNATURE_BYTES = 64


class KeyOrigin(BaseModel):
    """What the SAM states of one key, on one order."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )

    format: Literal["rakkan-origin/1"] = "rakkan-origin/1"
    order_id: str
    authority: str
    """The CA it is meant for, by its name in the registry: no other CA may rely on it."""
    certificate_profile: str
    credential_id: str
    tenant_id: str
    subject: bytes
    """DER Name, from the signer's verified identity."""
    public_key_hash: bytes = Field(min_length=32, max_length=32)
    """SHA-256 of the DER SubjectPublicKeyInfo."""
    key_algorithm: KeyAlgorithm
    made_in: Literal["hsm"] = "hsm"
    audit_reference: str
    """The operation under which the SVG's audit log has `key.generated`."""
    stated_at: datetime


def sign_origin(origin: KeyOrigin, key: SigningKey) -> bytes:
    """The statement: key id, signature, then the exact JSON bytes that were signed."""
    body = origin.model_dump_json().encode()
    return key.key_id.encode() + key.key.sign(_DOMAIN + body) + body


def verify_origin(statement: bytes, keys: Mapping[str, Ed25519PublicKey]) -> KeyOrigin:
    """What is stated, or EVIDENCE_REFUSED unless one of these keys (id to the SAM's public key) signed exactly this."""
    key_id = statement[:_KEY_ID_BYTES].decode("ascii", "replace")
    signature = statement[_KEY_ID_BYTES : _KEY_ID_BYTES + _SIGNATURE_BYTES]
    body = statement[_KEY_ID_BYTES + _SIGNATURE_BYTES :]
    key = keys.get(key_id)
    if key is None:
        raise RakkanError(Code.EVIDENCE_REFUSED, "signed by no key of the SAM that is known here")
    try:
        key.verify(signature, _DOMAIN + body)
        return KeyOrigin.model_validate_json(body)
    except (InvalidSignature, ValidationError):
        raise RakkanError(Code.EVIDENCE_REFUSED, "not what the SAM signed") from None


def check_origin_of(origin: KeyOrigin, csr: bytes) -> None:
    """Raise EVIDENCE_REFUSED unless the statement is of the key and the subject of this request."""
    try:
        request = x509.load_der_x509_csr(csr)
        key = request.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise RakkanError(Code.EVIDENCE_REFUSED, "not a certification request") from None
    if sha256(key).digest() != origin.public_key_hash or request.subject.public_bytes() != origin.subject:
        raise RakkanError(Code.EVIDENCE_REFUSED, "of another key or subject")

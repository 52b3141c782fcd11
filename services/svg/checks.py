"""What the SVG verifies by itself before a key is used, believing nobody but the signature of the SAM. Rules only."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.svg.wrapping import KeyAttributes
from shared.activation import Activation, Use
from shared.algorithms import Hash, Scheme, check_algorithm, check_digest, check_key_allowed
from shared.errors import Code, RakkanError

_NOT_CONTENT = {"issued_at", "expires_at", "epoch"}
_REQUEST_BYTES = range(max(hash_.digest_bytes for hash_ in Hash) + 1, 4097)
"""Longer than any digest, so that what is activated as a certificate request is never a signature of a document."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the database has it."""

    attributes: KeyAttributes
    public_key: bytes
    """DER SubjectPublicKeyInfo."""
    wrapped: bytes | None
    """None once it is destroyed."""
    content_hash: bytes
    """Of the activation that ordered it."""
    resident: bytes | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """What is recorded of one operation with a private key."""

    operation_id: str
    content_hash: bytes
    state: Literal["intent", "done"]
    values: tuple[bytes, ...] = ()


def check_use(activation: Activation, *allowed: Use) -> None:
    """Raise ACTIVATION_REFUSED unless it is for this: an activation to destroy signs nothing."""
    if activation.use not in allowed:
        raise RakkanError(Code.ACTIVATION_REFUSED, f"activated to {activation.use}")


def check_signing(activation: Activation, *, now: datetime) -> None:
    """Raise unless the activation by itself is one that may be obeyed today."""
    check_use(activation, Use.SIGN, Use.CSR)
    if activation.public_key_hash is None:
        raise RakkanError(Code.ACTIVATION_REFUSED, "names no public key")
    if not activation.digests:
        raise RakkanError(Code.ACTIVATION_REFUSED, "names no digest")
    if len(activation.digests) > activation.signatures_max:
        raise RakkanError(Code.TOO_MANY_SIGNATURES, f"{len(activation.digests)}, at most {activation.signatures_max}")
    _check_occurrences(activation)
    check_key_allowed(activation.key_algorithm, activation.profile, now=now)
    check_algorithm(activation.key_algorithm, activation.algorithm)
    for digest in activation.digests:
        _check_message(activation, digest)


def _check_message(activation: Activation, message: bytes) -> None:
    if activation.use is not Use.CSR or activation.algorithm.scheme is not Scheme.ED25519:
        check_digest(activation.algorithm, message)
    elif len(message) not in _REQUEST_BYTES:  # Ed25519 hashes for itself (RFC 8032): it gets the request as it is
        raise RakkanError(Code.DIGEST_LENGTH, f"{len(message)} bytes are no certificate request")


def _check_occurrences(activation: Activation) -> None:
    occurrences = activation.occurrences
    if activation.use is Use.CSR:
        if len(activation.digests) != 1 or occurrences or activation.authorization_id is not None:
            raise RakkanError(Code.ACTIVATION_REFUSED, "a certificate request is one digest and spends nothing")
        return
    if activation.authorization_id is None:
        raise RakkanError(Code.ACTIVATION_REFUSED, "spends no authorization")
    if len(occurrences) != len(activation.digests) or len(set(occurrences)) != len(occurrences):
        raise RakkanError(Code.ACTIVATION_REFUSED, "not one occurrence for each digest")


def check_generating(activation: Activation, *, now: datetime) -> None:
    """Raise unless a key may be made as the activation says."""
    check_use(activation, Use.GENERATE)
    if activation.public_key_hash is not None or activation.digests or activation.occurrences:
        raise RakkanError(Code.ACTIVATION_REFUSED, "a key that is to be made has signed nothing yet")
    check_key_allowed(activation.key_algorithm, activation.profile, now=now)


def check_key(activation: Activation, key: Key | None) -> Key:
    """The key, or raise unless it lives and is exactly the one the activation means."""
    if key is None or key.wrapped is None:
        raise RakkanError(Code.KEY_UNKNOWN, "no such key, or destroyed")
    check_attributes(activation, key)
    return key


def check_attributes(activation: Activation, key: Key) -> None:
    """Raise ACTIVATION_REFUSED unless every attribute is the one of the activation."""
    attributes = key.attributes
    pairs = {
        "key_id": (activation.key_id, attributes.key_id),
        "owner": (activation.owner, attributes.owner),
        "kind": (activation.kind, attributes.kind),
        "key_algorithm": (activation.key_algorithm, attributes.key_algorithm),
        "profile": (activation.profile, attributes.profile),
        "signatures_max": (activation.signatures_max, attributes.signatures_max),
        "public_key_hash": (activation.public_key_hash or attributes.public_key_hash, attributes.public_key_hash),
        "public_key": (hashlib.sha256(key.public_key).digest(), attributes.public_key_hash),
    }
    different = [name for name, (asked, kept) in pairs.items() if asked != kept]
    if different:
        raise RakkanError(Code.ACTIVATION_REFUSED, f"the key has another {', '.join(different)}")


def check_same(activation: Activation, content_hash: bytes) -> None:
    """Raise ACTIVATION_SPENT unless the operation was first asked for with the same content."""
    if content_hash_of(activation) != content_hash:
        raise RakkanError(Code.ACTIVATION_SPENT, "the operation was used for something else")


def content_hash_of(activation: Activation) -> bytes:
    """SHA-256 of what is ordered. Times and epoch are left out: a SAM that asks again later orders the same."""
    return hashlib.sha256(activation.model_dump_json(exclude=_NOT_CONTENT).encode()).digest()

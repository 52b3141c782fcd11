"""The activation context: what a signer approves, in one canonical encoding. Rules only, no I/O.

Its SHA-256 is the WebAuthn challenge; a device key signs the encoding itself. docs/evidence-format.md describes it.
Each field stands after its length (4 bytes, big endian); numbers have 8 bytes, text is UTF-8.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.algorithms import HASH_BY_OID, Hash
from shared.errors import Code, RakkanError

_DOMAIN = b"rakkan-context/1"
_REFERENCE_DOMAIN = b"rakkan-reference/1\0"
_REFERENCE_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # 32 signs, none of which is read as another
_REFERENCE_CHARACTERS = 6
_DECEIVING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_NUMBER_BYTES = 8
_LENGTH_BYTES = 4
NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Document:
    digest: bytes
    label: str


@dataclass(frozen=True, slots=True)
class Context:
    """Everything an approval is about. `expires_at` has whole seconds."""

    nonce: bytes
    epoch: int
    credential_id: str
    public_key_hash: bytes
    """SHA-256 of the credential's DER SubjectPublicKeyInfo."""
    tenant_id: str
    client_id: str
    hash: Hash
    signatures: int
    documents: tuple[Document, ...]
    expires_at: datetime


def encode(context: Context) -> bytes:
    """The canonical encoding: no two different contexts have the same."""
    fields = [
        _DOMAIN,
        context.nonce,
        _number(context.epoch),
        context.credential_id.encode(),
        context.public_key_hash,
        context.tenant_id.encode(),
        context.client_id.encode(),
        context.hash.oid.encode(),
        _number(context.signatures),
        _number(len(context.documents)),
    ]
    for document in context.documents:
        fields += [document.digest, document.label.encode()]
    fields.append(_number(int(context.expires_at.timestamp())))
    return b"".join(len(field).to_bytes(_LENGTH_BYTES, "big") + field for field in fields)


def read(encoded: bytes) -> Context:
    """The context of an encoding; EVIDENCE_REFUSED unless it is canonical."""
    fields = _fields(encoded)
    try:
        if next(fields) != _DOMAIN:
            raise RakkanError(Code.EVIDENCE_REFUSED, "not an activation context of this version")
        context = Context(
            nonce=next(fields),
            epoch=_int(next(fields)),
            credential_id=next(fields).decode(),
            public_key_hash=next(fields),
            tenant_id=next(fields).decode(),
            client_id=next(fields).decode(),
            hash=HASH_BY_OID[next(fields).decode()],
            signatures=_int(next(fields)),
            documents=tuple(Document(next(fields), next(fields).decode()) for _ in range(_int(next(fields)))),
            expires_at=datetime.fromtimestamp(_int(next(fields)), UTC),
        )
        is_canonical = encode(context) == encoded
    except (StopIteration, RuntimeError, ValueError, KeyError, OverflowError, OSError):
        # RuntimeError: fields that end inside the list of documents.
        raise RakkanError(Code.EVIDENCE_REFUSED, "not an activation context") from None
    if not is_canonical:
        raise RakkanError(Code.EVIDENCE_REFUSED, "not the canonical encoding of its context")
    return context


def challenge(encoded: bytes) -> bytes:
    """What the authenticator is asked to sign."""
    return hashlib.sha256(encoded).digest()


def reference_code(client_id: str, digests: Iterable[bytes]) -> str:
    """Six characters by which two pages show that they mean the same documents, asked by the same client.

    The client computes and shows it too, before it sends the signer here: a request that somebody else pushed at her
    has another code than the one she came from.
    """
    content = client_id.encode() + b"\0" + b"".join(digests)
    number = int.from_bytes(hashlib.sha256(_REFERENCE_DOMAIN + content).digest(), "big")
    base = len(_REFERENCE_ALPHABET)
    return "".join(_REFERENCE_ALPHABET[number // base**place % base] for place in range(_REFERENCE_CHARACTERS))


def check_shown(*texts: str) -> None:
    """MALFORMED for what controls or turns the text around it: a signer must read what was encoded."""
    if any(_DECEIVING.search(text) for text in texts):
        raise RakkanError(Code.MALFORMED, "control characters in a label or name")


def _fields(encoded: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(encoded):
        start = place + _LENGTH_BYTES
        place = start + int.from_bytes(encoded[place:start], "big")
        yield encoded[start:place]


def _number(value: int) -> bytes:
    return value.to_bytes(_NUMBER_BYTES, "big")


def _int(field: bytes) -> int:
    return int.from_bytes(field, "big")

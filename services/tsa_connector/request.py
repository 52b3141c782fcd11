"""The question put to a TSA (RFC 3161 2.4.1). No I/O."""

import secrets
from dataclasses import dataclass
from functools import lru_cache

from asn1crypto import core

from shared.algorithms import Hash
from shared.errors import Code, RakkanError

_NONCE_BITS = 64
_VERSION_1 = b"\x02\x01\x01"
_TRUE = b"\x01\x01\xff"
_LONG_FORM = 0x80


@dataclass(frozen=True)
class TimestampRequest:
    """What is asked, and so what a token must answer."""

    digest: bytes
    hash: Hash
    nonce: int
    policy: str | None = None

    def der(self) -> bytes:
        """The TimeStampReq. certReq is always set: a token without its certificate is useless to its reader."""
        imprint = _tlv(0x30, _algorithm(self.hash), _tlv(0x04, self.digest))
        # One byte more than the bits need keeps the sign bit clear: the nonce is unsigned.
        nonce = self.nonce.to_bytes(self.nonce.bit_length() // 8 + 1, "big")
        policy = b"" if self.policy is None else _oid(self.policy)
        return _tlv(0x30, _VERSION_1, imprint, policy, _tlv(0x02, nonce), _TRUE)


def _tlv(tag: int, *contents: bytes) -> bytes:
    """DER of one element; what a question holds is short, and its parts are few."""
    content = b"".join(contents)
    length = len(content)
    if length < _LONG_FORM:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(size))) + size + content


@lru_cache(maxsize=256)
def _oid(dotted: str) -> bytes:
    return bytes(core.ObjectIdentifier(dotted).dump())


@lru_cache
def _algorithm(hash_: Hash) -> bytes:
    return _tlv(0x30, _oid(hash_.oid), b"\x05\x00")


def check_digest(digest: bytes, hash_: Hash) -> None:
    """DIGEST_LENGTH unless the digest has the length of its hash."""
    if len(digest) != hash_.digest_bytes:
        raise RakkanError(Code.DIGEST_LENGTH, f"{len(digest)} bytes for {hash_}")


def make_request(
    digest: bytes, hash_: Hash, *, allowed: tuple[Hash, ...], nonce: bytes | None = None, policy: str | None = None
) -> TimestampRequest:
    """The question, or the refusal to ask it: DIGEST_LENGTH, or HASH_ALGORITHM_REFUSED for a hash it does not take."""
    if hash_ not in allowed:
        raise RakkanError(Code.HASH_ALGORITHM_REFUSED, f"this TSA takes no {hash_} digests")
    check_digest(digest, hash_)
    number = int.from_bytes(nonce, "big") if nonce is not None else secrets.randbits(_NONCE_BITS)
    return TimestampRequest(digest=digest, hash=hash_, nonce=number, policy=policy)

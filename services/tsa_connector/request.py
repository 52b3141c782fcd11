"""The question put to a TSA (RFC 3161 2.4.1). No I/O."""

import secrets
from dataclasses import dataclass

from asn1crypto import algos, core, tsp

from shared.algorithms import Hash
from shared.errors import Code, RakkanError

_NONCE_BITS = 64


@dataclass(frozen=True)
class TimestampRequest:
    """What is asked, and so what a token must answer."""

    digest: bytes
    hash: Hash
    nonce: int
    policy: str | None = None

    def der(self) -> bytes:
        """The TimeStampReq. certReq is always set: a token without its certificate is useless to its reader."""
        return bytes(
            tsp.TimeStampReq(
                {
                    "version": "v1",
                    "message_imprint": {
                        "hash_algorithm": algos.DigestAlgorithm(
                            {"algorithm": self.hash.oid, "parameters": core.Null()}
                        ),
                        "hashed_message": self.digest,
                    },
                    "req_policy": self.policy,
                    "nonce": self.nonce,
                    "cert_req": True,
                }
            ).dump()
        )


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

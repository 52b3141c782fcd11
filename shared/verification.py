"""Whether values are signatures of digests under a public key. No value leaves a room that checks, unless it is.

A fault in the HSM (or an attack by faults) can make a wrong value, and a wrong RSA or EdDSA value can tell the key. The
library releases the interpreter lock while it verifies, so a batch may be checked on a thread.
"""

from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from shared.algorithms import Hash, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError

HASHES: dict[Hash, hashes.HashAlgorithm] = {
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
    Hash.SHA3_256: hashes.SHA3_256(),
    Hash.SHA3_384: hashes.SHA3_384(),
    Hash.SHA3_512: hashes.SHA3_512(),
}


def verify_all(
    public_key: bytes, algorithm: SignatureAlgorithm, digests: Sequence[bytes], values: Sequence[bytes]
) -> None:
    """Raise KEY_DAMAGED unless there is one good value for each digest, in order. The key is DER SPKI (RFC 5280)."""
    if len(values) != len(digests):
        raise RakkanError(Code.KEY_DAMAGED, f"{len(values)} values for {len(digests)} digests")
    key = _loaded(public_key)
    hash_ = HASHES[algorithm.hash]
    prehashed = utils.Prehashed(hash_)
    pairs = zip(digests, values, strict=True)
    try:
        if algorithm.scheme is Scheme.ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
            ecdsa = ec.ECDSA(prehashed)
            for digest, value in pairs:
                key.verify(value, digest, ecdsa)
        elif algorithm.scheme is Scheme.ED25519 and isinstance(key, ed25519.Ed25519PublicKey):
            for digest, value in pairs:
                key.verify(value, digest)
        elif algorithm.scheme in (Scheme.RSA_PKCS1, Scheme.RSA_PSS) and isinstance(key, rsa.RSAPublicKey):
            rule = _padding(algorithm, hash_)
            for digest, value in pairs:
                key.verify(value, digest, rule, prehashed)
        else:
            raise RakkanError(Code.KEY_DAMAGED, "the key is of another kind than the algorithm")
    except (InvalidSignature, ValueError):
        raise RakkanError(Code.KEY_DAMAGED, "a value does not verify under its public key") from None


@lru_cache(maxsize=1024)
def _loaded(public_key: bytes) -> PublicKeyTypes:
    """Parsed once: the same keys sign again and again."""
    return load_der_public_key(public_key)


def _padding(algorithm: SignatureAlgorithm, hash_: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if algorithm.salt_bytes is None:
        return padding.PKCS1v15()
    return padding.PSS(mgf=padding.MGF1(hash_), salt_length=algorithm.salt_bytes)

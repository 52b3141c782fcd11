"""Whether a value is a signature under a public key. Nothing leaves the SVG that is not.

A fault in the HSM (or an attack by faults) can make a wrong value, and a wrong RSA or EdDSA value can tell the key.
"""

from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from shared.algorithms import Hash, SignatureAlgorithm
from shared.errors import Code, RakkanError

_HASHES: dict[Hash, hashes.HashAlgorithm] = {
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
    """Raise KEY_DAMAGED unless there is one good value for each digest, in order."""
    key = load_der_public_key(public_key)
    hash_ = _HASHES[algorithm.hash]
    prehashed = utils.Prehashed(hash_)
    try:
        for digest, value in zip(digests, values, strict=True):
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(value, digest, ec.ECDSA(prehashed))
            elif isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(value, digest)
            elif isinstance(key, rsa.RSAPublicKey):
                key.verify(value, digest, _padding(algorithm, hash_), prehashed)
            else:
                raise RakkanError(Code.KEY_DAMAGED, "no key of a kind that signs here")
    except (InvalidSignature, ValueError):
        raise RakkanError(Code.KEY_DAMAGED, "the HSM made a value that its public key does not verify") from None


def _padding(algorithm: SignatureAlgorithm, hash_: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if algorithm.salt_bytes is None:
        return padding.PKCS1v15()
    return padding.PSS(mgf=padding.MGF1(hash_), salt_length=algorithm.salt_bytes)

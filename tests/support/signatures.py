"""Ways to sign as a partner asks for them, and whether a value holds under a certificate. Knows nothing of the product.

Values are verified by `cryptography` alone, so that no rule of the product judges itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asn1crypto.algos import RSASSAPSSParams
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

HASH_OIDS = {"sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2", "sha512": "2.16.840.1.101.3.4.2.3"}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True)
class Way:
    """What is sent as signAlgo, signAlgoParams and hashAlgo."""

    sign_oid: str
    hash: str = "sha256"
    names_hash: bool = False
    salt_bytes: int | None = None

    @property
    def hash_oid(self) -> str:
        return HASH_OIDS[self.hash]

    @property
    def parameters(self) -> bytes | None:
        if self.salt_bytes is None:
            return None
        algorithm = {"algorithm": self.hash}
        facts = {
            "hash_algorithm": algorithm,
            "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": algorithm},
            "salt_length": self.salt_bytes,
        }
        return bytes(RSASSAPSSParams(facts).dump())


ECDSA_SHA256 = Way("1.2.840.10045.4.3.2")
ECDSA_SHA384 = Way("1.2.840.10045.4.3.3", "sha384")
ECDSA_BARE_SHA512 = Way("1.2.840.10045.2.1", "sha512", names_hash=True)
RSA_SHA256 = Way("1.2.840.113549.1.1.11")
RSA_BARE_SHA512 = Way("1.2.840.113549.1.1.1", "sha512", names_hash=True)
ED25519_SHA512 = Way("1.3.101.112", "sha512", names_hash=True)


def pss(hash_: str, salt_bytes: int) -> Way:
    return Way("1.2.840.113549.1.1.10", hash_, salt_bytes=salt_bytes)


def verify(certificate: x509.Certificate, way: Way, digests: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Raise unless there is one good value for each digest, in order."""
    key = certificate.public_key()
    hash_ = _HASHES[way.hash]
    for digest, value in zip(digests, values, strict=True):
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(value, digest, ec.ECDSA(utils.Prehashed(hash_)))
            case ed25519.Ed25519PublicKey():
                key.verify(value, digest)
            case rsa.RSAPublicKey() if way.salt_bytes is None:
                key.verify(value, digest, padding.PKCS1v15(), utils.Prehashed(hash_))
            case rsa.RSAPublicKey():
                scheme = padding.PSS(padding.MGF1(hash_), salt_length=way.salt_bytes or 0)
                key.verify(value, digest, scheme, utils.Prehashed(hash_))
            case _:
                raise TypeError(f"a certificate with a {type(key).__name__}")

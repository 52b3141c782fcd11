"""Hashes, curves and signature schemes by their OIDs, and which of them a profile allows. Rules only.

Sources: RFC 4055, RFC 5758, RFC 8410, FIPS 202, ETSI TS 119 312 (profile `eu`), CRYPTREC (profile `jp`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from shared.errors import Code, RakkanError


class Hash(StrEnum):
    """A hash algorithm; the value is the name the `hashlib` module knows."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"
    SHA3_256 = "sha3_256"
    SHA3_384 = "sha3_384"
    SHA3_512 = "sha3_512"

    @property
    def oid(self) -> str:
        return HASH_OIDS[self]

    @property
    def digest_bytes(self) -> int:
        return int(self.value[-3:]) // 8


HASH_OIDS = {
    Hash.SHA256: "2.16.840.1.101.3.4.2.1",
    Hash.SHA384: "2.16.840.1.101.3.4.2.2",
    Hash.SHA512: "2.16.840.1.101.3.4.2.3",
    Hash.SHA3_256: "2.16.840.1.101.3.4.2.8",
    Hash.SHA3_384: "2.16.840.1.101.3.4.2.9",
    Hash.SHA3_512: "2.16.840.1.101.3.4.2.10",
}
HASH_BY_OID = {oid: hash_ for hash_, oid in HASH_OIDS.items()}


class KeyAlgorithm(StrEnum):
    """What kind of key a credential has."""

    P256 = "p256"
    P384 = "p384"
    P521 = "p521"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"
    ED25519 = "ed25519"

    @property
    def family(self) -> "Family":
        if self is KeyAlgorithm.ED25519:
            return Family.ED25519
        return Family.RSA if self.value.startswith("rsa") else Family.EC

    @property
    def bits(self) -> int:
        return KEY_BITS[self]

    @property
    def curve_oid(self) -> str | None:
        return CURVE_OIDS.get(self)


class Family(StrEnum):
    EC = "ec"
    RSA = "rsa"
    ED25519 = "ed25519"


KEY_BITS = {
    KeyAlgorithm.P256: 256,
    KeyAlgorithm.P384: 384,
    KeyAlgorithm.P521: 521,
    KeyAlgorithm.RSA2048: 2048,
    KeyAlgorithm.RSA3072: 3072,
    KeyAlgorithm.RSA4096: 4096,
    KeyAlgorithm.ED25519: 256,
}
CURVE_OIDS = {
    KeyAlgorithm.P256: "1.2.840.10045.3.1.7",
    KeyAlgorithm.P384: "1.3.132.0.34",
    KeyAlgorithm.P521: "1.3.132.0.35",
    KeyAlgorithm.ED25519: "1.3.101.112",
}


class Scheme(StrEnum):
    """How a digest becomes a signature value."""

    ECDSA = "ecdsa"
    RSA_PKCS1 = "rsa_pkcs1"
    RSA_PSS = "rsa_pss"
    ED25519 = "ed25519"


FAMILY_OF_SCHEME = {
    Scheme.ECDSA: Family.EC,
    Scheme.RSA_PKCS1: Family.RSA,
    Scheme.RSA_PSS: Family.RSA,
    Scheme.ED25519: Family.ED25519,
}


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """A scheme with the hash the digests were made by. `salt_bytes` is set for PSS and only there (MGF1, same hash)."""

    scheme: Scheme
    hash: Hash
    salt_bytes: int | None = None


RSA_BARE_OID = "1.2.840.113549.1.1.1"
PSS_OID = "1.2.840.113549.1.1.10"
EC_BARE_OID = "1.2.840.10045.2.1"
ED25519_OID = "1.3.101.112"

COMBINED_OIDS = {
    "1.2.840.113549.1.1.11": (Scheme.RSA_PKCS1, Hash.SHA256),
    "1.2.840.113549.1.1.12": (Scheme.RSA_PKCS1, Hash.SHA384),
    "1.2.840.113549.1.1.13": (Scheme.RSA_PKCS1, Hash.SHA512),
    "2.16.840.1.101.3.4.3.14": (Scheme.RSA_PKCS1, Hash.SHA3_256),
    "2.16.840.1.101.3.4.3.15": (Scheme.RSA_PKCS1, Hash.SHA3_384),
    "2.16.840.1.101.3.4.3.16": (Scheme.RSA_PKCS1, Hash.SHA3_512),
    "1.2.840.10045.4.3.2": (Scheme.ECDSA, Hash.SHA256),
    "1.2.840.10045.4.3.3": (Scheme.ECDSA, Hash.SHA384),
    "1.2.840.10045.4.3.4": (Scheme.ECDSA, Hash.SHA512),
    "2.16.840.1.101.3.4.3.10": (Scheme.ECDSA, Hash.SHA3_256),
    "2.16.840.1.101.3.4.3.11": (Scheme.ECDSA, Hash.SHA3_384),
    "2.16.840.1.101.3.4.3.12": (Scheme.ECDSA, Hash.SHA3_512),
}
"""Signature OIDs that name their hash, by scheme and hash."""


def sign_algorithm_oids(key: KeyAlgorithm) -> tuple[str, ...]:
    """Every signAlgo OID a key of this kind can be asked with: bare first, then combined.

    Clients look for the literal OID they will send, so both kinds are listed.
    """
    family = key.family
    if family is Family.ED25519:
        return (ED25519_OID,)
    bare = (EC_BARE_OID,) if family is Family.EC else (RSA_BARE_OID, PSS_OID)
    return bare + tuple(oid for oid, (scheme, _) in COMBINED_OIDS.items() if FAMILY_OF_SCHEME[scheme] is family)


class Profile(StrEnum):
    """The policy a credential's algorithms are judged by."""

    EU = "eu"
    JP = "jp"


_NEVER = datetime(9999, 12, 31, tzinfo=UTC)
_END_OF_RSA_BELOW_3000 = datetime(2026, 1, 1, tzinfo=UTC)  # ETSI TS 119 312 / SOG-IS: end of 2025
_END_OF_112_BITS = datetime(2031, 1, 1, tzinfo=UTC)  # CRYPTREC: 112-bit security ends with 2030

NOT_AFTER: dict[Profile, dict[KeyAlgorithm, datetime]] = {
    Profile.EU: dict.fromkeys(KeyAlgorithm, _NEVER) | {KeyAlgorithm.RSA2048: _END_OF_RSA_BELOW_3000},
    Profile.JP: dict.fromkeys(KeyAlgorithm, _NEVER) | {KeyAlgorithm.RSA2048: _END_OF_112_BITS},
}
"""The moment from which a key algorithm may sign no more, by profile."""


def check_key_allowed(key: KeyAlgorithm, profile: Profile, *, now: datetime) -> None:
    """Raise SIGN_ALGORITHM_REFUSED once the profile has ended this kind of key."""
    if now >= NOT_AFTER[profile][key]:
        raise RakkanError(Code.SIGN_ALGORITHM_REFUSED, f"{key} is not allowed in profile {profile} today")


def check_digest(algorithm: SignatureAlgorithm, digest: bytes) -> None:
    """Raise DIGEST_LENGTH unless the digest has the length its hash makes.

    Ed25519 signs the digest as its message (the CSC gives no way to hand in the document), so the same rule holds.
    """
    if len(digest) != algorithm.hash.digest_bytes:
        raise RakkanError(Code.DIGEST_LENGTH, f"{len(digest)} bytes for {algorithm.hash}")


def check_algorithm(key: KeyAlgorithm, algorithm: SignatureAlgorithm) -> None:
    """Raise unless this key can sign by this algorithm: family, and room for hash and salt in the modulus.

    RFC 8017 9.1.1: emLen >= hLen + sLen + 2 where emLen = ceil((modBits - 1) / 8).
    """
    if FAMILY_OF_SCHEME[algorithm.scheme] is not key.family:
        raise RakkanError(Code.SIGN_ALGORITHM_REFUSED, f"{algorithm.scheme} with a {key} key")
    if (algorithm.scheme is Scheme.RSA_PSS) != (algorithm.salt_bytes is not None):
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, "a salt length belongs to PSS and only there")
    if algorithm.salt_bytes is not None:
        room = (key.bits - 1 + 7) // 8 - algorithm.hash.digest_bytes - 2
        if not 0 <= algorithm.salt_bytes <= room:
            raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, f"salt of {algorithm.salt_bytes} bytes, at most {room}")

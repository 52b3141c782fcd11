"""From a digest to a signature value and from a key object to a SubjectPublicKeyInfo. Runs on the PKCS#11 thread."""

import struct
from collections.abc import Sequence
from typing import Any

from asn1crypto import core
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import MGF, ArgumentsBad, Attribute, KeyType, Mechanism, MechanismInvalid, MechanismParamInvalid

from shared.algorithms import (
    CURVE_OIDS,
    Family,
    Hash,
    KeyAlgorithm,
    Scheme,
    SignatureAlgorithm,
    check_algorithm,
    check_digest,
)
from shared.errors import Code, RakkanError

_VALUE_BYTES_MAX = 1024
_MESSAGE_BYTES_MAX = 4096
_PSS = {
    Hash.SHA256: (Mechanism.SHA256, MGF.SHA256),
    Hash.SHA384: (Mechanism.SHA384, MGF.SHA384),
    Hash.SHA512: (Mechanism.SHA512, MGF.SHA512),
    Hash.SHA3_256: (Mechanism.SHA3_256, MGF.SHA3_256),
    Hash.SHA3_384: (Mechanism.SHA3_384, MGF.SHA3_384),
    Hash.SHA3_512: (Mechanism.SHA3_512, MGF.SHA3_512),
}
_NIST_HASHES = bytes.fromhex("6086480165030402")  # 2.16.840.1.101.3.4.2, one byte follows
_CURVES = {KeyAlgorithm.P256: ec.SECP256R1(), KeyAlgorithm.P384: ec.SECP384R1(), KeyAlgorithm.P521: ec.SECP521R1()}


def sign_all(
    key: Any, key_algorithm: KeyAlgorithm, algorithm: SignatureAlgorithm, digests: Sequence[bytes]
) -> tuple[bytes, ...]:
    """One value for each digest, in order; ECDSA as DER ECDSA-Sig-Value.

    Every digest is checked before the first is signed: a batch is signed whole or not at all.
    """
    check_algorithm(key_algorithm, algorithm)
    for digest in digests:
        _check_message(algorithm, digest)
    mechanism, parameter = _mechanism(algorithm)
    try:
        raw = [
            key.sign(
                _input(key_algorithm, algorithm, digest),
                mechanism=mechanism,
                mechanism_param=parameter,
                buffer_size=_VALUE_BYTES_MAX,
            )
            for digest in digests
        ]
    except (MechanismInvalid, MechanismParamInvalid, ArgumentsBad):
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, f"the HSM does not know {algorithm}") from None
    return tuple(raw) if algorithm.scheme is not Scheme.ECDSA else tuple(_der(value) for value in raw)


def _check_message(algorithm: SignatureAlgorithm, message: bytes) -> None:
    # Ed25519 hashes for itself (RFC 8032): it gets a digest or a whole certificate request, and whoever asks us has
    # checked which of the two it may be.
    if algorithm.scheme is not Scheme.ED25519:
        check_digest(algorithm, message)
    elif not 0 < len(message) <= _MESSAGE_BYTES_MAX:
        raise RakkanError(Code.DIGEST_LENGTH, f"{len(message)} bytes for Ed25519")


def algorithm_of(key: Any) -> KeyAlgorithm:
    """What kind of key an object of the token is."""
    key_type = key[Attribute.KEY_TYPE]
    if key_type is KeyType.RSA:
        return KeyAlgorithm(f"rsa{int.from_bytes(key[Attribute.MODULUS], 'big').bit_length()}")
    if key_type is KeyType.EC_EDWARDS:
        return KeyAlgorithm.ED25519
    oid = core.ObjectIdentifier.load(key[Attribute.EC_PARAMS]).dotted
    return next(algorithm for algorithm, known in CURVE_OIDS.items() if known == oid)


def spki(public: Any, algorithm: KeyAlgorithm) -> bytes:
    """The public half as DER SubjectPublicKeyInfo; KEY_DAMAGED when it is no such key."""
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
    try:
        if algorithm.family is Family.RSA:
            exponent, modulus = public[Attribute.PUBLIC_EXPONENT], public[Attribute.MODULUS]
            key = rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
        elif algorithm.family is Family.EC:
            key = ec.EllipticCurvePublicKey.from_encoded_point(
                _CURVES[algorithm], _point(public, 1 + 2 * ((algorithm.bits + 7) // 8))
            )
        else:
            key = ed25519.Ed25519PublicKey.from_public_bytes(_point(public, 32))
    except ValueError:
        raise RakkanError(Code.KEY_DAMAGED, f"the HSM's public key is no {algorithm} key") from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _point(public: Any, length: int) -> bytes:
    # PKCS#11 wraps the point in an OCTET STRING; some modules do not. The length tells, the first byte (4) does not.
    packed: bytes = public[Attribute.EC_POINT]
    return packed if len(packed) == length else bytes(core.OctetString.load(packed, strict=True).native)


def _mechanism(algorithm: SignatureAlgorithm) -> tuple[Mechanism, bytes | None]:
    match algorithm.scheme:
        case Scheme.ECDSA:
            return Mechanism.ECDSA, None
        case Scheme.ED25519:
            return Mechanism.EDDSA, None
        case Scheme.RSA_PKCS1:
            return Mechanism.RSA_PKCS, None
        case Scheme.RSA_PSS:
            hash_, mgf = _PSS[algorithm.hash]
            # CK_RSA_PKCS_PSS_PARAMS, packed here: the library would replace what it does not know by SHA-1.
            return Mechanism.RSA_PKCS_PSS, struct.pack("@3L", int(hash_), int(mgf), algorithm.salt_bytes)


def _input(key_algorithm: KeyAlgorithm, algorithm: SignatureAlgorithm, digest: bytes) -> bytes:
    if algorithm.scheme is Scheme.ECDSA:
        # FIPS 186-5 6.4: the leftmost bits; modules differ on who cuts.
        return digest[: (key_algorithm.bits + 7) // 8]
    if algorithm.scheme is Scheme.RSA_PKCS1:
        return digest_info(algorithm.hash, digest)
    return digest


def digest_info(hash_: Hash, digest: bytes) -> bytes:
    """RFC 8017 9.2: SEQUENCE { SEQUENCE { OID, NULL }, OCTET STRING }, all lengths below 128."""
    last_arc = int(hash_.oid.rpartition(".")[2])
    oid = b"\x06\x09" + _NIST_HASHES + bytes([last_arc])
    identifier = b"\x30" + bytes([len(oid) + 2]) + oid + b"\x05\x00"
    value = b"\x04" + bytes([len(digest)]) + digest
    return b"\x30" + bytes([len(identifier) + len(value)]) + identifier + value


def _der(raw: bytes) -> bytes:
    half = len(raw) // 2
    return utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

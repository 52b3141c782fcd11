"""What a certificate says, and whether signature values hold under it. Knows X.509, no CSC word and no room."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from asn1crypto.core import Sequence as ASN1Sequence
from asn1crypto.core import SequenceOf
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from shared.algorithms import Hash, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError

_HASHES: dict[Hash, hashes.HashAlgorithm] = {
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
    Hash.SHA3_256: hashes.SHA3_256(),
    Hash.SHA3_384: hashes.SHA3_384(),
    Hash.SHA3_512: hashes.SHA3_512(),
}
_QC_STATEMENTS = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.3")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    issuer: str
    """RFC 4514, as the subject."""
    subject: str
    serial: int
    not_before: datetime
    not_after: datetime
    policies: tuple[str, ...]
    qc_statements: tuple[str, ...]


@lru_cache(maxsize=1024)
def read_certificate(der: bytes) -> CertificateFacts:
    """The facts of one certificate, kept: the same few are shown again and again."""
    certificate = x509.load_der_x509_certificate(der)
    return CertificateFacts(
        issuer=certificate.issuer.rfc4514_string(),
        subject=certificate.subject.rfc4514_string(),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        policies=_policies(certificate),
        qc_statements=_qc_statements(certificate),
    )


def _policies(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies)
    except x509.ExtensionNotFound:
        return ()
    return tuple(policy.policy_identifier.dotted_string for policy in found.value)


def _qc_statements(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_oid(_QC_STATEMENTS).value
    except x509.ExtensionNotFound:
        return ()
    if not isinstance(found, x509.UnrecognizedExtension):
        return ()
    try:
        return tuple(str(statement[0].dotted) for statement in SequenceOf.load(found.value, spec=ASN1Sequence))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return ()  # shown for information only; what cannot be read is not shown


@lru_cache(maxsize=1024)
def _public_key(der: bytes) -> object:
    return x509.load_der_x509_certificate(der).public_key()


def check_values(
    certificate: bytes, algorithm: SignatureAlgorithm, digests: Sequence[bytes], values: Sequence[bytes]
) -> None:
    """Raise KEY_DAMAGED unless every value is the signature of its digest under the certificate.

    Requirement D-10: a swapped key or a fault in the HSM is noticed before a value leaves the house. The library
    releases the interpreter lock while it verifies, so a batch may be checked on a thread.
    """
    if len(values) != len(digests):
        raise RakkanError(Code.KEY_DAMAGED, f"{len(values)} values for {len(digests)} digests")
    try:
        _verify(_public_key(certificate), algorithm, digests, values)
    except InvalidSignature:
        raise RakkanError(Code.KEY_DAMAGED, "a value does not verify under the certificate") from None


def _verify(key: object, algorithm: SignatureAlgorithm, digests: Sequence[bytes], values: Sequence[bytes]) -> None:
    hash_ = _HASHES[algorithm.hash]
    prehashed = Prehashed(hash_)
    pairs = zip(digests, values, strict=True)
    if algorithm.scheme is Scheme.ECDSA and isinstance(key, EllipticCurvePublicKey):
        ecdsa = ECDSA(prehashed)
        for digest, value in pairs:
            key.verify(value, digest, ecdsa)
    elif algorithm.scheme in (Scheme.RSA_PKCS1, Scheme.RSA_PSS) and isinstance(key, RSAPublicKey):
        rule = (
            padding.PKCS1v15()
            if algorithm.salt_bytes is None
            else padding.PSS(padding.MGF1(hash_), algorithm.salt_bytes)
        )
        for digest, value in pairs:
            key.verify(value, digest, rule, prehashed)
    elif algorithm.scheme is Scheme.ED25519 and isinstance(key, Ed25519PublicKey):
        for digest, value in pairs:
            key.verify(value, digest)
    else:
        raise RakkanError(Code.KEY_DAMAGED, "the certificate's key is of another kind")

"""What a certificate says, and whether signature values hold under it. Knows X.509, no CSC word and no room."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from asn1crypto.core import Sequence as ASN1Sequence
from asn1crypto.core import SequenceOf
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.algorithms import SignatureAlgorithm
from shared.verification import verify_all

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
def _public_key(der: bytes) -> bytes:
    key = x509.load_der_x509_certificate(der).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def check_values(
    certificate: bytes, algorithm: SignatureAlgorithm, digests: Sequence[bytes], values: Sequence[bytes]
) -> None:
    """Raise KEY_DAMAGED unless every value is the signature of its digest under the certificate (requirement D-10)."""
    verify_all(_public_key(certificate), algorithm, digests, values)

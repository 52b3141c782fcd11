"""The request the SAM makes for a key, and whether the certificate that comes back is for it. Rules only, no I/O.

RFC 2986 (request), RFC 5280 (path). A connector is not believed: key, subject, path and validity are checked here.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise

from asn1crypto import algos, csr, keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from services.sam.rows import Signer
from shared.algorithms import Family, Hash, KeyAlgorithm, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError

_CHAIN_MAX = 10
_REQUEST_ALGORITHMS = {
    Family.RSA: (SignatureAlgorithm(Scheme.RSA_PKCS1, Hash.SHA256), "sha256_rsa"),
    Family.EC: (SignatureAlgorithm(Scheme.ECDSA, Hash.SHA256), "sha256_ecdsa"),
    Family.ED25519: (SignatureAlgorithm(Scheme.ED25519, Hash.SHA512), "ed25519"),
}


@dataclass(frozen=True, slots=True)
class CertificationRequest:
    """A PKCS#10 request before its signature. `to_be_signed` is what the key signs, hashed unless it is Ed25519."""

    information: bytes
    algorithm: SignatureAlgorithm
    algorithm_name: str

    @property
    def to_be_signed(self) -> bytes:
        """The digest; for Ed25519, which hashes for itself (RFC 8032), the request as it is."""
        return self.information if self.algorithm.scheme is Scheme.ED25519 else sha256(self.information).digest()

    def signed(self, value: bytes) -> bytes:
        """DER CertificationRequest with this signature value."""
        request = csr.CertificationRequest(
            {
                "certification_request_info": csr.CertificationRequestInfo.load(self.information),
                "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": self.algorithm_name}),
                "signature": value,
            }
        )
        encoded: bytes = request.dump()
        return encoded


def request_for(signer: Signer, public_key: bytes, key_algorithm: KeyAlgorithm) -> CertificationRequest:
    """The request for a signer's key: the same every time, so that repeating a step repeats nothing else."""
    algorithm, name = _REQUEST_ALGORITHMS[key_algorithm.family]
    information = csr.CertificationRequestInfo(
        {
            "version": "v1",
            "subject": asn1_x509.Name.load(subject_of(signer).public_bytes()),
            "subject_pk_info": keys.PublicKeyInfo.load(public_key),
            "attributes": [],
        }
    )
    return CertificationRequest(information.dump(), algorithm, name)


def subject_of(signer: Signer) -> x509.Name:
    attributes = [x509.NameAttribute(x509.NameOID.COUNTRY_NAME, signer.country)]
    if signer.organization:
        attributes.append(x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, signer.organization))
    attributes.append(x509.NameAttribute(x509.NameOID.COMMON_NAME, signer.common_name))
    attributes.append(x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, signer.signer_id))
    return x509.Name(attributes)


def check_certificate(
    chain: tuple[bytes, ...],
    *,
    public_key: bytes,
    subject: x509.Name,
    anchors: tuple[x509.Certificate, ...],
    now: datetime,
) -> datetime:
    """The end of the certificate's validity, or CERTIFICATE_REFUSED with what is wrong with it."""
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        usage = certificates[0].extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound) as fault:
        raise RakkanError(Code.CERTIFICATE_REFUSED, f"not a usable certificate: {fault}") from None
    leaf = certificates[0]
    encoded = leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if encoded != public_key:
        raise RakkanError(Code.CERTIFICATE_REFUSED, "for another key")
    if leaf.subject != subject:
        raise RakkanError(Code.CERTIFICATE_REFUSED, f"for another subject: {leaf.subject.rfc4514_string()}")
    if not (usage.digital_signature or usage.content_commitment):
        raise RakkanError(Code.CERTIFICATE_REFUSED, "its key usage does not allow to sign")
    _check_path(certificates, anchors, now=now)
    return leaf.not_valid_after_utc.astimezone(UTC)


def _check_path(certificates: list[x509.Certificate], anchors: tuple[x509.Certificate, ...], *, now: datetime) -> None:
    for certificate in certificates:
        if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
            raise RakkanError(Code.CERTIFICATE_REFUSED, "a certificate of the chain is not valid today")
    path = certificates[:_CHAIN_MAX]
    for certificate, issuer in pairwise(path):
        _check_issued(certificate, issuer)
    top = path[-1]
    if top in anchors:
        if len(path) == 1:
            raise RakkanError(Code.CERTIFICATE_REFUSED, "a trust anchor is no signer's certificate")
        return
    for anchor in anchors:
        if anchor.subject == top.issuer:
            _check_issued(top, anchor)
            return
    raise RakkanError(Code.CERTIFICATE_REFUSED, "it does not lead to an anchor of its authority")


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise RakkanError(Code.CERTIFICATE_REFUSED, "a link of its chain does not hold") from None
    if not constraints.ca:
        raise RakkanError(Code.CERTIFICATE_REFUSED, "issued by something that is no CA")


def names_of(certificate: bytes) -> tuple[str, str]:
    """Subject and issuer, as a person reads them (RFC 4514)."""
    loaded = x509.load_der_x509_certificate(certificate)
    return loaded.subject.rfc4514_string(), loaded.issuer.rfc4514_string()


def load_anchors(pem: bytes) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(pem))

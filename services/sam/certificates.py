"""The request the SAM makes for a key, and whether the certificate that comes back is for it. Rules only, no I/O.

RFC 2986 (request), RFC 5280 (certificate, path). A connector is not believed: key, subject, path, policy, usage,
validity and algorithms are checked here, against what the registry says of the one CA and profile that were ordered.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

from asn1crypto import algos, csr, keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from services.sam.rows import Signer
from shared.algorithms import Family, Hash, KeyAlgorithm, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.registry import CertificateProfile, CertificationAuthority

_CHAIN_MAX = 10
_BACKDATED = timedelta(hours=1)
"""CAs set notBefore a little back; by so much a validity may be longer than its profile says."""
_RSA_BITS_MIN = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1, ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.BrainpoolP512R1)
_HASHES = frozenset({"sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512"})
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.INHIBIT_ANY_POLICY,
    }
)
"""Critical extensions that do not make a certificate unusable here (RFC 5280 4.2)."""
_ATTRIBUTES = {
    "country": NameOID.COUNTRY_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organization_identifier": NameOID.ORGANIZATION_IDENTIFIER,
    "common_name": NameOID.COMMON_NAME,
    "serial_number": NameOID.SERIAL_NUMBER,
}
_REQUEST_ALGORITHMS = {
    Family.RSA: (SignatureAlgorithm(Scheme.RSA_PKCS1, Hash.SHA256), "sha256_rsa"),
    Family.EC: (SignatureAlgorithm(Scheme.ECDSA, Hash.SHA256), "sha256_ecdsa"),
    Family.ED25519: (SignatureAlgorithm(Scheme.ED25519, Hash.SHA512), "ed25519"),
}

E = TypeVar("E", bound=x509.ExtensionType)


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


def request_for(
    signer: Signer,
    public_key: bytes,
    key_algorithm: KeyAlgorithm,
    profile: CertificateProfile,
    *,
    dns_name: str | None = None,
) -> CertificationRequest:
    """The request for a signer's key: the same every time, so that repeating a step repeats nothing else."""
    algorithm, name = _REQUEST_ALGORITHMS[key_algorithm.family]
    information = csr.CertificationRequestInfo(
        {
            "version": "v1",
            "subject": asn1_x509.Name.load(subject_of(signer, profile).public_bytes()),
            "subject_pk_info": keys.PublicKeyInfo.load(public_key),
            "attributes": [] if dns_name is None else [_names(dns_name)],
        }
    )
    return CertificationRequest(information.dump(), algorithm, name)


def _names(dns_name: str) -> dict[str, Any]:
    """The attribute that asks for this name (RFC 2985 5.4.2)."""
    names = asn1_x509.GeneralNames([asn1_x509.GeneralName("dns_name", dns_name)])
    extension = {"extn_id": "subject_alt_name", "critical": False, "extn_value": names}
    return {"type": "extension_request", "values": [[extension]]}


def dns_name_of(credential_id: str, profile: CertificateProfile) -> str | None:
    """The name that the profile adds to the subject; nothing where it adds none.

    PROFILE_UNKNOWN when the credential's id cannot be in a DNS name.
    """
    try:
        return profile.dns_name_of(credential_id)
    except ValueError as fault:
        raise RakkanError(Code.PROFILE_UNKNOWN, str(fault)) from None


def subject_of(signer: Signer, profile: CertificateProfile) -> x509.Name:
    """The subject by the profile's template, from what was verified of the signer and from nothing else.

    What the signer has not is left out. PROFILE_UNKNOWN when the profile is for another kind of subject.
    """
    if signer.subject_type != profile.subject_type:
        raise RakkanError(Code.PROFILE_UNKNOWN, f"for {profile.subject_type} subjects, not {signer.subject_type} ones")
    verified = {
        "country": signer.country,
        "organization": signer.organization,
        "organization_identifier": signer.organization_identifier,
        "common_name": signer.common_name,
        "serial_number": signer.signer_id,
    }
    return x509.Name([x509.NameAttribute(_ATTRIBUTES[one], text) for one in profile.subject if (text := verified[one])])


def check_request(der: bytes, *, public_key: bytes, subject: x509.Name, dns_name: str | None = None) -> None:
    """Raise unless this is the request for this key and subject, and the key itself signed it: its proof of possession.

    CERTIFICATE_REFUSED, since no certificate may be linked on another one.
    """
    try:
        request = x509.load_der_x509_csr(der)
        holds = request.is_signature_valid
        key = request.public_key()
        names = _dns_names(request.extensions)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension):
        raise _refused("the request cannot be read") from None
    if not holds:
        raise _refused("the request is not signed by its key")
    if _encoded(key) != public_key or request.subject != subject:
        raise _refused("the request is for another key or subject")
    if names != ([] if dns_name is None else [dns_name]):
        raise _refused("the request is for another DNS name")


def check_certificate(
    chain: tuple[bytes, ...],
    *,
    public_key: bytes,
    subject: x509.Name,
    ca: CertificationAuthority,
    profile: CertificateProfile,
    now: datetime,
    dns_name: str | None = None,
) -> datetime:
    """The end of the certificate's validity, or CERTIFICATE_REFUSED with what is wrong with it."""
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        extensions = certificates[0].extensions
        encoded = _encoded(certificates[0].public_key())
        names = _dns_names(extensions)
    except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm) as fault:
        raise _refused(f"not a usable certificate: {fault}") from None
    leaf = certificates[0]
    if encoded != public_key:
        raise _refused("for another key")
    if leaf.subject != subject:
        raise _refused(f"for another subject: {leaf.subject.rfc4514_string()}")
    if dns_name is not None and names != [dns_name]:
        raise _refused(f"its DNS name is not {dns_name} alone")
    _check_profile(leaf, extensions, profile)
    _check_path(certificates, ca, now=now)
    return leaf.not_valid_after_utc.astimezone(UTC)


def _check_profile(leaf: x509.Certificate, extensions: x509.Extensions, profile: CertificateProfile) -> None:
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise _refused("a CA's certificate, not a signer's")
    usage = _find(extensions, x509.KeyUsage)
    if usage is None or not any(getattr(usage, bit) for bit in profile.key_usages):
        raise _refused(f"its key usage lacks {' and '.join(profile.key_usages)}")
    purposes = {one.dotted_string for one in _find(extensions, x509.ExtendedKeyUsage) or ()}
    if missing := [one for one in profile.extended_key_usages if one not in purposes]:
        raise _refused(f"its extended key usage lacks {missing[0]}")
    policies = {one.policy_identifier.dotted_string for one in _find(extensions, x509.CertificatePolicies) or ()}
    if profile.policies and not policies.intersection(profile.policies):
        raise _refused(f"its policy is none of {', '.join(profile.policies)}")
    validity = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    if validity > timedelta(days=profile.validity_days_max) + _BACKDATED:
        raise _refused(f"valid for {validity.days} days, more than {profile.validity_days_max}")
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise _refused(f"it has a critical extension {extension.oid.dotted_string}, which is not understood here")


def _check_path(certificates: list[x509.Certificate], ca: CertificationAuthority, *, now: datetime) -> None:
    """Raise unless the certificate leads to an anchor of this very CA. Another CA of the same name is another CA.

    The links are found by signature: what a CA sends may be out of order, or lack what the registry has.
    """
    given = [*certificates[1:_CHAIN_MAX], *ca.intermediate_certificates]
    current, below = certificates[0], 0
    _check_current(current, now=now)
    if current in ca.anchor_certificates:
        raise _refused("a trust anchor is no signer's certificate")
    for _ in range(_CHAIN_MAX):
        if any(_issued(current, anchor, below=below) for anchor in ca.anchor_certificates):
            return
        issuer = next((one for one in given if one != current and _issued(current, one, below=below)), None)
        if issuer is None:
            break
        given.remove(issuer)
        _check_current(issuer, now=now)
        current, below = issuer, below + 1
    raise _refused("it does not lead to an anchor of its authority")


def _check_current(certificate: x509.Certificate, *, now: datetime) -> None:
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise _refused("a certificate of the chain is not valid today")
    _check_strong(certificate)


def _check_strong(certificate: x509.Certificate) -> None:
    """Raise for what can be forged today (ETSI TS 119 312, CRYPTREC): a weak hash, a small key."""
    try:
        used = certificate.signature_hash_algorithm
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        raise _refused("signed by an algorithm that is not known here") from None
    if used is not None and used.name not in _HASHES:
        raise _refused(f"signed with {used.name}, which is weak")
    if isinstance(key, rsa.RSAPublicKey):
        strong = key.key_size >= _RSA_BITS_MIN
    elif isinstance(key, ec.EllipticCurvePublicKey):
        strong = isinstance(key.curve, _CURVES)
    else:
        strong = isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
    if not strong:
        raise _refused("its chain has a weak key")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, *, below: int) -> bool:
    """Whether this issuer signed it, and may have: a CA, with the key usage for it, over so many CAs below."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    constraints = _find(issuer.extensions, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise _refused("issued by something that is no CA")
    usage = _find(issuer.extensions, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise _refused("issued by a CA whose key usage does not allow it")
    if constraints.path_length is not None and below > constraints.path_length:
        raise _refused("its chain is longer than a CA of it allows")
    return True


def _find(extensions: x509.Extensions, kind: type[E]) -> E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _dns_names(extensions: x509.Extensions) -> list[str]:
    names = _find(extensions, x509.SubjectAlternativeName)
    return [] if names is None else names.get_values_for_type(x509.DNSName)


def _encoded(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _refused(detail: str) -> RakkanError:
    return RakkanError(Code.CERTIFICATE_REFUSED, detail)


def names_of(certificate: bytes) -> tuple[str, str]:
    """Subject and issuer, as a person reads them (RFC 4514)."""
    loaded = x509.load_der_x509_certificate(certificate)
    return loaded.subject.rfc4514_string(), loaded.issuer.rfc4514_string()

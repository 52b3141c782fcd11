"""What the local CA's certificates and CRLs say (RFC 5280, RFC 9336). Rules only; time and serial are handed in."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from shared.errors import Code, RakkanError

DOCUMENT_SIGNING = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
_BACKDATED = timedelta(minutes=1)
"""Relying parties' clocks may be a little behind ours."""
_RSA_BITS = range(2048, 8193)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_NAMES = {
    NameOID.COMMON_NAME,
    NameOID.COUNTRY_NAME,
    NameOID.EMAIL_ADDRESS,
    NameOID.GIVEN_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.ORGANIZATION_IDENTIFIER,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.PSEUDONYM,
    NameOID.SERIAL_NUMBER,
    NameOID.STATE_OR_PROVINCE_NAME,
    NameOID.SURNAME,
    NameOID.TITLE,
}
_REASONS = {
    1: x509.ReasonFlags.key_compromise,
    2: x509.ReasonFlags.ca_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    9: x509.ReasonFlags.privilege_withdrawn,
    10: x509.ReasonFlags.aa_compromise,
}
"""Without 0: RFC 5280 5.3.1 wants the extension left out rather than `unspecified`."""


@dataclass(frozen=True)
class Profile:
    """What is the same in all certificates that the CA issues."""

    validity: timedelta
    policies: tuple[str, ...] = ()
    crl_url: str | None = None
    issuer_url: str | None = None


@dataclass(frozen=True)
class RevokedCertificate:
    serial_number: int
    reason: int
    revoked_at: datetime


def read_request(der: bytes) -> x509.CertificateSigningRequest:
    """The request, when its key signed it and the key and the subject may be certified; CERTIFICATE_REFUSED if not."""
    try:
        request = x509.load_der_x509_csr(der)
        signed = request.is_signature_valid
        key = request.public_key()
        subject = tuple(request.subject)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise _refused("the certification request cannot be read") from None
    if not signed:
        raise _refused("the certification request is not signed by its key")
    if isinstance(key, rsa.RSAPublicKey):
        allowed = key.key_size in _RSA_BITS
    elif isinstance(key, ec.EllipticCurvePublicKey):
        allowed = isinstance(key.curve, _CURVES)
    else:
        allowed = isinstance(key, ed25519.Ed25519PublicKey)
    if not allowed:
        raise _refused("keys of this kind or size are not certified here")
    if not any(attribute.oid == NameOID.COMMON_NAME for attribute in subject):
        raise _refused("the subject has no common name")
    if strange := [attribute.oid.dotted_string for attribute in subject if attribute.oid not in _NAMES]:
        raise _refused(f"the subject has an attribute {strange[0]}, which is not certified here")
    return request


def root(
    *,
    name: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial_number: int,
    validity: timedelta,
    now: datetime,
) -> x509.CertificateBuilder:
    """The CA's own certificate: it may issue end entities' certificates and CRLs, and no CA below."""
    return (
        _certificate(subject=name, issuer=name, key=key, serial_number=serial_number)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )


def end_entity(
    request: x509.CertificateSigningRequest,
    *,
    issuer: x509.Certificate,
    profile: Profile,
    serial_number: int,
    now: datetime,
) -> x509.CertificateBuilder:
    """A signer's certificate. Of the request only subject and key are taken; the extensions are the CA's to say."""
    not_after = min(now + profile.validity, issuer.not_valid_after_utc)
    if not_after <= now:
        raise _refused("the CA's own certificate has expired")
    key = request.public_key()
    above = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _certificate(subject=request.subject, issuer=issuer.subject, key=key, serial_number=serial_number)  # type: ignore[arg-type]  # read_request let through only keys that can be certified
        .not_valid_before(max(now - _BACKDATED, issuer.not_valid_before_utc))
        .not_valid_after(not_after)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, content_commitment=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([DOCUMENT_SIGNING]), critical=False)
    )
    if profile.policies:
        policies = [x509.PolicyInformation(x509.ObjectIdentifier(policy), None) for policy in profile.policies]
        builder = builder.add_extension(x509.CertificatePolicies(policies), critical=False)
    if profile.crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(profile.crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    if profile.issuer_url:
        where = x509.UniformResourceIdentifier(profile.issuer_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return builder


def crl(
    revoked: Iterable[RevokedCertificate],
    *,
    issuer: x509.Certificate,
    number: int,
    lifetime: timedelta,
    now: datetime,
) -> x509.CertificateRevocationListBuilder:
    above = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(now + lifetime)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for one in revoked:
        entry = (
            x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(min(one.revoked_at, now))
        )
        if one.reason in _REASONS:
            entry = entry.add_extension(x509.CRLReason(_REASONS[one.reason]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder


def _certificate(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    serial_number: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial_number)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _refused(detail: str) -> RakkanError:
    return RakkanError(Code.CERTIFICATE_REFUSED, detail)

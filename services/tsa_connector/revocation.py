"""Whether a certificate is revoked, from a CRL or an OCSP answer (RFC 5280 6.3, RFC 6960 4.2). Rules only, no I/O.

A status that is not signed by the issuer, not for this certificate or not of now is no status at all: UNTRUSTED.
"""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from services.tsa_connector.chain import extensions_of
from services.tsa_connector.frames import CertificateStatus
from shared.errors import Code, RakkanError

SKEW = timedelta(minutes=5)
AGE_MAX = timedelta(days=1)
"""Of a status that does not say when the next comes."""
_WEAK = frozenset({"md5", "sha1"})
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_SCOPE_ALLOWED = (x509.IssuingDistributionPoint, x509.CRLNumber, x509.AuthorityKeyIdentifier)


def judge_crl(
    crl_der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, *, now: datetime
) -> CertificateStatus:
    """What the issuer's own full CRL says."""
    try:
        crl = x509.load_der_x509_crl(crl_der)
        if crl.issuer != issuer.subject:
            raise _untrusted("the CRL is of another issuer")
        _check_hash(crl.signature_hash_algorithm)
        _check_signs_crls(issuer)
        if not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # other keys raise TypeError
            raise _untrusted("the CRL's signature does not verify")
        _check_scope(crl, certificate)
        until = _until(crl.last_update_utc, crl.next_update_utc, now=now, what="CRL")
        listed = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    except _UNREADABLE:
        raise _untrusted("the CRL cannot be read") from None
    return CertificateStatus(listed is not None, until)


def judge_ocsp(
    answer_der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, *, now: datetime
) -> CertificateStatus:
    """What the issuer, or a responder it certified for this, answers."""
    try:
        answer = ocsp.load_der_ocsp_response(answer_der)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise _untrusted(f"the OCSP responder says {answer.response_status.name.lower()}")
        if len(list(answer.responses)) != 1:
            raise _untrusted("an OCSP answer about several certificates")
        _check_about(answer, certificate, issuer)
        _check_responder(answer, issuer, now=now)
        until = _until(answer.this_update_utc, answer.next_update_utc, now=now, what="OCSP answer")
        status = answer.certificate_status
    except _UNREADABLE:
        raise _untrusted("the OCSP answer cannot be read") from None
    if status is ocsp.OCSPCertStatus.UNKNOWN:
        raise _untrusted("the OCSP responder does not know the certificate")
    return CertificateStatus(status is ocsp.OCSPCertStatus.REVOKED, until)


def sources_of(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The addresses of OCSP responders and of CRLs that the certificate names, http(s) only."""
    extensions = extensions_of(certificate)
    responders: list[str] = []
    lists: list[str] = []
    for extension in extensions:
        if isinstance(extension.value, x509.AuthorityInformationAccess):
            responders += [
                one.access_location.value
                for one in extension.value
                if one.access_method == AuthorityInformationAccessOID.OCSP
                and isinstance(one.access_location, x509.UniformResourceIdentifier)
            ]
        if isinstance(extension.value, x509.CRLDistributionPoints):
            names = [name for point in extension.value for name in point.full_name or ()]
            lists += [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    web = ("http://", "https://")
    return tuple(u for u in responders if u.startswith(web)), tuple(u for u in lists if u.startswith(web))


def _check_about(answer: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    if answer.serial_number != certificate.serial_number:
        raise _untrusted("the OCSP answer is about another certificate")
    # SHA-1 only names the issuer here (RFC 6960 4.3): nothing is believed for it.
    key = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, answer.hash_algorithm).build()
    if (answer.issuer_name_hash, answer.issuer_key_hash) != (key.issuer_name_hash, key.issuer_key_hash):
        raise _untrusted("the OCSP answer is about a certificate of another issuer")


def _check_responder(answer: ocsp.OCSPResponse, issuer: x509.Certificate, *, now: datetime) -> None:
    """The issuer itself, or a certificate that the issuer gave for just this (RFC 6960 4.2.2.2)."""
    _check_hash(answer.signature_hash_algorithm)
    for responder in (issuer, *answer.certificates):
        if not _is_named(responder, answer) or (responder != issuer and not _is_delegate(responder, issuer, now=now)):
            continue
        try:
            _verify(responder, answer)
        except InvalidSignature:
            continue
        return
    raise _untrusted("the OCSP answer is not signed by the issuer or its delegate")


def _is_named(responder: x509.Certificate, answer: ocsp.OCSPResponse) -> bool:
    if answer.responder_name is not None:
        return answer.responder_name == responder.subject
    return answer.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(responder.public_key()).digest


def _is_delegate(responder: x509.Certificate, issuer: x509.Certificate, *, now: datetime) -> bool:
    try:
        responder.verify_directly_issued_by(issuer)
        usage = extensions_of(responder).get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound, RakkanError):
        return False
    valid = responder.not_valid_before_utc <= now <= responder.not_valid_after_utc
    return valid and ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _verify(responder: x509.Certificate, answer: ocsp.OCSPResponse) -> None:
    key, hash_ = responder.public_key(), answer.signature_hash_algorithm
    signature, signed = answer.signature, answer.tbs_response_bytes
    if isinstance(key, rsa.RSAPublicKey) and hash_ is not None:
        key.verify(signature, signed, padding.PKCS1v15(), hash_)
    elif isinstance(key, ec.EllipticCurvePublicKey) and hash_ is not None:
        key.verify(signature, signed, ec.ECDSA(hash_))
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, signed)
    else:
        raise InvalidSignature


def _check_signs_crls(issuer: x509.Certificate) -> None:
    try:
        usage = extensions_of(issuer).get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.crl_sign:
        raise _untrusted("the issuer may not sign CRLs")


def _check_scope(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> None:
    """A CRL of only some certificates, a delta or one with what we do not understand tells nothing."""
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            raise _untrusted("the CRL is a delta")
        if extension.critical and not isinstance(value, _SCOPE_ALLOWED):
            raise _untrusted("the CRL has a critical extension that is not known")
        if isinstance(value, x509.IssuingDistributionPoint) and not _covers(value, certificate):
            raise _untrusted("the CRL does not cover the certificate")


def _covers(scope: x509.IssuingDistributionPoint, certificate: x509.Certificate) -> bool:
    if scope.only_contains_attribute_certs or scope.indirect_crl or scope.only_some_reasons or scope.relative_name:
        return False
    if scope.only_contains_ca_certs if not _is_ca(certificate) else scope.only_contains_user_certs:
        return False
    if scope.full_name is None:
        return True
    # One of several parts of a list: the certificate must say that this is its part (RFC 5280 6.3.3 b 2).
    parts = {name.value for name in scope.full_name if isinstance(name, x509.UniformResourceIdentifier)}
    return bool(parts & set(sources_of(certificate)[1]))


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return extensions_of(certificate).get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _check_hash(hash_: hashes.HashAlgorithm | None) -> None:
    if hash_ is not None and hash_.name in _WEAK:
        raise _untrusted(f"a status signed over {hash_.name}")


def _until(this_update: datetime, next_update: datetime | None, *, now: datetime, what: str) -> datetime:
    until = next_update or this_update + AGE_MAX
    if not this_update - SKEW <= now <= until:
        raise _untrusted(f"the {what} is of {this_update:%Y-%m-%d %H:%M} and not for now")
    return until


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """The question. Without a nonce: answers are kept until they end, and their time is checked."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303 - names, proves nothing
    return builder.build().public_bytes(Encoding.DER)


def _untrusted(detail: str) -> RakkanError:
    return RakkanError(Code.TSA_UNTRUSTED, detail)

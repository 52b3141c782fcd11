"""What a revocation list or an OCSP answer says about certificates (RFC 5280 6.3, RFC 6960 4.2). Rules only, no I/O.

A list or an answer that the certificate's own issuer, or its delegate, did not sign, that is not about the certificate
or not of now is no status: CERTIFICATE_REFUSED. The caller brings issuers that it has verified to the CA's anchors.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from shared.errors import Code, RakkanError

State = Literal["valid", "suspended", "revoked"]
SKEW = timedelta(minutes=5)
_PATH_MAX = 6
_WEAK = frozenset({"md5", "sha1"})
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_BROKEN = (*_UNREADABLE, InvalidSignature, x509.ExtensionNotFound)
_LIST_EXTENSIONS = (x509.IssuingDistributionPoint, x509.CRLNumber, x509.AuthorityKeyIdentifier, x509.DeltaCRLIndicator)


@dataclass(frozen=True)
class CertificateStatus:
    state: State
    at: datetime | None = None
    """Since when, as the CA says; nothing while valid."""
    reason: str | None = None
    said_at: datetime | None = field(default=None, compare=False)
    """thisUpdate of the answer that says so; a list has its own."""


@dataclass(frozen=True)
class RevocationList:
    """A list that its issuer signed and that is of now."""

    crl: x509.CertificateRevocationList
    number: int | None
    base_number: int | None
    """Of the complete list that this delta adds to; nothing: it is complete itself."""
    this_update: datetime
    next_update: datetime | None

    def entries(self, serial_numbers: AbstractSet[int]) -> Mapping[int, CertificateStatus]:
        """What it says about these; those that are not listed are left out. One walk, however many are asked about."""
        try:
            found = [entry for entry in self.crl if entry.serial_number in serial_numbers]
            return {entry.serial_number: _entry_status(entry) for entry in found}
        except _UNREADABLE:
            raise _refused("the list has an entry that cannot be read") from None


def issuer_of(
    certificate: x509.Certificate,
    candidates: Iterable[x509.Certificate],
    anchors: tuple[x509.Certificate, ...],
    *,
    now: datetime,
) -> x509.Certificate:
    """The CA certificate that issued it, once that is an anchor or leads to one."""
    pool = (*anchors, *candidates)
    for issuer in _issuers(certificate, pool, now=now):
        if _leads_to(issuer, pool, anchors, now=now, depth=_PATH_MAX):
            return issuer
    raise _refused("no issuer of the certificate leads to the anchors of its authority")


def check_leads_to(
    certificate: x509.Certificate,
    candidates: Iterable[x509.Certificate],
    anchors: tuple[x509.Certificate, ...],
    *,
    now: datetime,
) -> None:
    """Raise unless this CA certificate is an anchor or leads to one."""
    if not _leads_to(certificate, (*anchors, *candidates), anchors, now=now, depth=_PATH_MAX):
        raise _refused("the chain that the authority states does not lead to its anchors")


def read_list(
    der: bytes,
    issuer: x509.Certificate,
    *,
    now: datetime,
    age_max: timedelta,
    certificate: x509.Certificate | None = None,
) -> RevocationList:
    """The list, once this very issuer signed it, it covers end entities (or the one given) and has not run out."""
    try:
        crl = x509.load_der_x509_crl(der)
        if crl.issuer != issuer.subject:
            raise _refused("the list is of another authority")
        _check_hash(crl.signature_hash_algorithm)
        _check_signs_lists(issuer)
        if not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # other keys raise TypeError
            raise _refused("the list is not signed by the issuer of the certificates")
        number, base = _check_extensions(crl, certificate)
        this_update, next_update = crl.last_update_utc, crl.next_update_utc
    except _UNREADABLE:
        raise _refused("the list cannot be read") from None
    _check_of_now(this_update, next_update, now=now, age_max=age_max)
    return RevocationList(crl, number, base, this_update, next_update)


def check_delta_fits(base: RevocationList, delta: RevocationList) -> None:
    """Raise unless the delta adds to this complete list (RFC 5280 5.2.4)."""
    if delta.base_number is None or base.base_number is not None or base.number is None or delta.number is None:
        raise _refused("what was fetched as a delta adds to no complete list")
    if not delta.base_number <= base.number <= delta.number:
        raise _refused(f"the delta adds to list {delta.base_number}, and there is list {base.number}")


def read_answer(
    der: bytes,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    *,
    now: datetime,
    age_max: timedelta,
    responder: x509.Certificate | None = None,
) -> CertificateStatus:
    """What the issuer, its delegate or the responder that officers named answers about just this certificate."""
    try:
        answer = ocsp.load_der_ocsp_response(der)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise _refused(f"the OCSP responder says {answer.response_status.name.lower()}")
        if len(list(answer.responses)) != 1:
            raise _refused("an OCSP answer about several certificates")
        _check_about(answer, certificate, issuer)
        _check_responder(answer, issuer, responder, now=now)
        _check_of_now(answer.this_update_utc, answer.next_update_utc, now=now, age_max=age_max)
        return replace(_answer_status(answer), said_at=answer.this_update_utc)
    except _UNREADABLE:
        raise _refused("the OCSP answer cannot be read") from None


def ask_ocsp(certificate: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPRequest:
    """The question. Responders know issuers by SHA-1 (RFC 5019 2.1.1); it proves nothing, it only names."""
    return ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1()).build()  # noqa: S303 - see above


def _issuers(
    certificate: x509.Certificate, pool: Iterable[x509.Certificate], *, now: datetime
) -> list[x509.Certificate]:
    found = []
    for one in pool:
        try:
            certificate.verify_directly_issued_by(one)
            is_ca = one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except _BROKEN:
            continue
        if is_ca and one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            found.append(one)
    return found


def _leads_to(
    certificate: x509.Certificate,
    pool: tuple[x509.Certificate, ...],
    anchors: tuple[x509.Certificate, ...],
    *,
    now: datetime,
    depth: int,
) -> bool:
    if certificate in anchors:
        return True
    if not depth:
        return False
    above = [one for one in _issuers(certificate, pool, now=now) if one != certificate]
    return any(_leads_to(one, pool, anchors, now=now, depth=depth - 1) for one in above)


def _entry_status(entry: x509.RevokedCertificate) -> CertificateStatus:
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        reason = x509.ReasonFlags.unspecified
    return _status(reason, entry.revocation_date_utc)


def _answer_status(answer: ocsp.OCSPResponse) -> CertificateStatus:
    if answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        raise _refused("the OCSP responder does not know the certificate")
    if answer.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return CertificateStatus("valid")
    return _status(answer.revocation_reason or x509.ReasonFlags.unspecified, answer.revocation_time_utc)


def _status(reason: x509.ReasonFlags, at: datetime | None) -> CertificateStatus:
    if reason is x509.ReasonFlags.remove_from_crl:
        return CertificateStatus("valid")
    state: State = "suspended" if reason is x509.ReasonFlags.certificate_hold else "revoked"
    return CertificateStatus(state, at, reason.value)


def _check_extensions(
    crl: x509.CertificateRevocationList, certificate: x509.Certificate | None
) -> tuple[int | None, int | None]:
    """The list's number and, of a delta, its base. What limits the list in a way we do not follow is refused."""
    number = base = None
    for extension in crl.extensions:
        value = extension.value
        if extension.critical and not isinstance(value, _LIST_EXTENSIONS):
            raise _refused("the list has a critical extension that is not known")
        if isinstance(value, x509.CRLNumber):
            number = value.crl_number
        elif isinstance(value, x509.DeltaCRLIndicator):
            base = value.crl_number
        elif isinstance(value, x509.IssuingDistributionPoint):
            _check_scope(value, certificate)
    return number, base


def _check_scope(scope: x509.IssuingDistributionPoint, certificate: x509.Certificate | None) -> None:
    others_only = scope.only_contains_user_certs if _is_ca(certificate) else scope.only_contains_ca_certs
    limited = (
        scope.only_contains_attribute_certs
        or others_only
        or scope.indirect_crl
        or scope.only_some_reasons
        or scope.relative_name
    )
    if limited:
        raise _refused("the list does not cover such certificates")
    if scope.full_name is None or certificate is None:
        return
    # One of several parts of a list: the certificate must say that this is its part (RFC 5280 6.3.3 b 2).
    parts = {name.value for name in scope.full_name if isinstance(name, x509.UniformResourceIdentifier)}
    if not parts & set(list_urls(certificate)):
        raise _refused("the list is a part that does not cover the certificate")


def _is_ca(certificate: x509.Certificate | None) -> bool:
    try:
        return certificate is not None and (
            certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        )
    except x509.ExtensionNotFound:
        return False


def list_urls(certificate: x509.Certificate) -> tuple[str, ...]:
    """Where the certificate says its list is (http and https only)."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (*_UNREADABLE, x509.ExtensionNotFound):
        return ()
    return _web(name for point in points for name in point.full_name or ())


def delta_urls(holder: x509.Certificate | x509.CertificateRevocationList) -> tuple[str, ...]:
    """Where a certificate or a complete list says the delta is (RFC 5280 5.2.6)."""
    try:
        points = holder.extensions.get_extension_for_class(x509.FreshestCRL).value
    except (*_UNREADABLE, x509.ExtensionNotFound):
        return ()
    return _web(name for point in points for name in point.full_name or ())


def responder_urls(certificate: x509.Certificate) -> tuple[str, ...]:
    """Where the certificate says its OCSP responder is."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (*_UNREADABLE, x509.ExtensionNotFound):
        return ()
    return _web(one.access_location for one in access if one.access_method == AuthorityInformationAccessOID.OCSP)


def _web(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    urls = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    return tuple(url for url in urls if url.startswith(("http://", "https://")))


def _check_about(answer: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    if answer.serial_number != certificate.serial_number:
        raise _refused("the OCSP answer is about another certificate")
    key = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, answer.hash_algorithm).build()
    if (answer.issuer_name_hash, answer.issuer_key_hash) != (key.issuer_name_hash, key.issuer_key_hash):
        raise _refused("the OCSP answer is about a certificate of another issuer")


def _check_responder(
    answer: ocsp.OCSPResponse, issuer: x509.Certificate, named: x509.Certificate | None, *, now: datetime
) -> None:
    """The issuer itself, one that it certified for just this (RFC 6960 4.2.2.2), or the one that officers named."""
    _check_hash(answer.signature_hash_algorithm)
    delegates = [one for one in answer.certificates if one != issuer and _is_delegate(one, issuer, now=now)]
    for responder in (issuer, *delegates, *(() if named is None else (named,))):
        if not _is_meant(responder, answer):
            continue
        try:
            _verify(responder, answer)
        except InvalidSignature:
            continue
        return
    raise _refused("the OCSP answer is not signed by the issuer or its delegate")


def _is_meant(responder: x509.Certificate, answer: ocsp.OCSPResponse) -> bool:
    if answer.responder_name is not None:
        return answer.responder_name == responder.subject
    return answer.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(responder.public_key()).digest


def _is_delegate(responder: x509.Certificate, issuer: x509.Certificate, *, now: datetime) -> bool:
    try:
        responder.verify_directly_issued_by(issuer)
        usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except _BROKEN:
        return False
    return (
        ExtendedKeyUsageOID.OCSP_SIGNING in usage
        and responder.not_valid_before_utc <= now <= responder.not_valid_after_utc
    )


def _verify(responder: x509.Certificate, answer: ocsp.OCSPResponse) -> None:
    key, hash_ = responder.public_key(), answer.signature_hash_algorithm
    if isinstance(key, rsa.RSAPublicKey) and hash_ is not None:
        key.verify(answer.signature, answer.tbs_response_bytes, padding.PKCS1v15(), hash_)
    elif isinstance(key, ec.EllipticCurvePublicKey) and hash_ is not None:
        key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(hash_))
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(answer.signature, answer.tbs_response_bytes)
    else:
        raise InvalidSignature


def _check_signs_lists(issuer: x509.Certificate) -> None:
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.crl_sign:
        raise _refused("the issuer may not sign lists")


def _check_hash(hash_: hashes.HashAlgorithm | None) -> None:
    if hash_ is not None and hash_.name in _WEAK:
        raise _refused(f"a status signed over {hash_.name}")


def _check_of_now(this_update: datetime, next_update: datetime | None, *, now: datetime, age_max: timedelta) -> None:
    until = this_update + age_max if next_update is None else min(next_update, this_update + age_max)
    if not this_update - SKEW <= now <= until + SKEW:
        raise _refused(f"a status of {this_update:%Y-%m-%d %H:%M}, which is not of now")


def _refused(detail: str) -> RakkanError:
    return RakkanError(Code.CERTIFICATE_REFUSED, detail)

"""Whether a certificate behind a token is revoked, and how long that may be relied on. Rules only, no I/O.

What a list or an answer must be is in `shared/certificate_status.py`. Suspended counts as revoked here.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from shared.certificate_status import ask_ocsp, list_urls, read_answer, read_list, responder_urls
from shared.errors import Code, RakkanError

_AGE_MAX = timedelta(days=1)
"""Of a status that does not say when the next one comes."""
_AGE_MAX_BY_ITS_WORD = timedelta(days=400)
"""Of one that does: CAs kept off the network publish twice a year."""


@dataclass(frozen=True)
class Revocation:
    """What a CRL or an OCSP answer says of a certificate."""

    is_revoked: bool
    until: datetime
    """How long it may be relied on."""


def judge_crl(crl_der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, *, now: datetime) -> Revocation:
    """By the issuer's own, complete list; TSA_UNTRUSTED when it is none of this certificate and of now."""
    try:
        found = read_list(crl_der, issuer, now=now, age_max=_AGE_MAX_BY_ITS_WORD, certificate=certificate)
        entries = found.entries({certificate.serial_number})
    except RakkanError as refusal:
        raise _untrusted(refusal.detail) from None
    if found.base_number is not None:
        raise _untrusted("the list is a delta")
    states = {entry.state for entry in entries.values()}
    return Revocation(bool(states - {"valid"}), _until(found.this_update, found.next_update, now=now))


def judge_ocsp(
    answer_der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, *, now: datetime
) -> Revocation:
    """By the answer of the issuer or its delegate; TSA_UNTRUSTED when it is none about this certificate and of now."""
    try:
        status = read_answer(answer_der, certificate, issuer, now=now, age_max=_AGE_MAX_BY_ITS_WORD)
    except RakkanError as refusal:
        raise _untrusted(refusal.detail) from None
    answer = ocsp.load_der_ocsp_response(answer_der)
    return Revocation(status.state != "valid", _until(answer.this_update_utc, answer.next_update_utc, now=now))


def sources_of(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The addresses of OCSP responders and of CRLs that the certificate names, http(s) only."""
    return responder_urls(certificate), list_urls(certificate)


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """The question. Without a nonce: answers are kept until they end, and their time is checked."""
    return ask_ocsp(certificate, issuer).public_bytes(Encoding.DER)


def _until(this_update: datetime, next_update: datetime | None, *, now: datetime) -> datetime:
    until = next_update or this_update + _AGE_MAX
    if now > until:
        raise _untrusted(f"a status of {this_update:%Y-%m-%d %H:%M}, which is not of now")
    return until


def _untrusted(detail: str) -> RakkanError:
    return RakkanError(Code.TSA_UNTRUSTED, detail)

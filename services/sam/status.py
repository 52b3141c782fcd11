"""Whether what a CA says of a certificate's status is its word, and says that it is good. Rules only, no I/O.

Bad news needs no proof, since it only stops a key. Good news after bad needs one, or whoever speaks for the CA
connector could start a suspended key again.
"""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509 import ocsp

from shared.certificate_status import issuer_of, read_answer, read_list
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority


def check_good(
    evidence: bytes | None,
    *,
    chain: tuple[bytes, ...],
    ca: CertificationAuthority,
    since: datetime | None,
    now: datetime,
) -> datetime:
    """When the CA said that the certificate is good; CERTIFICATE_REFUSED unless this list or answer is its word.

    `since`: what is older than the news it is to undo undoes nothing.
    """
    if evidence is None:
        raise RakkanError(Code.CERTIFICATE_REFUSED, "good news without evidence")
    certificate, *others = (x509.load_der_x509_certificate(der) for der in chain)
    candidates = (*others, *ca.intermediate_certificates)
    issuer = issuer_of(certificate, candidates, ca.anchor_certificates, now=now)
    age_max = timedelta(seconds=ca.revocation.max_age_s)
    try:
        answer = ocsp.load_der_ocsp_response(evidence)
    except ValueError:
        said_at = _check_list(evidence, certificate, issuer, age_max=age_max, now=now)
    else:
        named = ca.revocation.ocsp_responder
        responder = x509.load_pem_x509_certificate(named.encode()) if named else None
        status = read_answer(evidence, certificate, issuer, now=now, age_max=age_max, responder=responder)
        if status.state != "valid":
            raise RakkanError(Code.CERTIFICATE_REFUSED, f"the OCSP answer says {status.state}")
        said_at = answer.this_update_utc
    if since is None:
        raise RakkanError(Code.CERTIFICATE_REFUSED, "nobody knows since when it is suspended")
    if said_at < since:
        raise RakkanError(Code.CERTIFICATE_REFUSED, "older than what it is to undo")
    return said_at


def _check_list(
    evidence: bytes, certificate: x509.Certificate, issuer: x509.Certificate, *, age_max: timedelta, now: datetime
) -> datetime:
    found = read_list(evidence, issuer, now=now, age_max=age_max, certificate=certificate)
    if found.base_number is not None:
        raise RakkanError(Code.CERTIFICATE_REFUSED, "a delta says nothing of what is not on it")
    entry = found.entries({certificate.serial_number}).get(certificate.serial_number)
    if entry is not None and entry.state != "valid":
        raise RakkanError(Code.CERTIFICATE_REFUSED, f"the list says {entry.state}")
    return found.this_update

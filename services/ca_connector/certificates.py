"""What a CA's bytes hold in certificates, and in which order they make a chain. Believes nothing of it: the SAM judges.

A certificate that cannot be read at all is nonsense and stays here; one of another key or another issuer is handed on.
"""

import base64
import binascii
import contextlib
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7

from shared.errors import Code, RakkanError

CERTIFICATES_MAX = 20
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
_PEM = b"-----BEGIN "
_PKCS7 = (b"-----BEGIN PKCS7-----", b"-----BEGIN CMS-----")


def read_certificates(content: bytes) -> tuple[x509.Certificate, ...]:
    """Those in PEM, DER, base64 of DER or a PKCS#7 without signers (RFC 5652); else AUTHORITY_UNTRUSTED."""
    try:
        certificates = _read(content.strip(b" \t\r\n") if _PEM in content[:200] else content)
        for one in certificates:
            # Parsed only when asked for: what cannot be read shall fail here and nowhere else.
            _ = one.subject, one.issuer, one.serial_number, one.not_valid_after_utc
    except _UNREADABLE as error:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"no certificate: {type(error).__name__}") from None
    if not 1 <= len(certificates) <= CERTIFICATES_MAX:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"{len(certificates)} certificates in one answer")
    return tuple(certificates)


def chain_for(
    csr: bytes, certificates: Iterable[x509.Certificate], *, more: Iterable[x509.Certificate] = ()
) -> tuple[bytes, ...]:
    """DER, the end entity first and each followed by its issuer, as far as they go.

    The end entity is the one of the request's key, else the first. `more` are those that the CA may have left out.
    """
    own = list(certificates)
    if not own:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "issued, but no certificate came")
    key = _key_of(x509.load_der_x509_csr(csr))
    chain = [next((one for one in own if _key_of(one) == key), own[0])]
    rest = [one for one in (*own, *more) if one != chain[0]]
    while len(chain) < CERTIFICATES_MAX:
        issuer = next((one for one in rest if one not in chain and _issued(one, chain[-1])), None)
        if issuer is None:
            break
        chain.append(issuer)
    return tuple(one.public_bytes(Encoding.DER) for one in chain)


def _read(content: bytes) -> list[x509.Certificate]:
    if content.startswith(_PKCS7):
        return pkcs7.load_pem_pkcs7_certificates(content.replace(b" CMS-", b" PKCS7-"))
    if _PEM in content[:200]:
        return x509.load_pem_x509_certificates(content)
    with contextlib.suppress(binascii.Error):
        content = base64.b64decode(b"".join(content.split()), validate=True)
    try:
        return [x509.load_der_x509_certificate(content)]
    except ValueError:
        return pkcs7.load_der_pkcs7_certificates(content)


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """By key and not by name alone: two CAs, or two keys of one, may bear the same name."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True


def _key_of(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes | None:
    try:
        return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except _UNREADABLE:
        return None

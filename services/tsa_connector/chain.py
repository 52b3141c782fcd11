"""Whether a certificate chains to an anchor at a moment (the part of RFC 5280 6.1 a TSA needs). Rules only.

Refuses what it does not understand: a critical extension it does not process, name constraints among them, ends a path.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID

from shared.errors import Code, RakkanError

_LENGTH_MAX = 6
_HASHES = {"sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512"}
_RSA_BITS_MIN = 2048
_EC_BITS_MIN = 256
_PROCESSED = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.CERTIFICATE_POLICIES,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.PRIVATE_KEY_USAGE_PERIOD,
}


def check_chain(
    certificate: x509.Certificate,
    *,
    others: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate],
    at: datetime,
) -> tuple[x509.Certificate, ...]:
    """The path from the certificate to an anchor, both included, each link good at that moment; else TSA_UNTRUSTED."""
    check_usable(certificate, at=at)
    pool, trusted = tuple(others), tuple(anchors)
    paths: list[tuple[x509.Certificate, ...]] = [(certificate,)]
    for _ in range(_LENGTH_MAX):
        longer: list[tuple[x509.Certificate, ...]] = []
        for path in paths:
            for anchor in trusted:
                if _issued(path, by=anchor, at=at, is_anchor=True):
                    return (*path, anchor)
            longer += [(*path, other) for other in pool if other not in path and _issued(path, by=other, at=at)]
        # Of paths that end in the same certificate one is enough: otherwise cross-signing multiplies them.
        paths = list({path[-1]: path for path in longer}.values())
    raise RakkanError(Code.TSA_UNTRUSTED, "the certificate does not chain to an anchor of this TSA")


def check_usable(certificate: x509.Certificate, *, at: datetime) -> None:
    """Raise TSA_UNTRUSTED unless the certificate is valid at that moment, strong enough and understood."""
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise RakkanError(Code.TSA_UNTRUSTED, "a certificate is not valid at genTime")
    hash_ = certificate.signature_hash_algorithm
    if hash_ is not None and hash_.name not in _HASHES:
        raise RakkanError(Code.TSA_UNTRUSTED, f"a certificate is signed over {hash_.name}")
    check_key(certificate)
    for extension in extensions_of(certificate):
        if extension.critical and extension.oid not in _PROCESSED:
            raise RakkanError(Code.TSA_UNTRUSTED, f"critical extension {extension.oid.dotted_string} in a certificate")


def check_key(certificate: x509.Certificate) -> None:
    """Raise TSA_UNTRUSTED for a key too short, or of a kind that is not used here."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise RakkanError(Code.TSA_UNTRUSTED, "a certificate has a key that cannot be read") from None
    if isinstance(key, rsa.RSAPublicKey):
        strong = key.key_size >= _RSA_BITS_MIN
    elif isinstance(key, ec.EllipticCurvePublicKey):
        strong = key.key_size >= _EC_BITS_MIN
    else:
        strong = isinstance(key, ed25519.Ed25519PublicKey)
    if not strong:
        raise RakkanError(Code.TSA_UNTRUSTED, "a certificate has too weak a key")


def extensions_of(certificate: x509.Certificate) -> x509.Extensions:
    """Parsed whole; TSA_UNTRUSTED when one is malformed or stands twice."""
    try:
        return certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise RakkanError(Code.TSA_UNTRUSTED, "a certificate has malformed extensions") from None


def _issued(path: tuple[x509.Certificate, ...], *, by: x509.Certificate, at: datetime, is_anchor: bool = False) -> bool:
    """Did `by` issue the end of the path, being a CA that may stand above that many CAs?"""
    try:
        _check_signed(path[-1], by)
        if is_anchor:
            # An anchor is believed because it was configured: its own signature and hash are nobody's concern.
            valid = by.not_valid_before_utc <= at <= by.not_valid_after_utc
        else:
            check_usable(by, at=at)
            valid = True
        return valid and _may_issue(by, cas_below=len(path) - 1)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, RakkanError):
        return False


@lru_cache(maxsize=256)
def _check_signed(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raise unless the issuer's key signed it in the issuer's name. The answer never changes, so it is kept."""
    certificate.verify_directly_issued_by(issuer)


def _may_issue(certificate: x509.Certificate, *, cas_below: int) -> bool:
    extensions = extensions_of(certificate)
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    try:
        signs = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True
    longest = constraints.path_length
    return constraints.ca and signs and (longest is None or cas_below <= longest)

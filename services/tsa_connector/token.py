"""Whether a TSA's answer is to be believed (RFC 3161 2.4.2, RFC 5816, EN 319 422). Rules only: no I/O, no clock."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from asn1crypto import algos
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.tsa_connector.answer import (
    QUALIFIED,
    Answer,
    CertificateReference,
    SignerStatement,
    TimestampInfo,
    Token,
)
from services.tsa_connector.chain import check_chain, extensions_of
from services.tsa_connector.request import TimestampRequest
from shared.algorithms import HASH_BY_OID, Hash
from shared.errors import Code, RakkanError
from shared.verification import HASHES

_GRANTED = {"granted", "granted_with_mods"}
_PASSING = {"time_not_available", "system_failure"}
"""Failures that end by themselves."""
_REFUSALS = {"unaccepted_policy": Code.TSA_POLICY_REFUSED, "bad_alg": Code.HASH_ALGORITHM_REFUSED}
"""What the caller can mend by asking for something else (RFC 3161 2.4.2); all else an operator must look at."""
_DER = serialization.Encoding.DER
_SERIAL_BITS_MAX = 160


@dataclass(frozen=True)
class TrustedTSA:
    """What we believe a TSA by."""

    anchors: tuple[x509.Certificate, ...]
    skew: timedelta
    policies: frozenset[str] = frozenset()
    """Empty: any policy."""
    accuracy_max: timedelta | None = None
    allow_ess_v1: bool = False
    qualified_statement: bool = False
    """Demand the statement of EN 319 422 9.1."""


@dataclass(frozen=True)
class Judged:
    """A token every check of which holds, but perhaps that of its time."""

    token: Token
    path: tuple[x509.Certificate, ...]
    """From the signer's certificate to the anchor, both included."""
    time_fault: str | None = None
    """Kept apart: a genuine token whose time is not ours may tell that our own clock is off."""

    def timely(self) -> Token:
        if self.time_fault is not None:
            raise _untrusted(self.time_fault)
        return self.token


def check_answer(
    answer: Answer, request: TimestampRequest, tsa: TrustedTSA, *, asked_at: datetime, now: datetime
) -> Judged:
    """The token, when it is granted and every check holds; TSA_REFUSED, TSA_UNAVAILABLE or TSA_UNTRUSTED otherwise."""
    token = _granted(answer)
    _check_info(token.info, request)
    _check_terms(token.info, tsa)
    _check_statement(token)
    certificate = _signer_certificate(token, tsa)
    _check_signature(token.statement, certificate)
    _check_purpose(certificate, at=token.info.time)
    _check_name(token.info.tsa, certificate)
    others = tuple(other for other in token.certificates if other != certificate)
    path = check_chain(certificate, others=others, anchors=tsa.anchors, at=token.info.time)
    return Judged(token, path, _time_fault(token.info, tsa, asked_at=asked_at, now=now))


def _granted(answer: Answer) -> Token:
    if answer.status in _GRANTED:
        if answer.token is None:
            raise _untrusted("granted without a token")
        return answer.token
    reasons = ", ".join(sorted(answer.failures)) or answer.status
    if answer.failures & _PASSING:
        raise RakkanError(Code.TSA_UNAVAILABLE, f"the TSA says {reasons}")
    code = next((code for failure, code in _REFUSALS.items() if failure in answer.failures), Code.TSA_REFUSED)
    raise RakkanError(code, f"the TSA says {reasons}")


def _check_info(info: TimestampInfo, request: TimestampRequest) -> None:
    if info.version != 1:
        raise _untrusted("the TSTInfo is of another version")
    if info.imprint_oid != request.hash.oid or info.imprint_has_parameters:
        raise _untrusted("the token is over a digest of another algorithm")
    if not hmac.compare_digest(info.imprint, request.digest):
        raise _untrusted("the token is over another digest")
    if info.nonce != request.nonce:
        raise _untrusted("the token answers another nonce, or none")
    if request.policy is not None and info.policy != request.policy:
        raise _untrusted(f"the token is of policy {info.policy}, asked was {request.policy}")
    if not 0 <= info.serial_number < 1 << _SERIAL_BITS_MAX:
        raise _untrusted("the serial number is negative or longer than 160 bits")
    if info.critical_extensions:
        raise _untrusted(f"critical extension {info.critical_extensions[0]} in the token")


def _check_terms(info: TimestampInfo, tsa: TrustedTSA) -> None:
    """What is demanded of this TSA."""
    if tsa.policies and info.policy not in tsa.policies:
        raise _untrusted(f"policy {info.policy} is not one of this TSA's")
    if tsa.accuracy_max is not None and (info.accuracy is None or info.accuracy > tsa.accuracy_max):
        raise _untrusted("the token states no accuracy, or too bad a one")
    if tsa.qualified_statement and QUALIFIED not in info.statements:
        raise _untrusted("the token does not state that it is a qualified time stamp")


def _time_fault(info: TimestampInfo, tsa: TrustedTSA, *, asked_at: datetime, now: datetime) -> str | None:
    # The accuracy a token states does not widen the window: a false clock would then choose its own limits.
    if asked_at - tsa.skew <= info.time <= now + tsa.skew:
        return None
    return f"genTime is {(info.time - now).total_seconds():+.0f} s from our clock"


def _check_statement(token: Token) -> None:
    statement = token.statement
    if statement.content_type != token.content_type:
        raise _untrusted("what was signed is no TSTInfo")
    hash_ = _hash_of(statement.digest_oid)
    if not hmac.compare_digest(statement.message_digest, hashlib.new(hash_.value, token.content).digest()):
        raise _untrusted("what was signed is another TSTInfo")


def _signer_certificate(token: Token, tsa: TrustedTSA) -> x509.Certificate:
    """The one certificate that both the signer's name and the signed reference point at."""
    statement = token.statement
    references = [reference for reference in (statement.ess_v2, statement.ess_v1) if reference is not None]
    if statement.ess_v2 is None and not (statement.ess_v1 and tsa.allow_ess_v1):
        raise _untrusted("no signed reference to the signer's certificate that this TSA may use")
    for certificate in token.certificates:
        if _is_named(certificate, statement.signer) and all(_is_meant(certificate, one) for one in references):
            return certificate
    raise _untrusted("the token holds no certificate that its signed reference means")


def _is_named(certificate: x509.Certificate, signer: tuple[bytes, int] | bytes) -> bool:
    if isinstance(signer, tuple):
        return _issuer_serial(certificate) == signer
    try:
        extension = extensions_of(certificate).get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return False
    return extension.value.digest == signer


def _is_meant(certificate: x509.Certificate, reference: CertificateReference) -> bool:
    digest = _digest(certificate, reference.hash)
    return hmac.compare_digest(digest, reference.digest) and reference.issuer_serial in {
        None,
        _issuer_serial(certificate),
    }


@lru_cache(maxsize=128)
def _digest(certificate: x509.Certificate, hash_: Hash | None) -> bytes:
    # SHA-1 is all that RFC 3161 knows here, and taken where the entry allows it or beside a better one.
    return hashlib.new(hash_ or "sha1", certificate.public_bytes(_DER), usedforsecurity=False).digest()


@lru_cache(maxsize=64)
def _issuer_serial(certificate: x509.Certificate) -> tuple[bytes, int]:
    # cryptography would encode the name anew; asn1crypto keeps its bytes.
    issuer = asn1_x509.Certificate.load(certificate.public_bytes(_DER)).issuer
    return issuer.dump(), certificate.serial_number


def _check_signature(statement: SignerStatement, certificate: x509.Certificate) -> None:
    algorithm, hash_ = statement.signature_algorithm, _hash_of(statement.digest_oid)
    try:
        # A combined OID names a hash of its own; it must be the one that the attributes were digested by.
        if algorithm.signature_algo != "ed25519" and _signature_hash(algorithm, hash_) is not hash_:
            raise _untrusted("the signature is over another hash than the attributes")
        key = certificate.public_key()
        signature, signed = statement.signature, statement.signed_bytes
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm.signature_algo == "ecdsa":
            key.verify(signature, signed, ec.ECDSA(HASHES[hash_]))
        elif isinstance(key, rsa.RSAPublicKey) and algorithm.signature_algo == "rsassa_pkcs1v15":
            key.verify(signature, signed, padding.PKCS1v15(), HASHES[hash_])
        elif isinstance(key, rsa.RSAPublicKey) and algorithm.signature_algo == "rsassa_pss":
            key.verify(signature, signed, _pss(algorithm, hash_), HASHES[hash_])
        elif isinstance(key, ed25519.Ed25519PublicKey) and algorithm.signature_algo == "ed25519":
            key.verify(signature, signed)
        else:
            raise _untrusted("the signature algorithm does not fit the signer's key")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError):
        raise _untrusted("the signature does not verify") from None


def _signature_hash(algorithm: algos.SignedDigestAlgorithm, otherwise: Hash) -> Hash:
    name = algorithm["algorithm"].native
    if name in {"rsassa_pkcs1v15", "ecdsa"}:
        return otherwise
    return Hash(algorithm.hash_algo)


def _pss(algorithm: algos.SignedDigestAlgorithm, hash_: Hash) -> padding.PSS:
    parameters = algorithm["parameters"]
    mask = parameters["mask_gen_algorithm"]
    if mask["algorithm"].native != "mgf1" or Hash(mask["parameters"]["algorithm"].native) is not hash_:
        raise _untrusted("a mask generation that is not MGF1 over the same hash")
    return padding.PSS(mgf=padding.MGF1(HASHES[hash_]), salt_length=parameters["salt_length"].native)


def _check_purpose(certificate: x509.Certificate, *, at: datetime) -> None:
    """RFC 3161 2.3: the key is for time stamps alone, and the certificate says so critically."""
    extensions = extensions_of(certificate)
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage) and not (value.digital_signature or value.content_commitment):
            raise _untrusted("the signer's key may not sign")
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise _untrusted("the signer is a CA")
        if isinstance(value, x509.PrivateKeyUsagePeriod) and not _within(value, at):
            raise _untrusted("the signer's key was not in use at genTime")
    try:
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        raise _untrusted("the signer's certificate has no extended key usage") from None
    if not usage.critical or list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise _untrusted("the signer's certificate is not critically for time stamps alone")


def _within(period: x509.PrivateKeyUsagePeriod, at: datetime) -> bool:
    moment = at.replace(tzinfo=None)
    starts, ends = (
        None if bound is None else bound.replace(tzinfo=None) for bound in (period.not_before, period.not_after)
    )
    return (starts is None or starts <= moment) and (ends is None or moment <= ends)


def _check_name(name: asn1_x509.GeneralName | None, certificate: x509.Certificate) -> None:
    """RFC 3161 2.4.2: when the TSA names itself, the certificate must bear that name."""
    if name is None:
        return
    borne = asn1_x509.Certificate.load(certificate.public_bytes(_DER))
    try:
        alternatives = borne.subject_alt_name_value or ()
        if name.name == "directory_name" and name.chosen == borne.subject:
            return
        if any(name == other for other in alternatives):
            return
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _untrusted("the TSA's name cannot be read") from None
    raise _untrusted("the TSA names itself as its certificate does not")


def _hash_of(oid: str) -> Hash:
    try:
        return HASH_BY_OID[oid]
    except KeyError:
        raise _untrusted(f"signed over the hash {oid}") from None


def _untrusted(detail: str) -> RakkanError:
    return RakkanError(Code.TSA_UNTRUSTED, detail)

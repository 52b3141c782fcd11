"""What the bytes of a TSA say, as plain values. Believes nothing of it: `token.py` does the judging.

asn1crypto parses lazily and every access can raise; here is the one place where it may. What leaves is complete.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509

from shared.algorithms import HASH_BY_OID, Hash
from shared.errors import Code, RakkanError

_CERTIFICATES_MAX = 20
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    AttributeError,
    RecursionError,
    x509.InvalidVersion,
)
_THOUSAND = 1000
_NULL = b"\x05\x00"
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d*[1-9]))?Z")
QUALIFIED = "0.4.0.19422.1.1"
"""esi4-qtstStatement-1 (EN 319 422 9.1)."""
_STATEMENTS = "1.3.6.1.5.5.7.1.3"
_SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"
_SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"


class _Answer(core.Sequence):  # type: ignore[misc]  # asn1crypto ships no types
    """TimeStampResp. asn1crypto's own demands a token, and a rejection has none."""

    _fields = [  # noqa: RUF012 - the way asn1crypto declares fields
        ("status", tsp.PKIStatusInfo),
        ("token", cms.ContentInfo, {"optional": True}),
    ]


class _Statement(core.Sequence):  # type: ignore[misc]  # asn1crypto ships no types
    """QCStatement (RFC 3739 3.2.6). asn1crypto's own knows only the statements of certificates."""

    _fields = [  # noqa: RUF012 - the way asn1crypto declares fields
        ("statement_id", core.ObjectIdentifier),
        ("statement_info", core.Any, {"optional": True}),
    ]


class _Statements(core.SequenceOf):  # type: ignore[misc]  # asn1crypto ships no types
    _child_spec = _Statement


@dataclass(frozen=True)
class CertificateReference:
    """One ESSCertID or ESSCertIDv2: the digest of a certificate, and issuer and serial when they are given."""

    hash: Hash | None
    """None for SHA-1, which ESSCertID knows alone."""
    digest: bytes
    issuer_serial: tuple[bytes, int] | None


@dataclass(frozen=True)
class SignerStatement:
    """The one SignerInfo of the token."""

    signer: tuple[bytes, int] | bytes
    """Issuer (DER) and serial number, or the subject key identifier."""
    digest_oid: str
    signature_algorithm: algos.SignedDigestAlgorithm
    signature: bytes
    signed_bytes: bytes
    """The signed attributes as the signature covers them: with the tag of a SET OF (RFC 5652 5.4)."""
    content_type: str
    message_digest: bytes
    ess_v1: CertificateReference | None
    ess_v2: CertificateReference | None


@dataclass(frozen=True)
class TimestampInfo:
    """The TSTInfo."""

    version: int
    policy: str
    imprint_oid: str
    imprint_has_parameters: bool
    imprint: bytes
    serial_number: int
    time: datetime
    accuracy: timedelta | None
    nonce: int | None
    tsa: asn1_x509.GeneralName | None
    critical_extensions: tuple[str, ...]
    """Those that nobody here knows."""
    statements: tuple[str, ...] = ()
    """Of the qcStatements extension."""


@dataclass(frozen=True)
class Token:
    """A TimeStampToken, taken apart."""

    der: bytes
    content_type: str
    content: bytes
    """The TSTInfo as its digest covers it."""
    info: TimestampInfo
    statement: SignerStatement
    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class Answer:
    status: str
    """The name of the PKIStatus."""
    failures: frozenset[str]
    """Names of the PKIFailureInfo bits."""
    text: str
    token: Token | None


def read_answer(body: bytes) -> Answer:
    """Take a TimeStampResp apart; TSA_UNTRUSTED when it is not one to the last byte."""
    try:
        return _answer(_Answer.load(body, strict=True))
    except RakkanError:
        raise
    except _UNREADABLE as error:
        raise RakkanError(Code.TSA_UNTRUSTED, f"no TimeStampResp: {type(error).__name__}") from None


def _answer(answer: _Answer) -> Answer:
    status = answer["status"]
    token = answer["token"]
    return Answer(
        status=status["status"].native,
        failures=frozenset(status["fail_info"].native or ()),
        text=" ".join(status["status_string"].native or ())[:200],
        token=None if isinstance(token, core.Void) else _token(token),
    )


def _token(token: cms.ContentInfo) -> Token:
    _demand(token["content_type"].native == "signed_data", "the token is no SignedData")
    signed = token["content"]
    encapsulated = signed["encap_content_info"]
    content_type = _dotted(encapsulated["content_type"])
    _demand(content_type == tsp.ContentType.unmap("tst_info"), "the content is no TSTInfo")
    _demand(len(signed["signer_infos"]) == 1, "not exactly one signer")
    content = encapsulated["content"].parsed
    _demand(isinstance(content, tsp.TSTInfo), "the content is no TSTInfo")
    return Token(
        der=token.dump(),
        content_type=content_type,
        content=bytes(encapsulated["content"]),
        info=_info(content),
        statement=_statement(signed["signer_infos"][0]),
        certificates=_certificates(signed["certificates"]),
    )


def _info(info: tsp.TSTInfo) -> TimestampInfo:
    imprint = info["message_imprint"]
    nonce, tsa, extensions = info["nonce"], info["tsa"], info["extensions"]
    info["ordering"].native  # noqa: B018 - to have it parsed; its value decides nothing
    found = () if isinstance(extensions, core.Void) else tuple(extensions)
    return TimestampInfo(
        version=int(info["version"]),
        policy=_dotted(info["policy"]),
        imprint_oid=_dotted(imprint["hash_algorithm"]["algorithm"]),
        imprint_has_parameters=imprint["hash_algorithm"]["parameters"].dump() not in {b"", _NULL},
        imprint=imprint["hashed_message"].native,
        serial_number=info["serial_number"].native,
        time=_time(info["gen_time"]),
        accuracy=_accuracy(info["accuracy"]),
        nonce=None if isinstance(nonce, core.Void) else nonce.native,
        tsa=None if isinstance(tsa, core.Void) else tsa,
        critical_extensions=tuple(
            _dotted(e["extn_id"]) for e in found if e["critical"].native and _dotted(e["extn_id"]) != _STATEMENTS
        ),
        statements=_statements(found),
    )


def _statements(extensions: tuple[asn1_x509.Extension, ...]) -> tuple[str, ...]:
    values = [one["extn_value"].contents for one in extensions if _dotted(one["extn_id"]) == _STATEMENTS]
    _demand(len(values) <= 1, "an extension of the token stands twice")
    return tuple(_dotted(one["statement_id"]) for value in values for one in _Statements.load(value, strict=True))


def _time(time: core.GeneralizedTime) -> datetime:
    """RFC 3161 2.4.2: UTC with a `Z`, seconds always, a fraction without zeros at its end."""
    match = _TIME.fullmatch(time.contents.decode("ascii"))
    _demand(match is not None, "genTime is not written as RFC 3161 says")
    *parts, fraction = match.groups()  # type: ignore[union-attr]  # just demanded
    year, month, day, hour, minute, second = map(int, parts)
    microseconds = int((fraction or "0")[:6].ljust(6, "0"))
    return datetime(year, month, day, hour, minute, second, microseconds, tzinfo=UTC)


def _accuracy(accuracy: tsp.Accuracy | core.Void) -> timedelta | None:
    if isinstance(accuracy, core.Void):
        return None
    seconds, millis, micros = (accuracy[name].native or 0 for name in ("seconds", "millis", "micros"))
    _demand(seconds >= 0 and 0 <= millis < _THOUSAND and 0 <= micros < _THOUSAND, "the accuracy is out of its ranges")
    return timedelta(seconds=seconds, milliseconds=millis, microseconds=micros)


def _statement(signer: cms.SignerInfo) -> SignerStatement:
    attributes = signer["signed_attrs"]
    _demand(not isinstance(attributes, core.Void) and len(attributes) > 0, "no signed attributes")
    by_oid = {_dotted(attribute["type"]): attribute["values"] for attribute in attributes}
    _demand(len(by_oid) == len(attributes), "a signed attribute stands twice")
    _demand(all(len(values) == 1 for values in by_oid.values()), "a signed attribute without exactly one value")
    _demand({_oid("content_type"), _oid("message_digest")} <= by_oid.keys(), "a signed attribute is missing")
    return SignerStatement(
        signer=_signer(signer["sid"]),
        digest_oid=_dotted(signer["digest_algorithm"]["algorithm"]),
        signature_algorithm=signer["signature_algorithm"],
        signature=signer["signature"].native,
        signed_bytes=attributes.untag().dump(),
        content_type=_dotted(by_oid[_oid("content_type")][0]),
        message_digest=by_oid[_oid("message_digest")][0].native,
        ess_v1=_reference(by_oid.get(_SIGNING_CERTIFICATE), is_v1=True),
        ess_v2=_reference(by_oid.get(_SIGNING_CERTIFICATE_V2)),
    )


def _dotted(oid: core.ObjectIdentifier) -> str:
    return _dotted_of(oid.contents)


@lru_cache(maxsize=512)
def _dotted_of(contents: bytes) -> str:
    """The same few identifiers stand in every token."""
    return str(core.ObjectIdentifier(contents=contents).dotted)


@lru_cache
def _oid(name: str) -> str:
    return str(cms.CMSAttributeType.unmap(name))


def _signer(sid: cms.SignerIdentifier) -> tuple[bytes, int] | bytes:
    if sid.name == "issuer_and_serial_number":
        return sid.chosen["issuer"].dump(), sid.chosen["serial_number"].native
    return bytes(sid.chosen.native)


def _reference(values: core.SetOf | None, *, is_v1: bool = False) -> CertificateReference | None:
    """The first identifier: it is the one of the signer (RFC 2634 5.4, RFC 5035 4)."""
    if values is None:
        return None
    reference = values[0]["certs"][0]
    given = reference["issuer_serial"]
    issuer_serial = None
    if not isinstance(given, core.Void):
        names = given["issuer"]
        _demand(len(names) == 1 and names[0].name == "directory_name", "the issuer of the signer is no directory name")
        issuer_serial = (names[0].chosen.untag().dump(), given["serial_number"].native)
    return CertificateReference(
        hash=None if is_v1 else HASH_BY_OID[_dotted(reference["hash_algorithm"]["algorithm"])],
        digest=reference["cert_hash"].native,
        issuer_serial=issuer_serial,
    )


def _certificates(certificates: cms.CertificateSet | core.Void) -> tuple[x509.Certificate, ...]:
    if isinstance(certificates, core.Void):
        return ()
    _demand(len(certificates) <= _CERTIFICATES_MAX, "too many certificates")
    ours = tuple(choice.chosen.dump() for choice in certificates if choice.name == "certificate")
    return tuple(_certificate(der) for der in ours)


@lru_cache(maxsize=64)
def _certificate(der: bytes) -> x509.Certificate:
    """A TSA sends the same certificates with every token."""
    one = x509.load_der_x509_certificate(der)
    # Its parts are read only when asked for; what cannot be read shall fail here and not among the rules.
    _ = one.issuer, one.subject, one.not_valid_before_utc, one.not_valid_after_utc, one.serial_number
    return one


def without_certificates(token: bytes) -> bytes:
    """The same token without certificates, for who asked for none (RFC 3161 2.4.1 certReq); its signature holds."""
    content = cms.ContentInfo.load(token)
    content["content"]["certificates"] = None
    return bytes(content.dump())


def _demand(held: bool, otherwise: str) -> None:  # noqa: FBT001 - a predicate and its refusal, read together
    if not held:
        raise RakkanError(Code.TSA_UNTRUSTED, otherwise)

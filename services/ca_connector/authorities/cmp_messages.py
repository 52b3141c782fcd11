"""CMP messages (RFC 9810, in the profile of RFC 9483) as bytes: how ours are made and theirs are read. No keys, no I/O.

Frames of ours are put together by hand, so that what is protected are the very bytes that are sent. Theirs are read by
pyasn1, which knows the types; their protected part is cut out of what came and not encoded again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from asn1crypto import core, parser
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA512, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyasn1.codec.der import decoder, encoder
from pyasn1.error import PyAsn1Error
from pyasn1_alt_modules import rfc9810

from services.ca_connector.answers import words
from shared.errors import Code, RakkanError

CMP2000 = 2
CMP2021 = 3
"""Wanted where a certStatus names its hash (RFC 9480 2.10)."""
SEQUENCE = 0x30
_BIT_STRING = 0x03
_CONTEXT = 0xA0
_SHA512 = "2.16.840.1.101.3.4.2.3"
_REASON_CODE = "2.5.29.21"
_OLD_CERT_ID = "1.3.6.1.5.5.7.5.1.5"
_CA_CERTS = "1.3.6.1.5.5.7.4.17"
_CERT_PROFILE = "1.3.6.1.5.5.7.4.21"
_IMPLICIT_CONFIRM = "1.3.6.1.5.5.7.4.13"
IR, CR, P10CR, KUR, RR, GENM, CERT_CONF, POLL_REQ = 0, 2, 4, 7, 11, 21, 24, 25
"""Tags of PKIBody (RFC 9810 5.1.2)."""
WAITING = 3
GRANTED = frozenset({0, 1})
REVOKED = GRANTED | {4, 5}
_FAILURES: Mapping[int, str] = {number: str(name) for name, number in rfc9810.PKIFailureInfo.namedValues.items()}
_WRONG = (PyAsn1Error, ValueError, TypeError, IndexError, KeyError, RecursionError, OverflowError)


def tlv(tag: int, *contents: bytes) -> bytes:
    """One element in DER."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:  # noqa: PLR2004 - the short form of X.690 8.1.3.4
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def explicit(number: int, content: bytes) -> bytes:
    return tlv(_CONTEXT | number, content)


def octets(content: bytes) -> bytes:
    return tlv(0x04, content)


def identifier(dotted: str) -> bytes:
    return bytes(core.ObjectIdentifier(dotted).dump())


def integer(number: int) -> bytes:
    return bytes(core.Integer(number).dump())


def directory_name(name: bytes) -> bytes:
    """GeneralName of a Name in DER."""
    return explicit(4, name)


# What we say


def certificate_request(csr: x509.CertificateSigningRequest, *, replaces: x509.Certificate | None = None) -> bytes:
    """CertReqMessages for ir, cr and kur (RFC 4211) with the proof of possession `raVerified`.

    The key is in an HSM and signed the CSR, which the SAM and this request were made of; a CRMF of its own it does not
    sign. `replaces` becomes the control oldCertID, which kur needs.
    """
    key = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    # An implicit tag on the CHOICE Name is an explicit one (X.680 31.2.7); on the SEQUENCE it takes its tag's place.
    template = tlv(SEQUENCE, explicit(5, csr.subject.public_bytes()), bytes((_CONTEXT | 6,)) + key[1:])
    controls = b""
    if replaces is not None:
        old = tlv(SEQUENCE, directory_name(replaces.issuer.public_bytes()), integer(replaces.serial_number))
        controls = tlv(SEQUENCE, tlv(SEQUENCE, identifier(_OLD_CERT_ID), old))
    request = tlv(SEQUENCE, integer(0), template, controls)
    ra_verified = tlv(0x80)
    return tlv(SEQUENCE, tlv(SEQUENCE, request, ra_verified))


def revocation_request(certificate: x509.Certificate, reason: int) -> bytes:
    """RevReqContent for one certificate (RFC 9483 4.2)."""
    serial = b"\x81" + integer(certificate.serial_number)[1:]
    details = tlv(SEQUENCE, serial, explicit(3, certificate.issuer.public_bytes()))
    extension = tlv(SEQUENCE, identifier(_REASON_CODE), octets(tlv(0x0A, bytes((reason,)))))
    return tlv(SEQUENCE, tlv(SEQUENCE, details, tlv(SEQUENCE, extension)))


def certificate_confirmation(certificate: x509.Certificate, request_id: int, *, accepted: bool) -> tuple[bytes, int]:
    """CertConfirmContent, and the version that its header must say (RFC 9810 5.3.18)."""
    algorithm, version = certificate.signature_hash_algorithm, CMP2000
    named = b""
    if algorithm is None:  # EdDSA: the signature's algorithm tells none, so that the message has to
        algorithm, version = SHA512(), CMP2021
        named = explicit(0, tlv(SEQUENCE, identifier(_SHA512)))
    digest = Hash(algorithm)
    digest.update(certificate.public_bytes(Encoding.DER))
    status = b"" if accepted else tlv(SEQUENCE, integer(2))
    one = tlv(SEQUENCE, octets(digest.finalize()), integer(request_id), status, named)
    return tlv(SEQUENCE, one), version


def poll_request(request_id: int) -> bytes:
    return tlv(SEQUENCE, tlv(SEQUENCE, integer(request_id)))


def ca_certificates_request() -> bytes:
    """GenMsgContent that asks for the CA's certificates (RFC 9483 4.3.1)."""
    return tlv(SEQUENCE, tlv(SEQUENCE, identifier(_CA_CERTS)))


def general_info(*, profile: str | None, implicit_confirm: bool) -> bytes:
    """What stands in generalInfo of a request for a certificate; empty for nothing."""
    told = []
    if implicit_confirm:
        told.append(tlv(SEQUENCE, identifier(_IMPLICIT_CONFIRM), tlv(0x05)))
    if profile is not None:
        told.append(tlv(SEQUENCE, identifier(_CERT_PROFILE), tlv(SEQUENCE, tlv(0x0C, profile.encode()))))
    return tlv(SEQUENCE, *told) if told else b""


@dataclass(frozen=True)
class Header:
    """The header of a message, before it is bytes."""

    sender: bytes
    """Name, DER."""
    recipient: bytes
    time: datetime
    algorithm: bytes
    """AlgorithmIdentifier of the protection, DER."""
    transaction: bytes
    nonce: bytes
    key_id: bytes = b""
    answers: bytes = b""
    """The nonce of the message that this one answers."""
    general_info: bytes = b""
    version: int = CMP2000

    def encode(self) -> bytes:
        fields: Iterable[tuple[int, bytes]] = (
            (0, tlv(0x18, f"{self.time.astimezone(UTC):%Y%m%d%H%M%SZ}".encode())),
            (1, self.algorithm),
            (2, octets(self.key_id) if self.key_id else b""),
            (4, octets(self.transaction)),
            (5, octets(self.nonce)),
            (6, octets(self.answers) if self.answers else b""),
            (8, self.general_info),
        )
        return tlv(
            SEQUENCE,
            integer(self.version),
            directory_name(self.sender),
            directory_name(self.recipient),
            *(explicit(number, content) for number, content in fields if content),
        )


def message(header: bytes, body: bytes, protection: bytes, certificates: tuple[bytes, ...]) -> bytes:
    """PKIMessage. `protection` is over `protected_part` of the same bytes."""
    sealed = explicit(0, tlv(_BIT_STRING, b"\x00", protection)) if protection else b""
    extra = explicit(1, tlv(SEQUENCE, *certificates)) if certificates else b""
    return tlv(SEQUENCE, header, body, sealed, extra)


def protected_part(header: bytes, body: bytes) -> bytes:
    return tlv(SEQUENCE, header, body)


# What they say


@dataclass(frozen=True)
class Status:
    """PKIStatusInfo."""

    status: int
    words: str = ""
    failures: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "; ".join(part for part in (self.words, ", ".join(sorted(self.failures))) if part) or "no reason given"


@dataclass(frozen=True)
class Reply:
    """A message as it came; nothing of it is verified yet."""

    version: int
    sender: bytes
    """GeneralName, DER."""
    time: datetime | None
    algorithm: bytes
    key_id: bytes
    transaction: bytes
    nonce: bytes
    answers: bytes
    implicitly_confirmed: bool
    kind: str
    """Name in PKIBody, such as `ip`."""
    body: Any = field(repr=False)
    part: bytes = field(repr=False)
    """What the protection is over."""
    protection: bytes = field(repr=False)
    raw_body: bytes = field(repr=False)
    """PKIBody, of which certificates are cut: a CA's own encoding must not be changed under its signature."""
    certificates: tuple[bytes, ...] = field(repr=False)


def read(content: bytes) -> Reply:
    """The one message that these bytes are; else AUTHORITY_UNTRUSTED."""
    try:
        frames = _children(content)
        if tlv(SEQUENCE, *frames) != content:
            raise ValueError("more than a message, or not in DER")
        # Without the certificates that came along: each would take as long to decode as all the rest.
        decoded, _ = decoder.decode(tlv(SEQUENCE, *frames[:2]), asn1Spec=rfc9810.PKIMessage())
        header = decoded["header"]
        time = header["messageTime"]
        return Reply(
            version=int(header["pvno"]),
            sender=encoder.encode(header["sender"]),
            time=time.asDateTime.astimezone(UTC) if time.isValue else None,
            algorithm=_der(header["protectionAlg"]),
            key_id=_octets(header["senderKID"]),
            transaction=_octets(header["transactionID"]),
            nonce=_octets(header["senderNonce"]),
            answers=_octets(header["recipNonce"]),
            implicitly_confirmed=_IMPLICIT_CONFIRM in _types(header["generalInfo"]),
            kind=decoded["body"].getName(),
            body=decoded["body"].getComponent(),
            part=protected_part(frames[0], frames[1]),
            protection=_bits(frames[2:], 0),
            raw_body=frames[1],
            certificates=_within(frames[2:], 1),
        )
    except _WRONG as error:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"no CMP message: {type(error).__name__}") from None


def status_of(info: Any) -> Status:
    """PKIStatusInfo in our words."""
    try:
        told = words("; ".join(str(text) for text in info["statusString"])) if info["statusString"].isValue else ""
        bits = info["failInfo"] if info["failInfo"].isValue else ()
        failures = frozenset(_FAILURES.get(number, str(number)) for number, bit in enumerate(bits) if bit)
        return Status(int(info["status"]), told, failures)
    except _WRONG:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "a status that cannot be read") from None


@dataclass(frozen=True)
class Response:
    """The CertResponse to our one request."""

    request_id: int
    status: Status
    certificate: bytes
    """DER; empty unless one is granted."""
    above: tuple[bytes, ...]
    """caPubs."""


def certificate_response(reply: Reply) -> Response:
    """Of an ip, cp or kup, which must hold exactly one."""
    try:
        (response,) = reply.body["response"]
        pair = response["certifiedKeyPair"]
        certificate = b""
        if pair.isValue:
            if pair["certOrEncCert"].getName() != "certificate":
                raise ValueError("an encrypted certificate for a key that encrypts nothing")
            # CertRepMessage, the last of it, its one CertResponse, of that the third, of that the first.
            responses = _children(_children(reply.raw_body)[0])[-1]
            certificate = _children(_children(_children(_children(responses)[0])[2])[0])[0]
        above = _within(_children(_children(reply.raw_body)[0])[:-1], 1)
        return Response(int(response["certReqId"]), status_of(response["status"]), certificate, above)
    except _WRONG as error:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"no answer to one request: {type(error).__name__}") from None


def error_status(reply: Reply) -> Status:
    """Of an error message, with what it details."""
    status = status_of(reply.body["pKIStatusInfo"])
    details = reply.body["errorDetails"]
    more = words("; ".join(str(text) for text in details)) if details.isValue else ""
    return Status(status.status, "; ".join(one for one in (status.words, more) if one), status.failures)


def check_after_s(reply: Reply) -> int:
    """Seconds that a pollRep tells us to wait."""
    try:
        (told,) = reply.body
        return max(0, min(int(told["checkAfter"]), 400 * 86_400))
    except _WRONG:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "a pollRep that cannot be read") from None


def revocation_status(reply: Reply) -> Status:
    try:
        (info,) = reply.body["status"]
    except _WRONG:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "no answer to one revocation") from None
    return status_of(info)


def ca_certificates(reply: Reply) -> tuple[bytes, ...]:
    """Of a genp; empty when the CA does not offer them."""
    try:
        for one in reply.body:
            if str(one["infoType"]) == _CA_CERTS and one["infoValue"].isValue:
                return tuple(_children(bytes(one["infoValue"])))
    except _WRONG:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "CA certificates that cannot be read") from None
    return ()


def _children(element: bytes) -> list[bytes]:
    """The elements within an element, as they came."""
    content, found = parser.parse(element)[4], []
    while content:
        one = parser.parse(content)
        length = sum(len(one[part]) for part in (3, 4, 5))
        found.append(content[:length])
        content = content[length:]
    return found


def _within(elements: list[bytes], number: int) -> tuple[bytes, ...]:
    """What a SEQUENCE OF under this explicit tag holds; nothing when it is not there."""
    for one in elements:
        if one[0] == _CONTEXT | number:
            return tuple(_children(_children(one)[0]))
    return ()


def _bits(elements: list[bytes], number: int) -> bytes:
    """The whole octets of a BIT STRING under this explicit tag; empty when it is not there."""
    for one in elements:
        if one[0] == _CONTEXT | number:
            (bits,) = _children(one)
            unused, *_ = parser.parse(bits)[4]
            if bits[0] != _BIT_STRING or unused:
                raise ValueError("a protection that is no whole octets")
            return bytes(parser.parse(bits)[4][1:])
    return b""


def _der(value: Any) -> bytes:
    """The value without the explicit tag it stands under; empty when it is not there."""
    if not value.isValue:
        return b""
    der = bytes(encoder.encode(value))
    return der if der[0] == SEQUENCE else bytes(parser.parse(der)[4])


def _octets(value: Any) -> bytes:
    return bytes(value) if value.isValue else b""


def _types(told: Any) -> frozenset[str]:
    return frozenset(str(one["infoType"]) for one in told) if told.isValue else frozenset()

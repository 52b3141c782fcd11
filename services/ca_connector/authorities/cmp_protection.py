"""How CMP messages are protected and how theirs are believed (RFC 9810 5.1.3, RFC 9481 6): by signature or by MAC.

One of the two is set up, and only that is accepted: a message under a MAC says nothing where signatures are agreed on.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from asn1crypto import algos, core
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from services.ca_connector.authorities.cmp_messages import (
    SEQUENCE,
    Reply,
    directory_name,
    identifier,
    integer,
    octets,
    tlv,
)
from shared.errors import Code, RakkanError
from shared.settings import SettingsError

_PBM = "1.2.840.113533.7.66.13"
_PBMAC1 = "1.2.840.113549.1.5.14"
_PBKDF2 = "1.2.840.113549.1.5.12"
_PBES2 = "1.2.840.113549.1.5.13"
"""What Bouncy Castle 1.72 writes where PBKDF2 belongs, before the parameters of PBKDF2."""
_SHA256 = "2.16.840.1.101.3.4.2.1"
_HMAC_SHA256 = "1.2.840.113549.2.9"
_OWFS = {
    "1.3.14.3.2.26": "sha1",  # what Bouncy Castle, and so EJBCA, answers with; iterated over a secret it still holds
    _SHA256: "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_MACS = {
    "1.3.6.1.5.5.8.1.2": "sha1",  # hmac-sha1 of RFC 4210, which OpenSSL answers with; as a MAC it still holds
    "1.2.840.113549.2.7": "sha1",
    _HMAC_SHA256: "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
_ITERATIONS = 1_000
"""The secret is a key and no password of a person; the room waits meanwhile."""
_ITERATIONS_MAX = 100_000
"""Of theirs: a count is the sender's to choose, and our time is spent by it before anything is verified."""
_SALT_BYTES = 16
_SIGNERS = frozenset({x509.ObjectIdentifier("1.3.6.1.5.5.7.3.27"), x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")})
"""id-kp-cmcCA and id-kp-cmcRA (RFC 6402 2.10), by which a CA lets another answer for it."""
_HASHES: dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_BROKEN = (ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm, InvalidSignature)
_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Seal:
    """How one message is protected."""

    algorithm: bytes
    """AlgorithmIdentifier, DER."""
    protect: Callable[[bytes], bytes]


class Protection(Protocol):
    @property
    def sender(self) -> bytes:
        """Our name, DER."""
        ...

    @property
    def key_id(self) -> bytes: ...

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """What goes along so that we can be verified."""
        ...

    def seal(self) -> Seal: ...

    def check(self, reply: Reply, *, now: datetime) -> None:
        """Raise AUTHORITY_UNTRUSTED unless the authority we agreed with protected exactly this."""
        ...


class MAC:
    """By a secret that we share with the CA, known there under a reference."""

    certificates: tuple[bytes, ...] = ()

    def __init__(self, *, reference: str, secret: str, pbmac1: bool) -> None:
        self.key_id = reference.encode()
        self.sender = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, reference)]).public_bytes()
        self._secret = secret.encode()
        self._pbmac1 = pbmac1

    def seal(self) -> Seal:
        salt = secrets.token_bytes(_SALT_BYTES)
        mac = tlv(SEQUENCE, identifier(_HMAC_SHA256))
        if self._pbmac1:
            derivation = tlv(SEQUENCE, octets(salt), integer(_ITERATIONS), integer(32), mac)
            parameters = tlv(SEQUENCE, tlv(SEQUENCE, identifier(_PBKDF2), derivation), mac)
            algorithm = tlv(SEQUENCE, identifier(_PBMAC1), parameters)
        else:
            owf = tlv(SEQUENCE, identifier(_SHA256))
            algorithm = tlv(SEQUENCE, identifier(_PBM), tlv(SEQUENCE, octets(salt), owf, integer(_ITERATIONS), mac))
        return Seal(algorithm, lambda part: self._mac(algorithm, part))

    def check(self, reply: Reply, *, now: datetime) -> None:  # noqa: ARG002 - a secret does not expire by itself
        try:
            expected = self._mac(reply.algorithm, reply.part)
        except _BROKEN:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "not protected by a MAC that we know") from None
        if not hmac.compare_digest(expected, reply.protection):
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "the MAC of the answer is wrong")
        if reply.key_id and reply.key_id != self.key_id:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "the answer is for another reference")

    def _mac(self, algorithm: bytes, part: bytes) -> bytes:
        kind, parameters = _algorithm(core.Sequence.load(algorithm))
        if kind == _PBM:
            salt, owf, count, mac = (parameters[place] for place in range(4))
            key = self._secret + salt.native
            one_way = getattr(hashlib, _OWFS[_algorithm(owf)[0]])
            for _ in range(_count(count)):
                key = one_way(key).digest()
        elif kind == _PBMAC1:
            derivation, mac = parameters[0], parameters[1]
            oid, inner = _algorithm(derivation)
            if oid not in {_PBKDF2, _PBES2}:
                raise ValueError("another derivation of the key")
            pseudo_random = _MACS[_algorithm(inner[-1])[0]]
            length = inner[2].native if len(inner) > 3 else hashlib.new(pseudo_random).digest_size  # noqa: PLR2004 - keyLength is OPTIONAL
            if not 16 <= length <= 64:  # noqa: PLR2004 - bytes of a key: neither none nor any number
                raise ValueError("a key of another length")
            key = hashlib.pbkdf2_hmac(pseudo_random, self._secret, inner[0].native, _count(inner[1]), dklen=length)
        else:
            raise ValueError("no MAC by a password")
        return hmac.new(key, part, _MACS[_algorithm(mac)[0]]).digest()


class Signature:
    """By our RA's key; theirs by one of the certificates that the registry names, or by whom such a one let sign."""

    def __init__(self, file: Path, *, responders: tuple[x509.Certificate, ...]) -> None:
        try:
            content = file.read_bytes()
            certificates = x509.load_pem_x509_certificates(content)
            key = load_pem_private_key(b"".join(_KEY.findall(content)[:1]), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SettingsError(f"{file} holds no certificate and key: {type(error).__name__}") from None
        if not isinstance(key, PrivateKey) or key.public_key() != certificates[0].public_key():
            raise SettingsError(f"the key in {file} is not that of its first certificate")
        self._key: PrivateKey = key
        self._responders = responders
        self.sender = certificates[0].subject.public_bytes()
        self.key_id = _key_id(certificates[0])
        self.certificates = tuple(one.public_bytes(Encoding.DER) for one in certificates)

    def seal(self) -> Seal:
        key = self._key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            digest = {256: hashes.SHA256(), 384: hashes.SHA384()}.get(key.curve.key_size, hashes.SHA512())
            return Seal(_named(f"{digest.name}_ecdsa"), lambda part: key.sign(part, ec.ECDSA(digest)))
        if isinstance(key, rsa.RSAPrivateKey):
            return Seal(_named("sha256_rsa"), lambda part: key.sign(part, padding.PKCS1v15(), hashes.SHA256()))
        return Seal(_named("ed25519"), key.sign)

    def check(self, reply: Reply, *, now: datetime) -> None:
        signers = [
            one for one in self._candidates(reply, now) if reply.sender == directory_name(one.subject.public_bytes())
        ]
        if not signers:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "the answer is signed by a stranger")
        for one in signers:
            try:
                _verify(one, reply)
            except _BROKEN:
                continue
            return
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "the signature of the answer is wrong")

    def _candidates(self, reply: Reply, now: datetime) -> list[x509.Certificate]:
        """Those named, and those that came along, that a named one issued, and that it let answer for it."""
        found = list(self._responders)
        for der in reply.certificates:
            try:
                one = x509.load_der_x509_certificate(der)
                for issuer in self._responders:
                    if one.issuer == issuer.subject and _may_answer(one):
                        one.verify_directly_issued_by(issuer)
                        found.append(one)
            except (*_BROKEN, x509.ExtensionNotFound, x509.InvalidVersion):
                continue
        return [one for one in found if one.not_valid_before_utc <= now <= one.not_valid_after_utc]


def _may_answer(certificate: x509.Certificate) -> bool:
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return not _SIGNERS.isdisjoint(usage)


def _verify(signer: x509.Certificate, reply: Reply) -> None:
    """Raise one of `_BROKEN` unless this certificate's key signed it, under a hash of today."""
    algorithm = algos.SignedDigestAlgorithm.load(reply.algorithm)
    kind, key = algorithm.signature_algo, signer.public_key()
    if kind == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(reply.protection, reply.part)
        return
    digest = _HASHES[algorithm.hash_algo]()
    if kind == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(reply.protection, reply.part, ec.ECDSA(digest))
    elif kind == "rsassa_pkcs1v15" and isinstance(key, rsa.RSAPublicKey):
        key.verify(reply.protection, reply.part, padding.PKCS1v15(), digest)
    elif kind == "rsassa_pss" and isinstance(key, rsa.RSAPublicKey):
        if algorithm["parameters"]["mask_gen_algorithm"]["parameters"]["algorithm"].native != algorithm.hash_algo:
            raise ValueError("two hashes in one signature")
        scheme = padding.PSS(padding.MGF1(digest), algorithm["parameters"]["salt_length"].native)
        key.verify(reply.protection, reply.part, scheme, digest)
    else:
        raise ValueError("an algorithm that is not the key's")


def _named(name: str) -> bytes:
    return bytes(algos.SignedDigestAlgorithm({"algorithm": name}).dump())


def _algorithm(identified: core.Sequence) -> tuple[str, core.Sequence]:
    """Object identifier and parameters of an AlgorithmIdentifier."""
    return identified[0].native, identified[1] if len(identified) > 1 else core.Sequence()


def _count(written: core.Integer) -> int:
    count = int(written.native)
    if not 1 <= count <= _ITERATIONS_MAX:
        raise ValueError("another number of iterations")
    return count


def _key_id(certificate: x509.Certificate) -> bytes:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        found = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    return found

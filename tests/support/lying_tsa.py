"""A time-stamping authority that tells exactly the lie it is asked for. Real keys, real signatures, untrue contents."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.tsa_connector.request import TimestampRequest
from shared.algorithms import Hash

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
POLICY = "2.999.1"
_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
           "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
ECDSA_SHA256: dict[str, Any] = {"algorithm": "sha256_ecdsa"}


def key_usage(*used: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in used for usage in _USAGES})


@dataclass(frozen=True)
class Holder:
    """A key with its certificate."""

    key: Key
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


@dataclass(frozen=True)
class Profile:
    """What a certificate says. The defaults are those of an honest TSA."""

    name: str = "honest TSA"
    not_before: datetime = NOW - timedelta(days=100)
    not_after: datetime = NOW + timedelta(days=100)
    hash: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    usage: Sequence[str] = ("digital_signature",)
    extended: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.TIME_STAMPING,)
    extended_critical: bool = True
    ca: bool | None = False
    path_length: int | None = None
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()


CA = Profile(name="CA", usage=("key_cert_sign", "crl_sign"), extended=(), ca=True)


def certify(profile: Profile, *, issuer: Holder | None = None, key: Key | None = None) -> Holder:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, profile.name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(profile.not_before)
        .not_valid_after(profile.not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if profile.usage:
        builder = builder.add_extension(key_usage(*profile.usage), critical=True)
    if profile.extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.extended), critical=profile.extended_critical)
    if profile.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(profile.ca, profile.path_length), critical=True)
    for extension, critical in profile.more:
        builder = builder.add_extension(extension, critical=critical)
    signer = issuer.key if issuer else key
    hash_ = None if isinstance(signer, ed25519.Ed25519PrivateKey) else profile.hash
    return Holder(key, builder.sign(signer, hash_))  # type: ignore[arg-type]  # SHA-224 is one of the lies


Change = Callable[[Any], None]


def _nothing(_: Any) -> None: ...


@dataclass(frozen=True)
class Lies:
    """What is changed on the way; the defaults change nothing. Later parts follow from the changed earlier ones."""

    status: str = "granted"
    failures: frozenset[str] = frozenset()
    with_token: bool = True
    info: Change = _nothing
    gen_time: bytes | None = None
    attributes: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
    hash: Hash = Hash.SHA256
    signature_algorithm: dict[str, Any] = field(default_factory=lambda: ECDSA_SHA256)
    ess: Sequence[str] = ("v2",)
    ess_of: Holder | None = None
    ess_hash: str = "sha256"
    ess_issuer_serial: tuple[Holder, int] | None = None
    signed_bytes: Callable[[bytes], bytes] = bytes
    signer: Change = _nothing
    certificates: Sequence[Holder] | None = None
    content: Change = _nothing


@dataclass(frozen=True)
class LyingTSA:
    root: Holder
    signer: Holder

    @classmethod
    def honest(cls) -> "LyingTSA":
        root = certify(replace(CA, name="root"))
        return cls(root, certify(Profile(), issuer=root))

    def with_signer(self, profile: Profile, *, key: Key | None = None, issuer: Holder | None = None) -> "LyingTSA":
        return LyingTSA(self.root, certify(profile, issuer=issuer or self.root, key=key))

    def answer(self, request: TimestampRequest, lies: Lies, *, at: datetime = NOW) -> bytes:
        status: dict[str, Any] = {"status": lies.status}
        if lies.failures:
            status["fail_info"] = set(lies.failures)
        status_info = tsp.PKIStatusInfo(status)
        if not lies.with_token:
            return _sequence(status_info.dump())
        return _sequence(status_info.dump() + self.token(request, lies, at=at))

    def token(self, request: TimestampRequest, lies: Lies, *, at: datetime) -> bytes:
        content = _info(request, lies, at=at)
        certificates = (self.signer,) if lies.certificates is None else lies.certificates
        signed = cms.SignedData(
            {
                "version": "v3",
                "digest_algorithms": [{"algorithm": lies.hash.value}],
                "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(content)},
                "certificates": [asn1_x509.Certificate.load(holder.der) for holder in certificates] or None,
                "signer_infos": [self._statement(content, lies)],
            }
        )
        lies.content(signed)
        return bytes(cms.ContentInfo({"content_type": "signed_data", "content": signed}).dump())

    def _statement(self, content: bytes, lies: Lies) -> cms.SignerInfo:
        meant = (lies.ess_of or self.signer).der
        attributes: list[dict[str, Any]] = [
            {"type": "content_type", "values": ["tst_info"]},
            {"type": "message_digest", "values": [hashlib.new(lies.hash.value, content).digest()]},
        ]
        certificate_id: dict[str, Any] = {}
        if lies.ess_issuer_serial:
            issuer, serial = lies.ess_issuer_serial
            name = asn1_x509.Name.load(issuer.certificate.subject.public_bytes())
            general = asn1_x509.GeneralName("directory_name", name)
            certificate_id["issuer_serial"] = {"issuer": [general], "serial_number": serial}
        if "v1" in lies.ess:
            digest = hashlib.sha1(meant, usedforsecurity=False).digest()
            value = tsp.SigningCertificate({"certs": [{"cert_hash": digest, **certificate_id}]})
            attributes.append({"type": "signing_certificate", "values": [value]})
        if "v2" in lies.ess:
            certificate_id |= {"hash_algorithm": {"algorithm": lies.ess_hash}}
            digest = hashlib.new(lies.ess_hash, meant).digest()
            value = tsp.SigningCertificateV2({"certs": [{"cert_hash": digest, **certificate_id}]})
            attributes.append({"type": "signing_certificate_v2", "values": [value]})
        signed = cms.CMSAttributes([cms.CMSAttribute(one) for one in lies.attributes(attributes)])
        certificate = asn1_x509.Certificate.load(self.signer.der)
        statement = cms.SignerInfo(
            {
                "version": "v1",
                "sid": {
                    "issuer_and_serial_number": {
                        "issuer": certificate.issuer,
                        "serial_number": certificate.serial_number,
                    }
                },
                "digest_algorithm": {"algorithm": lies.hash.value},
                "signed_attrs": signed,
                "signature_algorithm": algos.SignedDigestAlgorithm(lies.signature_algorithm),
                "signature": self._sign(lies.signed_bytes(signed.dump()), lies),
            }
        )
        lies.signer(statement)
        return statement

    def _sign(self, data: bytes, lies: Lies) -> bytes:
        hash_ = getattr(hashes, lies.hash.value.upper())()
        key = self.signer.key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(data, ec.ECDSA(hash_))
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(data)
        if "pss" in lies.signature_algorithm["algorithm"]:
            return key.sign(data, padding.PSS(padding.MGF1(hash_), hash_.digest_size), hash_)
        return key.sign(data, padding.PKCS1v15(), hash_)


def _info(request: TimestampRequest, lies: Lies, *, at: datetime) -> bytes:
    info = tsp.TSTInfo(
        {
            "version": "v1",
            "policy": request.policy or POLICY,
            "message_imprint": {
                "hash_algorithm": {"algorithm": request.hash.value},
                "hashed_message": request.digest,
            },
            "serial_number": 1,
            "gen_time": at,
            "accuracy": {"seconds": 1},
            "nonce": request.nonce,
        }
    )
    if lies.gen_time is not None:
        info["gen_time"] = core.GeneralizedTime(contents=lies.gen_time)
    lies.info(info)
    return bytes(info.dump())


def _sequence(contents: bytes) -> bytes:
    length = len(contents)
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return b"\x30" + (bytes([length]) if length < 128 else bytes([0x80 | len(size)]) + size) + contents

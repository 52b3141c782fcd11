"""What a CA publishes about its certificates: lists, deltas and OCSP answers, true and false."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from shared.errors import Code, RakkanError
from tests.support.certificates import CA, NOW, authority, name

DAY = timedelta(days=1)
HOLD = x509.ReasonFlags.certificate_hold
COMPROMISE = x509.ReasonFlags.key_compromise
REMOVED = x509.ReasonFlags.remove_from_crl
URL = "http://ca.example/list.crl"
DELTA_URL = "http://ca.example/delta.crl"
OCSP_URL = "http://ca.example/ocsp"


def end_entity(
    ca: CA, text: str = "Signer", *, crl_url: str | None = URL, ocsp_url: str | None = None, now: datetime = NOW
) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(text))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 100 * DAY)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
    )
    if crl_url is not None:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    if ocsp_url is not None:
        where = x509.UniformResourceIdentifier(ocsp_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, where)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return builder.sign(ca.key, hashes.SHA256())


def crl(
    ca: CA,
    listed: Mapping[int, x509.ReasonFlags] | None = None,
    *,
    number: int = 7,
    at: datetime = NOW,
    until: datetime | None = None,
    base: int | None = None,
    delta_url: str | None = None,
    more: Iterable[tuple[x509.ExtensionType, bool]] = (),
    issuer: x509.Name | None = None,
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer or ca.certificate.subject)
        .last_update(at)
        .next_update(until or at + DAY)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    if base is not None:
        builder = builder.add_extension(x509.DeltaCRLIndicator(base), critical=True)
    if delta_url is not None:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(delta_url)], None, None, None)
        builder = builder.add_extension(x509.FreshestCRL([point]), critical=False)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical=critical)
    for serial, reason in (listed or {}).items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
        if reason is not x509.ReasonFlags.unspecified:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.DER)


def answer(
    ca: CA,
    certificate: x509.Certificate,
    *,
    reason: x509.ReasonFlags | None = None,
    at: datetime = NOW,
    until: datetime | None = None,
    responder: CA | None = None,
    status: ocsp.OCSPCertStatus | None = None,
    about: CA | None = None,
) -> bytes:
    signer = responder or ca
    told = status or (ocsp.OCSPCertStatus.GOOD if reason is None else ocsp.OCSPCertStatus.REVOKED)
    revoked = told is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=certificate,
            issuer=(about or ca).certificate,
            algorithm=hashes.SHA1(),  # noqa: S303 - it only names the issuer
            cert_status=told,
            this_update=at,
            next_update=until or at + DAY,
            revocation_time=at if revoked else None,
            revocation_reason=reason if revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, signer.certificate)
    )
    if responder is not None:
        builder = builder.certificates([responder.certificate])
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def responder(ca: CA, *, usage: bool = True, now: datetime = NOW, days: int = 30) -> CA:
    """One that the CA certified to answer for it; without `usage` for something else."""
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.OCSP_SIGNING if usage else ExtendedKeyUsageOID.CODE_SIGNING
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name("Responder"))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 60 * DAY)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return CA(key, certificate)


def twin_of(ca: CA) -> CA:
    """Another CA of the same name."""
    return authority(ca.certificate.subject.rfc4514_string().removeprefix("CN="))


@dataclass
class Published:
    """Lists and responders on a web that tests write; what is not there is away."""

    lists: dict[str, bytes] = field(default_factory=dict)
    answers: dict[int, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    async def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if url not in self.lists:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE, f"nothing at {url}")
        return self.lists[url]

    async def ask(self, url: str, request: bytes) -> bytes:
        self.fetched.append(url)
        asked = ocsp.load_der_ocsp_request(request).serial_number
        if asked not in self.answers:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE, f"nobody answers at {url}")
        return self.answers[asked]

"""Orders as the CA connector places them, with real keys, and what must hold of a certificate that comes back."""

import json
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from services.ca_connector.authorities import Authority, Secrets, Surroundings, open_authority
from services.ca_connector.orders import Issued, Order, Outcome, Pending, State, advance
from shared.registry import CertificationAuthority

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_BACKDATED_MAX = timedelta(hours=1)


class FolderOfSecrets:
    """The room's folder of what the registry only names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def secret(self, name: str) -> str:
        return self.secret_file(name).read_text(encoding="utf-8").rstrip("\r\n")

    def secret_file(self, name: str) -> Path:
        return self.folder / name


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def read_entry(entry: dict[str, Any], **more: Any) -> CertificationAuthority:
    """As the registry reads it: from JSON."""
    return CertificationAuthority.model_validate_json(json.dumps({**entry, **more}))


def open_entry(entry: dict[str, Any], secrets_of: Path | Secrets, **more: Any) -> Authority:
    ca = read_entry(entry, **more)
    known = FolderOfSecrets(secrets_of) if isinstance(secrets_of, Path) else secrets_of
    return open_authority(ca, Surroundings(name="ca-under-test", secrets=known, now=now))


def request_for(key: Key, common_name: str = "Yamada Taro") -> bytes:
    """A certification request as the SAM makes it."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"S-{secrets.token_hex(4)}"),
        ]
    )
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()).public_bytes(_DER)


def order_for(key: Key, *, profile: str = "signing", previous: Order | None = None, csr: bytes | None = None) -> Order:
    return Order(
        secrets.token_hex(12),
        "ca-under-test",
        csr or request_for(key),
        "operation",
        created_at=now(),
        profile=profile,
        previous=previous,
    )


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def new_rsa_key() -> Key:
    return rsa.generate_private_key(65537, 3072)


def same_subject(order: Order, key: Key) -> bytes:
    """The request of a rekey: another key for the subject of an earlier order."""
    subject = x509.load_der_x509_csr(order.csr).subject
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()).public_bytes(_DER)


def after(order: Order, outcome: Outcome) -> Order:
    """The order as the store would have it."""
    return advance(order, outcome)


async def settle(authority: Authority, order: Order, attend: Any, *, polls_max: int = 20) -> tuple[Order, Outcome, int]:
    """Place an order and ask until the CA has decided: the order as it then is, its outcome and how often we asked."""
    outcome = await authority.submit(order)
    polls = 0
    while isinstance(outcome, Pending) and polls < polls_max:
        order = after(order, outcome)
        attend()
        outcome = await authority.poll(order)
        polls += 1
    order = after(order, outcome)
    if isinstance(outcome, Issued):
        await authority.confirm(order, accepted=True)
        order = replace(order, state=State.CONFIRMED)
    return order, outcome, polls


def leaf(order: Order) -> x509.Certificate:
    return x509.load_der_x509_certificate(order.chain[0])


def check_issued(order: Order, ca: CertificationAuthority, key: Key, *, with_subject: bool = True) -> None:
    """What every CA owes: our key, its own anchor, the profile."""
    chain = [x509.load_der_x509_certificate(one) for one in order.chain]
    profile, certificate = ca.profiles[order.profile], chain[0]
    assert certificate.public_key() == key.public_key()
    for below, above in pairwise(chain):
        below.verify_directly_issued_by(above)
    anchors = ca.anchor_certificates
    if chain[-1] not in anchors:
        chain[-1].verify_directly_issued_by(next(one for one in anchors if one.subject == chain[-1].issuer))
    if with_subject:
        assert certificate.subject == x509.load_der_x509_csr(order.csr).subject
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert any(getattr(usage, one) for one in profile.key_usages)
    assert not usage.key_cert_sign
    stated = _values(certificate, x509.ExtendedKeyUsage)
    assert set(profile.extended_key_usages) <= {one.dotted_string for one in stated}
    policies = {one.policy_identifier.dotted_string for one in _values(certificate, x509.CertificatePolicies)}
    assert not profile.policies or policies & set(profile.policies)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime <= timedelta(days=profile.validity_days_max)
    assert certificate.not_valid_before_utc > now() - _BACKDATED_MAX
    assert certificate.not_valid_after_utc > now() + timedelta(days=1)


def _values(certificate: x509.Certificate, kind: Any) -> list[Any]:
    try:
        return list(certificate.extensions.get_extension_for_class(kind).value)
    except x509.ExtensionNotFound:
        return []


_DER = Encoding.DER

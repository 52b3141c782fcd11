"""Client certificates as partners have them, and the headers by which a proxy hands them over (RFC 9440)."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc.jwk import ECKey

from shared.mtls import ClientCertificate
from tests.support.authentication import START

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PROXY = "10.9.8.7"
SUBJECT = "CN=bank.example,O=Bank,C=JP"
NAMES: tuple[x509.GeneralName, ...] = (
    x509.DNSName("bank.example"),
    x509.UniformResourceIdentifier("https://bank.example/client"),
    x509.IPAddress(ip_address("192.0.2.9")),
    x509.RFC822Name("ops@bank.example"),
)


@dataclass(frozen=True)
class Held:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: Key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def thumbprint(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.der).digest()).rstrip(b"=").decode()

    @property
    def jwks(self) -> str:
        key = self.key.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        jwk = ECKey.import_key(key).as_dict(private=False)
        return json.dumps({"keys": [jwk | {"x5c": [base64.b64encode(self.der).decode()]}]})

    def shown(self, *chain: "Held") -> ClientCertificate:
        return ClientCertificate.of(self.der, [one.der for one in chain])

    def header(self, *chain: "Held") -> dict[str, str]:
        """What the proxy writes."""
        chained = {"Client-Cert-Chain": ", ".join(byte_sequence(one.der) for one in chain)} if chain else {}
        return {"Client-Cert": byte_sequence(self.der)} | chained

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """PEM files of certificate and key."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key


def byte_sequence(raw: bytes) -> str:
    return f":{base64.b64encode(raw).decode()}:"


def hold(
    issuer: Held | None = None,
    *,
    subject: str = SUBJECT,
    names: Sequence[x509.GeneralName] = NAMES,
    authority: bool = False,
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
    now: datetime = START,
    days: tuple[int, int] = (-1, 30),
    key: Key | None = None,
) -> Held:
    """A key, a fresh one, with a certificate by the issuer, or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    extensions: list[Any] = [x509.SubjectAlternativeName(names)] if names and not authority else []
    extensions += [x509.ExtendedKeyUsage([usage])] if usage and not authority else []
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = issuer.key if issuer else key
    hash_ = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Held(builder.sign(signer, hash_), key)


def authority(
    name: str = "CN=Partners CA,C=JP", issuer: Held | None = None, *, days: tuple[int, int] = (-9, 90)
) -> Held:
    return hold(issuer, subject=name, authority=True, days=days)

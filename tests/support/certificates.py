"""Certification authorities made on the spot, for tests of those who must not believe them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass
class CA:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def issue(
    issuer: CA | None,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
    days: tuple[int, int] = (-1, 365),
    now: datetime = NOW,
    signs: bool = True,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    usage = {
        "digital_signature": signs and not ca,
        "content_commitment": signs and not ca,
        "key_encipherment": not signs,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": ca,
        "crl_sign": ca,
        "encipher_only": False,
        "decipher_only": False,
    }
    builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def authority(text: str, issuer: CA | None = None, *, ca: bool = True, now: datetime = NOW) -> CA:
    key = ec.generate_private_key(ec.SECP256R1())
    return CA(key, issue(issuer, name(text), key, ca=ca, now=now))


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()

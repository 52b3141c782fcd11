"""A web server's and a client's certificate for TLS over loopback, as PEM files with their keys, and their root."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.certificates import authority, name, pem


def make_tls_files(folder: Path, names: Mapping[str, str]) -> str:
    """`<file>.pem` for each name, an address or not; the PEM of the root that all of them chain to."""
    now = datetime.now(UTC)
    root = authority("TLS root", now=now)
    for file, of in names.items():
        key = ec.generate_private_key(ec.SECP256R1())
        known: x509.GeneralName = x509.IPAddress(ip_address(of)) if of[0].isdigit() else x509.DNSName(of)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name(of))
            .issuer_name(root.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([known]), critical=False)
            .sign(root.key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{file}.pem").write_bytes(pem(certificate).encode() + private)
    return pem(root.certificate)

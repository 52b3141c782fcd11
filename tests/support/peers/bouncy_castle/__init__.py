"""A certification authority of Bouncy Castle's CMP classes: another implementer's reading of RFC 9810, in Java."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.local.program import wait_until
from tests.support.peers import Lack, Missing, example
from tests.support.peers.environments import program as path_of
from tests.support.peers.running import NOBODY_LISTENS, changed, free_port, listening, program, write_secrets

SECRET = "agreed on by telephone"
_JARS = tuple(Path("/usr/share/java") / f"{name}.jar" for name in ("bcpkix", "bcprov", "bcutil"))
LIES = (
    "wrong-protection",
    "wrong-transaction",
    "wrong-nonce",
    "wrong-time",
    "replay",
    "unprotected-error",
    "unprotected",
)
"""Profiles of what it answers that nobody must believe."""
_OTHERS = ("refused", "patient", "other-key", "error", "stranger")


class BouncyCastle:
    """By default with signatures and p10cr; the other ways are other entries for the same program."""

    name = "bouncy-castle-cmp"
    lacks: frozenset[Lack] = frozenset()

    def start(self, folder: Path) -> None:
        java = path_of("java", package="default-jdk-headless libbcpkix-java")
        if not all(jar.exists() for jar in _JARS):
            raise Missing("Bouncy Castle is missing. On Debian: apt-get install --no-install-recommends libbcpkix-java")
        ca, ca_key = _certify(folder, "ca", None)
        responder, _ = _certify(folder, "responder", (ca, ca_key), purpose="1.3.6.1.5.5.7.3.27")
        ra, ra_key = _certify(folder, "ra", (ca, ca_key))
        other, other_key = _certify(folder, "other", None)
        self.ca, self.responder, self.other = _pem(ca), _pem(responder), _pem(other)
        write_secrets(
            folder / "secrets",
            ra=_pem(ra) + _key_pem(ra_key),
            stranger=_pem(other) + _key_pem(other_key),
            mac=SECRET,
            wrong="overheard",
        )
        self.secrets = folder / "secrets"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.program = program("bouncy-castle", folder)
        source = Path(__file__).parent / "CMPAuthority.java"
        self.program.start(
            [java, "-XX:TieredStopAtLevel=1", "-cp", ":".join(map(str, _JARS)), str(source),
             str(folder), str(port), SECRET],
            {"PATH": os.environ["PATH"]},
            folder=folder,
        )  # fmt: skip
        wait_until(lambda: listening(f"{self.url}/crl"), self.program, timeout_s=60)

    def stop(self) -> None:
        self.program.stop()

    def entry(self) -> dict[str, Any]:
        entry = example("cmp", url=f"{self.url}/cmp", key="ra", responders=[self.ca])
        entry["profiles"] |= {one: {"label": one, "ca_profile": one} for one in (*LIES, *_OTHERS)}
        return entry | {"anchors": [self.ca]}

    def by_mac(self, mac: str = "pbm", **more: Any) -> dict[str, Any]:
        return changed(self.entry(), key=None, responders=[], reference="rakkan", secret="mac", mac=mac, **more)

    def estranged(self) -> dict[str, Any]:
        return changed(self.entry(), key="stranger")

    def away(self) -> dict[str, Any]:
        return changed(self.entry(), url=f"http://{NOBODY_LISTENS}/cmp")

    def attend(self) -> None:
        """It has made the certificate, and keeps it until it was asked for it twice."""

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        crl = x509.load_der_x509_crl(httpx.get(f"{self.url}/crl", trust_env=False).content)
        return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None

    def confirmed(self, certificate: x509.Certificate) -> str:
        """What we said of the certificate, as it understood that."""
        told = httpx.get(f"{self.url}/confirmed", trust_env=False).text.strip("{}")
        return dict(one.split("=") for one in told.split(", ") if one).get(str(certificate.serial_number), "nothing")


class BouncyCastleByMAC(BouncyCastle):
    """The same by a shared secret, asked by `cr` at first and by `kur` to renew."""

    name = "bouncy-castle-cmp-mac"
    lacks = frozenset({Lack.CREDENTIALS})
    """Under another secret its no can no more be verified than a forged one: tests/interop/test_cmp.py."""

    def entry(self) -> dict[str, Any]:
        entry = super().entry()
        entry["connection"] = {
            "url": f"{self.url}/cmp", "reference": "rakkan", "secret": "mac", "request": "cr", "renewal": "kur",
        }  # fmt: skip
        return entry


def _certify(
    folder: Path,
    name: str,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    *,
    purpose: str | None = None,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Example CMP {name}")])
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=700))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if purpose is not None:
        usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)])
        builder = builder.add_extension(usage, critical=False)
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.cer").write_bytes(certificate.public_bytes(Encoding.DER))
    (folder / f"{name}.p8").write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

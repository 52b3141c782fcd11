"""Time-stamping authorities that others wrote: what a test starts, and how each stands in the registry."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.local.program import Program, wait_until
from tests.support.openssl import openssl
from tests.support.peers import Missing
from tests.support.peers.environments import environment
from tests.support.peers.environments import program as path_of
from tests.support.peers.running import free_port, listening, program

_JARS = tuple(Path("/usr/share/java") / f"{name}.jar" for name in ("bcpkix", "bcprov", "bcutil"))


class TSAPeer(Protocol):
    name: str
    policy: str
    anchors_file: Path

    def start(self, folder: Path) -> None:
        """Set it up in an empty folder and start it; `Missing` when it cannot be had here."""
        ...

    def stop(self) -> None: ...

    def entry(self) -> dict[str, Any]:
        """Of the registry, as an operator writes it."""
        ...


class Certomancer:
    """In Python, on aiohttp. Names its certificate by SHA-1 alone, states no accuracy, and minds no policy."""

    name = "certomancer"
    policy = "1.3.6.1.4.1.4146.2.3"
    program: Program | None = None

    def start(self, folder: Path) -> None:
        command = str(environment("certomancer") / "certomancer")
        for key in ("root", "tsa"):
            openssl(
                "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{key}.pem",
                folder=folder,
            )  # fmt: skip
        (folder / "certomancer.yml").write_text(_CERTOMANCER)
        self.anchors_file = folder / "anchor.pem"
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        configured = [command, "--config", "certomancer.yml"]
        summoning = program("certomancer-summon", folder)
        summoning.start([*configured, "summon", "peer", "root", str(self.anchors_file)], environ, folder=folder)
        summoning.wait_end(timeout_s=30)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/peer/tsa/tsa"
        self.program = program("certomancer", folder)
        animate = [*configured, "animate", "--aiohttp", "--no-web-ui", "--port", str(port)]
        self.program.start(animate, environ, folder=folder)
        wait_until(lambda: listening(self.url), self.program, timeout_s=30)

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()

    def entry(self) -> dict[str, Any]:
        return {
            "label": "certomancer",
            "url": self.url,
            "anchors": [self.anchors_file.read_text()],
            "check_revocation": False,
            "classes": [{"name": "foreign", "since": "2020-01-01"}],
            "policies": [self.policy],
            "ignores_policy": True,
            "allow_ess_v1": True,
        }


class BouncyCastleTSA:
    """In Java. States an accuracy, takes two hashes and one policy, and says no by the book."""

    name = "bouncy-castle"
    policy = "2.999.3161.7"
    program: Program | None = None

    def start(self, folder: Path) -> None:
        java = path_of("java", package="default-jdk-headless libbcpkix-java")
        if not all(jar.exists() for jar in _JARS):
            raise Missing("Bouncy Castle is missing. On Debian: apt-get install --no-install-recommends libbcpkix-java")
        self.anchors_file = folder / "anchor.pem"
        self.anchors_file.write_bytes(_certify(folder).public_bytes(Encoding.PEM))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.program = program("bouncy-castle-tsa", folder)
        source = Path(__file__).parent / "bouncy_castle" / "TSA.java"
        argv = [java, "-XX:TieredStopAtLevel=1", "-cp", ":".join(map(str, _JARS)), str(source)]
        argv += [str(folder), str(port), self.policy]
        self.program.start(argv, {"PATH": os.environ["PATH"]}, folder=folder)
        wait_until(lambda: listening(self.url), self.program, timeout_s=60)

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()

    def entry(self) -> dict[str, Any]:
        return {
            "label": "Bouncy Castle",
            "url": self.url,
            "anchors": [self.anchors_file.read_text()],
            "check_revocation": False,
            "classes": [{"name": "foreign", "since": "2020-01-01"}],
            "policies": [self.policy],
            "hashes": ["sha256", "sha512"],
            "accuracy_max_ms": 500,
        }


def _certify(folder: Path) -> x509.Certificate:
    """A root, and under it the TSA's certificate and key as files for the program."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.now(UTC)
    root_name, name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
        for text in ("Bouncy Castle root", "Bouncy Castle TSA")
    )
    began, ends = now - timedelta(hours=1), now + timedelta(days=700)
    root = (
        x509.CertificateBuilder(root_name, root_name, root_key.public_key(), x509.random_serial_number(), began, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    certificate = (
        x509.CertificateBuilder(root_name, name, key.public_key(), x509.random_serial_number(), began, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    (folder / "tsa.cer").write_bytes(certificate.public_bytes(Encoding.DER))
    (folder / "tsa.p8").write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return root


_CERTOMANCER = """
external-url-prefix: ""
keysets:
  keys:
    path-prefix: .
    keys:
      root: {path: root.pem}
      tsa: {path: tsa.pem}
pki-architectures:
  peer:
    keyset: keys
    entity-defaults: {country-name: JP, organization-name: Example}
    entities:
      root: {common-name: certomancer root}
      tsa: {common-name: certomancer TSA}
    certs:
      root:
        subject: root
        issuer: root
        validity: {valid-from: "2020-01-01T00:00:00+0000", valid-to: "2100-01-01T00:00:00+0000"}
        extensions:
          - {id: basic_constraints, critical: true, value: {ca: true}}
          - {id: key_usage, critical: true, smart-value: {schema: key-usage, params: [key_cert_sign, crl_sign]}}
      tsa:
        subject: tsa
        issuer: root
        validity: {valid-from: "2020-01-01T00:00:00+0000", valid-to: "2100-01-01T00:00:00+0000"}
        extensions:
          - {id: key_usage, critical: true, smart-value: {schema: key-usage, params: [digital_signature]}}
          - {id: extended_key_usage, critical: true, value: [time_stamping]}
    services:
      time-stamping:
        tsa: {signing-cert: tsa}
"""

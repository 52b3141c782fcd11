"""pkilint, as an independent judge of certificates and CRLs."""

import json
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.peers.environments import environment


def lint_certificate(certificate: x509.Certificate, folder: Path) -> list[str]:
    """What RFC 5280 forbids and this certificate does, with where."""
    return _lint(["lint_pkix_cert", "lint"], certificate.public_bytes(Encoding.PEM), folder)


def lint_crl(crl: x509.CertificateRevocationList, folder: Path) -> list[str]:
    return _lint(["lint_crl", "lint", "-t", "CRL", "-p", "PKIX"], crl.public_bytes(Encoding.PEM), folder)


def _lint(command: list[str], pem: bytes, folder: Path) -> list[str]:
    file = folder / "linted.pem"
    file.write_bytes(pem)
    done = subprocess.run(  # noqa: S603 - our own
        [
            environment("pkilint") / command[0],
            *command[1:],
            "-s",
            "ERROR",
            "-f",
            "JSON",
            "--document-format",
            "PEM",
            file,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if not done.stdout:
        raise AssertionError(done.stderr)
    return [
        f"{found['severity']} {found['code']} at {result['node_path']}"
        for result in json.loads(done.stdout)["results"]
        for found in result["finding_descriptions"]
    ]

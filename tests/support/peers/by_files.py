"""Certification authorities without an API: people, a program and a desk. A file of requests comes, certificates leave.

Their people revoke, and keep no list of it here.
"""

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.by_hand import ByHand
from tests.support.peers import Lack, Missing
from tests.support.peers.running import write_secrets

Issue = Callable[[bytes, str], Path]
"""The certificate for a request (PEM), in a file of this name."""


class ByFiles:
    name: str
    lacks: frozenset[Lack] = frozenset({Lack.REVOCATION})
    anchor: str
    above: tuple[Path, ...] = ()
    """Certificates between the anchor and what is issued."""
    issue: Issue

    def start(self, folder: Path) -> None:
        self.open_desk(folder)
        self.secrets = write_secrets(folder / "secrets")

    def open_desk(self, folder: Path) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Nothing of it runs."""

    def entry(self) -> dict[str, Any]:
        return {
            "label": f"Example CA by files ({self.name})",
            "protocol": "manual",
            "anchors": [self.anchor],
            "profiles": {"signing": {"label": "Document signing", "issuance": "external", "validity_days_max": 30}},
            "default_profile": "signing",
        }

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        raise NotImplementedError(f"{certificate.serial_number}: {Lack.REVOCATION}")

    def certify(self, bundle: Path) -> list[Path]:
        """Certificates for all requests of an exported bundle, and those above them."""
        requests = [json.loads(one["request"]) for one in json.loads(bundle.read_text())["requests"]]
        return [*(self.issue(one["csr"].encode(), f"{secrets.token_hex(4)}.pem") for one in requests), *self.above]


class OpenSSLByFiles(ByFiles):
    name = "openssl-by-files"

    def open_desk(self, folder: Path) -> None:
        desk = ByHand(folder)
        self.anchor, self.above, self.issue = desk.root, (desk.issuing,), desk.issue


class GnuTLSByFiles(ByFiles):
    """GnuTLS's `certtool`, one level of it: the root issues."""

    name = "gnutls-by-files"

    def open_desk(self, folder: Path) -> None:
        if shutil.which("certtool") is None:
            raise Missing("GnuTLS's certtool: apt-get install gnutls-bin")
        self._folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "root.cfg").write_text('cn = "Example CA by GnuTLS"\nca\ncert_signing_key\nexpiration_days = 30\n')
        (folder / "issued.cfg").write_text("expiration_days = 20\nnon_repudiation\n")
        self._run("--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", "--outfile=root.key")
        self._run("--generate-self-signed", "--load-privkey=root.key", "--template=root.cfg", "--outfile=root.pem")
        self.anchor = (folder / "root.pem").read_text()
        self.issue = self._issue

    def _issue(self, csr: bytes, name: str) -> Path:
        (self._folder / "one.csr").write_bytes(x509.load_pem_x509_csr(csr).public_bytes(Encoding.PEM))
        self._run("--generate-certificate", "--load-request=one.csr", "--load-ca-certificate=root.pem",
                  "--load-ca-privkey=root.key", "--template=issued.cfg", f"--outfile={name}")  # fmt: skip
        return self._folder / name

    def _run(self, *words: str) -> None:
        subprocess.run(["certtool", *words], cwd=self._folder, check=True, capture_output=True)  # noqa: S603, S607 - the CA's own program

"""A certification authority whose people have openssl and a desk, and no API."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.openssl import openssl


class ByHand:
    def __init__(self, folder: Path, name: str = "Example CA by post") -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for key in ("root", "issuing"):
            openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{key}.key", folder=folder)
        openssl("req", "-x509", "-new", "-key", "root.key", "-out", "root.pem", "-days", "30", "-subj", f"/CN={name}",
                folder=folder)  # fmt: skip
        openssl("req", "-new", "-key", "issuing.key", "-out", "issuing.csr", "-subj", f"/CN={name} issuing",
                folder=folder)  # fmt: skip
        (folder / "ca.cnf").write_text("basicConstraints=critical,CA:true\n")
        (folder / "ee.cnf").write_text("basicConstraints=CA:false\nkeyUsage=critical,nonRepudiation\n")
        self._sign("issuing.csr", "issuing.pem", "root", "ca.cnf")

    def issue(self, csr: bytes, name: str = "issued.pem") -> Path:
        (self.folder / "one.csr").write_bytes(
            x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM) if csr[:1] == b"0" else csr
        )
        self._sign("one.csr", name, "issuing", "ee.cnf")
        return self.folder / name

    def _sign(self, request: str, out: str, issuer: str, extensions: str) -> None:
        openssl("x509", "-req", "-in", request, "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial",
                "-days", "20", "-extfile", extensions, "-out", out, folder=self.folder)  # fmt: skip

    @property
    def root(self) -> str:
        return (self.folder / "root.pem").read_text()

    @property
    def issuing(self) -> Path:
        return self.folder / "issuing.pem"

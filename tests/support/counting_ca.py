"""A CA behind the API of Vault's PKI engine that takes as long as it is told, and writes down what it issued.

`python -m tests.support.counting_ca --folder F --port P [--latency-ms N] [--hang]`: `root.pem` is its anchor, `ledger`
has a line for each certificate: the SHA-256 of its key, and itself in hex. It issues as often as it is asked.
"""

import argparse
import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.certificates import CA, authority

TOKEN = "a-token-for-the-counting-ca"
_HEADERS_MAX = 65_536


class CountingCA:
    def __init__(self, folder: Path, *, latency_s: float, hangs: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = _kept(folder)
        self.ledger = folder / "ledger"
        self.latency_s = latency_s
        self.hangs = hangs

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request by request."""
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and len(head) < _HEADERS_MAX:
                lines = head.decode("latin-1").split("\r\n")
                length = next((int(one.split(":")[1]) for one in lines if one.lower().startswith("content-length:")), 0)
                body = await reader.readexactly(length) if length else b"{}"
                answer = json.dumps({"data": await self._answer(lines[0].split(" ")[1], body)}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    + f"content-length: {len(answer)}\r\n\r\n".encode()
                    + answer
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # who asked has gone, which is what these tests are about
        finally:
            writer.close()

    async def _answer(self, path: str, body: bytes) -> dict[str, Any]:
        if self.hangs and "/sign/" in path:
            await asyncio.sleep(3600)
        if "/sign/" not in path:
            return {"renewable": False, "ttl": 0, "ca_chain": [_pem(self.ca.certificate)]}
        # Issued, written down, and only then answered: whoever dies in between has a certificate and does not know.
        certificate = self._issue(x509.load_pem_x509_csr(json.loads(body)["csr"].encode()))
        await asyncio.sleep(self.latency_s)
        return {"certificate": _pem(certificate), "ca_chain": [_pem(self.ca.certificate)]}

    def _issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        now = datetime.now(UTC)
        key = request.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self.ca.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self.ca.key, hashes.SHA256())
        )
        with self.ledger.open("a") as lines:
            lines.write(f"{key_of(request)} {certificate.public_bytes(serialization.Encoding.DER).hex()}\n")
        return certificate


def key_of(request: x509.CertificateSigningRequest) -> str:
    spki = request.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def entry(port: int, folder: Path, **more: Any) -> dict[str, Any]:
    """As it stands in the registry. Its token is the secret `counting-ca`."""
    return {
        "label": "A counting CA",
        "protocol": "vault",
        "connection": {"url": f"http://127.0.0.1:{port}", "token": "counting-ca"},
        "anchors": [(folder / "root.pem").read_text()],
        "profiles": {"signing": {"label": "Signing", "validity_days_max": 30}},
        "default_profile": "signing",
    } | more


def _kept(folder: Path) -> CA:
    """The same CA at every start: its certificates outlive it."""
    key_file, root_file = folder / "key.pem", folder / "root.pem"
    if not key_file.exists():
        made = authority(f"Counting CA {folder.name}", now=datetime.now(UTC))
        key_file.write_bytes(
            made.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        root_file.write_text(_pem(made.certificate))
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{key_file} holds another kind of key")
    return CA(key, x509.load_pem_x509_certificate(root_file.read_bytes()))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--hang", action="store_true")
    given = parser.parse_args()
    ca = CountingCA(given.folder, latency_s=given.latency_ms / 1000, hangs=given.hang)
    server = await asyncio.start_server(ca.serve, "127.0.0.1", given.port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())

"""A stand-in for an EST server (RFC 7030), for want of a real one: strongSwan's client judges it, then it serves ours.

The label in the path says how it behaves; without one, and as `docsign`, it is honest and lets a request wait once.
"""

import base64
import hmac
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from cryptography.x509.oid import NameOID

USER, PASSWORD = "ra", "known to both"
_PEM = Encoding.PEM
Key = ec.EllipticCurvePrivateKey


class Maker:
    """A CA: a key, a certificate and those above."""

    def __init__(self, text: str, issuer: "Maker | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        self.certificate = self.make(self.key.public_key(), name, ca=True, by=issuer)
        self.chain = (self.certificate, *(issuer.chain if issuer else ()))

    def make(
        self, key: ec.EllipticCurvePublicKey, subject: x509.Name, *, ca: bool = False, by: "Maker | None" = None,
        more: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> x509.Certificate:  # fmt: skip
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if ca and by is None else (by or self).certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=300))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key((by or self).key.public_key()), critical=False
            )
        )
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign((by or self).key, hashes.SHA256())


def write_pem(file: Path, key: Key, *certificates: x509.Certificate) -> Path:
    private = key.private_bytes(_PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(b"".join(one.public_bytes(_PEM) for one in certificates) + private)
    return file


def certify_web_server(file: Path, root: Maker) -> Path:
    """Key and certificate of a server on this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    return write_pem(file, key, root.make(key.public_key(), name, more=((names, False),)))


def end_entity(*, policy: str, purpose: str) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    usage = dict.fromkeys(
        (
            "digital_signature",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    information = x509.PolicyInformation(x509.ObjectIdentifier(policy), None)
    return (
        (x509.KeyUsage(content_commitment=True, **usage), True),
        (x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)]), False),
        (x509.CertificatePolicies([information]), False),
    )


class ESTServer(ThreadingHTTPServer):
    """Listens while the context lasts. What it was asked is in `asked`: path and body."""

    daemon_threads = True

    def __init__(self, folder: Path, *, policy: str, purpose: str) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.root = Maker("Example EST root")
        self.issuing = Maker("Example EST issuing", self.root)
        self.stranger = Maker("Example EST issuing", Maker("Example EST root"))
        self.extensions = end_entity(policy=policy, purpose=purpose)
        self.asked: list[tuple[str, bytes]] = []
        self.waiting: Counter[tuple[str, bytes]] = Counter()
        self.lock = threading.Lock()
        client = ec.generate_private_key(ec.SECP256R1())
        ours = self.root.make(client.public_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Our RA")]))
        self.client_file = write_pem(folder / "ra", client, ours)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certify_web_server(folder / "web.pem", self.root))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.root_pem)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def root_pem(self) -> str:
        return self.root.certificate.public_bytes(_PEM).decode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that a client breaks off is its own business."""


class _Exchange(BaseHTTPRequestHandler):
    server: ESTServer
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        if not self.path.endswith("/cacerts"):
            self._answer(404)
            return
        self._certificates(*self.server.issuing.chain)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if not self._is_known():
            self._answer(401, [("WWW-Authenticate", 'Basic realm="estrealm"')])
            return
        parts = self.path.removeprefix("/.well-known/est").strip("/").split("/")
        label, operation = (parts[0] if len(parts) > 1 else "docsign"), parts[-1]
        if (
            operation not in {"simpleenroll", "simplereenroll"}
            or self.headers.get("content-type") != "application/pkcs10"
        ):
            self._answer(404)
            return
        with self.server.lock:
            self.server.asked.append((self.path, body))
            self.server.waiting[self.path, body] += 1
            times = self.server.waiting[self.path, body]
        request = x509.load_der_x509_csr(base64.b64decode(body))
        if not request.is_signature_valid:
            self._answer(400, [("Content-Type", "text/plain")], b"not signed by its key")
            return
        self._behave(label, request, times)

    def _behave(self, label: str, request: x509.CertificateSigningRequest, times: int) -> None:
        ways: dict[str, Callable[[], None]] = {
            "immediate": lambda: self._issue(request),
            "refused": lambda: self._answer(400, [("Content-Type", "text/plain")], b"we do not know\r\nthis person"),
            "forever": lambda: self._answer(202, [("Retry-After", "7")]),
            "speechless": lambda: self._answer(202),
            "other-key": lambda: self._certificates(self.server.issuing.certificate),
            "wrong-chain": lambda: self._issue(request, by=self.server.stranger),
            "garbage": lambda: self._answer(200, [("Content-Type", "application/pkcs7-mime")], b"bm90IGEgUEtDUyM3\n"),
            "cut-off": lambda: self._certificates(self.server.issuing.certificate, kept=0.6),
            "empty": lambda: self._answer(200, [("Content-Type", "application/pkcs7-mime")]),
            "portal": lambda: self._answer(200, [("Content-Type", "text/html")], b"<p>Please log in</p>"),
            "busy": lambda: self._answer(503, [("Retry-After", "60")]),
            "broken": lambda: self._answer(500),
        }
        if label in ways:
            ways[label]()
        elif times == 1:
            self._answer(202, [("Retry-After", "1")])
        else:
            self._issue(request)

    def _issue(self, request: x509.CertificateSigningRequest, *, by: Maker | None = None) -> None:
        key = request.public_key()
        made = (by or self.server.issuing).make(key, request.subject, more=self.server.extensions)  # type: ignore[arg-type]  # any key is certified
        self._certificates(made)

    def _is_known(self) -> bool:
        certificate = self.connection.getpeercert()  # type: ignore[attr-defined]  # it is a TLS socket
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return bool(certificate) or hmac.compare_digest(self.headers.get("authorization", ""), wanted)

    def _certificates(self, *certificates: x509.Certificate, kept: float = 1.0) -> None:
        # In one line: strongSwan's client takes no line breaks, which RFC 7030 allows and RFC 8951 does not ask for.
        text = base64.b64encode(pkcs7.serialize_certificates(list(certificates), Encoding.DER))
        headers = [
            ("Content-Type", "application/pkcs7-mime; smime-type=certs-only"),
            ("Content-Transfer-Encoding", "base64"),
        ]
        self._answer(200, headers, text[: int(len(text) * kept)])

    def _answer(self, status: int, headers: list[tuple[str, str]] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers or ():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads along."""

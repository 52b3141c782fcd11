"""A time-stamping authority for the local stack: RFC 3161 over HTTP, tokens by `openssl ts`. Never for production.

`python -m deploy.local.tsa --folder X --port N`. Its own root and certificate are made at the first run, each in the
name it is given; the root (`root.pem`) is the anchor for its entry in the registry.
"""

import argparse
import shutil
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

POLICY = "2.999.3161.1"
"""Under 2.999, the arc for examples: it belongs to nobody."""
OTHER_POLICY = "2.999.3161.2"
NAME = "Rakkan local TSA"
_QUERY_BYTES_MAX = 65_536
_OPENSSL_TIMEOUT_S = 10

_CONFIGURATION = f"""\
oid_section = oids

[oids]
rakkan_policy = {POLICY}
rakkan_other_policy = {OTHER_POLICY}

[tsa]
default_tsa = tsa_local

[tsa_local]
dir = .
serial = $dir/serial
crypto_device = builtin
signer_cert = $dir/tsa.pem
signer_key = $dir/tsa.key
signer_digest = sha256
default_policy = rakkan_policy
other_policies = rakkan_other_policy
digests = sha256, sha384, sha512, sha3-256, sha3-384, sha3-512
accuracy = secs:1
clock_precision_digits = 3
ordering = no
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256

[req]
distinguished_name = name
prompt = no

[name]
commonName = NAME

[root]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash

[signer]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
"""


@dataclass(frozen=True)
class Authority:
    """The folder of a TSA that can answer."""

    folder: Path

    @property
    def anchors_file(self) -> Path:
        return self.folder / "root.pem"

    @property
    def configuration_file(self) -> Path:
        return self.folder / "openssl.cnf"

    def answer(self, query: bytes) -> bytes:
        """The TimeStampResp for a TimeStampReq; a rejection is an answer too. One at a time: the serial is a file."""
        made = subprocess.run(
            ["openssl", "ts", "-reply", "-config", "openssl.cnf", "-queryfile", "/dev/stdin"],
            cwd=self.folder,
            input=query,
            capture_output=True,
            check=False,
            timeout=_OPENSSL_TIMEOUT_S,
        )
        if not made.stdout:
            raise RuntimeError(f"openssl ts: {made.stderr.decode(errors='replace')}")
        return made.stdout


def make(folder: Path, name: str = NAME) -> Authority:
    """The TSA in this folder, made at the first call. A half-made one is never seen: it gets its name at the end."""
    if not (folder / "root.pem").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tsa-"))
        try:
            _create(draft, name)
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return Authority(folder)


def _create(folder: Path, name: str) -> None:
    (folder / "openssl.cnf").write_text(_CONFIGURATION.replace("NAME", name), encoding="ascii")
    (folder / "serial").write_text("01\n", encoding="ascii")
    for key_file in ("root.key", "tsa.key"):
        _openssl(folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key_file)
        (folder / key_file).chmod(0o600)
    request = ("req", "-config", "openssl.cnf", "-new", "-sha256")
    _openssl(
        folder, *request, "-x509", "-key", "root.key", "-subj", f"/CN={name} root", "-days", "3650",
        "-extensions", "root", "-out", "root.pem",
    )  # fmt: skip
    _openssl(folder, *request, "-key", "tsa.key", "-out", "tsa.csr")
    _openssl(
        folder, "x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
        "-sha256", "-days", "1825", "-extfile", "openssl.cnf", "-extensions", "signer", "-out", "tsa.pem",
    )  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    ran = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=False, text=True)
    if ran.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]}: {ran.stderr}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def setup(self) -> None:
        super().setup()
        # Head and body go out in two writes; with Nagle's algorithm the second waits 40 ms for an acknowledgement.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= _QUERY_BYTES_MAX:
            self.close_connection = True
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", b"a TimeStampReq with a Content-Length, please\n")
            return
        query = self.rfile.read(length)
        if self.headers.get("Content-Type") != "application/timestamp-query":
            self._send(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "text/plain", b"application/timestamp-query, please\n")
            return
        with self.server.one_at_a_time:
            reply = self.server.authority.answer(query)
        self._send(HTTPStatus.OK, "application/timestamp-reply", reply)

    def do_GET(self) -> None:
        self._send(HTTPStatus.OK, "text/plain", b"the local time-stamping authority is here: POST a TimeStampReq\n")

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: the local stack's terminal is for its user."""


class Server(ThreadingHTTPServer):
    """Bound when constructed; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, authority: Authority, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.authority = authority
        self.one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.tsa", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the TSA's keys and certificates are kept")
    parser.add_argument("--name", default=NAME, help="in its certificates")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    server = Server(make(arguments.folder, arguments.name), host=arguments.host, port=arguments.port)
    print(f"{arguments.name} answers at {server.url}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

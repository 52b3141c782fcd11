"""A TSA for load: signs in its own processes, forked before they begin, so that it is not what is measured.

`python -m tests.bench.fast_tsa --folder X --port N --processes 2 [--late-s 1.5]`. It checks nothing and knows one key.
"""

import argparse
import asyncio
import hashlib
import os
import secrets
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asn1crypto import cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.support.lying_tsa import CA, Profile, certify

_POLICY = core.ObjectIdentifier("2.999.3161.1").dump()
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/timestamp-reply\r\ncontent-length: %d\r\n\r\n"


def make(folder: Path) -> Path:
    """Key, certificate and root in this folder; the root's file."""
    root_file = folder / "root.pem"
    if not root_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        days = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=30)}
        root = certify(Profile(**{**vars(CA), **days, "name": f"{folder.name} root"}))
        signer = certify(Profile(**days, name=folder.name), issuer=root)
        key = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "signer.pem").write_bytes(key)
        (folder / "signer.der").write_bytes(signer.der)
        root_file.write_bytes(root.certificate.public_bytes(Encoding.PEM))
    return root_file


def _tlv(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def _parts(sequence: bytes) -> list[bytes]:
    """The elements of a SEQUENCE, none of them longer than 127 bytes."""
    found, at = [], 2
    while at < len(sequence):
        end = at + 2 + sequence[at + 1]
        found.append(sequence[at:end])
        at = end
    return found


class Signer:
    """Tokens by hand: what does not change is encoded once."""

    def __init__(self, folder: Path) -> None:
        key = load_pem_private_key((folder / "signer.pem").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("an EC key is wanted")
        self._key = key
        self._der = (folder / "signer.der").read_bytes()
        self._serial = secrets.randbits(60) << 40
        certificate = asn1_x509.Certificate.load(self._der)
        digest = hashlib.sha256(self._der).digest()
        meant = tsp.SigningCertificateV2({"certs": [{"cert_hash": digest}]})
        self._content_type = cms.CMSAttribute({"type": "content_type", "values": ["tst_info"]}).dump()
        self._reference = cms.CMSAttribute({"type": "signing_certificate_v2", "values": [meant]}).dump()
        self._sha256 = _tlv(0x30, core.ObjectIdentifier("2.16.840.1.101.3.4.2.1").dump())
        self._ecdsa = _tlv(0x30, core.ObjectIdentifier("1.2.840.10045.4.3.2").dump())
        self._sid = _tlv(0x30, certificate.issuer.dump(), core.Integer(certificate.serial_number).dump())
        self._message_digest = core.ObjectIdentifier("1.2.840.113549.1.9.4").dump()
        self._tst = core.ObjectIdentifier("1.2.840.113549.1.9.16.1.4").dump()
        self._signed_data = core.ObjectIdentifier("1.2.840.113549.1.7.2").dump()

    def answer(self, query: bytes) -> bytes:
        _, imprint, *rest = _parts(query)
        nonce = next(part for part in rest if part[0] == 2)
        policy = next((part for part in rest if part[0] == 6), _POLICY)
        self._serial += 1
        now = datetime.now(UTC)
        text = f"{now:%Y%m%d%H%M%S}.{now.microsecond // 1000:03d}".rstrip("0").rstrip(".") + "Z"
        info = _tlv(
            0x30,
            b"\x02\x01\x01",
            policy,
            imprint,
            core.Integer(self._serial).dump(),
            _tlv(0x18, text.encode()),
            b"\x30\x03\x02\x01\x01",
            nonce,
        )
        return _tlv(0x30, b"\x30\x03\x02\x01\x00", self._token(info))

    def _token(self, info: bytes) -> bytes:
        digest = _tlv(0x31, _tlv(0x04, hashlib.sha256(info).digest()))
        attributes = sorted([self._content_type, self._reference, _tlv(0x30, self._message_digest, digest)])
        signature = self._key.sign(_tlv(0x31, *attributes), ec.ECDSA(hashes.SHA256()))
        signer = _tlv(
            0x30,
            b"\x02\x01\x01",
            self._sid,
            self._sha256,
            _tlv(0xA0, *attributes),
            self._ecdsa,
            _tlv(0x04, signature),
        )
        content = _tlv(0x30, self._tst, _tlv(0xA0, _tlv(0x04, info)))
        signed = _tlv(
            0x30,
            b"\x02\x01\x03",
            _tlv(0x31, self._sha256),
            content,
            _tlv(0xA0, self._der),
            _tlv(0x31, signer),
        )
        return _tlv(0x30, self._signed_data, _tlv(0xA0, signed))


class _Connection(asyncio.Protocol):
    def __init__(self, signer: Signer, late_s: float) -> None:
        self._signer = signer
        self._late_s = late_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(rest) < length:
                return
            query, self._data = rest[:length], rest[length:]
            body = self._signer.answer(query)
            asyncio.get_running_loop().call_later(self._late_s, self._send, _HEAD % len(body) + body)

    def _send(self, answer: bytes) -> None:
        if isinstance(self._transport, asyncio.Transport) and not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(folder: Path, listener: socket.socket, late_s: float) -> None:
    signer = Signer(folder)
    loop = asyncio.get_running_loop()
    parent = os.getppid()
    await loop.create_server(lambda: _Connection(signer, late_s), sock=listener)
    for _ in iter(os.getppid, -1):
        if os.getppid() != parent:  # an orphan would keep the port, and whatever it inherited, for ever
            return
        await asyncio.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--late-s", type=float, default=0.0)
    given = parser.parse_args()
    make(given.folder)
    children = []
    for _ in range(given.processes):
        pid = os.fork()
        if not pid:
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(("127.0.0.1", given.port))
                listener.listen(128)
                asyncio.run(_serve(given.folder, listener, given.late_s))
        children.append(pid)
    while children:
        time.sleep(3600)


if __name__ == "__main__":
    main()

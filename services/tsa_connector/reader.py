"""The process in which everything is parsed that comes from a TSA or a CA: no network, little memory, little time.

`python -m services.tsa_connector.reader`. It reads frames from its standard input and answers each on its standard
output, in order. Input that is too much for it ends it; the room starts another and refuses that input.
"""

import hashlib
import resource
import signal
import sys
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.tsa_connector.answer import read_answer, without_certificates
from services.tsa_connector.frames import LENGTHS, Link, lengths, link_out, loads, pack, text
from services.tsa_connector.request import TimestampRequest
from services.tsa_connector.revocation import judge_crl, judge_ocsp, sources_of
from services.tsa_connector.token import Judged, TrustedTSA, check_answer
from shared.algorithms import Hash
from shared.errors import RakkanError

_FILES_MAX = 32


class Reader:
    """What is believed of each TSA, and which paths the room was told of."""

    def __init__(self) -> None:
        self._trust: dict[str, TrustedTSA] = {}
        self._told: set[tuple[str, str]] = set()

    def answer(self, head: Mapping[str, Any], blob: bytes) -> bytes | None:
        """The frame that answers a frame; nothing to the trust that is to be used from now on."""
        if head["op"] == "trust":
            self._trust = {name: _trusted(one) for name, one in head["tsas"].items()}
            self._told.clear()
            return None
        try:
            if head["op"] == "token":
                return self._token(head, blob)
            judge = {"crl": judge_crl, "ocsp": judge_ocsp}[head["op"]]
            certificate, issuer = (x509.load_der_x509_certificate(b64decode(head[name])) for name in _PAIR)
            status = judge(blob, certificate, issuer, now=datetime.fromisoformat(head["now"]))
            return pack({"is_revoked": status.is_revoked, "until": status.until.isoformat()})
        except RakkanError as refusal:
            return pack({"code": refusal.code, "detail": refusal.detail})

    def _token(self, head: Mapping[str, Any], blob: bytes) -> bytes:
        request = TimestampRequest(
            digest=b64decode(head["digest"]),
            hash=Hash(head["hash"]),
            nonce=int(head["nonce"], 16),
            policy=head["policy"],
        )
        asked_at, now = (datetime.fromisoformat(head[name]) for name in ("asked_at", "now"))
        judged = check_answer(read_answer(blob), request, self._trust[head["tsa"]], asked_at=asked_at, now=now)
        info, der = judged.token.info, judged.token.der
        told: dict[str, Any] = {
            "time": info.time.isoformat(),
            "policy": info.policy,
            "serial_number": f"{info.serial_number:x}",
            "time_fault": judged.time_fault,
            "not_after": judged.path[0].not_valid_after_utc.isoformat(),
            **self._path(head["tsa"], judged),
        }
        return pack(told, der if head["with_certificates"] else without_certificates(der))

    def _path(self, tsa: str, judged: Judged) -> dict[str, Any]:
        """The path in full the first time; by its id alone ever after."""
        ders = [certificate.public_bytes(Encoding.DER) for certificate in judged.path]
        path_id = hashlib.sha256(b"".join(hashlib.sha256(der).digest() for der in ders)).hexdigest()
        if (tsa, path_id) in self._told:
            return {"path_id": path_id}
        self._told.add((tsa, path_id))
        links = [
            Link(der, issuer, *sources_of(certificate))
            for certificate, der, issuer in zip(judged.path[:-1], ders[:-1], ders[1:], strict=True)
        ]
        return {"path_id": path_id, "path": [link_out(link) for link in links]}


_PAIR = ("certificate", "issuer")


def _trusted(one: Mapping[str, Any]) -> TrustedTSA:
    accuracy_max_ms = one["accuracy_max_ms"]
    return TrustedTSA(
        anchors=tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in one["anchors"]),
        skew=timedelta(seconds=one["clock_tolerance_s"]),
        policies=frozenset(one["policies"]),
        accuracy_max=None if accuracy_max_ms is None else timedelta(milliseconds=accuracy_max_ms),
        allow_ess_v1=one["allow_ess_v1"],
        qualified_statement=one["qualified_statement"],
    )


def token_head(
    tsa: str,
    request: TimestampRequest,
    *,
    asked_at: datetime,
    now: datetime,
    with_certificates: bool,
) -> dict[str, Any]:
    """The head of the frame that asks for an answer to be judged."""
    return {
        "op": "token",
        "tsa": tsa,
        "digest": text(request.digest),
        "hash": request.hash,
        "nonce": f"{request.nonce:x}",
        "policy": request.policy,
        "asked_at": asked_at.isoformat(),
        "now": now.isoformat(),
        "with_certificates": with_certificates,
    }


def confine(*, memory_bytes: int) -> None:
    """So much memory more than the program itself, no core dump, hardly a file."""
    pages = int(open("/proc/self/statm", encoding="ascii").read().split()[0])  # noqa: SIM115, PTH123 - once, at the start
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES_MAX, _FILES_MAX))


def serve(source: BinaryIO, sink: BinaryIO, *, cpu_s: float) -> None:
    """Answer frames until the source ends. Each has so much processor time; who takes more is ended by the kernel."""
    reader = Reader()
    sink.write(pack({"ready": True}))
    sink.flush()
    while prefix := source.read(LENGTHS.size):
        head_bytes, blob_bytes = lengths(prefix)
        head, blob = source.read(head_bytes), source.read(blob_bytes)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        answer = reader.answer(loads(head), blob)
        if answer is not None:
            sink.write(answer)
            sink.flush()


def main(arguments: list[str]) -> None:
    memory_bytes, cpu_s = int(arguments[0]), float(arguments[1])
    confine(memory_bytes=memory_bytes)
    serve(sys.stdin.buffer, sys.stdout.buffer, cpu_s=cpu_s)


if __name__ == "__main__":
    main(sys.argv[1:])

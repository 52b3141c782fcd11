"""Requests to a file for a CA that has no API, and its certificates from files. Checks none: the room does."""

import argparse
import base64
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from pydantic import ValidationError

from services.operator.terminal import NotUnderstoodError, Terminal
from shared.contracts.base import Request
from shared.contracts.batches import ISSUERS_MAX, ExportRequests, ImportCertificates, ImportedCertificate
from shared.errors import Code, RakkanError

Words = argparse.Namespace
Ask = Callable[[Request[Any]], Awaitable[Any]]

FORMAT = "rakkan-requests/1"
_AT_ONCE = 10
_FILE_BYTES_MAX = 20_000_000
_END = re.compile(rb"-----END [A-Z0-9 ]+-----")
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


def add_words(commands: "argparse._SubParsersAction[Any]") -> None:
    """`requests export` and `certificates import`."""
    requests = commands.add_parser("requests", help="carry the open requests to a CA that works by files")
    requests.add_argument("action", choices=["export"])
    requests.add_argument("--authority", required=True)
    requests.add_argument("--out", required=True, metavar="FILE", help="a new file")
    certificates = commands.add_parser("certificates", help="bring back what such a CA has issued")
    certificates.add_argument("action", choices=["import"])
    certificates.add_argument("--authority", required=True)
    certificates.add_argument("files", nargs="+", metavar="FILE", help="PEM, DER or PKCS#7")


async def export(words: Words, ask: Ask, terminal: Terminal) -> None:
    """All open requests in one file, each signed by the CA connector. Exporting again gives those still open."""
    entries, after = [], None
    while True:
        page = await ask(_request(ExportRequests, authority=words.authority, after=after))
        for one in page.requests:
            signature = base64.b64encode(one.signature).decode()
            entries.append({"request": one.body.decode(), "key_id": one.key_id, "signature": signature})
        if page.next is None:
            break
        after = page.next
    bundle = {
        "format": FORMAT,
        "authority": words.authority,
        "exported_at": page.exported_at.isoformat(),
        "requests": entries,
    }
    _write(Path(words.out), json.dumps(bundle, indent=1, ensure_ascii=False))
    terminal.tell(f"{len(entries)} requests are in {words.out}.", {"file": words.out, "requests": len(entries)})


async def import_(words: Words, ask: Ask, terminal: Terminal) -> None:
    """Every file is read before anything is sent. Refused when one certificate is; the others are imported."""
    found = list(dict.fromkeys(one for name in words.files for one in _read(Path(name))))
    issuers = [one for one in found if _is_authority(one)]
    certificates = [one for one in found if not _is_authority(one)]
    if not certificates:
        raise NotUnderstoodError("the files hold only certificates of CAs")
    if len(issuers) > ISSUERS_MAX:
        raise NotUnderstoodError(
            f"the files hold {len(issuers)} certificates of CAs, of which {ISSUERS_MAX} are enough"
        )
    rows: list[ImportedCertificate] = []
    for start in range(0, len(certificates), _AT_ONCE):
        request = _request(
            ImportCertificates,
            authority=words.authority,
            certificates=tuple(one.public_bytes(Encoding.DER) for one in certificates[start : start + _AT_ONCE]),
            issuers=tuple(one.public_bytes(Encoding.DER) for one in issuers),
        )
        rows += (await ask(request)).certificates
    shown = [
        {"serial_number": one.serial_number, "outcome": one.outcome, "order": one.order_id, "why": one.reason}
        for one in rows
    ]
    terminal.tell_tables({"certificates": shown})
    refused = sum(one.outcome == "refused" for one in rows)
    if refused:
        raise RakkanError(Code.CERTIFICATE_REFUSED, f"{refused} of {len(rows)} certificates were not imported")


M = TypeVar("M", bound=Request[Any])


def _request(message: type[M], **fields: Any) -> M:
    try:
        return message(**fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3])
        raise NotUnderstoodError(faults) from None


def _write(file: Path, content: str) -> None:
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(content + "\n")
    except FileExistsError:
        raise NotUnderstoodError(f"{file} is there already; nothing is overwritten") from None
    except OSError as trouble:
        raise NotUnderstoodError(f"{file} cannot be written: {trouble}") from None


def _read(file: Path) -> list[x509.Certificate]:
    """All certificates of a file. A file that is not whole gives none."""
    try:
        if file.stat().st_size > _FILE_BYTES_MAX:
            raise NotUnderstoodError(f"{file} is larger than any bundle of certificates")
        certificates = _parse(file.read_bytes())
        for one in certificates:
            _is_authority(one)
    except OSError as trouble:
        raise NotUnderstoodError(f"{file} cannot be read: {trouble}") from None
    except _UNREADABLE:
        certificates = []
    if not certificates:
        raise NotUnderstoodError(f"{file} holds no certificates, or is cut off") from None
    return certificates


def _parse(content: bytes) -> list[x509.Certificate]:
    begun = content.count(b"-----BEGIN ")
    if begun != len(_END.findall(content)):
        raise ValueError("cut off")
    if b"-----BEGIN PKCS7-----" in content:
        return pkcs7.load_pem_pkcs7_certificates(content)
    if begun:
        return x509.load_pem_x509_certificates(content)
    try:
        return [x509.load_der_x509_certificate(content)]
    except ValueError:
        return pkcs7.load_der_pkcs7_certificates(content)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False

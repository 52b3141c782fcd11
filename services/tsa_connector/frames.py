"""How the room and its readers speak over a pipe: a length-prefixed head of JSON and a blob. Knows no meaning."""

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

LENGTHS = struct.Struct("!II")
HEAD_BYTES_MAX = 8_388_608
BLOB_BYTES_MAX = 16_777_216


def pack(head: Mapping[str, Any], blob: bytes = b"") -> bytes:
    encoded = json.dumps(head, separators=(",", ":")).encode()
    return LENGTHS.pack(len(encoded), len(blob)) + encoded + blob


def lengths(prefix: bytes) -> tuple[int, int]:
    """Of head and blob. ValueError when they are beyond all measure: whoever writes there is not himself any more."""
    head, blob = LENGTHS.unpack(prefix)
    if head > HEAD_BYTES_MAX or blob > BLOB_BYTES_MAX:
        raise ValueError("a frame beyond all measure")
    return head, blob


def text(data: bytes) -> str:
    return b64encode(data).decode()


@dataclass(frozen=True)
class Link:
    """A certificate of a path with its issuer, and where it says its status is told."""

    certificate: bytes
    issuer: bytes
    ocsp_urls: tuple[str, ...]
    crl_urls: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """A token that a reader found genuine."""

    token: bytes
    time: datetime
    policy: str
    serial_number: str
    """Hex."""
    time_fault: str | None
    path_id: str
    """Which path it chained by; the same for the same certificates."""
    path: tuple[Link, ...] | None
    """The certificates below the anchor; only the first time that this reader met the path."""
    not_after: datetime
    """When the signer's certificate ends."""


def link_out(link: Link) -> list[Any]:
    return [text(link.certificate), text(link.issuer), list(link.ocsp_urls), list(link.crl_urls)]


def link_in(link: Sequence[Any]) -> Link:
    certificate, issuer, ocsp_urls, crl_urls = link
    return Link(b64decode(certificate), b64decode(issuer), tuple(ocsp_urls), tuple(crl_urls))


def loads(head: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(head)
    return found


def reading_in(head: Mapping[str, Any], blob: bytes) -> Reading:
    path = head.get("path")
    return Reading(
        token=blob,
        time=datetime.fromisoformat(head["time"]),
        policy=head["policy"],
        serial_number=head["serial_number"],
        time_fault=head["time_fault"],
        path_id=head["path_id"],
        path=None if path is None else tuple(link_in(link) for link in path),
        not_after=datetime.fromisoformat(head["not_after"]),
    )

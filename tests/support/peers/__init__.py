"""Certification authorities that others wrote, and what a test must know of each. One file beside this for each.

`tests/interop/test_authorities.py` runs one body over all of them. A new one is a class of this shape and a line there.
"""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from cryptography import x509

DOCUMENT_SIGNING = "1.3.6.1.5.5.7.3.36"
POLICY = "1.3.6.1.4.1.32473.1.5"
"""Under the number that RFC 5612 keeps for examples."""
SUBJECT = ("country", "organization", "common_name", "serial_number")


EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "authorities"


def example(name: str, **connection: Any) -> dict[str, Any]:
    """The registry entry that our pages show, with these members of its connection."""
    entry: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    entry["connection"] |= connection
    return entry


class Lack(StrEnum):
    """What the peer, not our adapter, cannot do. Each is said in docs/conformance."""

    SUBJECT = "it does not certify the subject as ordered"
    CREDENTIALS = "it knows everybody"
    REFUSAL = "it refuses no order"
    REVOCATION = "it revokes nothing"
    STATUS = "it publishes no status"
    RULES = "its certificates break rules of RFC 5280"
    DOWN = "it has no door that could be shut"


class Missing(Exception):
    """The peer is not on this machine. The text says what to type."""


def leave_out(missing: Missing) -> NoReturn:
    """Skip what needs this peer; where every peer is demanded (`PEERS=required`, as in CI), fail."""
    if os.environ.get("PEERS") == "required":
        pytest.fail(str(missing), pytrace=False)
    pytest.skip(str(missing))


class AuthorityPeer(Protocol):
    name: str
    lacks: frozenset[Lack]

    def start(self, folder: Path) -> None:
        """Set it up in an empty folder and start it; `Missing` when it cannot be had here."""
        ...

    def stop(self) -> None: ...

    def entry(self) -> dict[str, Any]:
        """Of the registry, as an operator writes it. Its profile `refused` is one under which the CA refuses."""
        ...

    @property
    def secrets(self) -> Path:
        """The folder of what the entry names."""
        ...

    def estranged(self) -> dict[str, Any]:
        """The entry with credentials that the CA does not know."""
        ...

    def away(self) -> dict[str, Any]:
        """The entry with an address where nobody listens."""
        ...

    def attend(self) -> None:
        """What the CA's own people or machines do between an order and our asking again."""
        ...

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """As a relying party sees it: by its CRL or OCSP."""
        ...

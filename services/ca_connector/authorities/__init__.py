"""What every certification authority can do, one file beside this for each protocol, and how an adapter is found.

An adapter is a module of this package that is named like its protocol in the registry. It has

    PROTOCOL = "vault"
    class Connection(Entry): …      # what its entry in the registry says under `connection`; secrets by SecretName
    def open(ca, connection, surroundings) -> Authority: …      # reads files, and no network

and nothing else knows it: a new kind of CA is one file and one entry in the registry.
"""

import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from cryptography import x509
from pydantic import ValidationError

from services.ca_connector.orders import Order, Outcome
from services.ca_connector.profile import RevokedCertificate
from services.ca_connector.token import CAKey
from shared.registry import CertificationAuthority
from shared.registry.model import Entry
from shared.settings import SettingsError


@dataclass(frozen=True)
class Capabilities:
    """What the protocol has. What it has not, the core does not ask for and says so to an operator."""

    polls: bool
    revokes: bool
    renews: bool
    """It wants to know which certificate an order takes over from; others are given a new order."""
    confirms: bool = False
    """It waits for our word on what it issued (CMP certConf)."""
    repeatable: bool = False
    """`submit` of an order that may have reached the CA before gives the same certificate again, or the adapter looks
    for it there first. Without this an order whose answer was lost is UNKNOWN, for an operator."""
    waits_for_people: bool = False
    """A pending order waits for what somebody does here, however long: it is never given up."""


@dataclass(frozen=True)
class Health:
    """What a self-test found."""

    chain: tuple[x509.Certificate, ...] = ()
    """As the CA states it, the issuing CA first; empty when the protocol cannot tell."""


class Authority(Protocol):
    """An adapter to one CA. What it raises tells the core what to do with the order:

    AUTHORITY_UNAVAILABLE  the CA surely did not take it up: again later.
    INDETERMINATE          the CA may have taken it up and cannot be asked: UNKNOWN, never a second certificate.
    AUTHORITY_UNTRUSTED    nonsense came back: the same for an order being placed; a poll is repeated later.
    AUTHORITY_REFUSED      our credentials are refused: again later, and an operator is told.

    What `submit` and `poll` give back is committed before anybody hears of it.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    async def submit(self, order: Order) -> Outcome: ...

    async def poll(self, order: Order) -> Outcome:
        """Ask about a PENDING order by its handle. An order the CA does not know any more is INDETERMINATE."""
        ...

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """The SAM's word on the certificate. Said twice is said once."""
        ...

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:
        """Revoke what was issued on the order. Revoking twice is one revocation."""
        ...

    async def check(self) -> Health:
        """The self-test: whether the CA is reached, knows us, and which chain it states."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Publisher(Protocol):
    """An authority in this room, which publishes its own lists."""

    async def renew_crl(self) -> bool:
        """Whether a new CRL was due."""
        ...

    async def check_crl(self) -> None:
        """Raise unless there is a CRL that has not run out."""
        ...

    async def crl_page(self) -> bytes: ...

    async def certificate_page(self) -> bytes: ...


class Secrets(Protocol):
    """This room's folder of what the registry only names."""

    def secret(self, name: str) -> str: ...

    def secret_file(self, name: str) -> Path: ...


MakeCRL = Callable[[int, tuple[RevokedCertificate, ...], datetime], Awaitable[x509.CertificateRevocationList]]


class Lists(Protocol):
    """The records of a CA in this room: what is revoked, and the CRLs that say so."""

    async def latest_crl(self, authority: str) -> bytes | None: ...

    async def latest_crl_times(self, authority: str) -> tuple[datetime, datetime] | None:
        """thisUpdate and nextUpdate, without the list: a list may be long and these are asked for all the time."""
        ...

    async def publish_crl(
        self, authority: str, make: MakeCRL, *, now: datetime, revoked: RevokedCertificate | None = None
    ) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    """What the room gives to an adapter."""

    name: str
    """Of the CA in the registry."""
    secrets: Secrets
    now: Callable[[], datetime]
    lists: Lists | None = None
    ca_key: CAKey | None = None
    """Of the CA in this room's HSM token."""


class Adapter(Protocol):
    """What a module of this package has when it is an adapter."""

    PROTOCOL: str
    Connection: type[Entry]

    def open(self, ca: CertificationAuthority, connection: Any, surroundings: Surroundings) -> Authority: ...


def find(protocol: str) -> Adapter:
    """The adapter for a protocol of the registry. Raises SettingsError when there is none."""
    name = f"{__name__}.{protocol.replace('-', '_')}"
    module = importlib.import_module(name) if importlib.util.find_spec(name) is not None else None
    if getattr(module, "PROTOCOL", None) != protocol:
        raise SettingsError(f"there is no adapter for the protocol {protocol}")
    return cast("Adapter", module)


def open_authority(ca: CertificationAuthority, surroundings: Surroundings) -> Authority:
    """The CA of a registry entry, not asked anything yet. Raises SettingsError for what its adapter will not have."""
    adapter = find(ca.protocol)
    try:
        connection = adapter.Connection.model_validate(ca.connection)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'connection'}: {e['msg']}" for e in error.errors()[:5])
        raise SettingsError(f"the connection of {surroundings.name}: {faults}") from None
    return adapter.open(ca, connection, surroundings)

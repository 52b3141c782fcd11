"""Whether the certificates behind a token are revoked: fetched, kept while good, fetched again before they end.

A certificate whose status cannot be had is not believed. What a CRL or an OCSP answer must be is `revocation.py`; it is
read where all foreign bytes are, in a reader.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from cryptography import x509

from services.tsa_connector.frames import Link, Reading
from services.tsa_connector.revocation import Revocation, ocsp_request
from shared.errors import Code, RakkanError
from shared.registry import TimeStampingAuthority

log = structlog.get_logger()

_KEPT_MAX = timedelta(hours=1)
"""A revocation is noticed after so long at the latest, however long the CA lets its lists live."""
_PATHS_MAX = 1000


class Sources(Protocol):
    async def crl(self, url: str) -> bytes: ...

    async def ocsp(self, url: str, query: bytes) -> bytes: ...


class Readers(Protocol):
    async def read_status(self, kind: str, body: bytes, link: Link, *, now: datetime) -> Revocation: ...


_FAILED_FOR = timedelta(seconds=10)
"""So long a place that could not tell is not asked again."""

Key = tuple[bytes, tuple[str, ...]]


@dataclass(frozen=True)
class _Known:
    status: Revocation | None
    """Nothing when it could not be had."""
    again_at: datetime
    fault: str = ""


class Statuses:
    def __init__(self, *, sources: Sources, readers: Readers, now: Callable[[], datetime]) -> None:
        self._sources = sources
        self._readers = readers
        self._now = now
        self._paths: dict[tuple[str, str], tuple[Link, ...]] = {}
        self._known: dict[Key, _Known] = {}
        self._asking: dict[Key, asyncio.Task[None]] = {}

    async def check(self, name: str, tsa: TimeStampingAuthority, reading: Reading) -> None:
        """TSA_UNTRUSTED when a certificate of the path is revoked, TSA_UNAVAILABLE when its status cannot be had."""
        if reading.path is not None:
            if len(self._paths) >= _PATHS_MAX:
                self._paths.clear()
            self._paths[name, reading.path_id] = reading.path
        if not tsa.check_revocation:
            return
        path = self._paths.get((name, reading.path_id))
        if path is None:
            raise RakkanError(Code.TSA_UNAVAILABLE, "the path of the token is not known any more: ask again")
        for link in path:
            status = await self._status(link, tsa.crls)
            if status.is_revoked:
                raise RakkanError(Code.TSA_UNTRUSTED, "a certificate of the TSA is revoked")

    async def close(self) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _status(self, link: Link, crls: tuple[str, ...]) -> Revocation:
        key, now = (link.certificate, crls), self._now()
        known = self._known.get(key)
        if known is None or now >= known.again_at:
            asking = self._asking.get(key) or self._begin(key, link, crls)
            if known is None or known.status is None or now >= known.status.until:
                await asyncio.shield(asking)
                known = self._known[key]
            # Else what is known is still good: nobody waits for the next one.
        if known.status is None or now >= known.status.until:
            raise RakkanError(Code.TSA_UNAVAILABLE, known.fault or "the status of the TSA's certificate is too old")
        return known.status

    def _begin(self, key: Key, link: Link, crls: tuple[str, ...]) -> "asyncio.Task[None]":
        asking = asyncio.create_task(self._ask(key, link, crls), name="certificate status")
        self._asking[key] = asking
        asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return asking

    async def _ask(self, key: Key, link: Link, crls: tuple[str, ...]) -> None:
        faults = []
        for kind, url in _sources(link, crls):
            try:
                body = await (self._sources.crl(url) if kind == "crl" else self._ask_responder(url, link))
                now = self._now()
                status = await self._readers.read_status(kind, body, link, now=now)
            except RakkanError as refusal:
                faults.append(f"{url}: {refusal.detail}")
                continue
            self._known[key] = _Known(status, min(now + (status.until - now) / 2, now + _KEPT_MAX))
            return
        told = "; ".join(faults) or "it names no place that tells"
        fault = f"the status of the TSA's certificate cannot be had: {told}"[:500]
        log.warning("certificate status not had", why=fault)
        former = self._known.get(key)
        self._known[key] = _Known(former.status if former else None, self._now() + _FAILED_FOR, fault)

    async def _ask_responder(self, url: str, link: Link) -> bytes:
        # These two came from a reader that found them genuine, and are parsed here only to name them.
        certificate, issuer = (x509.load_der_x509_certificate(der) for der in (link.certificate, link.issuer))
        return await self._sources.ocsp(url, ocsp_request(certificate, issuer))


def _sources(link: Link, crls: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What officers wrote first, then the quicker kind."""
    for url in crls:
        yield "crl", url
    for url in link.ocsp_urls:
        yield "ocsp", url
    for url in link.crl_urls:
        yield "crl", url

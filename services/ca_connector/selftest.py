"""The self-test of each CA: whether it is reached, which chain it states, whether its list is fresh. Orders nothing."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from services.ca_connector.authorities import Health
from services.ca_connector.queues import Desk
from shared.certificate_status import RevocationList, check_leads_to, read_list
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority

log = structlog.get_logger()

_NOT_STATED = "not stated"


@dataclass(frozen=True)
class Tested:
    """What was found, in words for an operator."""

    at: datetime
    reachable: str
    chain: str
    crl: str
    latency_ms: int | None


class Sources(Protocol):
    async def fetch(self, url: str) -> bytes: ...


class SelfTest:
    """`last` is what the latest test of each CA found."""

    def __init__(
        self,
        *,
        desks: Callable[[], Mapping[str, Desk]],
        sources: Sources,
        timeout_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self.desks = desks
        self.sources = sources
        self.timeout_s = timeout_s
        self.now = now
        self.last: dict[str, Tested] = {}

    async def run(self) -> None:
        """Test all at once; each has the same time, and none waits for another."""
        desks = dict(self.desks())
        found = await asyncio.gather(*(self._test(desk) for desk in desks.values()))
        self.last = dict(zip(desks, found, strict=True))
        for name, tested in self.last.items():
            say = log.info if tested.reachable == "yes" else log.warning
            say(
                "authority tested",
                authority=name,
                reachable=tested.reachable,
                chain=tested.chain,
                crl=tested.crl,
                latency_ms=tested.latency_ms,
            )

    async def _test(self, desk: Desk) -> Tested:
        began = time.monotonic()
        reachable, chain, latency_ms = "yes", _NOT_STATED, None
        try:
            async with asyncio.timeout(self.timeout_s):
                health = await desk.authority.check()
            latency_ms = round((time.monotonic() - began) * 1000)
            chain = self._chain(desk.ca, health)
        except (RakkanError, TimeoutError) as trouble:
            reachable = str(trouble) or f"no answer in {self.timeout_s:g} s"
        return Tested(self.now(), reachable, chain, await self._crl(desk.ca), latency_ms)

    def _chain(self, ca: CertificationAuthority, health: Health) -> str:
        if not health.chain:
            return _NOT_STATED
        try:
            check_leads_to(
                health.chain[0],
                (*health.chain[1:], *ca.intermediate_certificates),
                ca.anchor_certificates,
                now=self.now(),
            )
        except RakkanError as refusal:
            return refusal.detail
        return "ok"

    async def _crl(self, ca: CertificationAuthority) -> str:
        url = ca.revocation.crl_url
        if url is None:
            return ""
        try:
            async with asyncio.timeout(self.timeout_s):
                read = self._read(ca, await self.sources.fetch(url))
        except (RakkanError, TimeoutError) as trouble:
            return str(trouble) or "no answer"
        return "fresh" if read.next_update is None else f"fresh until {read.next_update:%Y-%m-%d %H:%M}"

    def _read(self, ca: CertificationAuthority, der: bytes) -> RevocationList:
        age_max = timedelta(seconds=ca.revocation.max_age_s)
        fault = RakkanError(Code.CERTIFICATE_REFUSED, "the list is of none of the authority's certificates")
        for issuer in (*ca.intermediate_certificates, *ca.anchor_certificates):
            try:
                return read_list(der, issuer, now=self.now(), age_max=age_max)
            except RakkanError as refusal:
                fault = refusal
        raise fault

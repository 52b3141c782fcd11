"""Reads what each CA says of the certificates in use, and has the SAM told of what changed.

A list is read for all certificates of an issuer at once; where there is none, an OCSP responder is asked about each.
What does not verify is refused and counted, and the age of the last good word rises until it is too old.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.metrics import Metrics
from services.ca_connector.orders import Order
from services.ca_connector.settings import Status
from services.ca_connector.store_status import Group, Known
from shared.certificate_status import (
    CertificateStatus,
    RevocationList,
    ask_ocsp,
    check_delta_fits,
    delta_urls,
    issuer_of,
    read_answer,
    read_list,
    responder_urls,
)
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority

log = structlog.get_logger()

_ASKINGS_MAX = 100
_REASSURED_MAX = 500
_LISTS_MAX = 16
"""Of one CA: a certificate names its list, and a CA gone bad could name a new one in each."""


class Store(Protocol):
    async def groups(self, authority: str, *, now: datetime) -> list[Group]: ...

    async def known(self, authority: str, issuer_id: bytes, url: str | None, *, now: datetime) -> list[Known]: ...

    async def claim_list(self, authority: str, url: str, *, now: datetime, every: timedelta) -> bool: ...

    async def last_number(self, authority: str, url: str) -> int | None: ...

    async def keep_list(self, authority: str, url: str, der: bytes, read: RevocationList, *, now: datetime) -> None: ...

    async def list_failed(self, authority: str, url: str, trouble: str) -> None: ...

    async def checked(self, authority: str, issuer_id: bytes, url: str | None, *, now: datetime) -> None: ...

    async def claim_askings(
        self, authority: str, *, now: datetime, every: timedelta, all_of_them: bool, orders_max: int
    ) -> list[Order]: ...

    async def reassure(
        self, authority: str, *, said_at: datetime, now: datetime, every: timedelta, orders_max: int
    ) -> None: ...

    async def note(
        self, order_id: str, status: CertificateStatus, evidence: bytes, *, said_at: datetime, now: datetime
    ) -> bool: ...


class Sources(Protocol):
    """Lists and responders, over HTTP."""

    async def fetch(self, url: str) -> bytes: ...

    async def ask(self, url: str, request: bytes) -> bytes: ...


class Statuses:
    def __init__(
        self, *, store: Store, sources: Sources, settings: Status, metrics: Metrics, now: Callable[[], datetime]
    ) -> None:
        self.store = store
        self.sources = sources
        self.settings = settings
        self.metrics = metrics
        self.now = now

    async def look(self, name: str, ca: CertificationAuthority) -> None:
        """One round for one CA: each of its lists that is due, then those certificates that an answer is due for."""
        by_list: dict[str, list[Group]] = {}
        for group in await self.store.groups(name, now=self.now()):
            url = ca.revocation.crl_url or group.crl_url
            if url is not None and (url in by_list or len(by_list) < _LISTS_MAX):
                by_list.setdefault(url, []).append(group)
        every = timedelta(seconds=self.settings.every_s)
        for url, groups in by_list.items():
            if not await self.store.claim_list(name, url, now=self.now(), every=every):
                continue
            try:
                await self._follow_list(name, ca, url, groups)
            except RakkanError as trouble:
                await self._failed(name, url, trouble)
        await self._ask_responders(name, ca)

    async def _follow_list(self, name: str, ca: CertificationAuthority, url: str, groups: Sequence[Group]) -> None:
        der = await self.sources.fetch(url)
        faults: list[RakkanError] = []
        for group in groups:
            try:
                issuer = self._issuer(group.chain, ca)
                certificate = x509.load_der_x509_certificate(group.chain[0])
                complete = self._read(der, issuer, ca, certificate)
                await self._check_newer(name, url, complete)
                delta = await self._delta(name, ca, complete, issuer, certificate)
            except RakkanError as fault:
                faults.append(fault)
                continue
            await self._apply(name, ca, group, complete, delta)
            await self.store.keep_list(name, url, der, complete, now=self.now())
        # After a change of its key a CA has certificates of two issuers and may have a list of the new one alone.
        if faults and len(faults) == len(groups):
            raise faults[0]

    async def _delta(
        self,
        name: str,
        ca: CertificationAuthority,
        complete: RevocationList,
        issuer: x509.Certificate,
        certificate: x509.Certificate,
    ) -> RevocationList | None:
        """What changed since the complete list, where the CA says so. A delta that is no good harms nothing."""
        url = next(iter((*delta_urls(complete.crl), *delta_urls(certificate))), None)
        if url is None:
            return None
        try:
            delta = self._read(await self.sources.fetch(url), issuer, ca, certificate)
            check_delta_fits(complete, delta)
        except RakkanError as trouble:
            self._refused(name, url, trouble)
            return None
        return delta

    async def _apply(
        self,
        name: str,
        ca: CertificationAuthority,
        group: Group,
        complete: RevocationList,
        delta: RevocationList | None,
    ) -> None:
        # Where officers named the list, it is of all certificates of its issuer, whatever these say themselves.
        url = None if ca.revocation.crl_url else group.crl_url
        now = self.now()
        known = await self.store.known(name, group.issuer_id, url, now=now)
        serials = {one.serial_number for one in known}
        listed, changed = complete.entries(serials), delta.entries(serials) if delta else {}
        said_at = delta.this_update if delta else complete.this_update
        for one in known:
            status = _status_of(one, listed, changed)
            if status is not None and status.state != one.status:
                source = delta if delta is not None and status is changed.get(one.serial_number) else complete
                evidence = source.crl.public_bytes(Encoding.DER)
                if await self.store.note(one.order_id, status, evidence, said_at=said_at, now=now):
                    log.warning("certificate status changed", authority=name, order_id=one.order_id, now=status.state)
        await self.store.checked(name, group.issuer_id, url, now=now)
        await self._reassure(name, ca, said_at=said_at, now=now)

    async def _ask_responders(self, name: str, ca: CertificationAuthority) -> None:
        every = timedelta(seconds=self.settings.ocsp_every_s)
        due = await self.store.claim_askings(
            name,
            now=self.now(),
            every=every,
            all_of_them=ca.revocation.ocsp_url is not None,
            orders_max=_ASKINGS_MAX,
        )
        for order in due:
            certificate = x509.load_der_x509_certificate(order.chain[0])
            url = ca.revocation.ocsp_url or next(iter(responder_urls(certificate)), None)
            if url is None:
                continue
            try:
                await self._ask(name, ca, order, certificate, url)
            except RakkanError as trouble:
                self._refused(name, url, trouble)

    async def _ask(
        self, name: str, ca: CertificationAuthority, order: Order, certificate: x509.Certificate, url: str
    ) -> None:
        issuer = self._issuer(order.chain, ca)
        der = await self.sources.ask(url, ask_ocsp(certificate, issuer).public_bytes(Encoding.DER))
        now = self.now()
        status = read_answer(
            der,
            certificate,
            issuer,
            now=now,
            age_max=timedelta(seconds=ca.revocation.max_age_s),
            responder=ca.revocation.responder_certificate,
        )
        said_at = status.said_at or now
        if await self.store.note(order.order_id, status, der, said_at=said_at, now=now):
            log.warning("certificate status changed", authority=name, order_id=order.order_id, now=status.state)
        await self._reassure(name, ca, said_at=said_at, now=now)

    async def _reassure(self, name: str, ca: CertificationAuthority, *, said_at: datetime, now: datetime) -> None:
        every = timedelta(seconds=ca.revocation.max_age_s / 2)
        await self.store.reassure(name, said_at=said_at, now=now, every=every, orders_max=_REASSURED_MAX)

    async def _check_newer(self, name: str, url: str, read: RevocationList) -> None:
        last = await self.store.last_number(name, url)
        if last is not None and read.number is not None and read.number < last:
            raise RakkanError(Code.CERTIFICATE_REFUSED, f"list {read.number} came after list {last}")

    def _read(
        self, der: bytes, issuer: x509.Certificate, ca: CertificationAuthority, certificate: x509.Certificate
    ) -> RevocationList:
        age_max = timedelta(seconds=ca.revocation.max_age_s)
        # A list at an address that officers wrote covers what they say it covers.
        about = None if ca.revocation.crl_url else certificate
        return read_list(der, issuer, now=self.now(), age_max=age_max, certificate=about)

    def _issuer(self, chain: tuple[bytes, ...], ca: CertificationAuthority) -> x509.Certificate:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        candidates = (*certificates[1:], *ca.intermediate_certificates)
        return issuer_of(certificates[0], candidates, ca.anchor_certificates, now=self.now())

    async def _failed(self, name: str, url: str, trouble: RakkanError) -> None:
        self._refused(name, url, trouble)
        await self.store.list_failed(name, url, str(trouble))

    def _refused(self, name: str, url: str, trouble: RakkanError) -> None:
        untrusted = trouble.code in {Code.CERTIFICATE_REFUSED, Code.AUTHORITY_UNTRUSTED}
        self.metrics.failed(name, "status_untrusted" if untrusted else "status_unavailable")
        log.warning("certificate status refused", authority=name, url=url, why=str(trouble))


def _status_of(
    one: Known, listed: Mapping[int, CertificateStatus], changed: Mapping[int, CertificateStatus]
) -> CertificateStatus | None:
    """What is to be believed of a certificate; nothing when it stays as it is known.

    A way back is taken from a complete list alone: what a delta takes off, the next complete list will not have.
    """
    delta = changed.get(one.serial_number)
    if delta is not None and delta.state != "valid":
        return delta
    complete = listed.get(one.serial_number)
    if complete is not None and delta is None:
        return complete
    if complete is not None or one.status != "suspended":
        return None
    return CertificateStatus("valid")

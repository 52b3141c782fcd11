"""What OpenBao publishes about its certificates, its CRL and its OCSP, read by the CA connector over the network."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry

from services.ca_connector.fetching import Fetching
from services.ca_connector.metrics import Metrics
from services.ca_connector.orders import Issued, Order
from services.ca_connector.settings import Status
from services.ca_connector.status import Statuses
from services.ca_connector.store_status import Group, Known
from shared.certificate_status import CertificateStatus, RevocationList
from tests.support.ordering import after, new_key, now, open_entry, order_for, read_entry
from tests.support.peers import Missing, leave_out
from tests.support.peers.openbao import OpenBao


@dataclass
class OneCertificate:
    """The records of one certificate in use, in memory."""

    order: Order
    kept: list[RevocationList] = field(default_factory=list)
    told: list[CertificateStatus] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    async def groups(self, authority: str, *, now: datetime) -> list[Group]:
        del authority, now
        return [Group(None, b"issuer", self.order.chain)]

    async def known(self, authority: str, issuer_id: bytes, url: str | None, *, now: datetime) -> list[Known]:
        del authority, issuer_id, url, now
        serial_number = x509.load_der_x509_certificate(self.order.chain[0]).serial_number
        return [Known(self.order.order_id, serial_number, "valid")]

    async def claim_list(self, authority: str, url: str, *, now: datetime, every: timedelta) -> bool:
        del authority, url, now, every
        return True

    async def last_number(self, authority: str, url: str) -> int | None:
        del authority, url
        return self.kept[-1].number if self.kept else None

    async def keep_list(self, authority: str, url: str, der: bytes, read: RevocationList, *, now: datetime) -> None:
        del authority, url, der, now
        self.kept.append(read)

    async def list_failed(self, authority: str, url: str, trouble: str) -> None:
        del authority, url
        self.troubles.append(trouble)

    async def checked(self, authority: str, issuer_id: bytes, url: str | None, *, now: datetime) -> None: ...

    async def claim_askings(
        self, authority: str, *, now: datetime, every: timedelta, all_of_them: bool, orders_max: int
    ) -> list[Order]:
        del authority, now, every, orders_max
        return [self.order] if all_of_them else []

    async def reassure(
        self, authority: str, *, said_at: datetime, now: datetime, every: timedelta, orders_max: int
    ) -> None: ...

    async def note(
        self, order_id: str, status: CertificateStatus, evidence: bytes, *, said_at: datetime, now: datetime
    ) -> bool:
        del order_id, evidence, said_at, now
        self.told.append(status)
        return True


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    peer = OpenBao()
    try:
        peer.start(tmp_path_factory.mktemp("bao"))
    except Missing as missing:
        leave_out(missing)
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture
async def fetching() -> AsyncIterator[Fetching]:
    made = Fetching(timeout_s=10, list_bytes_max=1_000_000)
    yield made
    await made.close()


async def issued(bao: OpenBao) -> OneCertificate:
    entry = bao.entry()
    authority = open_entry(entry, bao.secrets)
    try:
        order = order_for(new_key(), profile=entry["default_profile"])
        outcome = await authority.submit(order)
    finally:
        await authority.close()
    assert isinstance(outcome, Issued)
    return OneCertificate(after(order, outcome))


@pytest.mark.parametrize("source", ["crl_url", "ocsp_url"])
async def test_what_openbao_revokes_behind_our_back_is_noticed_at_its_list_and_at_its_responder(
    bao: OpenBao, fetching: Fetching, source: str
) -> None:
    store = await issued(bao)
    entry: dict[str, Any] = bao.entry()
    ca = read_entry(entry, revocation={source: entry["revocation"][source], "max_age_s": 7 * 86_400})
    metrics = Metrics(CollectorRegistry())
    statuses = Statuses(store=store, sources=fetching, settings=Status(), metrics=metrics, now=now)
    await statuses.look("bao", ca)
    assert store.troubles == []
    assert all(status.state == "valid" for status in store.told)
    serial = x509.load_der_x509_certificate(store.order.chain[0]).serial_number
    bao.api("pki_int/revoke", {"serial_number": serial.to_bytes(20, "big").lstrip(b"\0").hex(":")})
    await statuses.look("bao", ca)
    assert store.troubles == []
    assert [status.state for status in store.told][-1] == "revoked"

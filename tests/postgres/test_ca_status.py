"""What the CA connector reads about certificates in use, with its records in a real PostgreSQL; the web is a fake."""

import json
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry

from deploy.local.stack import Stack
from services.ca_connector.metrics import Metrics
from services.ca_connector.orders import Issued, Order, advance, decide
from services.ca_connector.settings import Status
from services.ca_connector.status import Statuses
from services.ca_connector.store import Store
from services.ca_connector.store_standing import StandingStore
from services.ca_connector.store_status import StatusStore
from shared.audit import AuditWriter
from shared.database import Pool, connect_pool
from shared.messaging import operation
from shared.registry import CertificationAuthority
from shared.settings import Database
from tests.support.certificates import CA, NOW, authority, pem
from tests.support.published import (
    COMPROMISE,
    DAY,
    DELTA_URL,
    HOLD,
    OCSP_URL,
    REMOVED,
    URL,
    Published,
    answer,
    crl,
    end_entity,
    responder,
    twin_of,
)

ROOT = authority("Status root")
EVERY = timedelta(seconds=300)


@dataclass
class Room:
    """The reading of statuses, one CA of a fresh name, and the certificates it has in use."""

    pool: Pool
    orders: Store
    store: StatusStore
    ca: CertificationAuthority
    name: str
    web: Published = field(default_factory=Published)
    time: datetime = NOW
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.statuses = Statuses(
            store=self.store,
            sources=self.web,
            settings=Status(),
            metrics=Metrics(self.registry),
            now=lambda: self.time,
        )

    async def use(self, certificate: x509.Certificate, *, renews: str | None = None) -> str:
        """The order of a certificate that the SAM has taken."""
        wanted = Order(secrets.token_hex(8), self.name, b"csr", "operation", created_at=self.time)
        order = await self.orders.submit(wanted, renews=renews, key_hash=secrets.token_bytes(32))
        issued = advance(order, Issued((certificate.public_bytes(Encoding.DER),)))
        assert await self.orders.record(order, issued, now=self.time)
        assert await self.orders.record(issued, decide(issued, accepted=True, reason=None), now=self.time)
        await self.pool.execute("delete from outbox")
        return order.order_id

    async def look(self, *, later: timedelta = EVERY) -> list[tuple[str, str]]:
        """One round; whom the SAM is told of, and what."""
        self.time += later
        await self.statuses.look(self.name, self.ca)
        return [(one["order_id"], one["status"]) for one in await self.told()]

    async def told(self) -> list[dict[str, Any]]:
        rows = await self.pool.fetch("delete from outbox returning body")
        return [json.loads(row["body"]) for row in rows]

    def failures(self, kind: str) -> float:
        labels = {"authority": self.name, "kind": kind}
        return self.registry.get_sample_value("rakkan_ca_failures_total", labels) or 0.0


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    file = database.keys.password_file("ca_connector", "database")
    opened = await connect_pool(Database(port=database.postgres.port, password_file=file), "ca_connector")
    yield opened
    opened.terminate()


def entry(**revocation: Any) -> CertificationAuthority:
    profiles = {"signing": {"label": "Signing"}}
    members = {"label": "CA", "protocol": "fake", "profiles": profiles, "default_profile": "signing"}
    return CertificationAuthority.model_validate(
        members | {"anchors": [pem(ROOT.certificate)], "revocation": revocation}
    )


@pytest.fixture
async def room(pool: Pool) -> AsyncIterator[Room]:
    audit = AuditWriter("ca_connector", secrets.token_hex(4))
    await audit.start(pool)
    with operation.begin("ca_connector", timeout_s=60):
        yield Room(pool, Store(pool, audit), StatusStore(pool, audit), entry(), secrets.token_hex(4))


async def test_a_revoked_and_a_suspended_certificate_reach_the_sam_once_and_with_what_says_so(room: Room) -> None:
    kept, ended, held = (end_entity(ROOT) for _ in range(3))
    orders = [await room.use(one) for one in (kept, ended, held)]
    room.web.lists[URL] = crl(ROOT, {ended.serial_number: COMPROMISE, held.serial_number: HOLD}, at=NOW)
    room.time += EVERY
    await room.statuses.look(room.name, room.ca)
    told = {one["order_id"]: one for one in await room.told()}
    assert {order: one["status"] for order, one in told.items()} == {
        orders[0]: "valid",
        orders[1]: "revoked",
        orders[2]: "suspended",
    }
    assert told[orders[1]]["evidence"]
    assert told[orders[1]]["checked_at"].startswith("2026-11-25T12:00:00")
    assert await room.look() == []


async def test_a_list_is_read_once_in_its_time_however_many_ask(room: Room) -> None:
    await room.use(end_entity(ROOT))
    room.web.lists[URL] = crl(ROOT)
    for later in (EVERY, EVERY / 2, EVERY / 2, timedelta()):
        await room.look(later=later)
    assert room.web.fetched == [URL, URL]


async def test_a_suspended_certificate_comes_back_by_a_list_that_says_so_and_a_revoked_one_never(
    room: Room,
) -> None:
    held, ended = end_entity(ROOT), end_entity(ROOT)
    held_order, _ = await room.use(held), await room.use(ended)
    room.web.lists[URL] = crl(ROOT, {held.serial_number: HOLD, ended.serial_number: COMPROMISE})
    await room.look()
    room.web.lists[URL] = crl(ROOT, number=8)
    room.time += EVERY
    await room.statuses.look(room.name, room.ca)
    (told,) = await room.told()
    assert (told["order_id"], told["status"], bool(told["evidence"])) == (held_order, "valid", True)


LIES: dict[str, Callable[[], bytes]] = {
    "of another CA": lambda: crl(authority("Other"), number=9),
    "of a CA of the same name": lambda: crl(twin_of(ROOT), number=9),
    "stale": lambda: crl(ROOT, number=9, at=NOW - 3 * DAY),
    "older than the last": lambda: crl(ROOT, number=6),
    "HTML": lambda: b"<html>captive portal</html>",
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_list_that_is_not_the_cas_own_and_of_now_is_refused_and_counted(room: Room, lie: str) -> None:
    held = end_entity(ROOT)
    order = await room.use(held)
    room.web.lists[URL] = crl(ROOT, {held.serial_number: HOLD})
    assert await room.look() == [(order, "suspended")]
    room.web.lists[URL] = LIES[lie]()
    assert await room.look() == []
    assert room.failures("status_untrusted") == 1
    (trouble,) = [one["trouble"] for one in await StandingStore(room.pool).lists() if one["authority"] == room.name]
    assert trouble.startswith("certificate_refused")


async def test_a_list_that_is_away_leaves_all_as_it_is_and_the_status_grows_old(room: Room) -> None:
    await room.use(end_entity(ROOT))
    assert await room.look() == []
    assert room.failures("status_unavailable") == 1
    standing = (await StandingStore(room.pool).standings(now=room.time, days=()))[room.name]
    assert standing.status_of == NOW
    room.web.lists[URL] = crl(ROOT)
    await room.look()
    assert (await StandingStore(room.pool).standings(now=room.time, days=()))[room.name].status_of == room.time


async def test_a_delta_tells_what_changed_since_its_list_and_one_that_does_not_fit_tells_nothing(room: Room) -> None:
    first, second, held = (end_entity(ROOT) for _ in range(3))
    orders = [await room.use(one) for one in (first, second, held)]
    room.web.lists[URL] = crl(ROOT, {held.serial_number: HOLD}, delta_url=DELTA_URL)
    room.web.lists[DELTA_URL] = crl(
        ROOT, {first.serial_number: COMPROMISE, held.serial_number: REMOVED}, number=9, base=7
    )
    assert sorted(await room.look()) == sorted([(orders[0], "revoked"), (orders[1], "valid"), (orders[2], "valid")])
    room.web.lists[DELTA_URL] = crl(ROOT, {second.serial_number: COMPROMISE}, number=12, base=11)
    # Without its delta the list counts alone, and it says that one is on hold.
    assert await room.look() == [(orders[2], "suspended")]
    room.web.lists[DELTA_URL] = crl(twin_of(ROOT), {second.serial_number: COMPROMISE}, number=12, base=7)
    assert await room.look() == []
    assert room.failures("status_untrusted") == 2


async def test_the_issuer_must_lead_to_the_anchors_of_this_very_ca(room: Room) -> None:
    stranger = authority("Stranger")
    await room.use(end_entity(stranger))
    room.web.lists[URL] = crl(stranger)
    assert await room.look() == []
    assert room.failures("status_untrusted") == 1


async def test_where_officers_named_the_list_the_certificates_own_is_not_asked(room: Room) -> None:
    room.ca = entry(crl_url="http://officers.example/list.crl")
    ended = end_entity(ROOT, crl_url=None)
    order = await room.use(ended)
    room.web.lists["http://officers.example/list.crl"] = crl(ROOT, {ended.serial_number: COMPROMISE})
    assert await room.look() == [(order, "revoked")]
    assert URL not in room.web.fetched


async def test_a_ca_gone_bad_cannot_have_us_ask_any_number_of_addresses(room: Room) -> None:
    for index in range(20):
        await room.use(end_entity(ROOT, crl_url=f"http://inside.example/{index}"))
    await room.look()
    assert len(room.web.fetched) == 16


# Responders


async def asked(room: Room, ca: CA = ROOT) -> tuple[x509.Certificate, str]:
    certificate = end_entity(ca, crl_url=None, ocsp_url=OCSP_URL)
    return certificate, await room.use(certificate)


async def test_where_there_is_no_list_a_responder_is_asked_about_each_in_its_time(room: Room) -> None:
    certificate, order = await asked(room)
    room.web.answers[certificate.serial_number] = answer(ROOT, certificate)
    assert await room.look() == [(order, "valid")]
    room.web.answers[certificate.serial_number] = answer(ROOT, certificate, reason=COMPROMISE)
    assert await room.look() == []
    assert await room.look(later=timedelta(hours=1)) == [(order, "revoked")]
    assert room.web.fetched == [OCSP_URL, OCSP_URL]


@pytest.mark.parametrize("wrong", ["other", "no usage", "twin"])
async def test_an_answer_of_the_wrong_responder_is_refused_and_counted(room: Room, wrong: str) -> None:
    certificate, _ = await asked(room)
    signer = {
        "other": authority("Other"),
        "no usage": responder(ROOT, usage=False),
        "twin": responder(twin_of(ROOT)),
    }[wrong]
    lie = answer(ROOT, certificate, reason=COMPROMISE, responder=signer)
    room.web.answers[certificate.serial_number] = lie
    assert await room.look() == []
    assert room.failures("status_untrusted") == 1


async def test_a_responder_that_officers_named_is_asked_even_where_there_is_a_list(room: Room) -> None:
    trusted = authority("Trusted responder")
    room.ca = entry(ocsp_url=OCSP_URL, ocsp_responder=pem(trusted.certificate))
    certificate = end_entity(ROOT)
    order = await room.use(certificate)
    room.web.lists[URL] = crl(ROOT)
    room.web.answers[certificate.serial_number] = answer(ROOT, certificate, reason=HOLD, responder=trusted)
    assert (order, "suspended") in await room.look()


# Time


async def test_the_sam_hears_of_good_certificates_before_their_status_is_too_old(room: Room) -> None:
    order = await room.use(end_entity(ROOT))
    room.web.lists[URL] = crl(ROOT, until=NOW + 2 * DAY)
    assert await room.look() == [(order, "valid")]
    assert await room.look() == []
    assert await room.look(later=timedelta(hours=12)) == [(order, "valid")]


async def test_an_expired_certificate_is_nobodys_concern_any_more(room: Room) -> None:
    await room.use(end_entity(ROOT))
    room.web.lists[URL] = crl(ROOT)
    assert await room.look(later=200 * DAY) == []
    assert room.web.fetched == []


async def test_a_certificate_that_ends_soon_is_told_of_once_for_each_time(room: Room) -> None:
    order = await room.use(end_entity(ROOT))
    told = []
    for days in (60, 80, 81, 94, 95, 99, 99.5):
        now = NOW + days * DAY
        for within in (1, 7, 30):
            found = await room.store.expiring(now=now, within=timedelta(days=within), orders_max=1000)
            told += [(days, within) for one in found if one.order_id == order]
    assert told == [(80, 30), (94, 7), (99, 1)]
    standing = (await StandingStore(room.pool).standings(now=NOW + 95 * DAY, days=(1, 7, 30)))[room.name]
    assert standing.expiring == {7: 1, 30: 1}


async def test_a_certificate_that_another_took_over_from_is_not_told_of(room: Room) -> None:
    order = await room.use(end_entity(ROOT))
    await room.use(end_entity(ROOT), renews=order)
    found = await room.store.expiring(now=NOW + 95 * DAY, within=timedelta(days=30), orders_max=1000)
    assert order not in {one.order_id for one in found}

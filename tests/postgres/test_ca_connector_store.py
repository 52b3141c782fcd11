"""The CA connector's records in a real PostgreSQL: what is single, what is final, what the room's role may not do."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from deploy.local.stack import Stack
from services.ca_connector.orders import (
    Issued,
    Order,
    Pending,
    Refused,
    State,
    advance,
    decide,
    expect_confirmation,
    fill,
    lose,
)
from services.ca_connector.profile import RevokedCertificate, crl, root
from services.ca_connector.store import Store
from services.ca_connector.store_lists import ListStore
from services.ca_connector.store_queues import QueueStore
from services.ca_connector.store_standing import StandingStore
from services.ca_connector.store_status import StatusStore
from shared.audit import AuditWriter
from shared.contracts.sam import AcceptCertificate, NoteCertificateStatus, RefuseOrder
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.registry.model import Quota
from shared.settings import Database

NOW = datetime.now(UTC).replace(microsecond=0)
MINUTE = timedelta(minutes=1)
CA_KEY = ec.generate_private_key(ec.SECP384R1())
CA = root(
    name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]),
    key=CA_KEY.public_key(),
    serial_number=x509.random_serial_number(),
    validity=timedelta(days=1),
    now=NOW,
).sign(CA_KEY, hashes.SHA384())
ISSUED = Issued((CA.public_bytes(Encoding.DER),))


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    file = database.keys.password_file("ca_connector", "database")
    opened = await connect_pool(Database(port=database.postgres.port, password_file=file), "ca_connector")
    yield opened
    opened.terminate()


@pytest.fixture(scope="module")
async def audit(pool: Pool) -> AuditWriter:
    writer = AuditWriter("ca_connector", secrets.token_hex(4))
    await writer.start(pool)
    return writer


@pytest.fixture
async def store(pool: Pool, audit: AuditWriter) -> AsyncIterator[Store]:
    await pool.execute("delete from outbox")
    with operation.begin("ca_connector", timeout_s=60):
        yield Store(pool, audit)


@pytest.fixture
async def queues(pool: Pool) -> QueueStore:
    return QueueStore(pool)


@pytest.fixture
async def lists(pool: Pool, audit: AuditWriter) -> AsyncIterator[ListStore]:
    with operation.begin("ca_connector", timeout_s=60):
        yield ListStore(pool, audit)


def wanted(order_id: str | None = None, *, authority: str = "local", at: datetime = NOW) -> Order:
    return Order(order_id or secrets.token_hex(8), authority, b"csr", "operation", created_at=at)


async def submitted(store: Store, *, authority: str = "local", at: datetime = NOW) -> Order:
    return await store.submit(wanted(authority=authority, at=at), renews=None, key_hash=secrets.token_bytes(32))


async def issued(store: Store, *, authority: str = "local", at: datetime = NOW) -> Order:
    order = await submitted(store, authority=authority, at=at)
    assert await store.record(order, advance(order, ISSUED), now=at)
    return await store.order(order.order_id)


async def posted(pool: Pool) -> dict[str, tuple[str, dict[str, Any]]]:
    rows = await pool.fetch("select message_id, type, body from outbox")
    return {row["message_id"]: (row["type"], json.loads(row["body"])) for row in rows}


async def leaves(pool: Pool, order_id: str) -> list[dict[str, Any]]:
    rows = await pool.fetch("select record from audit_leaves order by chain_id, seq")
    records = [json.loads(row["record"]) for row in rows]
    return [record for record in records if record["subject"].get("order_id") == order_id]


async def test_an_order_is_one_however_many_times_it_comes_at_once(store: Store, pool: Pool) -> None:
    one, key_hash = wanted(), secrets.token_bytes(32)
    orders = await asyncio.gather(*(store.submit(one, renews=None, key_hash=key_hash) for _ in range(5)))
    assert {order.order_id for order in orders} == {one.order_id}
    assert [leaf["event_type"] for leaf in await leaves(pool, one.order_id)] == ["certificate.ordered"]


async def test_a_key_has_one_order_at_a_time_at_an_authority_and_one_for_each_renewal(store: Store) -> None:
    key_hash = secrets.token_bytes(32)
    first = await store.submit(wanted(), renews=None, key_hash=key_hash)
    with pytest.raises(RakkanError) as refusal:
        await store.submit(wanted(), renews=None, key_hash=key_hash)
    assert refusal.value.code is Code.CONFLICT
    await store.submit(wanted(), renews=first.order_id, key_hash=key_hash)
    await store.submit(wanted(authority="other"), renews=None, key_hash=key_hash)
    assert await store.record(first, advance(first, Refused("no")), now=NOW)
    await store.submit(wanted(), renews=None, key_hash=key_hash)


async def test_a_certificate_and_the_job_that_tells_of_it_are_one(store: Store, pool: Pool) -> None:
    order = await issued(store)
    assert (order.state, order.chain) == (State.ISSUED, ISSUED.chain)
    type_, body = (await posted(pool))[f"accept:{order.order_id}"]
    assert (type_, body["order_id"]) == (AcceptCertificate.TYPE, order.order_id)
    told = await leaves(pool, order.order_id)
    assert [leaf["event_type"] for leaf in told] == ["certificate.ordered", "certificate.issued"]
    assert told[1]["subject"]["serial_number"] == f"{CA.serial_number:x}"


async def test_of_two_that_bring_a_certificate_one_is_heard(store: Store) -> None:
    order = await submitted(store)
    results = await asyncio.gather(*(store.record(order, advance(order, ISSUED), now=NOW) for _ in range(4)))
    assert sorted(results) == [False, False, False, True]


async def test_telling_again_is_the_same_message(store: Store, pool: Pool) -> None:
    order = await issued(store)
    await store.repeat(order)
    assert list(await posted(pool)) == [f"accept:{order.order_id}"]
    await pool.execute("delete from outbox")
    await store.repeat(order)
    assert list(await posted(pool)) == [f"accept:{order.order_id}"]


@pytest.mark.parametrize("state", [State.SUBMITTED, State.PENDING, State.UNKNOWN])
async def test_a_certificate_that_was_brought_ends_the_order_and_is_told_to_nobody(
    store: Store, pool: Pool, audit: AuditWriter, state: State
) -> None:
    authority = secrets.token_hex(4)
    order = await submitted(store, authority=authority)
    moves = {State.PENDING: advance(order, Pending(b"handle", NOW)), State.UNKNOWN: lose(order, "no answer")}
    if state in moves:
        assert await store.record(order, moves[state], now=NOW)
        order = moves[state]
    filled = fill(order, ISSUED.chain)
    assert await store.record(order, filled, now=NOW)
    assert not await store.record(order, filled, now=NOW)
    kept = await store.order(order.order_id)
    assert (kept.state, kept.chain) == (State.CONFIRMED, ISSUED.chain)
    assert await posted(pool) == {}
    told = await leaves(pool, order.order_id)
    assert [leaf["event_type"] for leaf in told][-2:] == ["certificate.brought", "certificate.confirmed"]
    assert told[-1]["subject"]["serial_number"] == f"{CA.serial_number:x}"
    standing = StandingStore(pool)
    (row,) = await standing.orders(authority=authority, state="CONFIRMED", orders_max=9)
    assert row["serial_number"] == f"{CA.serial_number:x}"
    expiring = StatusStore(pool, audit).expiring(now=NOW, within=timedelta(days=2), orders_max=1000)
    assert order.order_id in {one.order_id for one in await expiring}


async def test_a_refusal_is_posted_and_ends_the_order(store: Store, pool: Pool) -> None:
    order = await submitted(store)
    assert await store.record(order, advance(order, Refused("no such person")), now=NOW)
    type_, body = (await posted(pool))[f"refuse:{order.order_id}"]
    assert (type_, body["reason"]) == (RefuseOrder.TYPE, "no such person")
    assert (await leaves(pool, order.order_id))[-1]["outcome"] == "refused"


async def test_a_handle_is_kept_and_claimed_when_its_time_has_come(store: Store, queues: QueueStore) -> None:
    order = await submitted(store)
    pending = advance(order, Pending(handle=b"\x00handle", not_before=NOW + 10 * MINUTE))
    assert await store.record(order, pending, now=NOW)
    assert order.order_id not in await claimed(queues, NOW + 9 * MINUTE)
    assert order.order_id in await claimed(queues, NOW + 10 * MINUTE)
    # Claimed, it is left alone for a while, and comes again when whoever claimed it died.
    assert order.order_id not in await claimed(queues, NOW + 10 * MINUTE)
    assert order.order_id in await claimed(queues, NOW + 11 * MINUTE)
    assert (await store.order(order.order_id)).handle == b"\x00handle"


async def claimed(queues: QueueStore, now: datetime, authority: str = "local") -> list[str]:
    orders = await queues.claim(authority, now=now, lease=MINUTE, orders_max=1000, quotas=())
    return [order.order_id for order in orders]


async def test_an_order_is_claimed_by_one_and_again_when_that_one_is_gone(store: Store, queues: QueueStore) -> None:
    order = await submitted(store)
    assert order.order_id not in await claimed(queues, NOW, "other")
    both = await asyncio.gather(claimed(queues, NOW), claimed(queues, NOW))
    assert sum(order.order_id in ids for ids in both) == 1
    assert order.order_id not in await claimed(queues, NOW + MINUTE / 2)
    again = await queues.claim("local", now=NOW + MINUTE, lease=MINUTE, orders_max=1000, quotas=())
    assert [one.asked_before for one in again if one.order_id == order.order_id] == [True]


async def test_the_first_claim_finds_no_mark_and_leaves_one(store: Store, queues: QueueStore) -> None:
    authority = secrets.token_hex(4)
    order = await submitted(store, authority=authority)
    (first,) = await queues.claim(authority, now=NOW, lease=MINUTE, orders_max=9, quotas=())
    assert (first.asked_before, (await store.order(order.order_id)).asked_before) == (False, True)
    await store.postpone(first, due_at=NOW + MINUTE, trouble="away")
    current = await store.order(order.order_id)
    assert (current.asked_before, current.failures) == (False, 1)
    assert await claimed(queues, NOW + MINUTE / 2, authority) == []


async def test_an_ended_order_is_never_claimed(store: Store, queues: QueueStore) -> None:
    order = await issued(store)
    assert await store.record(order, decide(order, accepted=True, reason=None), now=NOW)
    assert order.order_id not in await claimed(queues, NOW + timedelta(days=9))


async def test_the_sams_word_waits_until_the_authority_has_heard_it(store: Store, queues: QueueStore) -> None:
    authority = secrets.token_hex(4)
    order = await issued(store, authority=authority)
    assert await store.record(order, expect_confirmation(decide(order, accepted=True, reason=None)), now=NOW)
    (due,) = await queues.claim(authority, now=NOW, lease=MINUTE, orders_max=9, quotas=())
    assert (due.state, due.confirm_due) == (State.CONFIRMED, True)
    await store.confirmed(due)
    assert await claimed(queues, NOW + timedelta(days=1), authority) == []


async def test_a_quota_is_shared_by_all_who_claim_and_forgets_in_time(store: Store, queues: QueueStore) -> None:
    authority = secrets.token_hex(4)
    for _ in range(12):
        await submitted(store, authority=authority)
    quotas = (Quota(requests=5, seconds=60), Quota(requests=8, seconds=600))

    async def claim(now: datetime) -> int:
        return len(await queues.claim(authority, now=now, lease=timedelta(days=1), orders_max=4, quotas=quotas))

    assert sum(await asyncio.gather(*(claim(NOW) for _ in range(4)))) == 5
    assert [await claim(NOW + MINUTE / 2), await claim(NOW + MINUTE), await claim(NOW + MINUTE)] == [0, 3, 0]
    assert await claim(NOW + timedelta(minutes=10)) == 4


async def test_what_is_under_way_waits_for_no_quota(store: Store, queues: QueueStore) -> None:
    authority = secrets.token_hex(4)
    quotas = (Quota(requests=1, seconds=60),)
    order = await submitted(store, authority=authority)
    assert len(await queues.claim(authority, now=NOW, lease=MINUTE, orders_max=4, quotas=quotas)) == 1
    assert await store.record(order, advance(order, Pending(b"handle", NOW)), now=NOW)
    await submitted(store, authority=authority)
    (polled,) = await queues.claim(authority, now=NOW, lease=MINUTE, orders_max=4, quotas=quotas)
    assert (polled.order_id, polled.handle) == (order.order_id, b"handle")


async def test_an_authority_under_maintenance_gives_only_what_is_under_way(store: Store, queues: QueueStore) -> None:
    authority = secrets.token_hex(4)
    await submitted(store, authority=authority)
    pending = await submitted(store, authority=authority)
    assert await store.record(pending, advance(pending, Pending(b"handle", NOW)), now=NOW)
    open_ = await queues.claim_open(authority, now=NOW, lease=MINUTE, orders_max=9)
    assert [order.order_id for order in open_] == [pending.order_id]


async def test_an_order_that_renews_is_claimed_with_the_one_it_renews(store: Store, queues: QueueStore) -> None:
    authority = secrets.token_hex(4)
    first = await issued(store, authority=authority)
    await store.submit(wanted(authority=authority), renews=first.order_id, key_hash=secrets.token_bytes(32))
    (claimed_,) = await queues.claim(authority, now=NOW, lease=MINUTE, orders_max=9, quotas=())
    assert claimed_.previous is not None
    assert claimed_.previous.chain == first.chain


async def test_orders_of_no_authority_are_found(store: Store) -> None:
    order = await submitted(store, authority="left")

    async def homeless(authorities: list[str], before: datetime) -> bool:
        found = await store.homeless(before=before, authorities=authorities, orders_max=1000)
        return order.order_id in {one.order_id for one in found}

    assert await homeless(["other"], NOW)
    assert not await homeless(["other", "left"], NOW)
    assert not await homeless(["other"], NOW - MINUTE)


async def test_the_sam_is_told_again_of_what_it_has_not_answered(store: Store) -> None:
    order = await issued(store)

    async def untold(now: datetime) -> bool:
        found = await store.claim_untold(now=now, stuck=MINUTE, orders_max=1000)
        return order.order_id in {one.order_id for one in found}

    assert [await untold(NOW), await untold(NOW + MINUTE), await untold(NOW + MINUTE)] == [False, True, False]


async def test_a_certificate_for_an_ended_order_is_kept_to_be_revoked(store: Store, queues: QueueStore) -> None:
    authority = secrets.token_hex(4)
    order = await submitted(store, authority=authority)
    rejected = advance(order, Refused("the operator said so"))
    assert await store.record(order, rejected, now=NOW)
    assert await store.keep_stray(rejected, ISSUED.chain)
    assert not await store.keep_stray(rejected, ISSUED.chain)
    await store.want_revocation(rejected, reason=5, now=NOW)
    due = await queues.claim_revocations(authority, now=NOW, lease=MINUTE, orders_max=9)
    assert [one.order_id for one in due] == [order.order_id]


async def test_a_revocation_keeps_its_first_reason_and_is_told_once(
    store: Store, queues: QueueStore, pool: Pool
) -> None:
    order = await issued(store)
    revocation = await store.want_revocation(order, reason=1, now=NOW)
    assert await store.want_revocation(order, reason=4, now=NOW + MINUTE) == revocation
    due = await queues.claim_revocations("local", now=NOW, lease=MINUTE, orders_max=1000)
    assert revocation in due
    await store.postpone_revocation(revocation, due_at=NOW + MINUTE, trouble="not without a form")
    assert revocation not in await queues.claim_revocations("local", now=NOW, lease=MINUTE, orders_max=1000)
    await store.record_revoked(order, revocation, now=NOW)
    type_, body = (await posted(pool))[f"status:{order.order_id}:revoked"]
    assert (type_, body["status"]) == (NoteCertificateStatus.TYPE, "revoked")
    await pool.execute("delete from outbox")
    await store.record_revoked(order, revocation, now=NOW + MINUTE)
    assert await posted(pool) == {}
    kinds = [leaf["event_type"] for leaf in await leaves(pool, order.order_id)]
    assert kinds[-2:] == ["revocation.ordered", "certificate.revoked"]


async def test_a_revocation_waits_for_the_certificate(store: Store, queues: QueueStore) -> None:
    order = await submitted(store)
    revocation = await store.want_revocation(order, reason=5, now=NOW - MINUTE)
    assert revocation not in await queues.claim_revocations("local", now=NOW, lease=MINUTE, orders_max=1000)
    assert await store.record(order, advance(order, ISSUED), now=NOW)
    assert revocation in await queues.claim_revocations("local", now=NOW, lease=MINUTE, orders_max=1000)


async def test_what_the_sam_rejected_it_is_not_told_of_again(store: Store, pool: Pool) -> None:
    order = await issued(store)
    rejected = decide(order, accepted=False, reason="another key")
    assert await store.record(order, rejected, now=NOW)
    await pool.execute("delete from outbox")
    await store.record_revoked(rejected, await store.want_revocation(rejected, reason=5, now=NOW), now=NOW)
    assert await posted(pool) == {}


async def make(number: int, revoked: tuple[RevokedCertificate, ...], now: datetime) -> x509.CertificateRevocationList:
    builder = crl(revoked, issuer=CA, number=number, lifetime=timedelta(hours=24), now=now)
    return builder.sign(CA_KEY, hashes.SHA384())


async def latest(lists: ListStore, authority: str) -> x509.CertificateRevocationList:
    der = await lists.latest_crl(authority)
    assert der is not None
    return x509.load_der_x509_crl(der)


def number_of(list_: x509.CertificateRevocationList) -> int:
    return list_.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def test_crl_numbers_rise_by_one_and_entries_stay(lists: ListStore) -> None:
    authority = secrets.token_hex(4)
    assert await lists.latest_crl(authority) is None
    assert await lists.latest_crl_times(authority) is None
    serials = [x509.random_serial_number() for _ in range(5)]
    revoked = [RevokedCertificate(serial, 1, NOW) for serial in serials]
    await asyncio.gather(*(lists.publish_crl(authority, make, now=NOW, revoked=one) for one in revoked))
    await lists.publish_crl(authority, make, now=NOW, revoked=replace(revoked[0], reason=4))
    assert number_of(await latest(lists, authority)) == 5
    assert {entry.serial_number for entry in await latest(lists, authority)} == set(serials)
    await lists.publish_crl(authority, make, now=NOW + MINUTE)
    assert number_of(await latest(lists, authority)) == 6
    assert await lists.latest_crl_times(authority) == (NOW + MINUTE, NOW + MINUTE + timedelta(hours=24))


async def test_a_crl_that_cannot_be_signed_revokes_nothing(lists: ListStore, pool: Pool) -> None:
    async def fail(*_: object) -> x509.CertificateRevocationList:
        raise RuntimeError("the token is gone")

    authority = secrets.token_hex(4)
    with pytest.raises(RuntimeError):
        await lists.publish_crl(authority, fail, now=NOW, revoked=RevokedCertificate(7, 1, NOW))
    assert await pool.fetchval("select count(*) from revoked_certificates where authority = $1", authority) == 0


REFUSED = (asyncpg.InsufficientPrivilegeError, asyncpg.RaiseError, asyncpg.CheckViolationError)
FORBIDDEN_MOVES = [
    ("SUBMITTED", "CONFIRMED"),
    ("CONFIRMED", "ISSUED"),
    ("CONFIRMED", "REJECTED"),
    ("REJECTED", "SUBMITTED"),
    ("ISSUED", "PENDING"),
    ("ISSUED", "UNKNOWN"),
    ("PENDING", "SUBMITTED"),
]


@pytest.mark.parametrize(("state", "to"), FORBIDDEN_MOVES)
async def test_the_database_itself_keeps_an_end_an_end(store: Store, pool: Pool, state: str, to: str) -> None:
    order = await submitted(store)
    if state == "PENDING":
        await store.record(order, advance(order, Pending(b"handle", NOW)), now=NOW)
    elif state != "SUBMITTED":
        after = advance(order, ISSUED)
        await store.record(order, after, now=NOW)
        if state != "ISSUED":
            await store.record(after, decide(after, accepted=state == "CONFIRMED", reason="no"), now=NOW)
    with pytest.raises(REFUSED):
        await pool.execute("update orders set state = $2 where order_id = $1", order.order_id, to)


@pytest.mark.parametrize(
    "statement",
    [
        "update orders set csr = 'x'",
        "update orders set authority = 'x'",
        "update orders set profile = 'x'",
        "update orders set renews = 'x'",
        "update askings set asked_at = now()",
        "update orders set chain = array['x'::bytea] where state = 'ISSUED'",
        "delete from orders",
        "update revocations set reason = 0",
        "update revocations set revoked_at = null where revoked_at is not null",
        "delete from revocations",
        "delete from revoked_certificates",
        "update revoked_certificates set reason = 0",
        "update crls set number = number + 1",
        "delete from crls",
        "delete from audit_leaves",
    ],
)
async def test_the_room_cannot_undo_what_it_did(store: Store, pool: Pool, statement: str) -> None:
    order = await issued(store)
    await store.record_revoked(order, await store.want_revocation(order, reason=1, now=NOW), now=NOW)
    with pytest.raises(REFUSED):
        await pool.execute(statement)


async def test_an_operator_sees_what_has_not_ended_those_in_doubt_first(store: Store, pool: Pool) -> None:
    authority = secrets.token_hex(4)
    done, waiting, lost, unrevoked = [await submitted(store, authority=authority) for _ in range(4)]
    for order in (done, unrevoked):
        after = advance(order, ISSUED)
        assert await store.record(order, after, now=NOW)
        assert await store.record(after, decide(after, accepted=True, reason=None), now=NOW)
    assert await store.record(lost, lose(lost, "no answer in 15 s"), now=NOW)
    await store.want_revocation(unrevoked, reason=1, now=NOW)
    standing = StandingStore(pool)
    rows = await standing.orders(authority=authority, state=None, orders_max=9)
    assert (rows[0]["order_id"], rows[0]["why"]) == (lost.order_id, "no answer in 15 s")
    assert {row["order_id"] for row in rows} == {lost.order_id, waiting.order_id, unrevoked.order_id}
    assert [row["order_id"] for row in rows if row["revocation_wanted_at"]] == [unrevoked.order_id]
    confirmed = await standing.orders(authority=authority, state="CONFIRMED", orders_max=9)
    assert {row["order_id"] for row in confirmed} == {done.order_id, unrevoked.order_id}
    found = (await standing.standings(now=NOW, days=(30,), with_ended=True))[authority]
    assert found.orders == {"SUBMITTED": 1, "UNKNOWN": 1, "CONFIRMED": 2}
    assert (found.revocations, found.oldest, found.expiring) == (1, NOW, {30: 2})

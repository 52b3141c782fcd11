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
from services.ca_connector.orders import Issued, Order, Pending, Refused, State, advance, decide
from services.ca_connector.profile import RevokedCertificate, crl, root
from services.ca_connector.store import Store
from shared.audit import AuditWriter
from shared.contracts.sam import AcceptCertificate, NoteCertificateStatus, RefuseOrder
from shared.database import Pool, connect_pool
from shared.messaging import operation
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


async def submitted(store: Store, *, at: datetime = NOW) -> Order:
    order, is_new = await store.submit(order_id=secrets.token_hex(8), authority="local", csr=b"csr", now=at)
    assert is_new
    return order


async def issued(store: Store, *, at: datetime = NOW) -> Order:
    order = await submitted(store, at=at)
    assert await store.record(order, advance(order, ISSUED))
    return await store.order(order.order_id)


async def posted(pool: Pool) -> dict[str, tuple[str, dict[str, Any]]]:
    rows = await pool.fetch("select message_id, type, body from outbox")
    return {row["message_id"]: (row["type"], json.loads(row["body"])) for row in rows}


async def leaves(pool: Pool, order_id: str) -> list[dict[str, Any]]:
    rows = await pool.fetch("select record from audit_leaves order by chain_id, seq")
    records = [json.loads(row["record"]) for row in rows]
    return [record for record in records if record["subject"].get("order_id") == order_id]


async def test_an_order_is_new_once_however_many_come_at_once(store: Store) -> None:
    order_id = secrets.token_hex(8)
    results = await asyncio.gather(
        *(store.submit(order_id=order_id, authority="local", csr=b"csr", now=NOW) for _ in range(5))
    )
    assert sorted(is_new for _, is_new in results) == [False, False, False, False, True]
    assert {order.csr for order, _ in results} == {b"csr"}


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
    results = await asyncio.gather(*(store.record(order, advance(order, ISSUED)) for _ in range(4)))
    assert sorted(results) == [False, False, False, True]


async def test_telling_again_is_the_same_message(store: Store, pool: Pool) -> None:
    order = await issued(store)
    await store.repeat(order)
    assert list(await posted(pool)) == [f"accept:{order.order_id}"]
    await pool.execute("delete from outbox")
    await store.repeat(order)
    assert list(await posted(pool)) == [f"accept:{order.order_id}"]


async def test_a_refusal_is_posted_and_ends_the_order(store: Store, pool: Pool) -> None:
    order = await submitted(store)
    assert await store.record(order, advance(order, Refused("no such person")))
    type_, body = (await posted(pool))[f"refuse:{order.order_id}"]
    assert (type_, body["reason"]) == (RefuseOrder.TYPE, "no such person")
    assert (await leaves(pool, order.order_id))[-1]["outcome"] == "refused"


async def test_a_handle_is_kept_and_claimed_when_its_time_has_come(store: Store) -> None:
    order = await submitted(store)
    pending = advance(order, Pending(handle=b"\x00handle", not_before=NOW + 10 * MINUTE))
    assert await store.record(order, pending)
    assert order.order_id not in await claimed(store, NOW + 9 * MINUTE)
    assert order.order_id in await claimed(store, NOW + 10 * MINUTE)
    # Claimed, it is left alone for a while, and comes again when whoever claimed it died.
    assert order.order_id not in await claimed(store, NOW + 10 * MINUTE)
    assert order.order_id in await claimed(store, NOW + 11 * MINUTE)
    assert (await store.order(order.order_id)).handle == b"\x00handle"


async def claimed(store: Store, now: datetime) -> list[str]:
    return [order.order_id for order in await store.claim(now=now, stuck=MINUTE, orders_max=1000)]


async def test_an_order_is_claimed_by_one_and_only_when_it_is_stuck(store: Store) -> None:
    order = await submitted(store, at=NOW)
    assert order.order_id not in await claimed(store, NOW + MINUTE / 2)
    both = await asyncio.gather(claimed(store, NOW + MINUTE), claimed(store, NOW + MINUTE))
    assert sum(order.order_id in ids for ids in both) == 1


async def test_an_ended_order_is_never_claimed(store: Store) -> None:
    order = await issued(store)
    assert await store.record(order, decide(order, accepted=True, reason=None))
    assert order.order_id not in await claimed(store, NOW + timedelta(days=9))


async def test_a_revocation_keeps_its_first_reason_and_is_told_once(store: Store, pool: Pool) -> None:
    order = await issued(store)
    wanted = await store.want_revocation(order, reason=1, now=NOW)
    assert await store.want_revocation(order, reason=4, now=NOW + MINUTE) == wanted
    due = await store.claim_revocations(now=NOW + MINUTE, stuck=MINUTE, orders_max=1000)
    assert wanted in due
    await store.record_revoked(order, wanted, now=NOW)
    type_, body = (await posted(pool))[f"status:{order.order_id}:revoked"]
    assert (type_, body["status"]) == (NoteCertificateStatus.TYPE, "revoked")
    await pool.execute("delete from outbox")
    await store.record_revoked(order, wanted, now=NOW + MINUTE)
    assert await posted(pool) == {}
    kinds = [leaf["event_type"] for leaf in await leaves(pool, order.order_id)]
    assert kinds[-2:] == ["revocation.ordered", "certificate.revoked"]


async def test_a_revocation_waits_for_the_certificate(store: Store) -> None:
    order = await submitted(store)
    wanted = await store.want_revocation(order, reason=5, now=NOW - MINUTE)
    assert wanted not in await store.claim_revocations(now=NOW, stuck=MINUTE, orders_max=1000)
    assert await store.record(order, advance(order, ISSUED))
    assert wanted in await store.claim_revocations(now=NOW, stuck=MINUTE, orders_max=1000)


async def test_what_the_sam_rejected_it_is_not_told_of_again(store: Store, pool: Pool) -> None:
    order = await issued(store)
    rejected = decide(order, accepted=False, reason="another key")
    assert await store.record(order, rejected)
    await pool.execute("delete from outbox")
    await store.record_revoked(rejected, await store.want_revocation(rejected, reason=5, now=NOW), now=NOW)
    assert await posted(pool) == {}


async def make(number: int, revoked: tuple[RevokedCertificate, ...], now: datetime) -> x509.CertificateRevocationList:
    builder = crl(revoked, issuer=CA, number=number, lifetime=timedelta(hours=24), now=now)
    return builder.sign(CA_KEY, hashes.SHA384())


async def latest(store: Store, authority: str) -> x509.CertificateRevocationList:
    der = await store.latest_crl(authority)
    assert der is not None
    return x509.load_der_x509_crl(der)


def number_of(list_: x509.CertificateRevocationList) -> int:
    return list_.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def test_crl_numbers_rise_by_one_and_entries_stay(store: Store) -> None:
    authority = secrets.token_hex(4)
    assert await store.latest_crl(authority) is None
    assert await store.latest_crl_times(authority) is None
    serials = [x509.random_serial_number() for _ in range(5)]
    revoked = [RevokedCertificate(serial, 1, NOW) for serial in serials]
    await asyncio.gather(*(store.publish_crl(authority, make, now=NOW, revoked=one) for one in revoked))
    await store.publish_crl(authority, make, now=NOW, revoked=replace(revoked[0], reason=4))
    assert number_of(await latest(store, authority)) == 5
    assert {entry.serial_number for entry in await latest(store, authority)} == set(serials)
    await store.publish_crl(authority, make, now=NOW + MINUTE)
    assert number_of(await latest(store, authority)) == 6
    assert await store.latest_crl_times(authority) == (NOW + MINUTE, NOW + MINUTE + timedelta(hours=24))


async def test_a_crl_that_cannot_be_signed_revokes_nothing(store: Store, pool: Pool) -> None:
    async def fail(*_: object) -> x509.CertificateRevocationList:
        raise RuntimeError("the token is gone")

    authority = secrets.token_hex(4)
    with pytest.raises(RuntimeError):
        await store.publish_crl(authority, fail, now=NOW, revoked=RevokedCertificate(7, 1, NOW))
    assert await pool.fetchval("select count(*) from revoked_certificates where authority = $1", authority) == 0


REFUSED = (asyncpg.InsufficientPrivilegeError, asyncpg.RaiseError)
FORBIDDEN_MOVES = [
    ("SUBMITTED", "CONFIRMED"),
    ("CONFIRMED", "ISSUED"),
    ("CONFIRMED", "REJECTED"),
    ("REJECTED", "SUBMITTED"),
    ("ISSUED", "PENDING"),
]


@pytest.mark.parametrize(("state", "to"), FORBIDDEN_MOVES)
async def test_the_database_itself_keeps_an_end_an_end(store: Store, pool: Pool, state: str, to: str) -> None:
    order = await submitted(store)
    if state != "SUBMITTED":
        after = advance(order, ISSUED)
        await store.record(order, after)
        if state != "ISSUED":
            await store.record(after, decide(after, accepted=state == "CONFIRMED", reason="no"))
    with pytest.raises(REFUSED):
        await pool.execute("update orders set state = $2 where order_id = $1", order.order_id, to)


@pytest.mark.parametrize(
    "statement",
    [
        "update orders set csr = 'x'",
        "update orders set authority = 'x'",
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

"""The orders that wait for certificates by hand, in a real PostgreSQL."""

import json
import secrets
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.local.stack import Stack
from services.ca_connector.orders import Issued, Order, Pending, Refused, State, advance, resolve
from services.ca_connector.store import Store
from services.ca_connector.store_batches import BatchStore
from shared.audit import AuditWriter
from shared.database import Pool, connect_pool
from shared.messaging import operation
from shared.settings import Database
from tests.support.certificates import issue, name
from tests.support.ordering import Key, new_key, now, order_for


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
async def orders(pool: Pool, audit: AuditWriter) -> AsyncIterator[Store]:
    with operation.begin("operator", timeout_s=60):
        yield Store(pool, audit)


@pytest.fixture
def batches(pool: Pool, audit: AuditWriter) -> BatchStore:
    return BatchStore(pool, audit)


def hash_of(key: Key) -> bytes:
    return sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


async def waiting(orders: Store, authority: str, key: Key, *, renews: str | None = None) -> Order:
    wanted = order_for(key)
    wanted = Order(wanted.order_id, authority, wanted.csr, "operation", created_at=now())
    order = await orders.submit(wanted, renews=renews, key_hash=hash_of(key))
    await orders.record(order, advance(order, Pending(b"by hand", now())), now=now())
    return await orders.order(order.order_id)


def certificate_for(key: Key) -> bytes:
    made = issue(None, name("Yamada Taro"), key, now=now())  # type: ignore[arg-type]  # new_key makes keys on curves
    assert isinstance(made, x509.Certificate)
    assert isinstance(made.signature_hash_algorithm, hashes.SHA256)
    return made.public_bytes(Encoding.DER)


async def test_only_what_waits_leaves_page_by_page_and_that_is_noted(
    orders: Store, batches: BatchStore, pool: Pool
) -> None:
    authority = f"by-post-{secrets.token_hex(4)}"
    kept = sorted([(await waiting(orders, authority, new_key())).order_id for _ in range(3)])
    ended = await waiting(orders, authority, new_key())
    await orders.record(ended, advance(ended, Refused("no")), now=now())
    await waiting(orders, "another", new_key())
    first = await batches.export(authority, after="", orders_max=2)
    rest = await batches.export(authority, after=first[-1].order_id, orders_max=2)
    assert [one.order_id for one in (*first, *rest)] == kept
    records = [json.loads(row["record"]) for row in await pool.fetch("select record from audit_leaves")]
    noted = [one for one in records if one["event_type"] == "requests.exported"]
    assert [one["subject"]["requests"] for one in noted if one["subject"]["authority"] == authority] == ["2", "1"]


async def test_an_order_of_a_renewal_leaves_with_what_it_takes_over_from(orders: Store, batches: BatchStore) -> None:
    authority, key = f"by-post-{secrets.token_hex(4)}", new_key()
    first = await waiting(orders, authority, key)
    await orders.record(first, resolve(first, Issued((certificate_for(key),))), now=now())
    second = await waiting(orders, authority, key, renews=first.order_id)
    (exported,) = await batches.export(authority, after="", orders_max=10)
    assert exported.order_id == second.order_id
    assert exported.previous is not None
    assert exported.previous.order_id == first.order_id


async def test_the_orders_of_a_key_are_found_until_they_are_rejected(orders: Store, batches: BatchStore) -> None:
    authority, key = f"by-post-{secrets.token_hex(4)}", new_key()
    order = await waiting(orders, authority, key)
    assert [one.order_id for one in await batches.of_key(authority, hash_of(key))] == [order.order_id]
    assert await batches.of_key("another", hash_of(key)) == []
    await orders.record(order, resolve(order, Issued((certificate_for(key),))), now=now())
    (found,) = await batches.of_key(authority, hash_of(key))
    assert found.state is State.ISSUED

"""Notices and the addresses for them on a real PostgreSQL, as the role the room has."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.authentication.notices import wait_s
from services.authentication.store_notices import NoticeStore
from shared.audit import AuditWriter
from shared.contracts.authentication import NoticeAuthenticator
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.settings import Database

NOW = datetime.now(UTC).replace(microsecond=0)
ALICE = "alice@acme.example"


@pytest.fixture
async def pool(database: Stack) -> AsyncIterator[Pool]:
    door = Database(
        port=database.postgres.port, password_file=database.keys.password_file("authentication", "database")
    )
    pool = await connect_pool(door, "authentication")
    administrator = await database.postgres.connect()
    try:
        await administrator.execute(
            "truncate authentication.tenants, authentication.notices, authentication.notice_addresses cascade"
        )
        await administrator.execute("insert into authentication.tenants (tenant_id, name) values ('acme', 'Acme')")
        yield pool
    finally:
        await administrator.close()
        await pool.close()


@pytest.fixture
async def audit(pool: Pool) -> AuditWriter:
    audit = AuditWriter("authentication", secrets.token_hex(4))
    await audit.start(pool)
    return audit


@pytest.fixture
async def store(pool: Pool, audit: AuditWriter) -> NoticeStore:
    return NoticeStore(pool, audit)


@pytest.fixture(autouse=True)
def asked_by_operator() -> Iterator[None]:
    with operation.carry(operation.Operation("op-1", NOW + timedelta(minutes=5), "operator")):
        yield


def job(name: str = "a1", user_id: str = "alice") -> NoticeAuthenticator:
    return NoticeAuthenticator(
        authenticator_id=name, tenant_id="acme", user_id=user_id, added_at=NOW, usable_from=NOW + timedelta(days=1)
    )


async def test_a_notice_waits_with_the_address_until_it_is_sent(
    store: NoticeStore, pool: Pool, audit: AuditWriter
) -> None:
    await store.set_address("acme", "alice", "old@acme.example", at=NOW)
    await store.set_address("acme", "alice", ALICE, at=NOW)
    for one in (job(), job(), job("b1", "bob")):
        await store.add_notice(one, at=NOW)
    taken = await store.take_notices(10, now=NOW, wait_s=wait_s)
    assert sorted((one.notice_id, one.email, one.attempts) for one in taken) == [("a1", ALICE, 0), ("b1", None, 0)]
    assert await store.take_notices(10, now=NOW + timedelta(seconds=59), wait_s=wait_s) == []
    alice, bob = sorted(taken, key=lambda one: one.notice_id)
    await store.end_notice(alice, "sent", reason="signer", at=NOW)
    await store.end_notice(alice, "undeliverable", reason="unreachable", at=NOW)
    await store.end_notice(bob, "undeliverable", reason="no_address", at=NOW)
    assert await store.take_notices(10, now=NOW + timedelta(days=1), wait_s=wait_s) == []
    reading = "select convert_from(record, 'UTF8') from audit_leaves where chain_id = $1 order by seq"
    leaves = [json.loads(row[0]) for row in await pool.fetch(reading, audit.chain_id)]
    told = [(leaf["event_type"], leaf["subject"]["user_id"], leaf["outcome"]) for leaf in leaves]
    assert told == [
        ("notice_address.set", "alice", "success"),
        ("notice_address.set", "alice", "success"),
        ("notice.sent", "alice", "success"),
        ("notice.undeliverable", "bob", "failure"),
    ]
    assert not [leaf for leaf in leaves if ALICE in json.dumps(leaf)]


async def test_two_processes_never_take_the_same_notice(store: NoticeStore) -> None:
    for n in range(30):
        await store.add_notice(job(f"a{n}"), at=NOW)
    taken = await asyncio.gather(*(store.take_notices(10, now=NOW, wait_s=wait_s) for _ in range(6)))
    names = [one.notice_id for some in taken for one in some]
    assert len(names) == len({*names})
    left = await store.take_notices(30, now=NOW, wait_s=wait_s)
    assert len(names) + len(left) == 30


async def test_a_notice_that_was_put_off_comes_again(store: NoticeStore) -> None:
    await store.add_notice(job(), at=NOW)
    at = NOW
    for attempts in range(4):
        [one] = await store.take_notices(10, now=at, wait_s=wait_s)
        assert one.attempts == attempts
        at += timedelta(seconds=wait_s(attempts))


async def test_an_address_is_taken_away_and_belongs_to_a_tenant_that_is_there(store: NoticeStore) -> None:
    await store.set_address("acme", "alice", ALICE, at=NOW)
    await store.set_address("acme", "alice", None, at=NOW)
    await store.add_notice(job(), at=NOW)
    assert [one.email for one in await store.take_notices(10, now=NOW, wait_s=wait_s)] == [None]
    with pytest.raises(RakkanError) as refusal:
        await store.set_address("nowhere", "alice", ALICE, at=NOW)
    assert refusal.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("update notices set outcome = null, ended_at = null", asyncpg.RaiseError),
        ("update notices set next_try_at = now()", asyncpg.RaiseError),
        ("update notices set user_id = 'bob'", asyncpg.InsufficientPrivilegeError),
        ("delete from notices", asyncpg.InsufficientPrivilegeError),
    ],
)
async def test_what_was_told_stays_told(
    store: NoticeStore, pool: Pool, statement: str, refused: type[Exception]
) -> None:
    await store.add_notice(job(), at=NOW)
    [one] = await store.take_notices(10, now=NOW, wait_s=wait_s)
    await store.end_notice(one, "sent", reason="signer", at=NOW)
    with pytest.raises(refused):
        await pool.execute(statement)

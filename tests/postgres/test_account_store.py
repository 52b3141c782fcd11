"""Sessions, passwords, log-ins under way and contexts on show, in a real PostgreSQL as the role the room has."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.authentication.approving import Shown
from services.authentication.idp import Flow
from services.authentication.passwords import Password
from services.authentication.sessions import SessionRow
from services.authentication.store_accounts import AccountStore
from shared.audit import AuditWriter
from shared.contracts.approval import ContextOpened
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.settings import Database
from tests.support.signers import credential

NOW = datetime.now(UTC).replace(microsecond=0)
NOBODY = SessionRow(
    visit_id="visit",
    tenant_id=None,
    user_id=None,
    display_name="",
    method=None,
    language=None,
    seen_at=NOW,
    expires_at=NOW + timedelta(hours=8),
)
ALICE = replace(NOBODY, tenant_id="acme", user_id="alice", display_name="Alice", method="password")
PASSWORD = Password("acme", "alice", "Alice", "hash", b"sealed", 7)


@pytest.fixture
async def pool(database: Stack) -> AsyncIterator[Pool]:
    file = database.keys.password_file("authentication", "database")
    pool = await connect_pool(Database(port=database.postgres.port, password_file=file), "authentication")
    administrator = await database.postgres.connect()
    try:
        await administrator.execute(
            "truncate authentication.tenants, authentication.sessions, authentication.passwords,"
            " authentication.idp_logins, authentication.shown_contexts cascade"
        )
        await administrator.execute("insert into authentication.tenants (tenant_id, name) values ('acme', 'Acme')")
        yield pool
    finally:
        await administrator.close()
        await pool.close()


@pytest.fixture
async def store(pool: Pool) -> AccountStore:
    audit = AuditWriter("authentication", "accounts")
    await audit.start(pool)
    return AccountStore(pool, audit)


@pytest.fixture(autouse=True)
def _operation() -> Iterator[None]:
    with operation.begin("authentication", timeout_s=30):
        yield


async def test_a_log_in_ends_the_session_before_it_and_is_written_down(store: AccountStore, pool: Pool) -> None:
    await store.add_session("one", NOBODY)
    await store.see("one", at=NOW + timedelta(seconds=5))
    await store.speak("one", "ja")
    assert await store.session("one") == replace(NOBODY, seen_at=NOW + timedelta(seconds=5), language="ja")
    await store.log_in("one", "two", ALICE, at=NOW)
    assert await store.session("one") is None
    assert await store.session("two") == ALICE
    with pytest.raises(RakkanError) as refusal:
        await store.log_in("one", "three", ALICE, at=NOW)
    assert refusal.value.code is Code.FORBIDDEN
    assert await store.session("three") is None
    record = await pool.fetchval("select convert_from(record, 'UTF8') from audit_leaves order by seq desc limit 1")
    assert '"signer.logged_in"' in record


async def test_the_table_does_not_hold_what_the_cookie_holds(store: AccountStore, pool: Pool) -> None:
    await store.add_session("what-the-cookie-holds", NOBODY)
    assert "what-the-cookie-holds" not in str(await pool.fetch("select sessions::text from sessions"))


async def test_an_ended_session_stays_ended_and_none_grows_longer(store: AccountStore, pool: Pool) -> None:
    await store.add_session("one", NOBODY)
    await store.end_session("one", at=NOW)
    with pytest.raises(asyncpg.RaiseError):
        await pool.execute("update sessions set ended_at = null")
    for column in ("expires_at", "user_id", "tenant_id", "visit_id"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(f"update sessions set {column} = {column}")


async def test_tries_are_charged_one_at_a_time_and_wait_longer(store: AccountStore) -> None:
    await store.set_password(PASSWORD)
    assert await store.has_password("acme", "alice")
    assert not await store.has_password("acme", "bob")
    assert await store.charge("acme", "bob", at=NOW) is None
    at = NOW
    for failures in range(1, 13):
        assert await store.charge("acme", "alice", at=at) is not None
        wait = timedelta(seconds=min(2 ** (failures - 1), 900))
        assert await store.charge("acme", "alice", at=at + wait - timedelta(milliseconds=1)) is None
        at += wait


async def test_a_code_is_spent_once(store: AccountStore, pool: Pool) -> None:
    await store.set_password(PASSWORD)
    await store.succeed(PASSWORD, step=8)
    for step in (7, 8):
        with pytest.raises(RakkanError) as refusal:
            await store.succeed(PASSWORD, step=step)
        assert refusal.value.code is Code.OTP_INVALID
    with pytest.raises(asyncpg.RaiseError):
        await pool.execute("update passwords set totp_step = 1")


async def test_removing_a_password_ends_the_sessions_that_it_opened(store: AccountStore) -> None:
    await store.set_password(PASSWORD)
    await store.add_session("by password", ALICE)
    await store.add_session("by passkey", replace(ALICE, method="passkey"))
    await store.remove_password("acme", "alice", at=NOW)
    assert await store.session("by password") is None
    assert await store.session("by passkey") is not None
    assert not await store.has_password("acme", "alice")


async def test_a_log_in_under_way_is_taken_once_and_where_it_began(store: AccountStore) -> None:
    flow = Flow("visit", "nonce", "verifier", "/account", NOW + timedelta(minutes=10))
    await store.keep_flow("state", flow)
    assert await store.take_flow("state", visit_id="another") is None
    assert await store.take_flow("other", visit_id="visit") is None
    assert await store.take_flow("state", visit_id="visit") == flow
    assert await store.take_flow("state", visit_id="visit") is None


def context(context_id: str) -> ContextOpened:
    return ContextOpened(
        context_id=context_id,
        challenge=b"\xff" * 32,
        context=b"\x00\xff",
        reference_code="ABC234",
        credential=credential("cred", "Alice"),
        authenticators=(b"\x00\xfe",),
        expires_at=NOW + timedelta(minutes=5),
    )


async def test_the_first_context_that_is_shown_stays_until_it_is_replaced(store: AccountStore) -> None:
    assert await store.shown("req") is None
    first = Shown("req", "visit", context("one"))
    await store.show(first, instead_of=None)
    await store.show(Shown("req", "visit", context("two")), instead_of=None)
    await store.show(Shown("req", "another visit", context("two")), instead_of="one")
    assert await store.shown("req") == first
    second = Shown("req", "visit", context("two"))
    await store.show(second, instead_of="one")
    assert await store.shown("req") == second


async def test_sweeping_forgets_what_expired_and_nothing_else(store: AccountStore, pool: Pool) -> None:
    for name, expires_at in (("old", NOW - timedelta(hours=1)), ("new", NOW + timedelta(hours=1))):
        await store.add_session(name, replace(NOBODY, expires_at=expires_at))
        await store.keep_flow(name, Flow("visit", "n", "v", "/account", expires_at))
        opened = context(name).model_copy(update={"expires_at": expires_at})
        await store.show(Shown(name, "visit", opened), instead_of=None)
    await store.sweep(now=NOW)
    for table in ("sessions", "idp_logins", "shown_contexts"):
        assert await pool.fetchval(f"select count(*) from {table}") == 1
    assert await store.shown("new") is not None


async def test_a_refused_log_in_is_written_down(store: AccountStore, pool: Pool) -> None:
    await store.note_refused(tenant_id="acme", user_id="alice", method="password", reason="pin_invalid")
    record = await pool.fetchval("select convert_from(record, 'UTF8') from audit_leaves order by seq desc limit 1")
    assert '"signer.login_refused"' in record

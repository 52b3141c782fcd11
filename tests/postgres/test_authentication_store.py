"""The store of authentication on a real PostgreSQL, as the role the room has."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.authentication.clients import Assertion, hash_secret
from services.authentication.store import Store
from shared.audit import AuditWriter
from shared.contracts.authentication import AddClient
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.settings import Database
from shared.tokens import AccessToken

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
async def pool(database: Stack) -> AsyncIterator[Pool]:
    settings = Database(
        port=database.postgres.port,
        password_file=database.keys.password_file("authentication", "database"),
        lock_timeout_ms=300,
    )
    pool = await connect_pool(settings, "authentication")
    administrator = await database.postgres.connect()
    try:
        await administrator.execute(
            "truncate authentication.tenants, authentication.clients, authentication.tokens,"
            " authentication.spent_assertions cascade"
        )
        yield pool
    finally:
        await administrator.close()
        await pool.close()


@pytest.fixture
async def store(pool: Pool) -> Store:
    audit = AuditWriter("authentication", "test")
    await audit.start(pool)
    store = Store(pool, audit)
    async with store.change() as change:
        await change.add_tenant("acme", "Acme")
        await change.add_client(_client("one"), secret_hash=hash_secret("one", "s"))
        await change.add_client(_client("two"), secret_hash=hash_secret("two", "s"))
    return store


@pytest.fixture(autouse=True)
def _operation() -> Iterator[None]:
    with operation.begin("authentication", timeout_s=30):
        yield


def _client(client_id: str, tenant_id: str = "acme") -> AddClient:
    return AddClient(tenant_id=tenant_id, client_id=client_id, name="P")


def token(
    token_id: str = "t",  # noqa: S107 - the name of a token
    client_id: str = "one",
    *,
    issued_at: datetime = NOW,
    lifetime_s: int = 1800,
) -> AccessToken:
    return AccessToken(
        token_id=token_id,
        issuer="https://as.example",
        client_id=client_id,
        tenant_id="acme",
        scope="service",
        issued_at=issued_at,
        expires_at=issued_at + timedelta(seconds=lifetime_s),
    )


async def issue(store: Store, *tokens: AccessToken) -> None:
    async with store.change() as change:
        for one in tokens:
            await change.issue(one)


async def is_dead(store: Store, one: AccessToken) -> bool:
    try:
        await store.check_alive(one)
    except RakkanError as refusal:
        return refusal.code in {Code.TOKEN_INVALID, Code.TOKEN_EXPIRED}
    return False


async def test_what_was_added_is_found(store: Store) -> None:
    async with store.change() as change:
        keyed = AddClient(tenant_id="acme", client_id="keyed", name="K", method="private_key_jwt", jwks="{}")
        await change.add_client(keyed, secret_hash=None)
        await change.add_tenant("acme", "Acme")
    client = await store.client("keyed")
    assert client is not None
    assert (client.tenant_id, client.jwks, client.secret_hash, client.suspended) == ("acme", "{}", None, False)
    assert await store.client("nobody") is None
    accounts = await store.accounts()
    assert [row.client_id for row in accounts.clients] == ["keyed", "one", "two"]
    assert [row.name for row in accounts.tenants] == ["Acme"]
    json.loads(accounts.model_dump_json())


async def test_a_client_has_what_it_proves_itself_by_and_nothing_else(store: Store) -> None:
    issued = _client("issued").model_copy(update={"method": "tls_client_auth", "certificate_name": "dns:a.example"})
    own = _client("own").model_copy(update={"method": "self_signed_tls_client_auth", "jwks": "{}"})
    async with store.change() as change:
        for client in (issued, own):
            await change.add_client(client.model_copy(update={"profile": "hardened"}), secret_hash=None)
    found = await store.client("issued")
    assert found is not None
    assert (found.method, found.certificate_name) == ("tls_client_auth", "dns:a.example")
    for changed, secret_hash in (
        ({"method": "tls_client_auth"}, None),
        ({"method": "tls_client_auth", "certificate_name": "dns:x", "jwks": "{}"}, None),
        ({"method": "tls_client_auth", "certificate_name": "dns:x"}, bytes(32)),
        ({"method": "self_signed_tls_client_auth"}, None),
        ({"method": "self_signed_tls_client_auth", "jwks": "{}", "certificate_name": "dns:x"}, None),
        ({"certificate_name": "dns:x"}, bytes(32)),
        ({"profile": "hardened"}, bytes(32)),
        ({"method": "none"}, None),
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            async with store.change() as change:
                await change.add_client(_client("wrong").model_copy(update=changed), secret_hash=secret_hash)


async def test_names_collide_in_plain_words(store: Store) -> None:
    for client, code in ((_client("one"), Code.CONFLICT), (_client("new", "nobody"), Code.NOT_FOUND)):
        with pytest.raises(RakkanError) as refusal:
            async with store.change() as change:
                await change.add_client(client, secret_hash=bytes(32))
        assert refusal.value.code is code
    with pytest.raises(RakkanError) as refusal:
        async with store.change() as change:
            await change.add_tenant("acme", "Another")
    assert refusal.value.code is Code.CONFLICT


async def test_a_token_lives_until_it_is_revoked_and_stays_revoked(store: Store, pool: Pool) -> None:
    await issue(store, token())
    assert not await is_dead(store, token())
    assert await is_dead(store, token(client_id="two"))
    assert await is_dead(store, token("unknown"))
    for at in (NOW, NOW + timedelta(seconds=5)):
        async with store.change() as change:
            await change.revoke(token(), at=at)
    assert await is_dead(store, token())
    with pytest.raises(asyncpg.RaiseError, match="stays revoked"):
        await pool.execute("update tokens set revoked_at = null")


async def test_a_forgotten_token_is_revoked_as_well(store: Store) -> None:
    async with store.change() as change:
        await change.revoke(token("forgotten"), at=NOW)
    assert await is_dead(store, token("forgotten"))


async def test_suspending_kills_old_tokens_for_good_and_no_new_ones(store: Store, pool: Pool) -> None:
    old, new = token("old"), token("new", issued_at=NOW + timedelta(seconds=1))
    await issue(store, old, new)
    async with store.change() as change:
        await change.suspend_client("one", suspended=True)
        await change.end_tokens("one", issued_before=NOW + timedelta(milliseconds=500))
    assert await is_dead(store, new)
    with pytest.raises(RakkanError) as refusal:
        async with store.change() as change:
            await change.lock_client("one")
    assert refusal.value.code is Code.CLIENT_REFUSED
    async with store.change() as change:
        await change.suspend_client("one", suspended=False)
    assert await is_dead(store, old)
    assert not await is_dead(store, new)
    async with store.change() as change:
        assert await change.lock_client("one") == NOW + timedelta(milliseconds=500)
    with pytest.raises(asyncpg.RaiseError, match="stay dead"):
        await pool.execute("update clients set tokens_from = '1970-01-01T00:00:00Z'")


async def test_a_suspended_tenant_suspends_its_clients(store: Store) -> None:
    await issue(store, token("t2", "two"))
    async with store.change() as change:
        assert await change.suspend_tenant("acme", suspended=True) == ("one", "two")
    client = await store.client("two")
    assert client is not None
    assert client.suspended
    assert await is_dead(store, token("t2", "two"))
    for client_id in ("one", "nobody"):
        with pytest.raises(RakkanError):
            async with store.change() as change:
                await change.lock_client(client_id)


async def test_nobody_is_suspended_by_a_wrong_name(store: Store) -> None:
    for suspend in ("suspend_client", "suspend_tenant"):
        with pytest.raises(RakkanError) as refusal:
            async with store.change() as change:
                await getattr(change, suspend)("nobody", suspended=True)
        assert refusal.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("suspend", ["client", "tenant"])
async def test_no_token_is_issued_while_its_client_is_being_suspended(store: Store, suspend: str) -> None:
    async with store.change() as suspending:
        if suspend == "client":
            await suspending.suspend_client("one", suspended=True)
        else:
            await suspending.suspend_tenant("acme", suspended=True)
        with pytest.raises(RakkanError) as refusal:
            async with store.change() as issuing:
                await issuing.lock_client("one")
        assert refusal.value.code is Code.UNAVAILABLE


async def test_an_assertion_is_spent_once_by_whoever_is_first(store: Store) -> None:
    assertion = Assertion(digest=hashlib.sha256(b"a").digest(), expires_at=NOW + timedelta(minutes=5))
    spent = await asyncio.gather(*(store.spend_assertion(assertion) for _ in range(10)), return_exceptions=True)
    refused = [one for one in spent if isinstance(one, RakkanError)]
    assert len(refused) == 9
    assert {refusal.code for refusal in refused} == {Code.CLIENT_REFUSED}


async def test_only_what_expired_is_forgotten(store: Store, pool: Pool) -> None:
    expired = token("expired", issued_at=NOW - timedelta(hours=3))
    await issue(store, token("alive"), expired)
    await store.spend_assertion(Assertion(digest=bytes(32), expires_at=NOW - timedelta(hours=1)))
    await store.spend_assertion(Assertion(digest=b"1" * 32, expires_at=NOW + timedelta(days=1)))
    await store.sweep(now=NOW)
    assert await pool.fetchval("select count(*) from tokens") == 1
    assert await pool.fetchval("select count(*) from spent_assertions") == 1
    for table in ("tokens", "spent_assertions"):
        with pytest.raises(asyncpg.RaiseError, match="not expired"):
            await pool.execute(f"delete from {table}")


async def test_a_change_that_fails_leaves_nothing(store: Store) -> None:
    async def fail() -> None:
        async with store.change() as change:
            await change.issue(token())
            await change.write("token.issued", actor_type="client", actor_id="one")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await is_dead(store, token())


async def test_a_leaf_is_written_with_the_change(store: Store, pool: Pool) -> None:
    async with store.change() as change:
        await change.issue(token())
        await change.write("token.issued", actor_type="client", actor_id="one", tenant="acme", token_hash="ab")
    record = await pool.fetchval(
        "select record from audit_leaves where chain_id = $1 order by seq desc", "authentication/test"
    )
    assert json.loads(record)["event_type"] == "token.issued"


@pytest.mark.parametrize(
    "statement",
    [
        "update clients set secret_hash = 'x'",
        "update clients set tenant_id = 'other'",
        "update tokens set expires_at = now()",
        "update tenants set name = 'x'",
        "delete from clients",
        "delete from tenants",
        "delete from audit_leaves",
        "update audit_leaves set record = ''",
        "truncate tokens",
        "select 1 from sam.credentials",
        "create table mine (a int)",
    ],
)
async def test_the_role_of_the_room_may_do_no_more_than_it_must(store: Store, pool: Pool, statement: str) -> None:
    await store.check()
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError)):
        await pool.execute(statement)


async def test_a_connection_lost_in_the_middle_is_unavailable_and_the_next_one_works(
    store: Store, pool: Pool, database: Stack
) -> None:
    async def lose() -> None:
        administrator = await database.postgres.connect()
        try:
            async with store.change() as change:
                await change.issue(token())
                await administrator.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'authentication'"
                )
                await change.issue(token("next"))
        finally:
            await administrator.close()

    with pytest.raises(RakkanError) as refusal:
        await lose()
    assert refusal.value.code is Code.UNAVAILABLE
    await pool.expire_connections()
    assert await is_dead(store, token())

"""Requests, grants, codes and refresh tokens on a real PostgreSQL, as the role the room has."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from deploy.local.stack import Stack
from services.authentication.app import make_app
from services.authentication.grants import Grant, digest_of
from services.authentication.requests import StoredRequest
from services.authentication.store import Store
from shared.audit import AuditWriter
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.settings import Database
from shared.tokens import AccessToken
from tests.support.authentication import ISSUER, World, settings
from tests.support.oauth import (
    Partner,
    add_clients,
    answer_of,
    authorization,
    detail,
    error_of,
    signing,
)
from tests.support.served import WallClock

NOW = datetime.now(UTC).replace(microsecond=0)
ID = b"i" * 32


@pytest.fixture
async def pool(database: Stack) -> AsyncIterator[Pool]:
    door = Database(
        port=database.postgres.port,
        password_file=database.keys.password_file("authentication", "database"),
        lock_timeout_ms=3000,
    )
    pool = await connect_pool(door, "authentication")
    administrator = await database.postgres.connect()
    try:
        await administrator.execute(
            "truncate authentication.tenants, authentication.clients, authentication.tokens, authentication.grants,"
            " authentication.refresh_tokens, authentication.authorization_requests,"
            " authentication.spent_assertions cascade"
        )
        yield pool
    finally:
        await administrator.close()
        await pool.close()


@pytest.fixture
async def store(pool: Pool) -> Store:
    audit = AuditWriter("authentication", secrets.token_hex(4))
    await audit.start(pool)
    store = Store(pool, audit)
    await add_clients(store)
    return store


@pytest.fixture(autouse=True)
def _operation() -> Iterator[None]:
    with operation.begin("authentication", timeout_s=30):
        yield


def request(**changed: object) -> StoredRequest:
    base = StoredRequest(
        client_id="web",
        asked="{}",
        pushed_until=None,
        expires_at=NOW + timedelta(minutes=10),
        session_hash=None,
        ended=False,
    )
    return replace(base, **changed)  # type: ignore[arg-type]  # of the names of the row


def a_grant(scope: str = "service", **changed: object) -> Grant:
    base = Grant(
        grant_id=secrets.token_bytes(16),
        client_id="web",
        tenant_id="acme",
        user_id="alice",
        scope=scope,
        authorization_id="a-1" if scope == "credential" else None,
        credential_id="c-1" if scope == "credential" else None,
        redirect_uri="https://partner.example/callback",
        redirect_uri_given=True,
        code_challenge="c" * 43,
        key_thumbprint=None,
        details=None,
        code_expires_at=NOW + timedelta(seconds=60),
        code_spent_at=None,
        granted_at=NOW,
        expires_at=NOW + timedelta(days=1),
        revoked_at=None,
    )
    return replace(base, **changed)  # type: ignore[arg-type]  # of the names of the row


async def add(store: Store, grant: Grant, code: str = "code") -> Grant:
    async with store.change() as change:
        await change.add_grant(grant, code_hash=digest_of(code))
    return grant


def partner_of(store: Store, world: World, client_id: str = "web") -> Partner:
    """A client of the whole application on the real store."""
    world.store = store  # type: ignore[assignment]  # the real one in the place of the fake
    return Partner(world, client_id)


@pytest.fixture
def world() -> World:
    return World(clock=WallClock(), attempts_max=1000)


# --- requests ---


async def test_a_request_is_kept_bound_and_ended_once(store: Store) -> None:
    async with store.change() as change:
        await change.add_request(ID, request(pushed_until=NOW + timedelta(seconds=90), asked='{"a": "\u5951"}'))
    kept = await store.request(ID)
    assert kept is not None
    assert (kept.asked, kept.session_hash, kept.ended) == ('{"a": "\u5951"}', None, False)
    async with store.change() as change:
        assert await change.end_request(ID, session_hash=b"a" * 32, outcome="granted", at=NOW) is None
        assert await change.bind_request(ID, session_hash=b"a" * 32, now=NOW) is not None
        assert await change.bind_request(ID, session_hash=b"a" * 32, now=NOW) is not None
        assert await change.bind_request(ID, session_hash=b"b" * 32, now=NOW) is None
        assert await change.end_request(ID, session_hash=b"b" * 32, outcome="granted", at=NOW) is None
        assert await change.end_request(ID, session_hash=b"a" * 32, outcome="denied", at=NOW) is not None
        assert await change.end_request(ID, session_hash=b"a" * 32, outcome="granted", at=NOW) is None
        assert await change.bind_request(ID, session_hash=b"a" * 32, now=NOW) is None


async def test_an_expired_request_is_neither_bound_nor_ended(store: Store) -> None:
    async with store.change() as change:
        await change.add_request(ID, request())
        late = NOW + timedelta(minutes=10)
        assert await change.bind_request(ID, session_hash=b"a" * 32, now=late) is None
        assert await change.bind_request(ID, session_hash=b"a" * 32, now=NOW) is not None
        assert await change.end_request(ID, session_hash=b"a" * 32, outcome="granted", at=late) is None


async def test_of_two_sessions_at_once_one_gets_the_request(store: Store) -> None:
    async with store.change() as change:
        await change.add_request(ID, request())

    async def bind(session: bytes) -> StoredRequest | None:
        async with store.change() as change:
            return await change.bind_request(ID, session_hash=session * 32, now=NOW)

    got = await asyncio.gather(*(bind(bytes([session])) for session in range(6)))
    assert sum(one is not None for one in got) == 1


async def test_of_two_decisions_at_once_one_counts(store: Store) -> None:
    async with store.change() as change:
        await change.add_request(ID, request())
        await change.bind_request(ID, session_hash=b"a" * 32, now=NOW)

    async def end() -> StoredRequest | None:
        async with store.change() as change:
            return await change.end_request(ID, session_hash=b"a" * 32, outcome="granted", at=NOW)

    assert sum(one is not None for one in await asyncio.gather(*(end() for _ in range(6)))) == 1


# --- what the room's own role cannot do ---


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("update authorization_requests set asked = '{}'", asyncpg.InsufficientPrivilegeError),
        ("update authorization_requests set client_id = 'old'", asyncpg.InsufficientPrivilegeError),
        ("update authorization_requests set expires_at = now() + '1 day'", asyncpg.InsufficientPrivilegeError),
        ("update authorization_requests set session_hash = null", asyncpg.RaiseError),
        ("update authorization_requests set session_hash = sha256('x')", asyncpg.RaiseError),
        ("update authorization_requests set outcome = null, ended_at = null", asyncpg.RaiseError),
        ("update authorization_requests set outcome = 'denied'", asyncpg.RaiseError),
        ("delete from authorization_requests", asyncpg.RaiseError),
        ("update grants set user_id = 'mallory'", asyncpg.InsufficientPrivilegeError),
        ("update grants set scope = 'credential'", asyncpg.InsufficientPrivilegeError),
        ("update grants set authorization_id = 'a-2'", asyncpg.InsufficientPrivilegeError),
        ("update grants set code_hash = sha256('x')", asyncpg.InsufficientPrivilegeError),
        ("update grants set code_expires_at = now() + '1 day'", asyncpg.InsufficientPrivilegeError),
        ("update grants set code_spent_at = null", asyncpg.RaiseError),
        ("update grants set code_spent_at = now()", asyncpg.RaiseError),
        ("update grants set revoked_at = null", asyncpg.RaiseError),
        ("delete from grants", asyncpg.RaiseError),
        ("update refresh_tokens set expires_at = now() + '1 year'", asyncpg.InsufficientPrivilegeError),
        ("update refresh_tokens set spent_at = null", asyncpg.RaiseError),
        ("delete from refresh_tokens", asyncpg.RaiseError),
        ("update clients set redirect_uris = array['https://evil.example/']", asyncpg.InsufficientPrivilegeError),
        ("update clients set profile = 'csc-compat'", asyncpg.InsufficientPrivilegeError),
        ("update clients set flags = array['pkce-optional']", asyncpg.InsufficientPrivilegeError),
        ("update tokens set grant_id = null", asyncpg.InsufficientPrivilegeError),
        ("truncate grants", asyncpg.InsufficientPrivilegeError),
    ],
)
async def test_what_is_final_stays_final(store: Store, pool: Pool, statement: str, refused: type[Exception]) -> None:
    grant = await add(store, a_grant())
    async with store.change() as change:
        await change.add_request(ID, request())
        await change.bind_request(ID, session_hash=b"a" * 32, now=NOW)
        await change.end_request(ID, session_hash=b"a" * 32, outcome="granted", at=NOW)
        await change.spend_code(grant.grant_id, at=NOW)
        await change.add_refresh_token(ID, grant.grant_id, expires_at=grant.expires_at)
        await change.spend_refresh_token(ID, at=NOW)
        await change.revoke_grant(grant.grant_id, at=NOW)
    with pytest.raises(refused):
        await pool.execute(statement)


@pytest.mark.parametrize(
    "changed",
    [
        {"code_expires_at": NOW + timedelta(seconds=61)},
        {"scope": "credential", "authorization_id": None},
        {"scope": "credential", "credential_id": None},
        {"authorization_id": "a-1"},
        {"credential_id": "c-1"},
        {"scope": "admin"},
        {"client_id": "nobody"},
    ],
)
async def test_a_grant_that_cannot_be_is_not_kept(store: Store, changed: dict[str, object]) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await add(store, a_grant(**changed))  # type: ignore[arg-type]  # bad on purpose


async def test_scope_credential_has_no_refresh_tokens(store: Store) -> None:
    grant = await add(store, a_grant("credential"))
    with pytest.raises(asyncpg.RaiseError):
        async with store.change() as change:
            await change.add_refresh_token(ID, grant.grant_id, expires_at=grant.expires_at)


async def test_two_grants_never_have_one_code(store: Store) -> None:
    await add(store, a_grant())
    with pytest.raises(asyncpg.UniqueViolationError):
        await add(store, a_grant())


# --- grants and tokens ---


async def test_a_grant_comes_back_as_it_was_kept(store: Store) -> None:
    grant = await add(store, a_grant("credential", details='{"type":"credential"}', key_thumbprint="k"))
    async with store.change() as change:
        assert await change.grant_of_code(digest_of("code")) == grant
        assert await change.grant_of_code(digest_of("another")) is None
        assert await change.grant_of_refresh_token(digest_of("none")) is None


async def test_revoking_a_grant_revokes_its_tokens_and_no_others(store: Store) -> None:
    mine, other = await add(store, a_grant(), "1"), await add(store, a_grant(), "2")
    tokens = {}
    async with store.change() as change:
        for grant, name in ((mine, "m1"), (mine, "m2"), (other, "o"), (None, "own")):
            tokens[name] = AccessToken(
                token_id=name,
                issuer=ISSUER,
                client_id="web",
                tenant_id="acme",
                scope="service",
                issued_at=NOW,
                expires_at=NOW + timedelta(hours=1),
            )
            await change.issue(tokens[name], grant_id=grant.grant_id if grant else None)
        assert {one.token_id for one in await change.live_tokens(mine.grant_id, now=NOW)} == {"m1", "m2"}
        await change.revoke_grant(mine.grant_id, at=NOW)
        assert await change.live_tokens(mine.grant_id, now=NOW) == ()
    for name in ("m1", "m2"):
        with pytest.raises(RakkanError) as refusal:
            await store.check_alive(tokens[name])
        assert refusal.value.code is Code.TOKEN_EXPIRED
    await store.check_alive(tokens["o"])
    await store.check_alive(tokens["own"])


async def test_what_expired_is_forgotten_whole(store: Store, pool: Pool) -> None:
    past = NOW - timedelta(days=2)
    grant = await add(
        store,
        a_grant(granted_at=past, code_expires_at=past + timedelta(seconds=60), expires_at=past + timedelta(days=1)),
    )
    kept = await add(store, a_grant(), "kept")
    async with store.change() as change:
        await change.add_request(ID, request(expires_at=past))
        await change.add_refresh_token(ID, grant.grant_id, expires_at=grant.expires_at)
        old = AccessToken(
            token_id="old",
            issuer=ISSUER,
            client_id="web",
            tenant_id="acme",
            scope="service",
            issued_at=past,
            expires_at=past + timedelta(hours=1),
        )
        await change.issue(old, grant_id=grant.grant_id)
    await store.sweep(now=NOW)
    for table in ("authorization_requests", "refresh_tokens", "tokens"):
        assert await pool.fetchval(f"select count(*) from {table}") == 0
    assert await pool.fetchval("select grant_id from grants") == kept.grant_id


# --- the whole story on it ---


async def test_the_whole_way_of_a_code(store: Store, world: World) -> None:
    partner = partner_of(store, world)
    code = await partner.code(**authorization(scope=None, authorization_details=f"[{json.dumps(detail())}]"))
    given = (await partner.redeem(code)).json()
    assert given["authorization_details"] == [detail()]
    await store.check_alive(partner.read(given["access_token"]))
    assert error_of(await partner.redeem(code))[1] == "invalid_grant"
    with pytest.raises(RakkanError):
        await store.check_alive(partner.read(given["access_token"]))
    assert len(world.sam.revocations) == 1


async def test_of_two_who_redeem_a_code_at_once_one_gets_tokens_and_loses_them(store: Store, world: World) -> None:
    partner = partner_of(store, world)
    code = await partner.code(**signing())
    answers = await asyncio.gather(*(partner.redeem(code) for _ in range(4)))
    good = [answer for answer in answers if answer.status_code == 200]
    assert len(good) == 1
    with pytest.raises(RakkanError):
        await store.check_alive(partner.read(good[0].json()["access_token"]))


async def test_of_two_who_refresh_at_once_one_gets_tokens_and_the_family_ends(store: Store, world: World) -> None:
    partner = partner_of(store, world)
    first = (await partner.redeem(await partner.code())).json()
    answers = await asyncio.gather(*(partner.refresh(first["refresh_token"]) for _ in range(4)))
    given = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(given) == 1
    for text in (first["access_token"], given[0]["access_token"]):
        with pytest.raises(RakkanError):
            await store.check_alive(partner.read(text))
    assert (await partner.refresh(given[0]["refresh_token"])).status_code == 400


async def test_a_hardened_client_goes_its_way_over_two_processes(store: Store, world: World) -> None:
    bank = partner_of(store, world, "bank")
    pushed = (await bank.push(**authorization(client_id="bank"))).json()
    app = make_app(store, world.sam, world.trust, world.new_key, settings(), now=world.clock.now)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ISSUER) as other_process:
        front = {"client_id": "bank", "request_uri": pushed["request_uri"]}
        page = (await other_process.get("/oauth2/authorize", params=front)).headers["location"]
        told = await bank.grant(page.rsplit("/", 1)[1])
        proof = bank.proof("/oauth2/token")
        form = {"grant_type": "client_credentials"}
        first = await bank.http.post("/oauth2/token", data=form | bank.assertion(), headers={"DPoP": proof})
        again = await other_process.post("/oauth2/token", data=form | bank.assertion(), headers={"DPoP": proof})
    assert (first.status_code, error_of(again)[1]) == (200, "invalid_dpop_proof")
    assert (await bank.redeem(told["code"])).json()["token_type"] == "DPoP"


async def test_nothing_in_the_database_is_good_for_anything(store: Store, world: World, pool: Pool) -> None:
    partner = partner_of(store, world)
    request_id = await partner.ask(**authorization())
    code = answer_of(f"x?{'&'.join(f'{n}={v}' for n, v in (await partner.grant(request_id)).items())}")["code"]
    given = (await partner.redeem(code)).json()
    rows = []
    for table in ("authorization_requests", "grants", "refresh_tokens", "tokens", "audit_leaves"):
        rows += [str(tuple(row)) for row in await pool.fetch(f"table {table}")]
    everything = "\n".join(rows)
    for text in (request_id, code, given["access_token"], given["refresh_token"]):
        assert text not in everything
    assert hashlib.sha256(code.encode()).digest() in [
        row[0] for row in await pool.fetch("select code_hash from grants")
    ]

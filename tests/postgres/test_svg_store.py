"""The SVG's records in a real PostgreSQL: what is single, what is final, and what the room's role may not do."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.svg.store import Store
from services.svg.wrapping import KeyAttributes, NewKey, Wrapped
from shared.activation import Activation, Use
from shared.algorithms import KeyAlgorithm
from shared.audit import AuditWriter
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.settings import Database
from tests.support.activations import SAM

sam = SAM()


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    settings = Database(port=database.postgres.port, password_file=database.keys.password_file("svg", "database"))
    opened = await connect_pool(settings, "svg")
    yield opened
    opened.terminate()


@pytest.fixture(scope="module")
async def audit(pool: Pool) -> AuditWriter:
    writer = AuditWriter("svg", secrets.token_hex(4))
    await writer.start(pool)
    return writer


@pytest.fixture
async def store(pool: Pool, audit: AuditWriter) -> AsyncIterator[Store]:
    with operation.begin("svg", timeout_s=60):
        yield Store(pool, audit)


async def key(store: Store, **changes: Any) -> Activation:
    """A key in the database; an activation to sign one message with it."""
    public_key, key_id = secrets.token_bytes(91), secrets.token_hex(8)
    generate = sam.activation(key_id=key_id)
    attributes = KeyAttributes(
        key_id=key_id,
        owner=generate.owner,
        kind=generate.kind,
        key_algorithm=generate.key_algorithm,
        profile=generate.profile,
        signatures_max=generate.signatures_max,
        public_key_hash=hashlib.sha256(public_key).digest(),
        kek="kek-1",
    )
    assert await store.add_key(generate, b"token", attributes, public_key, Wrapped(b"wrapped", None))
    return sam.to_sign(public_key, b"a", **{"key_id": key_id, **changes})


async def finish(store: Store, activation: Activation, *values: bytes) -> tuple[bytes, ...]:
    async with store.finishing(activation.operation_id) as finishing:
        if finishing.operation.state == "intent":
            await finishing.done(activation, values, hsm_serial="serial")
            return values
        return finishing.operation.values


async def test_an_intent_gives_the_key_once(store: Store) -> None:
    activation = await key(store)
    found = await store.intend(activation, b"token")
    assert found is not None
    assert found.attributes.key_id == activation.key_id
    assert await store.intend(activation, b"token") is None
    recorded = await store.operation(activation.operation_id)
    assert recorded is not None
    assert recorded.state == "intent"


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": "tenant/other"},
        {"kind": "seal"},
        {"key_algorithm": KeyAlgorithm.P384},
        {"signatures_max": 9},
        {"public_key_hash": bytes(32)},
        {"key_id": "unknown"},
    ],
)
async def test_an_intent_with_another_attribute_leaves_nothing(store: Store, changes: dict[str, Any]) -> None:
    activation = (await key(store)).model_copy(update=changes)
    assert await store.intend(activation, b"token") is None
    assert await store.operation(activation.operation_id) is None


async def test_an_occurrence_is_spent_once(store: Store) -> None:
    activation = await key(store)
    await store.intend(activation, b"token")
    other = activation.model_copy(update={"operation_id": "other-" + activation.operation_id})
    with pytest.raises(RakkanError) as refusal:
        await store.intend(other, b"token")
    assert refusal.value.code is Code.ACTIVATION_SPENT
    assert await store.operation(other.operation_id) is None


async def test_of_many_at_once_one_intends_and_one_value_is_recorded(store: Store) -> None:
    activation = await key(store)
    found = await asyncio.gather(*(store.intend(activation, b"token") for _ in range(8)))
    assert sum(one is not None for one in found) == 1
    recorded = await asyncio.gather(*(finish(store, activation, bytes([n])) for n in range(8)))
    assert len(set(recorded)) == 1


async def test_what_fails_before_the_end_records_nothing(store: Store) -> None:
    activation = await key(store)
    await store.intend(activation, b"token")

    async def fail_late() -> None:
        async with store.finishing(activation.operation_id) as finishing:
            await finishing.done(activation, (b"value",), hsm_serial="serial")
            raise RakkanError(Code.HSM_UNAVAILABLE)

    with pytest.raises(RakkanError):
        await fail_late()
    recorded = await store.operation(activation.operation_id)
    assert recorded is not None
    assert (recorded.state, recorded.values) == ("intent", ())


async def test_a_destroyed_key_is_not_intended_with(store: Store, pool: Pool) -> None:
    activation = await key(store)
    async with store.destroying(activation) as kept:
        assert kept is not None
    assert await store.intend(activation, b"token") is None
    row = await pool.fetchrow("select state, wrapped from keys where key_id = $1", activation.key_id)
    assert row is not None
    assert tuple(row) == ("destroyed", None)


async def test_a_destruction_that_fails_destroys_nothing(store: Store) -> None:
    activation = await key(store)
    with pytest.raises(RakkanError):
        async with store.destroying(activation):
            raise RakkanError(Code.HSM_UNAVAILABLE)
    assert await store.intend(activation, b"token") is not None


async def test_an_id_of_a_key_is_used_once(store: Store) -> None:
    activation = await key(store)
    kept = await store.key(activation.key_id)
    assert kept is not None
    public_key = secrets.token_bytes(91)
    attributes = replace(kept.attributes, public_key_hash=hashlib.sha256(public_key).digest())
    assert not await store.add_key(activation, b"token", attributes, public_key, Wrapped(b"other", None))
    assert (await store.key(activation.key_id)) == kept


async def test_two_never_take_the_same_pooled_key(store: Store) -> None:
    for n in range(4):
        await store.add_pooled(KeyAlgorithm.RSA3072, NewKey(secrets.token_bytes(91), bytes([n]), "kek-pool"))
    taken = await asyncio.gather(*(store.take_pooled(KeyAlgorithm.RSA3072, "kek-pool") for _ in range(6)))
    assert sorted(one.inner for one in taken if one) == [b"\0", b"\1", b"\2", b"\3"]
    assert await store.count_pooled(KeyAlgorithm.RSA3072, "kek-pool") == 0


async def test_every_decision_leaves_a_leaf(store: Store, pool: Pool, audit: AuditWriter) -> None:
    activation = await key(store)
    await store.intend(activation, b"token")
    await store.try_again(activation)
    await finish(store, activation, b"value")
    await store.refuse("key.use_refused", activation, RakkanError(Code.ACTIVATION_SPENT))
    async with store.destroying(activation):
        pass
    records = await pool.fetch("select record from audit_leaves where chain_id = $1 order by seq", audit.chain_id)
    leaves = [json.loads(record["record"]) for record in records]
    mine = [leaf for leaf in leaves if leaf["subject"].get("key_id") == activation.key_id]
    assert [leaf["event_type"] for leaf in mine] == [
        "key.generated",
        "key.use_repeated",
        "key.used",
        "key.use_refused",
        "key.destroyed",
    ]
    assert mine[2]["hsm_serial"] == "serial"
    assert mine[3]["reason_code"] == "activation_spent"


@pytest.mark.parametrize(
    "tamper",
    [
        "update operations set state = 'intent', signature_values = null, done_at = null where operation_id = $1",
        "update operations set signature_values = array['x'::bytea] where operation_id = $1",
        "update operations set attempts = 0 where operation_id = $1",
    ],
)
async def test_a_done_operation_is_final_for_the_administrator_too(store: Store, database: Stack, tamper: str) -> None:
    activation = await key(store)
    await store.intend(activation, b"token")
    await finish(store, activation, b"value")
    administrator = await database.postgres.connect()
    try:
        await administrator.execute("set search_path = svg")
        with pytest.raises(asyncpg.RaiseError):
            await administrator.execute(tamper, activation.operation_id)
    finally:
        await administrator.close()


@pytest.mark.parametrize(
    "tamper",
    [
        "update keys set owner = 'tenant/thief' where key_id = $1",
        "update keys set wrapped = 'x' where key_id = $1",
        "update keys set signatures_max = 1000 where key_id = $1",
    ],
)
async def test_what_a_key_is_bound_to_never_changes(store: Store, database: Stack, tamper: str) -> None:
    activation = await key(store)
    administrator = await database.postgres.connect()
    try:
        await administrator.execute("set search_path = svg")
        with pytest.raises(asyncpg.RaiseError):
            await administrator.execute(tamper, activation.key_id)
    finally:
        await administrator.close()


@pytest.mark.parametrize(
    "forbidden",
    [
        "delete from keys",
        "delete from operations",
        "delete from spent_occurrences",
        "update spent_occurrences set occurrence = 99",
        "update keys set owner = 'x'",
        "update keys set public_key = 'x'",
        "update operations set content_hash = 'x'",
        "update key_pool set inner_wrapped = 'x'",
        "update audit_leaves set record = 'x'",
        "delete from audit_leaves",
        "truncate operations cascade",
        "drop table operations cascade",
        "alter table operations disable trigger all",
    ],
)
async def test_the_role_of_the_room_may_not(pool: Pool, forbidden: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(forbidden)


async def test_a_lost_database_is_unavailable_and_not_a_bug(store: Store, pool: Pool, database: Stack) -> None:
    activation = await key(store, use=Use.SIGN)
    administrator = await database.postgres.connect()
    try:
        with pytest.raises(RakkanError) as refusal:
            async with store.destroying(activation):
                await administrator.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'svg'"
                )
        assert refusal.value.code is Code.UNAVAILABLE
    finally:
        await administrator.close()
    await pool.expire_connections()
    assert await store.intend(activation, b"token") is not None

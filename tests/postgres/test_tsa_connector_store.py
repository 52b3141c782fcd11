"""The TSA connector's records in a real PostgreSQL: quotas that three replicas share and never exceed, and leaves."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from deploy.local.stack import Stack
from services.tsa_connector.quotas import Quotas
from services.tsa_connector.store import Entry, Store
from shared.audit import AuditWriter, leaf_of
from shared.database import Pool, connect_pool
from shared.messaging import operation
from shared.registry import TimeStampingAuthority
from shared.registry.model import Quota
from shared.settings import Database
from tests.support.trust_services import ANCHOR

HOUR = 3600


@pytest.fixture(scope="module")
async def pools(database: Stack) -> AsyncIterator[list[Pool]]:
    """Of three replicas."""
    password_file = database.keys.password_file("tsa_connector", "database")
    settings = Database(port=database.postgres.port, password_file=password_file)
    opened = [await connect_pool(settings, "tsa_connector") for _ in range(3)]
    yield opened
    for pool in opened:
        pool.terminate()


@pytest.fixture
async def stores(pools: list[Pool]) -> AsyncIterator[list[Store]]:
    stores = []
    for pool in pools:
        audit = AuditWriter("tsa_connector", secrets.token_hex(4))
        await audit.start(pool)
        stores.append(Store(pool, audit))
    with operation.begin("tsa_connector", timeout_s=60):
        yield stores


def tsa(*quotas: tuple[int, int]) -> TimeStampingAuthority:
    return TimeStampingAuthority(
        label="T",
        url="https://tsa.example/",
        anchors=(ANCHOR,),
        quotas=tuple(Quota(requests=requests, seconds=seconds) for requests, seconds in quotas),
    )


@pytest.fixture
def name() -> str:
    return f"tsa-{secrets.token_hex(4)}"


async def test_a_thousand_requests_of_three_replicas_never_exceed_a_quota(stores: list[Store], name: str) -> None:
    limited = tsa((300, HOUR), (10_000, 24 * HOUR))
    replicas = [Quotas(store) for store in stores]
    asked = (replicas[number % 3].spend(name, limited) for number in range(1000))
    outcomes = await asyncio.gather(*asked)
    assert sum(second is not None for second in outcomes) == 300
    assert await stores[0].left({name: limited.quotas}) == {name: (0, 9700)}


async def test_the_tightest_of_several_windows_decides(stores: list[Store], name: str) -> None:
    quotas = tsa((20, 1200), (5, 60), (8, 30 * 24 * HOUR)).quotas
    assert (await stores[0].spend(name, quotas, wanted=7)).granted == 5
    assert (await stores[1].spend(name, quotas, wanted=1)).granted == 0
    assert await stores[2].left({name: quotas}) == {name: (15, 0, 3)}


async def test_a_window_that_has_passed_is_free_again(stores: list[Store], name: str) -> None:
    quotas = tsa((3, 1)).quotas
    assert (await stores[0].spend(name, quotas, wanted=5)).granted == 3
    assert (await stores[0].spend(name, quotas, wanted=1)).granted == 0
    await asyncio.sleep(2.1)
    assert (await stores[1].spend(name, quotas, wanted=1)).granted == 1


async def test_no_stretch_of_a_window_ever_holds_more(stores: list[Store], name: str) -> None:
    quotas, granted = tsa((4, 1)).quotas, []
    until = asyncio.get_running_loop().time() + 3
    while (at := asyncio.get_running_loop().time()) < until:
        granted += [at] * (await stores[0].spend(name, quotas, wanted=1)).granted
        await asyncio.sleep(0.05)
    assert len(granted) >= 6
    assert all(later - first >= 0.9 for first, later in zip(granted, granted[4:], strict=False))


async def test_a_quota_that_officers_change_is_held_against_what_was_spent_before(
    stores: list[Store], name: str
) -> None:
    await stores[0].spend(name, tsa((100, 60)).quotas, wanted=30)
    assert await stores[0].left({name: tsa((40, 24 * HOUR), (50, 300 * 24 * HOUR)).quotas}) == {name: (10, 20)}


async def test_a_tsa_without_quotas_costs_no_query(stores: list[Store], name: str) -> None:
    assert await Quotas(stores[0]).spend(name, tsa()) == 0
    assert await stores[0].left({name: ()}) == {}


async def test_what_never_reached_the_tsa_is_given_back_with_the_record(stores: list[Store], name: str) -> None:
    quotas = tsa((5, HOUR)).quotas
    spent = await stores[0].spend(name, quotas, wanted=5)
    leaf = leaf_of("timestamp.refused", actor_type="client", actor_id="c")
    await stores[0].record([Entry((leaf,), ((name, spent.second), (name, spent.second)))])
    assert await stores[0].left({name: quotas}) == {name: (2,)}


@pytest.mark.usefixtures("stores")
async def test_leaves_of_many_requests_are_one_chain_in_order(pools: list[Pool]) -> None:
    audit = AuditWriter("tsa_connector", secrets.token_hex(4))
    await audit.start(pools[0])
    store = Store(pools[0], audit)
    leaves = [
        leaf_of("timestamp.obtained", actor_type="client", actor_id="c", subject={"serial_number": f"{number:x}"})
        for number in range(20)
    ]
    await store.record([Entry((leaf,)) for leaf in leaves[:15]])
    await store.record([Entry(tuple(leaves[15:]))])
    rows = await pools[0].fetch("select seq, record from audit_leaves where chain_id = $1 order by seq", audit.chain_id)
    assert [row["seq"] for row in rows] == list(range(1, 21))
    told = [json.loads(row["record"])["subject"]["serial_number"] for row in rows]
    assert told == [f"{number:x}" for number in range(20)]


async def test_what_no_quota_reaches_back_to_is_forgotten_and_the_rest_is_not(
    stores: list[Store], pools: list[Pool], name: str
) -> None:
    now = int(datetime.now(UTC).timestamp())
    rows = [(name, 1, now - 100_000, 1), (name, 60, (now - 400_000) // 60, 1), (name, 3600, (now - 400_000) // 3600, 1)]
    await pools[0].executemany("insert into spending (authority, unit_s, slot, requests) values ($1, $2, $3, $4)", rows)
    await stores[0].forget_old()
    kept = await pools[0].fetch("select unit_s from spending where authority = $1", name)
    assert [row["unit_s"] for row in kept] == [3600]

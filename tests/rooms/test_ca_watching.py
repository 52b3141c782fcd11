"""The slow rounds of the CA connector: each CA's status by itself, warnings, and figures that an alert can look at."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from services.ca_connector.client import Answer
from services.ca_connector.fetching import Fetching
from services.ca_connector.metrics import Metrics
from services.ca_connector.orders import Order
from services.ca_connector.store_standing import Standing
from services.ca_connector.watching import Watching
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from tests.support.ca_connector import ConnectorRoom, FakeAuthority
from tests.support.certificates import NOW

DAY = timedelta(days=1)


@dataclass
class Records:
    """How things stand, and whose status was looked at."""

    looked: list[str] = field(default_factory=list)
    hanging: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    standing: dict[str, Standing] = field(default_factory=dict)
    warned: list[int] = field(default_factory=list)

    async def look(self, name: str, ca: CertificationAuthority) -> None:
        del ca
        self.looked.append(name)
        if name in self.hanging:
            await asyncio.sleep(60)
        if name in self.failing:
            raise RakkanError(Code.UNAVAILABLE)

    async def expiring(self, *, now: datetime, within: timedelta, orders_max: int) -> Iterable[Order]:
        del now, orders_max
        self.warned.append(within.days)
        return ()

    async def standings(
        self, *, now: datetime, days: Sequence[int], with_ended: bool = False, lists_of: Sequence[str] = ()
    ) -> Mapping[str, Standing]:
        del now, days, with_ended, lists_of
        return self.standing


async def watched(records: Records, rounds: int = 1) -> CollectorRegistry:
    page = CollectorRegistry()
    room = ConnectorRoom({"blue": FakeAuthority(), "red": FakeAuthority()})
    async with room.open():
        watching = Watching(
            desks=lambda: room.queues.desks,
            statuses=records,
            store=records,
            standing=records,
            metrics=Metrics(page),
            warn_days=(30, 7, 1),
            now=lambda: NOW,
        )
        for _ in range(rounds):
            await watching.once()
            await asyncio.sleep(0.01)
        running = asyncio.create_task(watching.run(every_s=60))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return page


async def test_a_ca_whose_lists_hang_delays_no_other_and_is_not_asked_twice_at_once() -> None:
    records = Records(hanging={"blue"})
    await watched(records, rounds=3)
    assert (records.looked.count("blue"), records.looked.count("red") >= 3) == (1, True)


async def test_a_look_that_fails_is_repeated() -> None:
    records = Records(failing={"blue"})
    await watched(records, rounds=3)
    assert records.looked.count("blue") >= 3


async def test_the_figures_say_how_things_stand_and_zero_where_nothing_does() -> None:
    standing = Standing(
        orders={"UNKNOWN": 2}, oldest=NOW - DAY, revocations=1, expiring={7: 3}, status_of=NOW - 2 * DAY
    )
    page = await watched(Records(standing={"blue": standing}))

    def figure(name: str, **labels: str) -> float | None:
        return page.get_sample_value(name, {"authority": "blue", **labels})

    assert figure("rakkan_ca_orders", state="unknown") == 2
    assert figure("rakkan_ca_orders", state="pending") == 0
    assert figure("rakkan_ca_oldest_order_seconds") == 86_400
    assert figure("rakkan_ca_revocations_waiting") == 1
    assert (figure("rakkan_ca_certificates_expiring", days="7"), figure("rakkan_ca_breaker")) == (3, 0)
    assert figure("rakkan_ca_status_age_seconds") == 2 * 86_400
    assert figure("rakkan_ca_status_age_max_seconds") == 86_400
    assert page.get_sample_value("rakkan_ca_orders", {"authority": "red", "state": "unknown"}) == 0


async def test_certificates_are_warned_of_from_the_nearest_end_on() -> None:
    records = Records()
    await watched(records)
    assert records.warned[:3] == [1, 7, 30]


# Lists and answers over HTTP


@dataclass
class FakePeer:
    origin: str
    status: int = 200
    body: bytes = b"list"
    asked: list[tuple[str, str]] = field(default_factory=list)
    closed: bool = False

    async def request(self, method: str, path: str, **_: object) -> Answer:
        self.asked.append((method, path))
        return Answer(self.status, {}, self.body)

    async def close(self) -> None:
        self.closed = True


class Web:
    def __init__(self, **answer: object) -> None:
        self.peers: list[FakePeer] = []
        self.answer = answer

    def open(self, origin: str, **_: object) -> FakePeer:
        self.peers.append(FakePeer(origin, **self.answer))  # type: ignore[arg-type]  # its own fields
        return self.peers[-1]


def fetching(web: Web) -> Fetching:
    return Fetching(timeout_s=1, list_bytes_max=1000, open_=web.open)  # type: ignore[arg-type]  # a peer by shape


async def test_each_origin_is_asked_by_a_peer_of_its_own() -> None:
    web = Web()
    made = fetching(web)
    for url in ("http://one.example/a", "http://one.example/b", "https://one.example/a", "http://two.example:81/a"):
        assert await made.fetch(url) == b"list"
    await made.ask("http://one.example/ocsp", b"question")
    assert [peer.origin for peer in web.peers] == [
        "http://one.example",
        "https://one.example",
        "http://two.example:81",
    ]
    assert web.peers[0].asked[-1] == ("POST", "http://one.example/ocsp")
    await made.close()
    assert all(peer.closed for peer in web.peers)


@pytest.mark.parametrize("answer", [{"status": 404}, {"status": 204, "body": b""}, {"body": b""}], ids=str)
async def test_what_is_no_list_is_no_answer(answer: dict[str, object]) -> None:
    with pytest.raises(RakkanError) as refusal:
        await fetching(Web(**answer)).fetch("http://one.example/a")
    assert refusal.value.code is Code.AUTHORITY_UNAVAILABLE


async def test_any_number_of_origins_holds_only_so_many_connections() -> None:
    web = Web()
    made = fetching(web)
    for index in range(100):
        await made.fetch(f"http://{index}.example/")
    assert sum(not peer.closed for peer in web.peers) <= 32

"""SIGTERM under load with a second process of the room beside: no partner notices, and the room ends by itself."""

import asyncio
import urllib.request
from dataclasses import dataclass, field

import pytest

from tests.support.load import Balancer, Load
from tests.support.partner import Answer, Partner
from tests.support.replicas import Replica
from tests.support.waiting import until
from tests.support.world import World


@pytest.mark.parametrize("room", ["sam", "svg"])
async def test_a_room_told_to_end_under_load_costs_no_request(world: World, room: str) -> None:
    async with Replica.started(world.stack, room) as replica, Load.running(world) as load:
        await load.until(40)
        assert await handled(replica) > 0
        assert await replica.end() == 0
        await load.until(20)
    assert load.refusals == []
    await load.check()


async def test_a_gateway_told_to_end_under_load_answers_all_it_has_in_hand(world: World) -> None:
    async with (
        Replica.started(world.stack, "gateway") as replica,
        Load.running(world, world.acme.at(gateway_url=replica.url), world.acme) as load,
    ):
        await load.until(30)
        assert await replica.end() == 0
        await load.until(20)
    assert load.refusals == []
    await load.check()


async def test_authentication_told_to_end_under_load_answers_all_it_has_in_hand(world: World) -> None:
    async with Replica.started(world.stack, "authentication") as replica:
        asking = Asking(Balancer([world.acme.at(authentication_url=replica.url), world.acme]))
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(asking.ask())
            await asking.until(20)
            assert await replica.end() == 0
            await asking.until(10)
            asking.stopping = True
    assert {answer.status for answer in asking.answers} == {200}


async def test_no_outcome_was_left_unknown_by_any_restart(world: World) -> None:
    logs = (world.stack.folder / "logs").glob("*.log")
    assert [log.name for log in logs if '"outcome": "indeterminate"' in log.read_text(errors="replace")] == []
    unfinished = await world.fetch("select operation_id from svg.operations where state <> 'done'")
    assert len(unfinished) == 0


async def handled(replica: Replica) -> int:
    """How many messages it has taken so far."""
    text = await asyncio.to_thread(_read, f"{replica.health_url}/metrics")
    lines = [line for line in text.splitlines() if line.startswith("rakkan_requests_total{") and "sign" in line]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback URL
        text: str = answer.read().decode()
    return text


@dataclass
class Asking:
    """Programs that want a token, again and again."""

    balancer: Balancer
    answers: list[Answer] = field(default_factory=list)
    stopping: bool = False

    async def ask(self) -> None:
        while not self.stopping:
            self.answers.append(await self.balancer.send(Partner.ask_token))

    async def until(self, more: int) -> None:
        wanted = len(self.answers) + more

        async def came() -> bool:
            return len(self.answers) >= wanted

        await until(came, within_s=60)

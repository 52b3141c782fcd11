"""Power cuts under load, seen by partners: every request ends in a value or a clean error, none lost, none doubled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from tests.support.load import Load
from tests.support.signatures import ECDSA_SHA256, verify
from tests.support.waiting import until
from tests.support.world import MIDORI, P256, PINS, World

_OLD_ENOUGH_S = 10.0
"""A quorum queue younger than this does not survive a kill of its broker."""


@pytest.fixture(autouse=True)
async def everything_works_before_and_after(world: World) -> AsyncIterator[None]:
    """No room is restarted by hand: whoever was away is back, and the others have found it."""
    pids = await pids_of(world)
    yield
    await world.until_ready()
    after = await pids_of(world)
    assert {room for room in pids if pids[room] != after[room]} <= {"svg"}
    digest = bytes(32)
    sad = await world.acme.authorize(P256, digest, pin=PINS[MIDORI])
    assert (await world.acme.sign(P256, sad, digest)).status == 200
    assert (await world.acme.timestamp(digest)).status == 200


async def pids_of(world: World) -> dict[str, int | None]:
    rooms = ("gateway", "authentication", "sam", "svg", "ca_connector", "tsa_connector")
    return {room: world.stack.rooms.program(room).pid for room in rooms}


@asynccontextmanager
async def load_around(world: World) -> AsyncIterator[Load]:
    """Values are coming when the block is entered and again when it is left."""
    async with Load.running(world) as load:
        await load.until(10)
        yield load
        await load.until(20)
    await load.check()


async def says(world: World, room: str, fault: str) -> None:
    """Wait until /readyz of the room says it."""

    async def said() -> bool:
        return fault in await world.faults(room)

    await until(said, within_s=20)


async def test_an_svg_worker_killed_in_the_middle_loses_no_signature_and_makes_none_twice(world: World) -> None:
    rooms = world.stack.rooms
    async with load_around(world):
        for _ in range(2):
            await asyncio.to_thread(rooms.program("svg").kill)
            await asyncio.to_thread(rooms.start, "svg")
            await asyncio.to_thread(rooms.wait_ready, "svg")


async def test_rabbitmq_killed_and_restarted_loses_no_signature_and_makes_none_twice(world: World) -> None:
    await asyncio.sleep(max(0.0, world.began + _OLD_ENOUGH_S - monotonic()))
    async with load_around(world) as load:
        await asyncio.to_thread(world.stack.rabbitmq.kill)
        await says(world, "gateway", "broker")
        await says(world, "svg", "broker")
        await asyncio.to_thread(world.stack.start_rabbitmq)
    assert {refusal[:2] for refusal in load.refusals} <= {(503, "temporarily_unavailable")}


async def test_postgresql_killed_and_restarted_loses_no_signature_and_makes_none_twice(world: World) -> None:
    async with load_around(world) as load:
        await asyncio.to_thread(world.stack.postgres.kill)
        for room in ("authentication", "sam", "svg", "ca_connector"):
            await says(world, room, "database")
        assert "database" not in await world.faults("gateway")
        await asyncio.to_thread(world.stack.start_postgres)
    assert {refusal[:2] for refusal in load.refusals} <= {(503, "temporarily_unavailable")}


async def test_without_its_hsm_the_suite_says_so_and_with_it_again_it_signs(world: World) -> None:
    digest = bytes(range(32))
    sad = await world.acme.authorize(P256, digest, pin=PINS[MIDORI])
    tokens = world.stack.token("svg").tokens_folder
    away = tokens.with_name("away")
    tokens.rename(away)
    try:
        refused = await world.acme.sign(P256, sad, digest)
        await says(world, "svg", "hsm")
    finally:
        away.rename(tokens)
    assert refused.refusal[:2] == (503, "temporarily_unavailable")

    async def signs() -> bool:
        return (await world.acme.sign(P256, sad, digest)).status == 200

    await until(signs, within_s=30)
    verify(
        await world.acme.certificate(P256), ECDSA_SHA256, [digest], (await world.acme.sign(P256, sad, digest)).values
    )

"""A gateway in the hands of an attacker: its keys, its broker user, and even the broker's administrator beside it."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.contracts.sam import Authorize, Signed, SignHash
from shared.contracts.svg import SignDigests
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.messaging.envelope import Envelope, open_envelope, seal_envelope
from shared.trust import Purpose, SigningKey, Trust
from tests.support.buses import bus_of
from tests.support.partner import sad_hash
from tests.support.spy import Heard, Spy
from tests.support.world import MIDORI, P256, PINS, World

SIGN_HASH, SIGN_DIGESTS = SignHash.TYPE, SignDigests.TYPE


@pytest.fixture(scope="module")
async def spy(world: World) -> AsyncIterator[Spy]:
    async with Spy.on(world.stack) as spy:
        yield spy


@pytest.fixture
async def sad(world: World, spy: Spy) -> str:
    """Of a signature that was made while the attacker listened."""
    spy.heard.clear()
    digest = secrets.token_bytes(32)
    sad = await world.acme.authorize(P256, digest, pin=PINS[MIDORI])
    assert (await world.acme.sign(P256, sad, digest)).status == 200
    await spy.until_heard(f"{SIGN_HASH}.reply", 1)
    return sad


def opened(world: World, heard: Heard, recipient: str) -> Envelope:
    trust = Trust.load(world.stack.keys.bundle_file)
    return open_envelope(heard.body, recipient=recipient, trust=trust, now=datetime.now(UTC))


def sealed(world: World, envelope: Envelope, *, by: str, **changes: str) -> bytes:
    """The same said anew by another room, with that room's own key."""
    key = SigningKey.load(world.stack.keys.key_file(by, Purpose.MESSAGES))
    now = datetime.now(UTC)
    facts = {"sender": by, "message_id": secrets.token_hex(16)} | changes
    return seal_envelope(replace(envelope, issued_at=now, expires_at=now + timedelta(seconds=30), **facts), key)  # type: ignore[arg-type]  # texts only


async def operations(world: World) -> list[tuple[str, str, int]]:
    rows = await world.fetch("select operation_id, state, attempts from svg.operations order by operation_id")
    return [tuple(row) for row in rows]


async def test_the_brokers_permissions_keep_the_gateway_from_the_svg(world: World, spy: Spy, sad: str) -> None:
    captured = opened(world, spy.of_type(SIGN_DIGESTS)[0], "svg")
    before = await operations(world)
    bus = bus_of(world.stack, "gateway")
    async with bus.connected():
        with operation.begin("gateway", timeout_s=20), pytest.raises(RakkanError) as refusal:
            await bus.ask(SignDigests.model_validate_json(captured.body))
    assert refusal.value.code is Code.FORBIDDEN
    assert await operations(world) == before
    assert sad


async def test_even_past_the_broker_the_svg_takes_nothing_from_the_gateway(world: World, spy: Spy, sad: str) -> None:
    captured = opened(world, spy.of_type(SIGN_DIGESTS)[0], "svg")
    before = await operations(world)
    answers = len(spy.of_type(f"{SIGN_DIGESTS}.reply"))
    await spy.refused("svg", sealed(world, captured, by="gateway"), reply_to="gateway.replies.0")
    await spy.refused("svg", sealed(world, captured, by="gateway", sender="sam"), reply_to="gateway.replies.0")
    assert len(spy.of_type(f"{SIGN_DIGESTS}.reply")) == answers
    assert await operations(world) == before
    assert sad


async def test_a_replayed_activation_makes_no_second_operation(world: World, spy: Spy, sad: str) -> None:
    captured = spy.of_type(SIGN_DIGESTS)[0]
    before = await operations(world)
    first = opened(world, spy.of_type(f"{SIGN_DIGESTS}.reply")[0], "sam")
    await spy.say(captured.body, exchange="svg", reply_to=captured.reply_to)
    again = opened(world, (await spy.until_heard(f"{SIGN_DIGESTS}.reply", 2))[1], "sam")
    assert again.body == first.body
    assert await operations(world) == before
    assert sad


async def test_a_replayed_request_to_sign_gets_the_recorded_values(world: World, spy: Spy, sad: str) -> None:
    captured = spy.of_type(SIGN_HASH)[0]
    before = await operations(world)
    await spy.say(captured.body, exchange="sam", reply_to=captured.reply_to)
    answers = [opened(world, heard, "gateway") for heard in await spy.until_heard(f"{SIGN_HASH}.reply", 2)]
    first, again = (Signed.model_validate_json(answer.body) for answer in answers)
    assert first == again
    assert await operations(world) == before
    assert (await world.fetch("select used from sam.authorizations where sad_hash = $1", sad_hash(sad)))[0][0] == 1


async def test_a_replayed_authorization_is_no_second_one(world: World, spy: Spy, sad: str) -> None:
    captured = spy.of_type(Authorize.TYPE)[0]
    before = (await world.fetch("select count(*) from sam.authorizations"))[0][0]
    await spy.say(captured.body, exchange="sam", reply_to=captured.reply_to)
    await spy.until_heard(f"{Authorize.TYPE}.failure", 1)
    assert (await world.fetch("select count(*) from sam.authorizations"))[0][0] == before
    assert sad


async def test_what_the_wrong_room_says_goes_to_the_dead_letters(world: World, spy: Spy, sad: str) -> None:
    captured = opened(world, spy.of_type(SIGN_HASH)[0], "sam")
    for room in ("authentication", "ca_connector", "svg", "operator"):
        await spy.refused("sam", sealed(world, captured, by=room), reply_to=f"{room}.replies.0")
    assert sad


async def test_what_is_said_on_the_wrong_route_goes_to_the_dead_letters(world: World, spy: Spy, sad: str) -> None:
    said = spy.of_type(SIGN_HASH)[0].body
    before = await operations(world)
    await spy.refused("sam", said, key="jobs")
    for listener in ("svg", "authentication", "tsa_connector"):
        await spy.refused(listener, said)
    assert await operations(world) == before
    assert sad


async def test_a_message_with_one_bit_changed_goes_to_the_dead_letters(world: World, spy: Spy, sad: str) -> None:
    said = spy.of_type(SIGN_HASH)[0].body
    before = await operations(world)
    for place in (len(said) // 3, len(said) // 2, len(said) - 1):
        await spy.refused("sam", said[:place] + bytes([said[place] ^ 1]) + said[place + 1 :])
    assert await operations(world) == before
    assert sad

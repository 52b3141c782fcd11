"""Two TSAs of one class behind the partners' door: one is killed and nobody feels it; by its name it fails honestly."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from asn1crypto import cms

from deploy.local.stack import Stack
from deploy.local.tsa import POLICY
from services.operator import time_stamping
from services.operator.terminal import Terminal
from services.operator.words import parser
from shared.messaging import operation
from shared.messaging.topology import OPERATOR
from tests.support.partner import Answer
from tests.support.replicas import Replica
from tests.support.world import World


async def stamp(world: World, **more: object) -> Answer:
    digest = base64.b64encode(secrets.token_bytes(32)).decode()
    request = {"hash": digest, "hashAlgo": "2.16.840.1.101.3.4.2.1", **more}
    return await world.acme.call("signatures/timestamp", request)


def authority_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return str(answer.body["timeStampingAuthority"])


@asynccontextmanager
async def killed(stack: Stack, name: str) -> AsyncIterator[None]:
    await asyncio.to_thread(stack.rooms.tsas[name].kill)
    try:
        yield
    finally:
        await asyncio.to_thread(stack.rooms.start_tsa, name)


async def explain(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    """What `./rakkan tsa explain` prints."""
    said = parser().parse_args(["--json", "tsa", "explain", *words])
    with operation.begin(OPERATOR, timeout_s=15):
        await time_stamping.tell(said, world.operator_bus.ask, Terminal(as_json=True))
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return told


async def test_when_the_first_tsa_is_killed_the_second_answers_and_a_named_one_fails_honestly(world: World) -> None:
    assert authority_of(await stamp(world)) == "local"
    async with killed(world.stack, "local"):
        for _ in range(5):
            answer = await stamp(world)
            assert authority_of(answer) == "second"
        token = cms.ContentInfo.load(base64.b64decode(answer.body["timestamp"]))
        assert token["content"]["encap_content_info"]["content"].parsed["policy"].native == POLICY
        refusal = (await stamp(world, timeStampingAuthority="local")).refusal
        assert refusal[:2] == (503, "temporarily_unavailable")
        assert "local" in refusal[2]
        assert authority_of(await stamp(world, timeStampingAuthority="second")) == "second"
    async with asyncio.timeout(90):
        while authority_of(await stamp(world)) != "local":  # noqa: ASYNC110 - it is found out by and by
            await asyncio.sleep(0.5)


async def test_an_explanation_says_whom_and_why_and_is_right(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    ((choice, reasons),) = (await explain(world, capsys, "--class", "standard", "--policy", POLICY)).items()
    assert choice == "the class standard"
    assert isinstance(reasons, list)
    assert [(one["authority"], one["standing"]) for one in reasons] == [("local", "asked"), ("second", "if needed")]
    assert authority_of(await stamp(world)) == "local"


async def test_each_token_left_a_leaf_that_says_from_whom_it_came(world: World) -> None:
    serial = authority_and_serial(await stamp(world))
    connection = await world.stack.postgres.connect()
    try:
        rows = await connection.fetch("select record from tsa_connector.audit_leaves")
    finally:
        await connection.close()
    subjects = [json.loads(row["record"])["subject"] for row in rows]
    (found,) = [one for one in subjects if (one.get("authority"), one.get("serial_number")) == serial]
    assert found.keys() >= {"gen_time", "policy", "latency_ms", "offset_ms", "attempts", "timestamp_hash"}


def authority_and_serial(answer: Answer) -> tuple[str, str]:
    token = cms.ContentInfo.load(base64.b64decode(answer.body["timestamp"]))
    info = token["content"]["encap_content_info"]["content"].parsed
    return authority_of(answer), f"{info['serial_number'].native:x}"


async def test_the_metrics_tell_of_each_tsa(world: World) -> None:
    await stamp(world)
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"{world.stack.rooms.health_url('tsa_connector')}/metrics")).text
    assert 'rakkan_tsa_requests_total{authority="local",outcome="token"}' in page
    assert 'rakkan_tsa_seconds_bucket{authority="local",le="0.25"}' in page
    assert 'rakkan_tsa_offset_seconds{authority="local"}' in page


async def test_a_quota_holds_for_all_replicas_together(world: World) -> None:
    rooms = world.stack.rooms
    before = rooms.registry.read()
    before.pop("version")
    limited = json.loads(json.dumps(before))
    limited["time_stamping_authorities"]["local"]["quotas"] = [{"requests": 12, "seconds": 3600}]
    async with Replica.started(world.stack, "tsa_connector"), Replica.started(world.stack, "tsa_connector"):
        try:
            await asyncio.to_thread(rooms.registry.write, limited)
            await asyncio.sleep(6.5)  # longer than a room takes to look at the file again
            answers = await asyncio.gather(*(stamp(world) for _ in range(30)))
            names = [authority_of(answer) for answer in answers]
            assert (names.count("local"), names.count("second")) == (12, 18)
            refusal = (await stamp(world, timeStampingAuthority="local")).refusal
            assert refusal[:2] == (503, "temporarily_unavailable")
            assert "quota" in refusal[2]
        finally:
            await asyncio.to_thread(rooms.registry.write, before)
            await asyncio.sleep(6.5)

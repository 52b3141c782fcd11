"""The door itself: info, pages, bodies, rates, faults, whatever method is called."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway.csc.facade import STANDARD_METHODS
from services.gateway.settings import Door, Limits
from shared.contracts import sam
from shared.errors import Code, RakkanError
from tests.rooms.gateway_fakes import (
    ECDSA_SHA256,
    HASH,
    World,
    b64,
    opened,
)

V1 = {"SAD": "sad-0", "credentialID": "demo", "hash": [b64(HASH)], "signAlgo": ECDSA_SHA256}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with opened() as world:
        world.rooms.sads.add("sad-0")
        yield world


async def test_info_is_what_every_client_can_read(world: World) -> None:
    v1 = (await world.client.post("/csc/v1/info", json={"lang": "ja"})).json()
    v2 = (await world.client.post("/csc/v2/info")).json()
    assert (await world.client.get("/csc/v2/info")).json() == v2
    assert (v1["specs"], v2["specs"]) == ("1.0.4.0", "2.2.0.0")
    for info in (v1, v2):
        assert info["oauth2"] == "https://auth.example"
        assert info["authType"] == ["oauth2code", "oauth2client"]
        assert {"name", "logo", "region", "lang", "description", "methods"} <= set(info)
        assert {"oauth2Servers", "oauth2Issuer"}.isdisjoint(info)
        assert "signatures/signHash" in info["methods"]
    assert "supportsRar" not in v1
    assert v2["supportsRar"] is True
    assert v2["supportedHashTypes"] == ["dtbsr", "sdr"]
    algorithms = v2["signAlgorithms"]
    assert len(algorithms["algos"]) == len(algorithms["algoParams"])
    assert all(isinstance(params, str) for params in algorithms["algoParams"])
    formats = v2["signature_formats"]
    assert len(formats["formats"]) == len(formats["envelope_properties"])


async def test_every_method_in_info_answers_and_every_other_of_the_standard_says_501(world: World) -> None:
    for version in ("v1", "v2"):
        methods = (await world.client.post(f"/csc/{version}/info")).json()["methods"]
        for name in STANDARD_METHODS:
            answer = await world.call(f"{version}/{name}", {})
            offered = name in methods and not name.startswith("oauth2/")
            assert (answer.status_code == 501) is not offered
            if not offered:
                assert answer.json()["error"] == "not_implemented"


async def test_wrong_paths_and_verbs_are_refused_in_csc_words(world: World) -> None:
    for path in ("/csc/v2/signatures/other", "/csc/v3/info", "/csc/v1/info/"):
        answer = await world.client.post(path, json={})
        assert (answer.status_code, answer.json()["error"]) == (404, "invalid_request")
    answer = await world.client.get("/csc/v1/signatures/signHash")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"credentialID": "demo", "credentialID": "other"}',
    ],
    ids=range(10),
)
async def test_a_body_that_is_not_one_json_object_is_refused(world: World, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {world.token()}"}
    answer = await world.client.post("/csc/v2/credentials/info", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert world.rooms.asked == []


async def test_half_a_surrogate_pair_is_refused(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.token()}"}
    body = b'{"credentialID": "\\ud800"}'
    answer = await world.client.post("/csc/v2/credentials/info", content=body, headers=headers)
    assert answer.json()["error_description"] == "Invalid parameter credentialID"


async def test_a_body_of_ten_megabytes_is_refused_without_being_read_whole(world: World) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(160):
            read += 65_536
            yield b" " * 65_536

    headers = {"Authorization": f"Bearer {world.token()}"}
    answer = await world.client.post("/csc/v2/signatures/signHash", content=b" " * 10_485_760, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")
    answer = await world.client.post("/csc/v2/signatures/signHash", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert world.rooms.asked == []


async def test_a_client_that_comes_too_often_is_told_when_to_come_again() -> None:
    async with opened(Limits(requests_per_s=0.5, burst=3)) as world:
        answers = [await world.call("v1/credentials/info", {"credentialID": "demo"}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 2
        other = world.token(client_id="other")
        assert (await world.call("v1/credentials/info", {"credentialID": "demo"}, token=other)).status_code == 200


async def test_who_guesses_tokens_is_slowed_down() -> None:
    async with opened(Limits(anonymous_requests_per_s=0.5, anonymous_burst=2)) as world:
        answers = [await world.call("v1/credentials/list", {}, token="guess") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [401, 401, 429]
        assert (await world.client.post("/csc/v1/info")).status_code == 429
        assert (await world.call("v1/credentials/info", {"credentialID": "demo"})).status_code == 200


async def test_more_requests_at_once_than_the_door_holds_are_turned_away() -> None:
    async with opened(door=Door(requests_max=2)) as world:
        gate, waiting = asyncio.Event(), world.rooms.ask

        async def ask(request: Any) -> Any:
            await gate.wait()
            return await waiting(request)

        world.rooms.ask = ask  # type: ignore[method-assign]  # a room that takes its time
        calls = [asyncio.create_task(world.call("v1/credentials/info", {"credentialID": "demo"})) for _ in range(3)]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert [call.result().status_code for call in done] == [503]
        assert done.pop().result().headers["Retry-After"] == "1"
        gate.set()
        assert sorted([(await call).status_code for call in calls]) == [200, 200, 503]


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.OVERLOADED, Code.EXPIRED, Code.HSM_UNAVAILABLE])
async def test_a_room_that_cannot_now_is_answered_503_with_retry_after(world: World, code: Code) -> None:
    world.rooms.refuse[sam.SignHash] = RakkanError(code, "inside")
    answer = await world.call("v2/signatures/signHash", V1)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert "inside" not in answer.text


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), RakkanError(Code.RECORD_DAMAGED, "row 5"), KeyError("x")])
async def test_a_fault_of_ours_is_answered_without_words(world: World, fault: Exception) -> None:
    world.rooms.refuse[sam.SignHash] = fault
    answer = await world.call("v1/signatures/signHash", V1)
    assert (answer.status_code, answer.json()) == (500, {"error": "server_error"})


async def test_every_answer_has_a_request_id_and_is_not_kept(world: World) -> None:
    for answer in (
        await world.call("v1/credentials/info", {"credentialID": "demo"}),
        await world.call("v1/credentials/info", {}),
        await world.client.post("/csc/v2/info"),
        await world.client.post("/nowhere"),
    ):
        assert answer.headers["X-Request-ID"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_page_of_methods_loads_nothing_from_elsewhere_and_runs_nothing(world: World) -> None:
    for path in ("/", "/docs"):
        page = await world.client.get(path)
        assert page.status_code == 200
        assert "<script" not in page.text
        assert 'src="http' not in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert all(name in page.text for name in ("signatures/signHash", "credentials/getChallenge", "viewport"))
    assert (await world.client.get("/logo.png")).content.startswith(b"\x89PNG")


async def test_the_openapi_document_lists_every_method(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    assert "/csc/v2/signatures/signHash" in document["paths"]
    for path, operations in document["paths"].items():
        described = operations["post"]
        assert described["summary"], path
        media_type = "application/timestamp-query" if path.endswith("/tsa") else "application/json"
        assert media_type in described["requestBody"]["content"], path
        assert "422" not in described["responses"], path
    assert "access_token" in document["components"]["securitySchemes"]

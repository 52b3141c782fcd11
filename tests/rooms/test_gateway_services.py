"""Virtual services and our extension at the gateway's door: chosen by base URL, by client, by what a request names."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway.csc.facade import STANDARD_METHODS
from services.gateway.extension import URI
from services.gateway.settings import Limits
from shared.contracts import tsa_connector
from shared.errors import Code, RakkanError
from tests.rooms.gateway_fakes import ECDSA_SHA256, HASH, SHA256, World, b64, opened
from tests.support.trust_services import registry_of

STAMP = {"hash": b64(HASH), "hashAlgo": SHA256}
VERSIONS = ("v1", "v2")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with opened() as world:
        world.rooms.sads.add("sad-0")
        yield world


def stamping(world: World) -> tsa_connector.Timestamp:
    return [request for request in world.rooms.asked if isinstance(request, tsa_connector.Timestamp)][-1]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_method_is_there_at_a_virtual_service_too(world: World, version: str) -> None:
    for name in STANDARD_METHODS:
        bare = await world.call(f"{version}/{name}", {})
        served = await world.call(f"{version}/{name}", {}, service="shop")
        assert (served.status_code, served.content) == (bare.status_code, bare.content)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_virtual_service_has_an_info_of_its_own_and_the_same_oauth(world: World, version: str) -> None:
    bare = (await world.client.post(f"/csc/{version}/info")).json()
    served = (await world.client.post(f"/s/shop/csc/{version}/info")).json()
    assert (await world.client.get(f"/s/shop/csc/{version}/info")).json() == served
    assert (served["name"], served["description"]) == ("The shop", "Signatures for the shop")
    assert (await world.client.get(f"/s/both/csc/{version}/info")).json()["description"] == bare["description"]
    differing = {"name", "description", "extensions"}
    assert {k: v for k, v in served.items() if k not in differing} == {
        k: v for k, v in bare.items() if k not in differing
    }
    assert served["oauth2"] == "https://auth.example"


@pytest.mark.parametrize("path", ["info", "credentials/list", "signatures/timestamp"])
async def test_an_unknown_service_is_not_found_whatever_the_token(world: World, path: str) -> None:
    for token in (None, world.token(lifetime_s=0)):
        answer = await world.call(f"v2/{path}", STAMP, token=token, service="nowhere")
        assert answer.status_code == 404
        assert answer.json() == {"error": "invalid_request", "error_description": "There is no such service"}


@pytest.mark.parametrize(
    "path",
    [
        "/s/shop/csc/v2/other",
        "/s/shop/csc/v3/info",
        "/s/shop/openapi.json",
        "/s/shop/s/both/csc/v2/info",
        "/s//csc/v2/info",
        "/s/shop%2Fcsc/v2/info/",
        "/s/shop",
        "/s/shop/csc/",
        "/shop/csc/v2/info",
    ],
)
async def test_nothing_else_is_at_a_service(world: World, path: str) -> None:
    answer = await world.client.post(path, json={})
    assert (answer.status_code, answer.json()["error"]) == (404, "invalid_request")


@pytest.mark.parametrize("path", ["info", "credentials/list", "signatures/timestamp"])
async def test_another_tenants_service_is_refused(world: World, path: str) -> None:
    answer = await world.call(f"v1/{path}", STAMP, service="private")
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    assert world.rooms.asked == []


async def test_services_come_and_go_while_the_gateway_runs(world: World) -> None:
    world.registries.current = registry_of(version=2, services={"new": {"label": "New"}}, defaults={})
    assert (await world.client.post("/s/new/csc/v2/info")).json()["name"] == "New"
    assert (await world.client.post("/s/shop/csc/v2/info")).status_code == 404


async def test_guessing_at_services_costs_like_guessing_at_tokens() -> None:
    async with opened(Limits(anonymous_burst=2, anonymous_requests_per_s=0.1)) as world:
        answers = [await world.call("v2/credentials/list", service=f"s{n}") for n in range(3)]
        assert [answer.status_code for answer in answers] == [404, 404, 429]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("service", "named", "authority", "assurance_class"),
    [
        ("", {}, None, None),
        ("", {"timeStampingAuthority": "clock-1"}, "clock-1", None),
        ("", {"timeStampingClass": "standard"}, None, "standard"),
        ("shop", {}, "clock-2", None),
        ("shop", {"timeStampingAuthority": "clock-1"}, "clock-1", None),
        ("classy", {"timeStampingAuthority": None}, None, "standard"),
    ],
)
async def test_a_time_stamp_comes_of_whom_the_request_or_the_base_url_names(
    world: World,
    version: str,
    service: str,
    named: dict[str, Any],
    authority: str | None,
    assurance_class: str | None,
) -> None:
    answer = await world.call(f"{version}/signatures/timestamp", STAMP | named, service=service)
    asked = stamping(world)
    assert (asked.authority, asked.assurance_class) == (authority, assurance_class)
    assert answer.json() == {
        "timestamp": b64(b"token of " + HASH),
        "timeStampingAuthority": authority or "clock",
    }


async def test_a_clients_default_works_for_an_unmodified_client(world: World) -> None:
    await world.call("v1/signatures/timestamp", STAMP, token=world.token(client_id="acme-old"))
    assert stamping(world).authority == "clock-2"


@pytest.mark.parametrize("version", VERSIONS)
async def test_policy_and_certificate_are_handed_on(world: World, version: str) -> None:
    await world.call(f"{version}/signatures/timestamp", STAMP)
    assert (stamping(world).policy, stamping(world).certificate_requested) == (None, True)
    await world.call(f"{version}/signatures/timestamp", STAMP | {"reqPolicy": "2.999.3161.1", "certReq": False})
    assert (stamping(world).policy, stamping(world).certificate_requested) == ("2.999.3161.1", False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("named", "description"),
    [
        ({"timeStampingAuthority": "nowhere"}, "Invalid parameter timeStampingAuthority"),
        ({"timeStampingAuthority": "hidden-clock"}, "Invalid parameter timeStampingAuthority"),
        ({"timeStampingAuthority": 1}, "Invalid parameter timeStampingAuthority"),
        ({"timeStampingAuthority": ""}, "Invalid parameter timeStampingAuthority"),
        ({"timeStampingAuthority": "a" * 64}, "Invalid parameter timeStampingAuthority"),
        ({"timeStampingClass": "nothing"}, "Invalid parameter timeStampingClass"),
        ({"timeStampingClass": "gold"}, "Invalid parameter timeStampingClass"),
        (
            {"timeStampingAuthority": "clock-1", "timeStampingClass": "standard"},
            "Both timeStampingAuthority and timeStampingClass parameters passed",
        ),
        ({"reqPolicy": "policy"}, "Invalid parameter reqPolicy"),
        ({"reqPolicy": "3.1"}, "Invalid parameter reqPolicy"),
        ({"reqPolicy": "1.2" + ".1" * 70}, "Invalid parameter reqPolicy"),
        ({"certReq": "true"}, "Invalid parameter certReq"),
        ({"nonce": "f" * 65}, "Invalid parameter nonce"),
        ({"nonce": "f" * 20_000}, "Invalid parameter nonce"),
    ],
)
async def test_what_cannot_be_had_is_refused_by_its_name(
    world: World, version: str, named: dict[str, Any], description: str
) -> None:
    answer = await world.call(f"{version}/signatures/timestamp", STAMP | named)
    assert (answer.status_code, answer.json()["error_description"]) == (400, description)
    assert not any(isinstance(request, tsa_connector.Timestamp) for request in world.rooms.asked)


@pytest.mark.parametrize(
    ("code", "status", "description"),
    [
        (Code.TSA_UNKNOWN, 400, "Invalid parameter timeStampingAuthority"),
        (Code.TSA_POLICY_REFUSED, 400, "Invalid parameter reqPolicy"),
        (Code.HASH_ALGORITHM_REFUSED, 400, "Invalid parameter hashAlgo"),
        (Code.DIGEST_LENGTH, 400, "Invalid digest value length"),
        (Code.TSA_UNAVAILABLE, 503, "The time-stamping authority is temporarily unavailable"),
        (Code.TSA_QUOTA, 503, "The time-stamping authorities have no quota left"),
        (Code.TSA_UNTRUSTED, 500, None),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
async def test_what_the_connector_refuses_has_its_csc_words(
    world: World, version: str, code: Code, status: int, description: str | None
) -> None:
    world.rooms.refuse[tsa_connector.Timestamp] = RakkanError(code)
    answer = await world.call(f"{version}/signatures/timestamp", STAMP)
    assert (answer.status_code, answer.json().get("error_description")) == (status, description)
    assert ("Retry-After" in answer.headers) is (status == 503)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("service", "named", "description"),
    [
        ("", {}, "The time-stamping authority is temporarily unavailable"),
        ("classy", {}, "No time-stamping authority of the class standard is available now"),
        ("", {"timeStampingClass": "standard"}, "No time-stamping authority of the class standard is available now"),
        ("shop", {}, "The time-stamping authority clock-2 is temporarily unavailable"),
        (
            "shop",
            {"timeStampingAuthority": "clock-1"},
            "The time-stamping authority clock-1 is temporarily unavailable",
        ),
    ],
)
async def test_who_does_not_answer_is_named(
    world: World, version: str, service: str, named: dict[str, Any], description: str
) -> None:
    world.rooms.refuse[tsa_connector.Timestamp] = RakkanError(Code.TSA_UNAVAILABLE)
    answer = await world.call(f"{version}/signatures/timestamp", STAMP | named, service=service)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json() == {"error": "temporarily_unavailable", "error_description": description}


@pytest.mark.parametrize("version", VERSIONS)
async def test_without_the_extension_nothing_new_is_seen(world: World, version: str) -> None:
    world.registries.current = registry_of(version=2, extension=False)
    assert "extensions" not in (await world.call(f"{version}/info")).json()
    plain = await world.call(f"{version}/signatures/timestamp", STAMP)
    assert plain.json() == {"timestamp": b64(b"token of " + HASH)}
    await world.call(f"{version}/signatures/timestamp", STAMP, service="shop")
    assert stamping(world).authority == "clock-2", "virtual services work all the same"
    world.rooms.asked.clear()
    for name, value in (("timeStampingAuthority", "clock-1"), ("reqPolicy", "2.999.1"), ("certReq", False)):
        answer = await world.call(f"{version}/signatures/timestamp", STAMP | {name: value})
        assert (answer.status_code, answer.json()["error_description"]) == (400, f"Invalid parameter {name}")
    assert world.rooms.asked == []


CALLS = {
    "credentials/list": {"userID": "hanako"},
    "credentials/info": {"credentialID": "demo"},
    "credentials/authorize": {"credentialID": "demo", "numSignatures": 1, "PIN": "1234"},
    "credentials/extendTransaction": {"credentialID": "demo", "SAD": "sad-0"},
    "credentials/sendOTP": {"credentialID": "demo"},
    "signatures/signHash": {
        "credentialID": "demo",
        "SAD": "sad-0",
        "hash": [b64(HASH)],
        "signAlgo": ECDSA_SHA256,
    },
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", CALLS)
async def test_the_sam_is_told_which_cas_a_service_shows(world: World, version: str, method: str) -> None:
    for service, visible in (("", None), ("shop", ("blue",)), ("both", ("blue", "red")), ("classy", None)):
        world.rooms.asked.clear()
        answer = await world.call(f"{version}/{method}", CALLS[method], service=service)
        assert answer.status_code in (200, 204), answer.text
        (asked,) = world.rooms.asked
        assert asked.authorities == visible  # type: ignore[attr-defined]  # every question about credentials has it


def tsas(info: Any) -> list[str]:
    return [tsa["id"] for tsa in info["extensions"][URI]["timeStampingAuthorities"]]


@pytest.mark.parametrize("version", VERSIONS)
async def test_info_tells_a_client_what_is_its_tenants(world: World, version: str) -> None:
    public = (await world.client.post(f"/csc/{version}/info")).json()
    rival = (await world.call(f"{version}/info", token=world.token(tenant_id="rival"))).json()
    assert tsas(public) == ["clock-1", "clock-2"]
    assert tsas(rival) == ["clock-1", "clock-2", "hidden-clock"]


async def test_info_with_a_token_that_does_not_do_is_what_everybody_sees(world: World) -> None:
    public = (await world.client.post("/csc/v2/info")).json()
    for token in (world.token(lifetime_s=0, tenant_id="rival"), "nonsense"):
        answer = await world.call("v2/info", token=token)
        assert (answer.status_code, answer.json()) == (200, public)
    answer = await world.client.post("/csc/v2/info", headers={"Authorization": "Basic YTpi"})
    assert (answer.status_code, answer.json()) == (200, public)


async def test_info_with_a_token_is_within_the_clients_rate() -> None:
    async with opened(Limits(requests_per_s=0.1, burst=1)) as world:
        assert [(await world.call("v2/info")).status_code for _ in range(2)] == [200, 429]


async def test_the_document_and_the_page_tell_of_services(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    assert document["servers"][1]["url"] == "https://sign.example/s/{service}"
    properties = document["paths"]["/csc/v2/signatures/timestamp"]["post"]["requestBody"]["content"][
        "application/json"
    ]["schema"]["properties"]
    assert {"timeStampingAuthority", "reqPolicy", "certReq"} <= set(properties)
    assert "/s/{service}/tsa" in document["paths"]
    page = (await world.client.get("/docs")).text
    assert "https://sign.example/s/SERVICE/tsa" in page

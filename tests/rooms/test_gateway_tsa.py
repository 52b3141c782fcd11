"""The plain RFC 3161 endpoint at the gateway's door: networks, rates, limits, and what is said to a TSA client."""

import hashlib
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from asn1crypto import algos, tsp

from services.gateway.settings import Door, Limits
from shared.algorithms import Hash
from shared.contracts import tsa_connector
from shared.errors import Code, RakkanError
from tests.rooms.gateway_fakes import World, opened
from tests.support.trust_services import registry_of

DIGEST = hashlib.sha256(b"document").digest()
PATH = "/s/clock/tsa"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with opened() as world:
        yield world


def query(oid: str = Hash.SHA256.oid, digest: bytes = DIGEST, **more: Any) -> bytes:
    algorithm = algos.DigestAlgorithm({"algorithm": oid})
    imprint = {"hash_algorithm": algorithm, "hashed_message": digest}
    return bytes(tsp.TimeStampReq({"version": "v1", "message_imprint": imprint, **more}).dump())


async def post(world: World, body: bytes, *, path: str = PATH, **headers: str) -> httpx.Response:
    said = {"Content-Type": "application/timestamp-query"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return await world.client.post(path, content=body, headers=said)


def rejection(answer: httpx.Response) -> tuple[str, set[str]]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/timestamp-reply")
    info = tsp.PKIStatusInfo.load(answer.content[2:])
    return info["status"].native, info["fail_info"].native


async def test_a_query_becomes_a_question_of_the_services_tenant(world: World) -> None:
    answer = await post(world, query(nonce=0xABC, req_policy="2.999.3161.1", cert_req=True))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/timestamp-reply")
    (asked,) = world.rooms.asked
    assert isinstance(asked, tsa_connector.Timestamp)
    assert (asked.digest, asked.hash, asked.nonce, asked.policy) == (
        DIGEST,
        Hash.SHA256,
        b"\x0a\xbc",
        "2.999.3161.1",
    )
    assert (asked.assurance_class, asked.certificate_requested) == ("standard", True)
    assert (asked.tenant_id, asked.client_id) == ("t1", "service:clock")


@pytest.mark.parametrize(
    ("body", "bits"),
    [
        (query(oid="1.3.14.3.2.26", digest=bytes(20)), {"bad_alg"}),
        (query(oid="1.2.3.4.5"), {"bad_alg"}),
        (query(digest=DIGEST[:-1]), {"bad_data_format"}),
        (query(nonce=2**80_000), {"bad_request"}),
        (b"no query", {"bad_data_format"}),
        (b"", {"bad_data_format"}),
    ],
    ids=["SHA-1", "an unknown hash", "a wrong length", "a nonce of 10 kB", "no query", "nothing"],
)
async def test_a_wrong_query_is_rejected_without_asking_anybody(world: World, body: bytes, bits: set[str]) -> None:
    assert rejection(await post(world, body)) == ("rejection", bits)
    assert world.rooms.asked == []


@pytest.mark.parametrize(
    ("code", "bits"),
    [
        (Code.TSA_UNAVAILABLE, {"time_not_available"}),
        (Code.TSA_QUOTA, {"time_not_available"}),
        (Code.TSA_POLICY_REFUSED, {"unaccepted_policy"}),
        (Code.HASH_ALGORITHM_REFUSED, {"bad_alg"}),
        (Code.TSA_UNTRUSTED, {"system_failure"}),
        (Code.UNAVAILABLE, {"system_failure"}),
    ],
)
async def test_what_the_connector_refuses_is_a_rejection(world: World, code: Code, bits: set[str]) -> None:
    world.rooms.refuse[tsa_connector.Timestamp] = RakkanError(code)
    assert rejection(await post(world, query())) == ("rejection", bits)


@pytest.mark.parametrize("name", ["shop", "nowhere", "private"])
async def test_a_service_without_networks_has_no_such_endpoint(world: World, name: str) -> None:
    answer = await post(world, query(), path=f"/s/{name}/tsa")
    assert (answer.status_code, answer.json()["error_description"]) == (404, "There is no such service")


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1", 200),
        ("127.255.255.255", 200),
        ("::ffff:127.0.0.1", 200),
        ("2001:db8:1::7", 200),
        ("128.0.0.1", 403),
        ("2001:db9::1", 403),
        ("::1", 403),
        ("testclient", 403),
    ],
)
async def test_only_networks_that_the_operator_named_are_let_in(address: str, status: int) -> None:
    async with opened(address=address) as world:
        answer = await post(world, query())
        assert answer.status_code == status
        assert len(world.rooms.asked) == (status == 200)


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [("127.0.0.1", 200), ("198.51.100.7", 403), ("127.0.0.1, 198.51.100.7", 403)],
)
async def test_behind_a_proxy_the_callers_own_address_counts(forwarded: str, status: int) -> None:
    door = Door(proxies=(ip_network("10.0.0.1/32"),))
    async with opened(address="10.0.0.1", door=door) as world:
        assert (await post(world, query(), X_Forwarded_For=forwarded)).status_code == status


async def test_nobody_but_a_proxy_of_ours_says_where_a_caller_is_from() -> None:
    async with opened(address="198.51.100.7") as world:
        assert (await post(world, query(), X_Forwarded_For="127.0.0.1")).status_code == 403


async def test_an_address_has_a_rate_of_its_own() -> None:
    async with opened(Limits(timestamps_per_s=0.1, timestamps_burst=2)) as world:
        answers = [await post(world, query()) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[2].headers["Retry-After"]) > 5


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
async def test_what_is_not_sent_as_a_query_is_none(world: World, content_type: str) -> None:
    answer = await world.client.post(PATH, content=query(), headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["error"]) == (415, "invalid_request")


async def test_parameters_of_the_media_type_do_not_matter(world: World) -> None:
    answer = await world.client.post(
        PATH, content=query(), headers={"Content-Type": "Application/Timestamp-Query; charset=utf-8"}
    )
    assert answer.status_code == 200


async def test_a_query_has_a_limit_of_its_own(world: World) -> None:
    assert (await post(world, query(nonce=2**130_000))).status_code == 200
    assert (await post(world, query(nonce=2**131_072))).status_code == 413


async def test_other_verbs_are_refused(world: World) -> None:
    assert (await world.client.get(PATH)).status_code == 405


async def test_the_services_tsa_is_asked(world: World) -> None:
    services = {
        "clock": {
            "label": "A clock",
            "tenants": ["t1"],
            "timestamps": {"authority": "clock-2"},
            "timestamp_networks": ["127.0.0.1"],
        }
    }
    world.registries.current = registry_of(version=2, extension=False, services=services, defaults={})
    assert (await post(world, query())).status_code == 200
    (asked,) = world.rooms.asked
    assert (asked.authority, asked.assurance_class) == ("clock-2", None)  # type: ignore[attr-defined]  # a Timestamp

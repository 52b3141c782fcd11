"""Tokens bound to a certificate (RFC 8705 3) at the partners' door, behind a proxy that hands the certificate on."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_network

import httpx
import pytest

from services.gateway.settings import Door, Limits
from tests.rooms.gateway_fakes import ECDSA_SHA256, HASH, SHA256, World, b64, opened
from tests.support.client_certificates import PROXY, Held, hold

SIGN = {"credentialID": "demo", "hashes": [b64(HASH)], "hashAlgorithmOID": SHA256, "signAlgo": ECDSA_SHA256}
PATH = "/csc/v2/signatures/signHash"
DOOR = Door(proxies=(ip_network(PROXY),))
NOW = datetime.now(UTC)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with opened(door=DOOR, address=PROXY) as world:
        yield world


@pytest.fixture(scope="module")
def held() -> Held:
    return hold(now=NOW)


async def sign(world: World, token: str, certificate: Held | None = None, **body: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} | (certificate.header() if certificate else {})
    return await world.client.post(PATH, json=SIGN | body, headers=headers)


async def test_a_bound_token_signs_with_its_certificate(world: World, held: Held) -> None:
    assert (await sign(world, world.credential_token(certificate_thumbprint=held.thumbprint), held)).status_code == 200


async def test_a_bound_token_without_its_certificate_is_refused(world: World, held: Held) -> None:
    token = world.credential_token(certificate_thumbprint=held.thumbprint)
    late = hold(now=NOW, days=(-9, -1))
    expired = world.credential_token(certificate_thumbprint=late.thumbprint)
    for presented, certificate in ((token, None), (token, hold(now=NOW)), (token, late), (expired, late)):
        answer = await sign(world, presented, certificate)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert not world.rooms.asked


async def test_a_certificate_that_a_stranger_wrote_into_the_header_is_refused(held: Held) -> None:
    for door, address in ((DOOR, "127.0.0.1"), (Door(), PROXY)):
        async with opened(door=door, address=address) as world:
            token = world.credential_token(certificate_thumbprint=held.thumbprint)
            answer = await sign(world, token, held)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
            assert not world.rooms.asked


async def test_a_token_bound_to_key_and_certificate_needs_both(world: World, held: Held) -> None:
    token = world.credential_token(certificate_thumbprint=held.thumbprint, key_thumbprint="k")
    assert (await sign(world, token, held)).status_code == 401


async def test_a_bound_token_as_sad_keeps_its_binding(world: World, held: Held) -> None:
    stolen = world.credential_token(certificate_thumbprint=held.thumbprint)
    thief = hold(now=NOW)
    for token, certificate in (
        (world.token(), None),
        (world.token(), held),
        (world.token(certificate_thumbprint=thief.thumbprint), thief),
    ):
        answer = await sign(world, token, certificate, SAD=stolen)
        assert (answer.status_code, answer.json()["error_description"]) == (400, "Invalid parameter SAD")
    assert not world.rooms.asked
    own = world.token(certificate_thumbprint=held.thumbprint)
    assert (await sign(world, own, held, SAD=stolen)).status_code == 200


async def test_who_stands_behind_the_proxy_is_counted_and_not_the_proxy() -> None:
    limits = Limits(anonymous_requests_per_s=0.001, anonymous_burst=2)
    async with opened(limits, door=DOOR, address=PROXY) as world:

        async def guess(address: str) -> int:
            headers = {"Authorization": "Bearer guessed", "X-Forwarded-For": address}
            return (await world.client.post(PATH, json=SIGN, headers=headers)).status_code

        assert [await guess("192.0.2.1") for _ in range(3)] == [401, 401, 429]
        assert await guess("192.0.2.2") == 401

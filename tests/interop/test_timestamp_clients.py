"""Clients and authorities of RFC 3161 that others wrote, through the whole stack: by the plain endpoint and by the CSC.

The clients are OpenSSL, pyHanko and jarsigner; the authorities OpenSSL's, certomancer and Bouncy Castle.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.document import write_document
from deploy.local.enrollment import CREDENTIAL, SIGNER, Enrollment
from deploy.local.partner import sign_pdf
from deploy.local.progress import Progress
from deploy.local.registry import CLASS, MACHINES, TENANT
from deploy.local.stack import Stack
from deploy.local.tsa import OTHER_POLICY, POLICY
from deploy.local.validators import validate
from services.gateway.extension import URI
from shared.algorithms import Hash
from tests.support.bridge import bridged
from tests.support.openssl import openssl
from tests.support.peers.tsas import BouncyCastleTSA, Certomancer
from tests.support.timestampers import CLIENTS, DOCUMENT, QUERY, verified
from tests.support.waiting import until

FOREIGN = "foreign"
"""The class and the virtual service of the authorities that others wrote."""
WAYS = ("endpoint", "csc v1", "csc v2")
NETWORKS = ["127.0.0.0/8"]


@dataclass
class Place:
    stack: Stack
    http: httpx.AsyncClient
    token: str
    anchors: dict[str, Path]

    @property
    def url(self) -> str:
        return self.stack.rooms.gateway_url

    async def stamp(self, version: str = "v2", *, service: str = "", **named: Any) -> httpx.Response:
        hash_ = named.pop("hash_", Hash.SHA256)
        digest = base64.b64encode(hashlib.new(hash_.value, DOCUMENT).digest()).decode()
        base = f"{self.url}/s/{service}" if service else self.url
        return await self.http.post(
            f"{base}/csc/{version}/signatures/timestamp",
            json={"hash": digest, "hashAlgo": hash_.oid, **named},
            headers={"Authorization": f"Bearer {self.token}"},
        )

    async def post(self, query: bytes, *, service: str = MACHINES) -> httpx.Response:
        return await self.http.post(f"{self.url}/s/{service}/tsa", content=query, headers=QUERY)


@pytest.fixture(scope="module")
async def place(suite: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """The stack with two more authorities in its registry, which others wrote."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30))
        peers = [Certomancer(), BouncyCastleTSA()]
        for peer in peers:
            stack.callback(peer.stop)
            await asyncio.to_thread(peer.start, tmp_path_factory.mktemp(peer.name))
        enrollment = Enrollment(suite)
        if not await asyncio.to_thread(enrollment.is_done):
            await asyncio.to_thread(enrollment.make, Progress())
        present = suite.rooms.registry.read()
        present.pop("version")
        stack.callback(suite.rooms.registry.write, present)
        suite.rooms.registry.write(_with_strangers(present, {peer.name: peer.entry() for peer in peers}))
        anchors = {name: suite.rooms.anchors_file_of(name) for name in ("local", "second")}
        anchors |= {peer.name: peer.anchors_file for peer in peers}
        place = Place(suite, http, await asyncio.to_thread(enrollment.token), anchors)
        await until(lambda: _knows(place), within_s=20)
        yield place


def _with_strangers(present: dict[str, Any], strangers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    certomancer = strangers["certomancer"]
    more = {
        **strangers,
        "by-the-book": certomancer | {"allow_ess_v1": False, "classes": []},
        "promising": certomancer | {"ignores_policy": False, "policies": [POLICY], "classes": []},
    }
    service = {
        "label": "Clocks that others wrote",
        "tenants": [TENANT],
        "timestamps": {"assurance_class": FOREIGN},
        "timestamp_networks": NETWORKS,
    }
    return present | {
        "time_stamping_authorities": present["time_stamping_authorities"] | more,
        "services": present["services"] | {FOREIGN: service},
    }


async def _knows(place: Place) -> bool:
    return (await place.stamp(timeStampingAuthority="bouncy-castle")).status_code == 200


@pytest.fixture(params=WAYS)
async def address(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where a client finds an authority: our plain endpoint, or a bridge to the method of the CSC."""
    if request.param == "endpoint":
        yield f"{place.url}/s/{MACHINES}/tsa"
        return
    version = request.param.split()[1]
    base = f"{place.url}/s/{MACHINES}"
    async with bridged(place.http, base_url=base, version=version, token=place.token) as url:
        yield url


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_gets_a_token_that_openssl_verifies(
    place: Place, address: str, client: str, tmp_path: Path
) -> None:
    await CLIENTS[client](address, tmp_path, place.anchors["local"])


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("authority", ["local", "second", "certomancer", "bouncy-castle"])
async def test_a_named_authority_stamps_and_no_other(
    place: Place, version: str, authority: str, tmp_path: Path
) -> None:
    answer = await place.stamp(version, timeStampingAuthority=authority, nonce="00c0ffee")
    assert answer.status_code == 200, answer.text
    assert answer.json()["timeStampingAuthority"] == authority
    token = base64.b64decode(answer.json()["timestamp"])
    for name, anchors_file in place.anchors.items():
        said = verified(tmp_path, anchors_file, data=DOCUMENT, token=token)
        assert ("Verification: OK" in said) is (name == authority), (name, said)
    assert bytes.fromhex("0204 00c0ffee") in token


@pytest.mark.parametrize("client", ["openssl", "jarsigner"])
async def test_a_client_gets_a_strangers_token_through_the_endpoint(place: Place, client: str, tmp_path: Path) -> None:
    anchors_file = tmp_path / "anchors.pem"
    anchors_file.write_text(place.anchors["certomancer"].read_text() + place.anchors["bouncy-castle"].read_text())
    await CLIENTS[client](f"{place.url}/s/{FOREIGN}/tsa", tmp_path, anchors_file)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_unmodified_pyhanko_chooses_the_clock_by_its_base_url(place: Place, version: str) -> None:
    enrollment, rooms = Enrollment(place.stack), place.stack.rooms
    for name in ("local", "second"):
        signed = await sign_pdf(
            write_document(now=datetime.now(UTC)),
            gateway_url=f"{place.url}/s/clock-{name}",
            token=place.token,
            credential_id=CREDENTIAL,
            pin=enrollment.pin,
            version=version,
        )
        verdicts = await asyncio.to_thread(
            validate, signed, anchors_file=rooms.anchors_file, tsa_anchors_file=place.anchors[name]
        )
        assert [verdict.words for verdict in verdicts if not verdict.accepted] == []
        assert "TIMESTAMP_TOKEN<INTACT:TRUSTED>" in verdicts[0].words


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_client_that_knows_one_base_url_finds_its_tokens(place: Place, version: str) -> None:
    base = f"{place.url}/s/clock-second/csc/{version}"
    info = (await place.http.post(f"{base}/info", json={})).json()
    client = Enrollment(place.stack).client()
    assert client is not None
    form = {"grant_type": "client_credentials", "scope": "service"}
    answer = await place.http.post(f"{info['oauth2']}/oauth2/token", data=form, auth=(client.client_id, client.secret))
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    listed = await place.http.post(f"{base}/credentials/list", json={"userID": SIGNER}, headers=headers)
    assert CREDENTIAL in listed.json()["credentialIDs"]


@pytest.mark.parametrize(
    ("named", "status", "description"),
    [
        ({"timeStampingAuthority": "local", "reqPolicy": OTHER_POLICY}, 200, None),
        ({"timeStampingAuthority": "bouncy-castle", "reqPolicy": BouncyCastleTSA.policy}, 200, None),
        ({"timeStampingAuthority": "certomancer", "reqPolicy": Certomancer.policy}, 200, None),
        ({"timeStampingClass": FOREIGN, "reqPolicy": BouncyCastleTSA.policy}, 200, None),
        ({"timeStampingAuthority": "certomancer", "reqPolicy": POLICY}, 400, "Invalid parameter reqPolicy"),
        ({"timeStampingAuthority": "local", "reqPolicy": "2.999.9"}, 400, "Invalid parameter reqPolicy"),
        ({"timeStampingClass": FOREIGN, "reqPolicy": POLICY}, 400, "Invalid parameter reqPolicy"),
        ({"timeStampingAuthority": "sundial"}, 400, "Invalid parameter timeStampingAuthority"),
        ({"timeStampingClass": "gold"}, 400, "Invalid parameter timeStampingClass"),
        ({"timeStampingAuthority": "bouncy-castle", "hash_": Hash.SHA384}, 400, "Invalid parameter hashAlgo"),
    ],
)
async def test_policy_class_and_hash_are_had_or_refused_by_name(
    place: Place, named: dict[str, Any], status: int, description: str | None
) -> None:
    for version in ("v1", "v2"):
        answer = await place.stamp(version, **named)
        assert (answer.status_code, answer.json().get("error_description")) == (status, description)


async def test_who_takes_the_hash_is_asked(place: Place) -> None:
    answer = await place.stamp(timeStampingClass=FOREIGN, hash_=Hash.SHA384)
    assert answer.json()["timeStampingAuthority"] == "certomancer"


@pytest.mark.parametrize(("authority", "policy"), [("by-the-book", None), ("promising", POLICY)])
async def test_a_token_that_does_not_hold_is_no_answer(place: Place, authority: str, policy: str | None) -> None:
    # One may not name its certificate by SHA-1, which certomancer does; of the other a policy is asked that it ignores.
    answer = await place.stamp(timeStampingAuthority=authority, reqPolicy=policy)
    assert answer.status_code in (500, 503), answer.text
    assert "timestamp" not in answer.json()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-sha1",), "unrecognized or unsupported algorithm identifier"),
        (("-sha256", "-tspolicy", "2.999.9"), "the requested TSA policy is not supported by the TSA"),
    ],
)
async def test_openssl_is_told_why_not(place: Place, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "document").write_bytes(DOCUMENT)
    openssl("ts", "-query", "-data", "document", *arguments, "-out", "query", folder=tmp_path)
    answer = await place.post((tmp_path / "query").read_bytes())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/timestamp-reply")
    (tmp_path / "reply").write_bytes(answer.content)
    told = openssl("ts", "-reply", "-in", "reply", "-text", folder=tmp_path)
    assert "Status: Rejected." in told
    assert f"Failure info: {words}" in told


async def test_certificates_come_when_they_are_asked_for(place: Place, tmp_path: Path) -> None:
    (tmp_path / "document").write_bytes(DOCUMENT)
    lengths = {}
    for asked in ((), ("-cert",)):
        openssl("ts", "-query", "-data", "document", "-sha256", *asked, "-out", "query", folder=tmp_path)
        lengths[asked] = len((await place.post((tmp_path / "query").read_bytes())).content)
    assert lengths[()] < lengths["-cert",] - 300


async def test_the_examples_of_the_partners_page_run_as_they_stand(place: Place, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "partners" / "trust-services.md").read_text(encoding="utf-8")
    environment = {
        "GATEWAY": place.url,
        "TOKEN": place.token,
        "TSA_ANCHORS": str(place.stack.rooms.tsa_anchors_file),
        "PATH": os.environ["PATH"],
    }
    scripts = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    printed = [await _typed(script, environment, tmp_path) for script in scripts]
    info, named, served, plain = printed
    assert URI in json.loads(info)["extensions"]
    for stamped in (named, served):
        assert json.loads(stamped)["timeStampingAuthority"] == "second"
    assert "Verification: OK" in plain


async def _typed(script: str, environment: dict[str, str], folder: Path) -> str:
    argv = ["sh", "-euc", script]
    ran = await asyncio.to_thread(
        subprocess.run, argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return str(ran.stdout + ran.stderr if "openssl ts -verify" in script else ran.stdout)


async def test_another_clock_of_the_class_stamps_when_one_is_gone_and_a_named_one_is_never_replaced(
    place: Place, tmp_path: Path
) -> None:
    rooms = place.stack.rooms
    await asyncio.to_thread(rooms.tsas["local"].kill)
    try:
        for version in ("v1", "v2"):
            answer = await place.stamp(version, timeStampingClass=CLASS)
            assert answer.json()["timeStampingAuthority"] == "second"
            named = await place.stamp(version, timeStampingAuthority="local")
            assert (named.status_code, named.json()["error"]) == (503, "temporarily_unavailable")
            assert "local" in named.json()["error_description"]
        await CLIENTS["openssl"](f"{place.url}/s/{MACHINES}/tsa", tmp_path, place.anchors["second"])
        await asyncio.to_thread(rooms.tsas["second"].kill)
        answer = await place.stamp(timeStampingClass=CLASS)
        assert (answer.status_code, answer.json()["error_description"]) == (
            503,
            f"No time-stamping authority of the class {CLASS} is available now",
        )
        (tmp_path / "reply").write_bytes((await place.post((tmp_path / "query").read_bytes())).content)
        told = openssl("ts", "-reply", "-in", "reply", "-text", folder=tmp_path)
        assert "Failure info: the TSA's time source is not available" in told
        assert (await place.stamp(timeStampingClass=FOREIGN)).status_code == 200, "another class is no lower one"
    finally:
        await asyncio.to_thread(rooms.start_tsas)
    await until(lambda: _stamps(place, "local"), within_s=60)


async def _stamps(place: Place, authority: str) -> bool:
    return (await place.stamp(timeStampingAuthority=authority)).status_code == 200

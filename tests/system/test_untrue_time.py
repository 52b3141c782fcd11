"""A TSA that is down, slow or lying, in the place of the real one and with its real keys: an error, never a token.

The other TSA of the stack is in maintenance here: nobody can take over.
"""

import asyncio
import base64
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from asn1crypto import cms, tsp
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.local.stack import Stack
from deploy.local.tsa import OTHER_POLICY, POLICY, Authority, Server
from services.tsa_connector.request import TimestampRequest
from shared.algorithms import HASH_BY_OID
from tests.support.lying_tsa import Holder, Lies, LyingTSA, Profile
from tests.support.partner import Answer
from tests.support.world import World

_TIMEOUT_S = 2.0
LIED_TO = (500, "server_error", "")
AWAY = (503, "temporarily_unavailable")


@dataclass(frozen=True)
class StandIn(Authority):
    """Answers with the lies it is told, late if so told."""

    tsa: LyingTSA
    lies: Lies = field(default_factory=Lies)
    at: timedelta = timedelta()
    late_s: float = 0.0

    def answer(self, query: bytes) -> bytes:
        time.sleep(self.late_s)
        asked = tsp.TimeStampReq.load(query)
        imprint = asked["message_imprint"]
        request = TimestampRequest(
            digest=imprint["hashed_message"].native,
            hash=HASH_BY_OID[imprint["hash_algorithm"]["algorithm"].dotted],
            nonce=asked["nonce"].native,
            policy=asked["req_policy"].native,
        )
        return self.tsa.answer(request, self.lies, at=datetime.now(UTC).replace(microsecond=0) + self.at)


@pytest.fixture(scope="module")
async def place(world: World) -> AsyncIterator[Stack]:
    """The TSA's address, free; and a registry that leaves nobody else and is not as patient."""
    rooms = world.stack.rooms
    before = rooms.registry.read()
    await asyncio.to_thread(rooms.tsa.stop)
    try:
        yield world.stack
    finally:
        before.pop("version")
        await asyncio.to_thread(rooms.start_tsa)
        await taken_up(world.stack, before)


@pytest.fixture(autouse=True)
async def fresh(place: Stack, request: pytest.FixtureRequest) -> None:
    """An entry that changed is believed again, whatever its TSA did in the test before."""
    registry = place.rooms.registry.read()
    registry.pop("version")
    tsas = registry["time_stamping_authorities"]
    tsas["local"] |= {"timeout_s": _TIMEOUT_S, "label": request.node.name[:200]}
    tsas["second"] |= {"status": "maintenance"}
    await taken_up(place, registry)


async def taken_up(stack: Stack, registry: dict[str, Any]) -> None:
    """In use in the room, which looks at the file every few seconds."""
    await asyncio.to_thread(stack.rooms.registry.write, registry)
    version = stack.rooms.registry.read()["version"]
    url = f"{stack.rooms.health_url('tsa_connector')}/metrics"
    async with asyncio.timeout(30), httpx.AsyncClient() as client:
        while f"rakkan_registry_version {version}.0" not in (await client.get(url)).text:  # noqa: ASYNC110 - another process takes it up
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def tsa(place: Stack) -> LyingTSA:
    """With the keys and certificates of the TSA that the suite trusts."""
    folder = place.rooms.anchors_file_of("local").parent
    return LyingTSA(_holder(folder, "root"), _holder(folder, "tsa"))


def _holder(folder: Path, name: str) -> Holder:
    key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Holder(key, x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()))


class Place(Server):
    """Remembers its connections: one that was kept open would go on with the TSA that stood here before."""

    def __init__(self, authority: Authority, *, port: int) -> None:
        super().__init__(authority, port=port)
        self._accepted: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted, address = super().get_request()
        self._accepted.append(accepted)
        return accepted, address

    def hang_up(self) -> None:
        for accepted in self._accepted:
            with suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)


@contextmanager
def standing_in(stack: Stack, authority: StandIn) -> Iterator[None]:
    server = Place(authority, port=stack.ports["tsa local http"])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        server.hang_up()
        thread.join()


async def stamped(world: World, stack: Stack, authority: StandIn) -> Answer:
    with standing_in(stack, authority):
        return await world.acme.timestamp(secrets.token_bytes(32))


def check_away(answer: Answer) -> None:
    """The class is named that nobody of works."""
    assert answer.refusal[:2] == AWAY
    assert "standard" in answer.refusal[2]


def told(field: str, value: Any) -> Lies:
    def change(info: tsp.TSTInfo) -> None:
        info[field] = value

    return Lies(info=change)


def another_imprint(info: tsp.TSTInfo) -> None:
    info["message_imprint"]["hashed_message"] = bytes(32)


def standing(tsa: LyingTSA, **facts: Any) -> StandIn:
    return StandIn(folder=Path(), tsa=tsa, **facts)


async def test_the_stand_in_is_believed_as_long_as_it_tells_the_truth(
    world: World, place: Stack, tsa: LyingTSA
) -> None:
    digest = secrets.token_bytes(32)
    with standing_in(place, standing(tsa)):
        answer = await world.acme.timestamp(digest)
    assert answer.status == 200, answer.body
    token = cms.ContentInfo.load(base64.b64decode(answer.body["timestamp"]))
    info = token["content"]["encap_content_info"]["content"].parsed
    assert info["message_imprint"]["hashed_message"].native == digest
    assert info["policy"].native == POLICY


@pytest.mark.parametrize(
    "lies",
    [
        told("nonce", 1),
        told("nonce", None),
        told("policy", OTHER_POLICY),
        Lies(info=another_imprint),
        Lies(signed_bytes=lambda data: data + b"x"),
        Lies(with_token=False),
    ],
    ids=["nonce", "no nonce", "policy", "imprint", "signature", "no token"],
)
async def test_a_lie_in_the_token_gets_no_further(world: World, place: Stack, tsa: LyingTSA, lies: Lies) -> None:
    answer = await stamped(world, place, standing(tsa, lies=lies))
    assert answer.refusal == LIED_TO
    assert "timestamp" not in answer.body


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_another_time_is_not_believed(world: World, place: Stack, tsa: LyingTSA, minutes: int) -> None:
    answer = await stamped(world, place, standing(tsa, at=timedelta(minutes=minutes)))
    assert answer.refusal == LIED_TO


@pytest.mark.parametrize(
    "extended",
    [
        (),
        (ExtendedKeyUsageOID.SERVER_AUTH,),
        (ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING),
    ],
)
async def test_a_certificate_that_is_not_for_time_stamping_alone_is_not_believed(
    world: World, place: Stack, tsa: LyingTSA, extended: tuple[x509.ObjectIdentifier, ...]
) -> None:
    now = datetime.now(UTC)
    profile = Profile(extended=extended, not_before=now - timedelta(days=1), not_after=now + timedelta(days=1))
    assert (await stamped(world, place, standing(tsa.with_signer(profile)))).refusal == LIED_TO


async def test_a_tsa_of_another_root_is_not_believed(world: World, place: Stack) -> None:
    assert (await stamped(world, place, standing(LyingTSA.honest()))).refusal == LIED_TO


async def test_a_tsa_that_is_down_is_told_as_down(world: World, place: Stack) -> None:
    assert place.rooms.tsa.running() is False
    check_away(await world.acme.timestamp(secrets.token_bytes(32)))


async def test_a_tsa_that_does_not_answer_in_time_is_told_as_away(world: World, place: Stack, tsa: LyingTSA) -> None:
    check_away(await stamped(world, place, standing(tsa, late_s=_TIMEOUT_S + 0.5)))

"""The SVG as a process with broker, database and HSM, asked by its one caller: what its faults leave behind."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from deploy.local.stack import Stack
from shared.activation import Use
from shared.algorithms import Family, Hash, KeyAlgorithm, Scheme, SignatureAlgorithm
from shared.contracts.svg import SignatureValues
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.messaging.bus import Bus
from shared.trust import Purpose, SigningKey, load_sealing_key
from shared.verification import verify_all
from tests.support.activations import SAM
from tests.support.buses import bus_of

SCHEMES = {Family.EC: Scheme.ECDSA, Family.RSA: Scheme.RSA_PSS, Family.ED25519: Scheme.ED25519}


@dataclass
class Peer:
    """The SAM's place on the bus, with keys of the stack's own trust bundle."""

    stack: Stack
    bus: Bus

    @property
    def sam(self) -> SAM:
        keys = self.stack.keys
        return SAM(
            epoch=json.loads(keys.bundle_file.read_text())["epoch"],
            key=SigningKey.load(keys.key_file("sam", Purpose.ACTIVATIONS)),
            svg_sealing_key=load_sealing_key(keys.key_file("svg", Purpose.SEALING)),
            share=bytes(32),
            now=datetime.now(UTC),
        )

    async def key(self, key_id: str, algorithm: KeyAlgorithm = KeyAlgorithm.P256) -> bytes:
        activation = self.sam.activation(key_id=key_id, key_algorithm=algorithm, operation_id=f"generate:{key_id}")
        return (await self.bus.ask(self.sam.generate(activation))).public_key

    async def sign_until_it_works(self, request: object) -> SignatureValues:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await self.bus.ask(request)  # type: ignore[arg-type]  # a SignDigests
                except RakkanError as refusal:
                    if refusal.code not in {Code.UNAVAILABLE, Code.HSM_UNAVAILABLE}:
                        raise
                    await asyncio.sleep(0.3)


@pytest.fixture(scope="module")
async def peer(broker: Stack, database: Stack) -> AsyncIterator[Peer]:
    assert broker is database
    stack = broker
    await asyncio.to_thread(stack.token, "svg")
    await asyncio.to_thread(stack.rooms.hold_ceremony, "svg")
    await asyncio.to_thread(stack.rooms.start, "svg")
    try:
        await asyncio.to_thread(stack.rooms.wait_ready, "svg")
        bus = bus_of(stack, "sam")
        async with bus.connected():
            yield Peer(stack, bus)
    finally:
        await asyncio.to_thread(stack.rooms.program("svg").stop)


@pytest.fixture(autouse=True)
async def in_an_operation() -> AsyncIterator[None]:
    with operation.begin("sam", timeout_s=120):
        yield


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P256, KeyAlgorithm.RSA3072, KeyAlgorithm.ED25519])
async def test_a_key_is_made_signs_and_is_destroyed(peer: Peer, algorithm: KeyAlgorithm) -> None:
    key_id = f"life-{algorithm}"
    public_key = await peer.key(key_id, algorithm)
    assert await peer.key(key_id, algorithm) == public_key
    activation = peer.sam.to_sign(public_key, b"a", b"b", key_id=key_id, key_algorithm=algorithm)
    signed = await peer.bus.ask(peer.sam.sign(activation))
    signature = SignatureAlgorithm(SCHEMES[algorithm.family], Hash.SHA256, activation.salt_bytes)
    verify_all(public_key, signature, activation.digests, signed.values)
    await peer.bus.ask(peer.sam.destroy(peer.sam.activation(use=Use.DESTROY, key_id=key_id, key_algorithm=algorithm)))
    with pytest.raises(RakkanError) as refusal:
        await peer.bus.ask(peer.sam.sign(peer.sam.to_sign(public_key, b"c", key_id=key_id, key_algorithm=algorithm)))
    assert refusal.value.code is Code.KEY_UNKNOWN


async def test_one_activation_asked_many_times_at_once_has_one_value(peer: Peer) -> None:
    public_key = await peer.key("many")
    request = peer.sam.sign(peer.sam.to_sign(public_key, b"a", key_id="many"))
    answers = await asyncio.gather(*(peer.bus.ask(request) for _ in range(12)))
    assert len({answer.values for answer in answers}) == 1


async def test_a_worker_that_is_killed_loses_nothing_and_signs_nothing_twice(peer: Peer) -> None:
    public_key = await peer.key("killed")
    requests = [peer.sam.sign(peer.sam.to_sign(public_key, bytes([n]), key_id="killed")) for n in range(30)]
    asked = [asyncio.create_task(peer.sign_until_it_works(request)) for request in requests]
    await asyncio.sleep(0.05)
    await asyncio.to_thread(peer.stack.rooms.program("svg").kill)
    await asyncio.to_thread(peer.stack.rooms.start, "svg")
    first = await asyncio.gather(*asked)
    await asyncio.to_thread(peer.stack.rooms.wait_ready, "svg")
    again = await asyncio.gather(*(peer.sign_until_it_works(request) for request in requests))
    assert first == again
    for n, signed in enumerate(first):
        digest = hashlib.sha256(bytes([n])).digest()
        verify_all(public_key, SignatureAlgorithm(Scheme.ECDSA, Hash.SHA256), (digest,), signed.values)


async def test_without_its_token_the_room_is_not_ready_and_with_it_again_it_signs(peer: Peer) -> None:
    public_key = await peer.key("token")
    tokens = peer.stack.token("svg").tokens_folder
    gone = tokens.with_name("gone")
    tokens.rename(gone)
    try:
        request = peer.sam.sign(peer.sam.to_sign(public_key, b"a", key_id="token"))
        with pytest.raises(RakkanError) as refusal:
            await peer.bus.ask(request)
        assert refusal.value.code is Code.HSM_UNAVAILABLE
        assert "hsm" in ((await asyncio.to_thread(peer.stack.rooms.faults, "svg")) or {})
    finally:
        gone.rename(tokens)
    signed = await peer.sign_until_it_works(request)
    assert len(signed.values) == 1
    await asyncio.to_thread(peer.stack.rooms.wait_ready, "svg")


async def test_two_workers_of_one_host_are_supervised_and_end_together(peer: Peer) -> None:
    stack = peer.stack
    await asyncio.to_thread(stack.rooms.program("svg").stop)
    environment = {**stack.rooms.environment("svg"), "RAKKAN_WORKERS": "2"}
    program = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.svg", env=environment)
    try:
        public_key = await peer.key("workers")
        request = peer.sam.sign(peer.sam.to_sign(public_key, b"a", key_id="workers"))
        assert (await peer.sign_until_it_works(request)).values
    finally:
        os.kill(program.pid, signal.SIGTERM)
        assert await asyncio.wait_for(program.wait(), 60) == 0
        await asyncio.to_thread(stack.rooms.start, "svg")

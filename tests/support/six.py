"""One running suite with CAs of others in its registry, and a signer who has two credentials from each of them.

One the partner's program ordered at that CA's virtual service (`kept`), the other the operator (`ended`).
"""

import asyncio
import base64
import itertools
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.local.stack import Stack
from shared.errors import RakkanError
from tests.support.buses import bus_of
from tests.support.openssl import openssl
from tests.support.partner import Partner
from tests.support.peers import Lack, Missing, leave_out
from tests.support.peers.by_files import ByFiles
from tests.support.waiting import until
from tests.support.world import World

TENANT, CLIENT, USER = "six", "six-app", "sachiko"
NAME, ORGANIZATION = "Sachiko Mori", "Example"
PIN = f"{secrets.randbelow(10**9):09d}8"
_PATIENCE_S = 60.0


class Peer(Protocol):
    """What is asked of a CA program here."""

    name: str
    lacks: frozenset[Lack]

    @property
    def secrets(self) -> Path: ...

    def start(self, folder: Path) -> None: ...

    def stop(self) -> None: ...

    def entry(self) -> dict[str, Any]: ...

    def is_revoked(self, certificate: x509.Certificate) -> bool: ...


@dataclass(frozen=True)
class Enrolled:
    kept: str
    ended: str


@dataclass
class Six:
    world: World
    partner: Partner
    folder: Path
    peers: dict[str, Peer] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    enrolling: "dict[str, asyncio.Task[Enrolled]]" = field(default_factory=dict)

    async def at(self, name: str) -> tuple[Partner, Enrolled]:
        """The partner's program at this CA's virtual service, and the credentials there. Skips what is missing."""
        if name in self.missing:
            leave_out(self.missing[name])
        return self.door(name), await asyncio.shield(self.enrolling[name])

    def door(self, name: str) -> Partner:
        return self.partner.at(gateway_url=f"{self.partner.gateway_url}/s/{name}")

    async def chain(self, credential_id: str) -> list[x509.Certificate]:
        answer = await self.partner.call("credentials/info", {"credentialID": credential_id, "certificates": "chain"})
        assert answer.status == 200, answer.body
        return [x509.load_der_x509_certificate(base64.b64decode(one)) for one in answer.body["cert"]["certificates"]]

    def leads_to(self, name: str, chain: list[x509.Certificate]) -> bool:
        """Whether OpenSSL finds the way from the certificate to this CA's anchors."""
        folder = self.folder / secrets.token_hex(4)
        folder.mkdir()
        (folder / "anchors.pem").write_text("".join(self.peers[name].entry()["anchors"]))
        for file, certificates in (("leaf.pem", chain[:1]), ("others.pem", chain)):
            (folder / file).write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
        said = openssl("verify", "-no-CApath", "-no-CAstore", "-CAfile", "anchors.pem", "-untrusted", "others.pem",
                       "leaf.pem", folder=folder)  # fmt: skip
        return said == "leaf.pem: OK\n"

    async def authorities(self, *words: str) -> dict[str, dict[str, Any]]:
        """What `ca` shows, by name."""
        told = await self.world.operate("ca", *words)
        return {row["authority"]: row for row in told["certification authorities"]}

    async def enroll(self, peer: Peer) -> Enrolled:
        door, ended = self.door(peer.name), f"Ended-{peer.name}"
        made: dict[str, Any] = {}

        async def taken() -> bool:
            # The rooms take up a new registry one by one.
            wish = {"credentialCreationRequest": {}, "userID": USER, "operationMode": "A"}
            answer = await door.call("credentials/create", wish, version="v2")
            made.update(answer.body, status=answer.status)
            return answer.status in (201, 202)

        await _until(taken, made)
        kept = made["credentialID"]
        words = ("--tenant", TENANT, "--user", USER, "--authority", peer.name)
        await self.world.operate("add-credential", ended, *words)
        if isinstance(peer, ByFiles):
            await self._carry(peer, orders=2)

        async def usable() -> bool:
            for credential_id in (kept, ended):
                answer = await door.call("credentials/info", {"credentialID": credential_id})
                made.update(answer.body, status=answer.status)
                if answer.status != 200 or answer.body["key"]["status"] != "enabled":
                    return False
            return True

        await _until(usable, made)
        return Enrolled(kept, ended)

    async def _carry(self, peer: ByFiles, *, orders: int) -> None:
        """What an operator does with a CA that has no API."""
        bundles = (self.folder / f"{peer.name}-{number}.json" for number in itertools.count())
        bundle = self.folder

        async def exported() -> bool:
            nonlocal bundle
            bundle = next(bundles)
            words = ("requests", "export", "--authority", peer.name, "--out", str(bundle))
            return bool((await self.world.operate("ca", *words))["requests"] == orders)

        await until(exported, within_s=_PATIENCE_S)
        issued = await asyncio.to_thread(peer.certify, bundle)
        files = (str(file) for file in issued)
        await self.world.operate("ca", "certificates", "import", "--authority", peer.name, *files)


async def _until(holds: Any, told: dict[str, Any]) -> None:
    try:
        await until(holds, within_s=_PATIENCE_S)
    except TimeoutError:
        raise AssertionError(f"the last answer: {told}") from None


@asynccontextmanager
async def connected(suite: Stack, peers: Iterable[Peer], folder: Path) -> AsyncIterator[Six]:
    """The peers running and in the registry, and the enrollments at all of them under way at once."""
    bus = bus_of(suite, "operator")
    async with httpx.AsyncClient(timeout=60.0, trust_env=False) as http, bus.connected():
        world = World(suite, http, bus)
        peers = list(peers)
        started = await asyncio.gather(*(asyncio.to_thread(_start, peer, folder) for peer in peers), _people(world))
        six = Six(world, world.partners[CLIENT], folder)
        before = _without_version(suite.rooms.registry.read())
        try:
            for peer, lack in zip(peers, started, strict=False):
                if isinstance(lack, Missing):
                    six.missing[peer.name] = lack
                else:
                    six.peers[peer.name] = peer
            _register(suite, six.peers.values())
            await until(lambda: _are_known(six), within_s=_PATIENCE_S)
            for name, peer in six.peers.items():
                six.enrolling[name] = asyncio.create_task(six.enroll(peer))
            yield six
        finally:
            await _cancelled(six.enrolling.values())
            suite.rooms.registry.write(before)
            await asyncio.gather(*(asyncio.to_thread(peer.stop) for peer in six.peers.values()))


async def _are_known(six: Six) -> bool:
    try:
        return set(six.peers) <= set(await six.authorities("--last"))
    except RakkanError:
        return False


async def _cancelled(tasks: "Iterable[asyncio.Task[Enrolled]]") -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _start(peer: Peer, folder: Path) -> Missing | None:
    own = folder / peer.name
    own.mkdir()
    try:
        peer.start(own)
    except Missing as missing:
        return missing
    return None


def _people(world: World) -> Coroutine[Any, Any, None]:
    async def make() -> None:
        await world.operate("add-tenant", TENANT, "--name", "Six")
        await world.client(CLIENT, TENANT)
        names = ("--tenant", TENANT, "--name", NAME, "--organization", ORGANIZATION)
        await world.operate("add-signer", USER, *names, pin=PIN)

    return make()


def _register(suite: Stack, peers: Iterable[Peer]) -> None:
    """As two officers do; secrets go where the connector reads them."""
    registry = _without_version(suite.rooms.registry.read())
    secrets_folder = suite.account.folder(suite.keys.registry_secrets_folder("ca_connector"))
    for peer in peers:
        for secret in peer.secrets.iterdir():
            suite.account.write(secrets_folder / secret.name, secret.read_text())
        entry = peer.entry() | {"tenants": [TENANT], "polling": {"first_s": 1, "longest_s": 4}}
        registry["certification_authorities"][peer.name] = entry
        registry["services"][peer.name] = {
            "label": entry["label"],
            "certification_authority": peer.name,
            "tenants": [TENANT],
        }
    suite.rooms.registry.write(registry)


def _without_version(registry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in registry.items() if name != "version"}

"""The suite that is measured: a stack of its own, with signers' credentials of each kind of key. Knows no figure."""

import asyncio
import secrets
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.account import Account
from deploy.local.home import CHECKOUT
from deploy.local.keys import Keys
from deploy.local.partner import Client, get_token
from deploy.local.ports import Ports, answers
from deploy.local.progress import Progress
from deploy.local.rooms import Rooms
from deploy.local.stack import Stack
from shared.algorithms import KeyAlgorithm, Profile
from tests.bench.client import BenchError, Connection

SIGNATURES_MAX = 1000
_PIN = "27182818"
_TENANT, _CLIENT, _SIGNER = "bench", "bench-client", "bench-signer"

PROFILES = {
    KeyAlgorithm.P256: Profile.EU,
    KeyAlgorithm.RSA2048: Profile.JP,  # the European profile has no RSA below 3072
    KeyAlgorithm.RSA3072: Profile.EU,
}

_UNLIMITED = {"RAKKAN_LIMITS__REQUESTS_PER_S": "1000000", "RAKKAN_LIMITS__BURST": "1000000"}
"""The gateway still counts what a client asks; only the number is out of reach."""


class _Rooms(Rooms):
    """Rooms with settings of the bench on top of the stack's."""

    def __init__(self, folder: Path, ports: Ports, keys: Keys, account: Account) -> None:
        super().__init__(folder, ports, keys, account)
        self.more: dict[str, dict[str, str]] = {"gateway": _UNLIMITED}

    def environment(self, room: str) -> dict[str, str]:
        return super().environment(room) | self.more.get(room, {})

    def health_url(self, room: str) -> str:
        port = self.more.get(room, {}).get("RAKKAN_HEALTH__PORT")
        return f"http://127.0.0.1:{port}" if port else super().health_url(room)


@dataclass
class Suite:
    stack: Stack
    rooms: _Rooms
    client: Client
    svg_workers: int = 1

    @property
    def url(self) -> str:
        return self.rooms.gateway_url

    def connection(self) -> Connection:
        return Connection(self.url, get_token(self.rooms.authentication_url, self.client))

    def credential(self, algorithm: KeyAlgorithm) -> str:
        return f"bench-{algorithm}"

    async def authorize(self, algorithm: KeyAlgorithm, count: int) -> list[str]:
        """So many SADs, each for SIGNATURES_MAX signatures. The PIN costs time and memory on purpose: do it before."""
        wish = {"credentialID": self.credential(algorithm), "numSignatures": SIGNATURES_MAX, "PIN": _PIN}
        async with self.connection() as connection:
            return [(await connection.call("credentials/authorize", wish))["SAD"] for _ in range(count)]

    async def use_workers(self, workers: int) -> None:
        """Have the SVG run with so many workers."""
        if workers == self.svg_workers:
            return
        program = self.rooms.program("svg")
        await asyncio.to_thread(program.stop)
        ports = _free_row(workers)
        self.rooms.more["svg"] = {"RAKKAN_WORKERS": str(workers), "RAKKAN_HEALTH__PORT": str(ports[0])}
        await asyncio.to_thread(self.rooms.start, "svg")
        for port in ports:
            await asyncio.to_thread(_wait_ready, port)
        self.svg_workers = workers


@contextmanager
def running(progress: Progress) -> Iterator[Suite]:
    """A temporary stack with everything in it; gone afterwards."""
    stack = Stack.temporary()
    rooms = _Rooms(stack.folder, stack.ports, stack.keys, stack.account)
    stack.rooms = rooms
    try:
        with progress.step("a stack of its own, and its credentials"):
            stack.up(_Silent())
            suite = Suite(stack, rooms, _enroll(stack))
        yield suite
    finally:
        stack.remove()


def _enroll(stack: Stack) -> Client:
    operate = _Operator(stack)
    with tempfile.TemporaryDirectory(dir=stack.folder) as name:
        folder = stack.rooms.account.folder(Path(name))
        secret, pin = folder / "secret", folder / "pin"
        stack.rooms.account.write(pin, _PIN)
        operate("add-tenant", _TENANT, "--name", "Bench")
        operate("add-client", _CLIENT, "--tenant", _TENANT, "--name", "Bench", "--secret-file", str(secret))
        operate("add-signer", _SIGNER, "--tenant", _TENANT, "--name", "Bench Signer", "--pin-file", str(pin))
        for algorithm, profile in PROFILES.items():
            kind = ["--key", algorithm.value, "--profile", profile.value, "--signatures-max", str(SIGNATURES_MAX)]
            owner = ["--tenant", _TENANT, "--user", _SIGNER]
            operate("add-credential", f"bench-{algorithm}", *owner, *kind, "--wait", "60")
        return Client(_CLIENT, secret.read_text().strip())


@dataclass(frozen=True)
class _Operator:
    stack: Stack

    def __call__(self, *words: str) -> None:
        argv, environment = self.stack.rooms.operator(words)
        identity = self.stack.rooms.account.identity()
        done = subprocess.run(  # noqa: S603  # the stack's own program
            argv, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=120, **identity
        )
        if done.returncode != 0:
            raise BenchError(f"operator {' '.join(words)}\n{done.stdout}{done.stderr}")


class _Silent(Progress):
    def _line(self, text: str) -> None:
        """The bench tells of the whole in one line."""


def _free_row(count: int) -> range:
    """Loopback ports one after the other: each worker takes the one after its neighbor's."""
    while True:
        first = 32_000 + secrets.randbelow(700)
        if not any(answers(port) for port in range(first, first + count)):
            return range(first, first + count)


def _wait_ready(port: int) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:  # also what an HTTP status that is no success becomes
            pass
        time.sleep(0.05)
    raise BenchError(f"the worker at {port} does not get ready")

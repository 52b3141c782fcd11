"""Enrollments under load: through the real room, bus and database, beside the CA asked by the adapter alone.

The CAs are those that others wrote (tests/support/peers), and counting ones of our own that take as long as told.
"""

import asyncio
import gc
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from deploy.local.home import CHECKOUT
from deploy.local.program import Program
from deploy.local.stack import Stack
from services.ca_connector.orders import Issued
from shared.contracts.base import Job
from shared.contracts.ca_connector import ConfirmOrder, OrderCertificate
from shared.contracts.sam import AcceptCertificate, NoteCertificateStatus, RefuseOrder
from shared.errors import RakkanError
from shared.messaging.bus import Bus
from shared.messaging.outbox import Posted
from shared.messaging.rabbitmq import LinkLostError
from tests.bench.client import BenchError
from tests.bench.processes import LOAD, OTHERS, usage
from tests.bench.report import table
from tests.support import counting_ca, ordering
from tests.support.buses import bus_of
from tests.support.peers import AuthorityPeer, Missing
from tests.support.peers.bouncy_castle import BouncyCastle
from tests.support.peers.cfssl import CFSSL
from tests.support.peers.django_ca import DjangoCA
from tests.support.peers.est import EST
from tests.support.peers.openbao import OpenBao
from tests.support.waiting import until

_ROOM = "ca_connector"
_AT_ONCE = 4
_LATENCY_MS = 1000
"""What a CA takes that signs in an HSM of its own and writes its records."""
_SOLO = 40
"""Orders by which a CA's own rate is found."""
_WAIT_S = 600.0
_SENT_AT_ONCE = 50
PEERS: tuple[type[AuthorityPeer], ...] = (OpenBao, CFSSL, DjangoCA, BouncyCastle, EST)
"""The last three let us ask again. Alone the adapter does so at once, the room after a second at the soonest."""
_NAMES = ("one", "two", "three", "four", "five")
_HANGING = "hanging"


@dataclass
class Place:
    """The room with its servers; here is the SAM's place on the bus, which takes every certificate."""

    stack: Stack
    sam: Bus
    accepted: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    programs: list[Program] = field(default_factory=list)

    async def hear(self, job: Job) -> None:
        if isinstance(job, RefuseOrder):
            self.refused[job.order_id] = job.reason
        if isinstance(job, AcceptCertificate):
            self.accepted.setdefault(job.order_id, time.perf_counter())
            await self.send(ConfirmOrder(order_id=job.order_id, accepted=True))

    async def send(self, job: Job) -> None:
        posted = Posted(secrets.token_hex(12), job.TYPE, secrets.token_hex(12), job.model_dump_json().encode())
        async with asyncio.timeout(_WAIT_S):
            while True:
                try:
                    return await self.sam.send_job(posted)
                except (RakkanError, LinkLostError):  # as an outbox does: the same message again
                    await asyncio.sleep(0.5)

    async def use(self, entries: Mapping[str, Mapping[str, Any]], secrets_of: Path | None = None) -> None:
        """A room that has just started, with these CAs."""
        rooms = self.stack.rooms
        folder = self.stack.keys.registry_secrets_folder(_ROOM)
        for name, text in (_texts(secrets_of) if secrets_of is not None else {}).items():
            rooms.account.write(folder / name, text, mode=0o600)
        rooms.account.write(folder / "counting-ca", counting_ca.TOKEN, mode=0o600)
        await asyncio.to_thread(rooms.program(_ROOM).stop)
        rooms.registry.write({"certification_authorities": entries})
        await asyncio.to_thread(rooms.start, _ROOM)
        await asyncio.to_thread(rooms.wait_ready, _ROOM)

    async def count(self, name: str, *, latency_ms: float, hangs: bool = False, **more: Any) -> dict[str, Any]:
        """Start a counting CA; its entry for the registry."""
        folder, port = self.stack.folder / "counting" / name, self.stack.ports[f"counting {name}"]
        self.stack.rooms.account.folder(folder.parent)
        self.stack.rooms.account.folder(folder)
        program = Program(f"counting-{name}", self.stack.folder, self.stack.rooms.account)
        argv = [sys.executable, "-m", "tests.support.counting_ca", "--folder", str(folder), "--port", str(port)]
        argv += ["--latency-ms", str(latency_ms), *(["--hang"] if hangs else [])]
        program.start(argv, {"PATH": "/usr/bin:/bin"}, folder=CHECKOUT)
        self.programs.append(program)
        async with asyncio.timeout(20):
            while not (folder / "root.pem").exists():  # noqa: ASYNC110 - another program writes it
                await asyncio.sleep(0.05)
        return counting_ca.entry(port, folder, concurrency_max=_AT_ONCE, **more)

    async def enroll(self, orders: Sequence[OrderCertificate]) -> float:
        """Send them, wait until all are accepted; the seconds from the first to the last."""
        began = time.perf_counter()
        for first in range(0, len(orders), _SENT_AT_ONCE):
            await asyncio.gather(*(self.send(one) for one in orders[first : first + _SENT_AT_ONCE]))
        wanted = {one.order_id for one in orders}
        async with asyncio.timeout(_WAIT_S):
            while not wanted <= self.accepted.keys():
                if lost := wanted & self.refused.keys():
                    raise BenchError(f"refused: {self.refused[lost.pop()]}")
                await asyncio.sleep(0.02)
        return max(self.accepted[one] for one in wanted) - began


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    stack = Stack.temporary()
    try:
        await asyncio.to_thread(stack.start_rabbitmq)
        await asyncio.to_thread(stack.start_postgres)
        await stack.prepare_database()
        await asyncio.to_thread(stack.token, _ROOM)
        bus = bus_of(stack, "sam")
        async with bus.connected():
            await until(partial(_reached, bus), within_s=20)
            here = Place(stack, bus)
            bus.serve(dict.fromkeys((AcceptCertificate, RefuseOrder, NoteCertificateStatus), here.hear))
            try:
                yield here
            finally:
                for program in here.programs:
                    program.stop()
                await asyncio.to_thread(stack.rooms.stop)
    finally:
        await asyncio.to_thread(stack.remove)


def _texts(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


async def _reached(bus: Bus) -> bool:
    try:
        await bus.check()
    except RakkanError:
        return False
    return True


def orders_for(authority: str, count: int) -> list[OrderCertificate]:
    made = []
    for _ in range(count):
        csr = ordering.request_for(ec.generate_private_key(ec.SECP256R1()))
        made.append(OrderCertificate(order_id=secrets.token_hex(12), authority=authority, csr=csr))
    return made


async def adapters(here: Place, *, count: int) -> str:
    """Each adapter at the CA of somebody else: alone, and through the room; the same orders at once in both."""
    rows = []
    for kind in PEERS:
        peer = kind()
        with tempfile.TemporaryDirectory(prefix="rakkan-bench-") as folder:
            try:
                await asyncio.to_thread(peer.start, Path(folder))
            except Missing as missing:
                rows.append((peer.name, str(missing)[:40], "", ""))
                continue
            try:
                entry = peer.entry() | {"concurrency_max": _AT_ONCE, "quotas": []}
                await here.use({"ca": entry}, peer.secrets)
                profile = entry["default_profile"]
                before = await _alone(peer, entry, count)
                took_s = await here.enroll(
                    [one.model_copy(update={"profile": profile}) for one in orders_for("ca", count)]
                )
                after = await _alone(peer, entry, count)
                alone, through = 2 * count / (before + after), count / took_s
                rows.append((peer.name, f"{alone:.1f}", f"{through:.1f}", f"{through / alone:.0%}"))
            finally:
                await asyncio.to_thread(peer.stop)
    head = ("CA", "adapter alone/s", "through the room/s", "of it")
    return table(f"Enrollments with P-256 keys, {_AT_ONCE} at once, {count} in each run", head, rows)


async def _alone(peer: AuthorityPeer, entry: dict[str, Any], count: int) -> float:
    """The seconds that the CA needs for so many, asked by its adapter and nothing around it."""
    authority = ordering.open_entry(entry, peer.secrets)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(count)]
    waiting = [ordering.order_for(key, profile=entry["default_profile"]) for key in keys]
    began = time.perf_counter()

    async def work() -> None:
        while waiting:
            _, outcome, _ = await ordering.settle(authority, waiting.pop(), peer.attend)
            if not isinstance(outcome, Issued):
                raise BenchError(f"{peer.name}: {outcome}")

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
        return time.perf_counter() - began
    finally:
        await authority.close()


async def hanging(here: Place, *, count: int) -> str:
    """So many orders over six CAs at once, one of which never answers; beside each of the other five alone."""
    share = count // (len(_NAMES) + 1)
    entries = {name: await here.count(name, latency_ms=_LATENCY_MS) for name in _NAMES}
    entries[_HANGING] = await here.count(_HANGING, latency_ms=0, hangs=True, timeout_s=30)
    await here.use(entries)
    solo = {}
    for name in _NAMES:
        solo[name] = _SOLO / await here.enroll(orders_for(name, _SOLO))
    batches = {name: orders_for(name, share) for name in (*_NAMES, _HANGING)}
    for one in batches[_HANGING]:
        await here.send(one)
    before, began = usage(here.stack), time.perf_counter()
    took = await asyncio.gather(*(here.enroll(batches[name]) for name in _NAMES))
    seconds = time.perf_counter() - began
    used = usage(here.stack).since(before)
    rows = []
    for name, took_s in zip(_NAMES, took, strict=True):
        together = share / took_s
        rows.append((name, f"{solo[name]:.2f}", f"{together:.2f}", f"{together / solo[name]:.0%}"))
    hung = sum(one.order_id in here.accepted for one in batches[_HANGING])
    rows.append((f"{_HANGING} ({share} orders)", "-", f"{hung} issued", ""))
    title = f"{count} orders over six CAs at once, each CA takes {_LATENCY_MS} ms and {_AT_ONCE} at once"
    cpu = ", ".join(
        f"{who} {used.get(who, 0.0) / seconds:.0%}" for who in (_ROOM, "rabbitmq", "postgres", LOAD, OTHERS)
    )
    return table(title, ("CA", "alone/s", "all at once/s", "of it"), rows) + f"\n  of one core: {cpu}"


async def memory(here: Place, *, count: int) -> str:
    """The room's resident memory while so many certificates are enrolled."""
    entries = {name: await here.count(f"memory-{name}", latency_ms=0) for name in _NAMES[:2]}
    await here.use(entries)
    rows = [("0", f"{_resident_mb(here):.0f}", "")]
    step = count // 10
    for number in range(1, 11):
        gc.collect()
        halves = [orders_for(name, step // len(entries)) for name in entries]
        took_s = max(await asyncio.gather(*(here.enroll(half) for half in halves)))
        rows.append((str(number * step), f"{_resident_mb(here):.0f}", f"{step / took_s:.0f}"))
        here.accepted.clear()
    return table("Resident memory of the room over orders", ("orders", "MB", "orders/s"), rows)


def _resident_mb(here: Place) -> float:
    pid = int((here.stack.folder / "pids" / _ROOM).read_text().split()[0])
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise BenchError("the room is gone")

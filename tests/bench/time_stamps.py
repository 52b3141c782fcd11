"""Time stamps under load: how many, how late, whose CPU, how much memory. Through the real room, bus and database.

The TSAs are fast ones of our own, so that the connector is what is measured; beside it the same TSA is asked bare.
"""

import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.home import CHECKOUT
from deploy.local.program import Program
from deploy.local.stack import Stack
from services.tsa_connector.request import TimestampRequest
from shared.algorithms import Hash
from shared.contracts.tsa_connector import ReadAuthorities, Timestamp
from shared.errors import RakkanError
from shared.messaging import operation
from shared.messaging.bus import Bus
from shared.messaging.topology import OPERATOR
from tests.bench.client import BenchError
from tests.bench.processes import OTHERS, usage
from tests.bench.report import table
from tests.support.buses import bus_of
from tests.support.tsa_rooms import entry

_ROOM = "tsa_connector"
_SLOW_S = 1.5
_NAMES = ("one", "two", "three")


@dataclass
class TSA:
    """A fast TSA as a program of the stack."""

    stack: Stack
    name: str
    program: Program = field(init=False)

    def __post_init__(self) -> None:
        self.program = Program(f"fast-{self.name}", self.stack.folder, self.stack.rooms.account)

    @property
    def port(self) -> int:
        return self.stack.ports[f"fast {self.name}"]

    @property
    def folder(self) -> Path:
        return self.stack.folder / "fast" / self.name

    def start(self, *, processes: int = 1, late_s: float = 0.0) -> None:
        self.stack.rooms.account.folder(self.folder.parent)
        argv = [sys.executable, "-m", "tests.bench.fast_tsa", "--folder", str(self.folder), "--port", str(self.port)]
        argv += ["--processes", str(processes), "--late-s", str(late_s)]
        self.program.start(argv, {"PATH": "/usr/bin:/bin"}, folder=CHECKOUT)

    def entry(self, **more: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/"
        anchor = (self.folder / "root.pem").read_text()
        return entry(url, anchor=anchor, timeout_s=5, connections_max=64, accuracy_max_ms=1000, **more)


@dataclass(frozen=True)
class Load:
    """What came of asking for a while."""

    seconds: float
    latencies_s: tuple[float, ...]
    refused: int
    cpu_s: Mapping[str, float]

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.seconds

    def latency_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000

    def cpu_ms(self, program: str) -> float:
        return self.cpu_s.get(program, 0.0) * 1000 / max(len(self.latencies_s), 1)


@dataclass
class Place:
    stack: Stack
    bus: Bus
    operator: Bus
    tsas: dict[str, TSA]

    async def use(self, names: tuple[str, ...], **more: Any) -> None:
        """These and no other, from now on; what the room remembered of them is forgotten."""
        registry = self.stack.rooms.registry
        tsas = {name: self.tsas[name].entry(label=secrets.token_hex(4), **more) for name in names}
        defaults = {"timestamps": {"assurance_class": "standard"}}
        registry.write({"time_stamping_authorities": tsas, "defaults": defaults})
        version = registry.read()["version"]
        with operation.begin(OPERATOR, timeout_s=60):
            async with asyncio.timeout(60):
                for _ in iter(int, 1):
                    if (await self.operator.ask(ReadAuthorities())).registry_version == version:
                        return
                    await asyncio.sleep(0.2)

    async def ask(self, load: "_Asking") -> None:
        began = time.perf_counter()
        message = Timestamp(digest=secrets.token_bytes(32), hash=Hash.SHA256, tenant_id="bench", client_id="bench")
        try:
            with operation.begin("gateway", timeout_s=15):
                await self.bus.ask(message)
        except RakkanError:
            load.refused += 1
            return
        load.latencies_s.append(time.perf_counter() - began)

    async def load(self, *, callers: int, seconds: float | None = None, count: int | None = None) -> Load:
        """So many callers, each with its next request when it has its answer; for so long, or so many requests."""
        asking, before, began = _Asking(left=count), usage(self.stack), time.perf_counter()
        until = None if seconds is None else began + seconds

        async def caller() -> None:
            while (until is None or time.perf_counter() < until) and asking.take():
                await self.ask(asking)

        await asyncio.gather(*(caller() for _ in range(callers)))
        took_s = time.perf_counter() - began
        return Load(took_s, tuple(asking.latencies_s), asking.refused, usage(self.stack).since(before))


@dataclass
class _Asking:
    left: int | None = None
    refused: int = 0
    latencies_s: list[float] = field(default_factory=list)

    def take(self) -> bool:
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """The broker, the database, the room and three fast TSAs, alone."""
    stack = Stack.temporary()
    try:
        await asyncio.to_thread(stack.start_rabbitmq)
        await asyncio.to_thread(stack.start_postgres)
        await stack.prepare_database()
        tsas = {name: TSA(stack, name) for name in _NAMES}
        for tsa in tsas.values():
            await asyncio.to_thread(stack.rooms.account.folder, tsa.folder.parent)
            await asyncio.to_thread(tsa.start, processes=2)
            await asyncio.to_thread(_wait_for, tsa.folder / "root.pem")
        first = {"time_stamping_authorities": {"one": tsas["one"].entry()}}
        await asyncio.to_thread(stack.rooms.registry.write, first)
        await asyncio.to_thread(stack.rooms.start, _ROOM)
        await asyncio.to_thread(stack.rooms.wait_ready, _ROOM)
        async with bus_of(stack, "gateway").connected() as bus, bus_of(stack, OPERATOR).connected() as operator:
            yield Place(stack, bus, operator, tsas)
    finally:
        await asyncio.to_thread(stack.remove)


async def throughput(here: Place, *, seconds: float) -> str:
    """Tokens a second at several numbers of callers, beside the bare TSA before and after."""
    await here.use(("one",))
    before = await _bare(here.tsas["one"], seconds=seconds / 2)
    await here.load(callers=16, seconds=2)
    points = [(callers, await here.load(callers=callers, seconds=seconds)) for callers in (1, 16, 64)]
    after = await _bare(here.tsas["one"], seconds=seconds / 2)
    rows = [
        (
            str(callers),
            f"{load.per_s:.0f}",
            f"{load.per_s / statistics.mean((before, after)):.0%}",
            f"{load.latency_ms(0.5):.1f}",
            f"{load.latency_ms(0.99):.1f}",
            f"{load.cpu_ms(_ROOM):.2f}",
            f"{1000 / load.cpu_ms(_ROOM):.0f}",
            f"{load.cpu_ms('fast-one'):.2f}",
            f"{load.cpu_s[OTHERS] / load.seconds:.2f}",
        )
        for callers, load in points
    ]
    head = (
        "callers",
        "tokens/s",
        "of bare",
        "p50 ms",
        "p99 ms",
        "CPU ms room",
        "tokens/core s",
        "CPU ms TSA",
        "others",
    )
    title = f"Time stamps through the room; the bare TSA: {before:.0f}/s before, {after:.0f}/s after (16 callers)"
    return table(title, head, rows)


async def failover(here: Place, *, count: int) -> str:
    """p99 with one of three TSAs dead and one slow, after the first 20 requests, beside all three healthy."""
    await here.use(_NAMES)
    await here.load(callers=1, count=20)
    healthy = await here.load(callers=4, count=count)
    await asyncio.to_thread(here.tsas["one"].program.kill)
    await asyncio.to_thread(here.tsas["two"].program.kill)
    await asyncio.to_thread(here.tsas["two"].start, processes=2, late_s=_SLOW_S)
    await here.use(_NAMES)
    first = await here.load(callers=1, count=20)
    after = await here.load(callers=4, count=count)
    for name in ("one", "two"):
        await asyncio.to_thread(here.tsas[name].program.kill)
        await asyncio.to_thread(here.tsas[name].start, processes=2)
    loads = {"all healthy": healthy, "one dead, one slow: first 20": first, "after these": after}
    rows = [
        (
            what,
            str(len(load.latencies_s)),
            str(load.refused),
            f"{load.latency_ms(0.5):.1f}",
            f"{load.latency_ms(0.99):.1f}",
            f"x {load.latency_ms(0.99) / healthy.latency_ms(0.99):.2f}",
        )
        for what, load in loads.items()
    ]
    head = ("three TSAs of one cost", "tokens", "refused", "p50 ms", "p99 ms", "of healthy")
    return table(f"Failover; slow is {_SLOW_S:g} s, 4 callers", head, rows)


async def memory(here: Place, *, count: int) -> str:
    """The room's memory over many tokens, its readers beside it."""
    await here.use(("one",))
    rows = [("0", *_resident(here))]
    done = 0
    while done < count:
        load = await here.load(callers=32, count=count // 10)
        done += len(load.latencies_s) + load.refused
        rows.append((str(done), *_resident(here)))
    return table("Resident memory, MB", ("tokens", "room", "readers"), rows)


def _resident(here: Place) -> tuple[str, str]:
    pid = here.stack.rooms.program(_ROOM).pid
    if pid is None:
        raise BenchError("the room ended")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return f"{_rss_mb(str(pid)):.1f}", " ".join(f"{_rss_mb(child):.1f}" for child in children)


def _rss_mb(pid: str) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


async def _bare(tsa: TSA, *, seconds: float, callers: int = 16) -> float:
    """Answers a second of the TSA itself over kept connections; nothing is verified."""
    head = b"POST / HTTP/1.1\r\nhost: tsa\r\ncontent-type: application/timestamp-query\r\ncontent-length: %d\r\n\r\n"
    request = TimestampRequest(secrets.token_bytes(32), Hash.SHA256, secrets.randbits(64))
    query = request.der()
    sent = head % len(query) + query
    until, done = time.perf_counter() + seconds, 0

    async def caller() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", tsa.port)
        while time.perf_counter() < until:
            writer.write(sent)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            done += 1
        writer.close()

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / seconds


def _wait_for(file: Path) -> None:
    for _ in range(400):
        if file.exists():
            return
        time.sleep(0.05)
    raise BenchError(f"{file} does not come")

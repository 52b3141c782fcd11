"""`./rakkan bench`: what is measured, in which order. Prints ratios of one run; judges nothing by time."""

import argparse
import asyncio
import gc
import logging
import statistics
import sys
from dataclasses import dataclass
from functools import partial

import structlog
import uvloop

from deploy.local.progress import Progress
from shared.algorithms import KeyAlgorithm
from tests.bench import certificates, raw, report, signing, starting, time_stamps
from tests.bench.suite import PROFILES, Suite, running

_BATCH = 100
_NAMES = {
    "single": "one P-256 hash in each request, at 1, 8 and 32 callers",
    "batches": "100 hashes in each request, beside the raw HSM, with one SVG worker and with two",
    "room": "the start of one room",
    "timestamps": "time stamps through the room beside the bare TSA, and with one of three TSAs dead and one slow",
    "timestamps-memory": "the room's memory over 100,000 time stamps: takes minutes, and only by name",
    "certificates": "enrollments at CAs of others, through the room beside the adapter alone",
    "certificates-hanging": "1,000 orders over six CAs at once, one of which hangs",
    "certificates-memory": "the room's memory over 10,000 orders",
    "demo": "./rakkan demo in a bare clone: takes minutes, and only by name",
}


@dataclass(frozen=True)
class Plan:
    names: tuple[str, ...]
    seconds: float
    callers: int
    """For each SVG worker, in batches: so many that it never waits for work."""


def _read(argv: list[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="./rakkan bench", description=__doc__)
    known = "; ".join(f"{name}: {what}" for name, what in _NAMES.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help=known)
    parser.add_argument("--seconds", type=float, default=10.0, help="at each point (10)")
    parser.add_argument("--callers", type=int, default=4, help="of batches, for each SVG worker (4)")
    given = parser.parse_args(argv)
    unknown = [name for name in given.names if name not in _NAMES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    return Plan(tuple(given.names) or ("single", "batches", "room"), given.seconds, given.callers)


async def _single(suite: Suite, plan: Plan, progress: Progress) -> None:
    points = []
    for callers in (1, 8, 32):
        with progress.step(f"single hashes, {callers} callers"):
            points.append(
                await signing.measure(
                    suite, KeyAlgorithm.P256, callers=callers, hashes=1, seconds=plan.seconds, expected_per_s=500
                )
            )
    _show(report.single(points))


async def _batches(suite: Suite, plan: Plan, progress: Progress) -> None:
    with progress.step("the raw HSM, one process and two"):
        before = raw.measure(processes=1, seconds=plan.seconds / 2)
        two = raw.measure(processes=2, seconds=plan.seconds / 2)
    points = []
    for workers in (1, 2):
        await suite.use_workers(workers)
        for algorithm in PROFILES:
            with progress.step(f"batches, {algorithm}, {workers} SVG workers"):
                points.append(
                    await signing.measure(
                        suite,
                        algorithm,
                        callers=plan.callers * workers,
                        hashes=_BATCH,
                        seconds=plan.seconds,
                        expected_per_s=before[algorithm].per_second * workers,
                    )
                )
    await suite.use_workers(1)
    with progress.step("the raw HSM once more"):
        after = raw.measure(processes=1, seconds=plan.seconds / 2)
    _show(report.raw(before, two, after))
    _show(report.batches(points, raw.mean(before, after)))


async def _time_stamps(plan: Plan, progress: Progress) -> None:
    async with time_stamps.place() as here:
        if "timestamps" in plan.names:
            with progress.step("time stamps, beside the bare TSA"):
                shown = await time_stamps.throughput(here, seconds=plan.seconds)
            _show(shown)
            with progress.step("time stamps, one of three TSAs dead and one slow"):
                shown = await time_stamps.failover(here, count=1000)
            _show(shown)
        if "timestamps-memory" in plan.names:
            with progress.step("100,000 time stamps"):
                shown = await time_stamps.memory(here, count=100_000)
            _show(shown)


async def _certificates(plan: Plan, progress: Progress) -> None:
    benches = {
        "certificates": partial(certificates.adapters, count=100),
        "certificates-hanging": partial(certificates.hanging, count=1000),
        "certificates-memory": partial(certificates.memory, count=10_000),
    }
    # The bench stands on the bus like a room, and would tell of every message.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    async with certificates.place() as here:
        for name, measure in benches.items():
            if name in plan.names:
                with progress.step(f"{name}: {_NAMES[name]}"):
                    shown = await measure(here)
                _show(shown)


def _room(suite: Suite) -> None:
    taken = starting.room_s(suite, times=5)
    rows = [(starting.ROOM, f"{statistics.median(taken):.2f}", f"{max(taken):.2f}")]
    _show(report.table("Start of one room until it is ready", ("room", "median s", "longest s"), rows))


def _demo() -> None:
    rows = [(what, f"{seconds:.1f}") for what, seconds in starting.demo_s().items()]
    _show(report.table("./rakkan demo in a clone", ("run", "s"), rows))


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    plan = _read(argv)
    progress = Progress()
    _show(report.machine())
    if {"single", "batches", "room"} & set(plan.names):
        with running(progress) as suite, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            gc.freeze()
            if "single" in plan.names:
                runner.run(_single(suite, plan, progress))
            if "batches" in plan.names:
                runner.run(_batches(suite, plan, progress))
            if "room" in plan.names:
                _room(suite)
    if {"timestamps", "timestamps-memory"} & set(plan.names):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_time_stamps(plan, progress))
    if any(name.startswith("certificates") for name in plan.names):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_certificates(plan, progress))
    if "demo" in plan.names:
        _demo()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the bench prints: tables of ratios. Knows how figures look, not how they come about."""

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared.algorithms import KeyAlgorithm
from tests.bench.processes import LOAD, OTHERS
from tests.bench.raw import Rates
from tests.bench.signing import Point

_PROGRAMS = ("gateway", "sam", "svg", "rabbitmq", "postgres", LOAD, OTHERS)


def machine() -> str:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607  # only a name in a report
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{cpu.partition(':')[2].strip()}, {os.cpu_count()} cores; {platform.platform(terse=True)}; "
        f"Python {platform.python_version()}; commit {commit}; load before {load}"
    )


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they must be; the first is text, the others are numbers."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([f"\n{title}", *(f"  {line}" for line in shown)])


def raw(one: Rates, two: Rates, drift: Rates) -> str:
    rows = [
        (
            _name(algorithm),
            f"{one[algorithm].per_second:.0f}",
            f"x {two[algorithm].per_second / one[algorithm].per_second:.2f}",
            f"{drift[algorithm].per_second / one[algorithm].per_second:.0%}",
            f"{one[algorithm].cpu_ms:.3f}",
        )
        for algorithm in one
    ]
    head = ("key", "signatures/s", "two processes", "again at the end", "CPU ms")
    return table("Raw: python-pkcs11 on SoftHSM, one thread, nothing else", head, rows)


def single(points: Iterable[Point]) -> str:
    rows = [
        (
            str(point.callers),
            f"{point.requests_per_s:.0f}",
            f"{point.latency_ms(0.5):.1f}",
            f"{point.latency_ms(0.99):.1f}",
            *_cpu(point),
        )
        for point in points
    ]
    head = ("callers", "requests/s", "p50 ms", "p99 ms", *_PROGRAMS, "sum")
    return table("signHash, one P-256 hash in each request; CPU in ms for each signature", head, rows)


def batches(points: Sequence[Point], rates: Rates) -> str:
    alone = {point.algorithm: point.signatures_per_s for point in points if point.workers == 1}
    rows = [
        (
            _name(point.algorithm),
            str(point.workers),
            str(point.callers),
            f"{point.signatures_per_s:.0f}",
            f"{point.signatures_per_s / rates[point.algorithm].per_second:.0%}",
            f"x {point.signatures_per_s / alone[point.algorithm]:.2f}",
            f"{point.latency_ms(0.5):.0f}",
            *_cpu(point),
            f"x {_sum_ms(point) / rates[point.algorithm].cpu_ms:.2f}",
        )
        for point in points
    ]
    head = (
        *("key", "workers", "callers", "signatures/s", "of raw", "of one worker", "p50 ms"),
        *(*_PROGRAMS, "sum", "of raw"),
    )
    return table("signHash, 100 hashes in each request; CPU in ms for each signature", head, rows)


def _cpu(point: Point) -> list[str]:
    spent = [point.cpu_ms_per_signature(program) for program in _PROGRAMS]
    return [_milliseconds(value) for value in (*spent, _sum_ms(point))]


def _sum_ms(point: Point) -> float:
    """All that Rakkan and its servers spend on a signature, the load generator with them."""
    return sum(point.cpu_ms_per_signature(program) for program in _PROGRAMS if program != OTHERS)


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value >= 0.995 else f"{value:.3f}"


def _name(algorithm: KeyAlgorithm) -> str:
    return {KeyAlgorithm.P256: "P-256", KeyAlgorithm.RSA2048: "RSA-2048", KeyAlgorithm.RSA3072: "RSA-3072"}[algorithm]

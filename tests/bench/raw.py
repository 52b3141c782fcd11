"""The raw rates of the HSM in processes of their own, so that the load generator loads no PKCS#11 module."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.local.home import CHECKOUT
from shared.algorithms import KeyAlgorithm
from tests.bench.client import BenchError


@dataclass(frozen=True, slots=True)
class Rate:
    per_second: float
    cpu_ms: float
    """For one signature."""


Rates = Mapping[KeyAlgorithm, Rate]


def measure(*, processes: int, seconds: float) -> Rates:
    """Signatures per second of so many processes at once, together, by kind of key."""
    argv = [sys.executable, "-m", "tests.bench.hsm", str(seconds)]
    started = [
        subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own program
        for _ in range(processes)
    ]
    together: dict[KeyAlgorithm, Rate] = {}
    for process in started:
        said, _ = process.communicate(timeout=60 + 10 * seconds)
        if process.returncode != 0:
            raise BenchError("python -m tests.bench.hsm failed")
        for line in said.splitlines():
            said_of = json.loads(line)
            algorithm = KeyAlgorithm(said_of["algorithm"])
            before = together.get(algorithm, Rate(0.0, 0.0))
            together[algorithm] = Rate(before.per_second + said_of["per_second"], said_of["cpu_ms"])
    return together


def mean(before: Rates, after: Rates) -> Rates:
    """What one process could have done meanwhile, on a machine that is not the same at every moment."""
    return {
        algorithm: Rate(
            (rate.per_second + after[algorithm].per_second) / 2, (rate.cpu_ms + after[algorithm].cpu_ms) / 2
        )
        for algorithm, rate in before.items()
    }

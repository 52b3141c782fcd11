"""The raw rates of the HSM in processes of their own, so that the load generator loads no PKCS#11 module."""

import json
import subprocess
import sys
from collections.abc import Mapping

from deploy.local.home import CHECKOUT
from shared.algorithms import KeyAlgorithm
from tests.bench.client import BenchError

Rates = Mapping[KeyAlgorithm, float]


def measure(*, processes: int, seconds: float) -> Rates:
    """Signatures per second of so many processes at once, together, by kind of key."""
    argv = [sys.executable, "-m", "tests.bench.hsm", str(seconds)]
    started = [
        subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own program
        for _ in range(processes)
    ]
    together = dict.fromkeys(KeyAlgorithm, 0.0)
    for process in started:
        said, _ = process.communicate(timeout=60 + 10 * seconds)
        if process.returncode != 0:
            raise BenchError("python -m tests.bench.hsm failed")
        for line in said.splitlines():
            rate = json.loads(line)
            together[KeyAlgorithm(rate["algorithm"])] += rate["per_second"]
    return {algorithm: rate for algorithm, rate in together.items() if rate > 0}


def mean(before: Rates, after: Rates) -> Rates:
    """What one process could have done meanwhile, on a machine that is not the same at every moment."""
    return {algorithm: (rate + after[algorithm]) / 2 for algorithm, rate in before.items()}

"""signatures/signHash under load: how many, how late, and whose CPU. Knows the partners' door and nothing behind it."""

import asyncio
import base64
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.gateway.certificates import check_values
from services.gateway.csc.algorithms import pss_parameters
from shared.algorithms import EC_BARE_OID, PSS_OID, Family, Hash, KeyAlgorithm, Scheme, SignatureAlgorithm
from tests.bench.client import BenchError, Connection
from tests.bench.processes import usage
from tests.bench.suite import SIGNATURES_MAX, Suite

_WARM_UP_S = 1.0
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one setting."""

    algorithm: KeyAlgorithm
    callers: int
    hashes: int
    workers: int
    seconds: float
    latencies_s: tuple[float, ...]
    cpu_s: Mapping[str, float]

    @property
    def requests_per_s(self) -> float:
        return len(self.latencies_s) / self.seconds

    @property
    def signatures_per_s(self) -> float:
        return self.requests_per_s * self.hashes

    def latency_ms(self, share: float) -> float:
        """The latency that so large a share of the requests kept."""
        ordered = sorted(self.latencies_s)
        return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1] * 1000

    def cpu_ms_per_signature(self, program: str) -> float:
        return self.cpu_s.get(program, 0.0) * 1000 / (len(self.latencies_s) * self.hashes)


@dataclass
class _Load:
    """Callers that each send their next request when they have the answer to the last."""

    algorithm: KeyAlgorithm
    credential: str
    hashes: int
    sads: list[str]
    until: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    last: tuple[tuple[bytes, ...], bytes] | None = None

    async def call(self, connection: Connection) -> None:
        """One caller, with SADs of its own: two callers of one SAD would wait for each other's row."""
        left, sad = 0, ""
        while time.perf_counter() < self.until:
            if left < self.hashes:
                if not self.sads:
                    return
                left, sad = SIGNATURES_MAX, self.sads.pop()
            left -= self.hashes
            digests = tuple(os.urandom(_DIGEST_BYTES) for _ in range(self.hashes))
            body = self._request(sad, digests)
            began = time.perf_counter()
            answer = await connection.post("signatures/signHash", body)
            self.latencies_s.append(time.perf_counter() - began)
            self.last = digests, answer

    def _request(self, sad: str, digests: tuple[bytes, ...]) -> bytes:
        request: dict[str, object] = {
            "credentialID": self.credential,
            "SAD": sad,
            "hash": [base64.b64encode(digest).decode() for digest in digests],
        }
        if self.algorithm.family is Family.RSA:
            parameters = base64.b64encode(pss_parameters(Hash.SHA256)).decode()
            request |= {"signAlgo": PSS_OID, "signAlgoParams": parameters, "hashAlgo": Hash.SHA256.oid}
        else:
            request |= {"signAlgo": EC_BARE_OID, "hashAlgo": Hash.SHA256.oid}
        return json.dumps(request).encode()


async def measure(
    suite: Suite, algorithm: KeyAlgorithm, *, callers: int, hashes: int, seconds: float, expected_per_s: float
) -> Point:
    """Load for so many seconds after a warm-up; `expected_per_s` signatures decide how many SADs are made before."""
    need = math.ceil(expected_per_s * (seconds + _WARM_UP_S) / SIGNATURES_MAX) + 2 * callers
    load = _Load(algorithm, suite.credential(algorithm), hashes, await suite.authorize(algorithm, need))
    connections = [suite.connection() for _ in range(callers)]
    try:
        for connection in connections:
            await connection.__aenter__()
        await _run(load, connections, _WARM_UP_S)
        load.latencies_s.clear()
        before, began = usage(suite.stack), time.perf_counter()
        await _run(load, connections, seconds)
        took, after = time.perf_counter() - began, usage(suite.stack)
    finally:
        for connection in connections:
            await connection.__aexit__(None, None, None)
    await _check_last(suite, load)
    return Point(algorithm, callers, hashes, suite.svg_workers, took, tuple(load.latencies_s), after.since(before))


async def _run(load: _Load, connections: list[Connection], seconds: float) -> None:
    load.until = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(load.call(connection))


async def _check_last(suite: Suite, load: _Load) -> None:
    """The values that came last verify: what was counted were signatures."""
    if load.last is None:
        raise BenchError("nothing was signed")
    digests, answer = load.last
    values = tuple(base64.b64decode(value) for value in json.loads(answer)["signatures"])
    async with suite.connection() as connection:
        info = await connection.call("credentials/info", {"credentialID": load.credential, "certificates": "single"})
    certificate = base64.b64decode(info["cert"]["certificates"][0])
    rsa = load.algorithm.family is Family.RSA
    algorithm = SignatureAlgorithm(
        Scheme.RSA_PSS if rsa else Scheme.ECDSA, Hash.SHA256, Hash.SHA256.digest_bytes if rsa else None
    )
    check_values(certificate, algorithm, digests, values)

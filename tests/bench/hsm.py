"""Raw rates of the HSM through python-pkcs11 alone: what everything above it is measured against.

`python -m tests.bench.hsm [SECONDS]` makes a SoftHSM token in a temporary folder and prints a line for each key.
`rates` runs on the thread that calls it, and needs the process for itself.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pkcs11
from asn1crypto import core
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag

from shared.algorithms import CURVE_OIDS, KeyAlgorithm
from shared.settings import HSM, secret
from tests.support.softhsm import make_token, seen

ALGORITHMS = (KeyAlgorithm.P256, KeyAlgorithm.RSA2048, KeyAlgorithm.RSA3072)
_DIGEST = bytes(32)


@dataclass(frozen=True)
class Rate:
    """Signatures per second with a key that stays in the session."""

    algorithm: str
    signatures: int
    seconds: float
    per_second: float
    cpu_ms: float
    """Of this process for one signature: what a busy machine changes least."""


def rates(settings: HSM, algorithms: Iterable[KeyAlgorithm] = ALGORITHMS, *, seconds: float = 2.0) -> list[Rate]:
    """Sign in a tight loop with session keys: no wrapping, no checks, no verification, one thread."""
    library = pkcs11.lib(str(settings.module))
    session = library.get_token(token_label=settings.token_label).open(user_pin=secret(settings.pin_file))
    try:
        return [_rate(algorithm, _signer(session, algorithm), seconds) for algorithm in algorithms]
    finally:
        session.close()
        library.finalize()


def _signer(session: Any, algorithm: KeyAlgorithm) -> Callable[[], bytes]:
    capabilities = MechanismFlag.SIGN | MechanismFlag.VERIFY
    if algorithm in CURVE_OIDS:
        curve = core.ObjectIdentifier(CURVE_OIDS[algorithm]).dump()
        parameters = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: curve}, local=True)
        _, key = parameters.generate_keypair(mechanism=Mechanism.EC_KEY_PAIR_GEN, capabilities=capabilities)
        return lambda: key.sign(_DIGEST, mechanism=Mechanism.ECDSA)
    _, key = session.generate_keypair(KeyType.RSA, algorithm.bits, capabilities=capabilities)
    parameter = (Mechanism.SHA256, pkcs11.MGF.SHA256, 32)
    return lambda: key.sign(_DIGEST, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameter)


def _rate(algorithm: KeyAlgorithm, sign: Callable[[], bytes], seconds: float) -> Rate:
    for _ in range(10):
        sign()
    count, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(10):
            sign()
        count += 10
    cpu_s = time.process_time() - cpu_began
    return Rate(algorithm.value, count, round(took, 3), round(count / took, 1), round(cpu_s / count * 1000, 4))


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        settings = make_token(token)
        with seen(token):
            for rate in rates(settings, seconds=seconds):
                sys.stdout.write(json.dumps(asdict(rate)) + "\n")


if __name__ == "__main__":
    main()

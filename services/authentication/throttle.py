"""How many failures are heard out before somebody has to wait. Rules and counters in memory, no I/O.

Counted by client and address together, so that nobody can lock a partner out from elsewhere. Not in the database: a
secret has 256 bits, so this is no defense of last resort, it keeps guessing from costing us work and audit leaves.
"""

from collections import OrderedDict
from datetime import datetime

_HELD_MAX = 10_000


class Throttle:
    """Token buckets that only failures draw from."""

    def __init__(self, *, attempts_max: int, attempt_again_s: float) -> None:
        self._attempts_max = attempts_max
        self._attempt_again_s = attempt_again_s
        self._buckets: OrderedDict[tuple[str, str], tuple[float, datetime]] = OrderedDict()

    def wait_s(self, client_id: str, address: str, *, now: datetime) -> float:
        """How long this caller must wait before it is heard, 0 when it need not."""
        left = self._left((client_id, address), now)
        return 0.0 if left >= 1 else (1 - left) * self._attempt_again_s

    def failed(self, client_id: str, address: str, *, now: datetime) -> None:
        key = (client_id, address)
        self._buckets[key] = (self._left(key, now) - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _HELD_MAX:
            self._buckets.popitem(last=False)

    def _left(self, key: tuple[str, str], now: datetime) -> float:
        left, since = self._buckets.get(key, (float(self._attempts_max), now))
        grown = left + (now - since).total_seconds() / self._attempt_again_s
        return min(float(self._attempts_max), grown)

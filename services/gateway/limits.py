"""How often one caller may come: a token bucket for each. Rules only; the time is handed in."""

from collections import OrderedDict
from math import ceil

from services.gateway.refusals import CSCError, too_many_requests


class Buckets:
    """`burst` requests at once, `per_s` over time, for each caller. The longest unseen callers are forgotten first."""

    def __init__(self, *, per_s: float, burst: int, callers_max: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._callers_max = callers_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What is left, and when that was so."""

    def take(self, caller: str, *, now_s: float) -> None:
        """Take one, or raise 429 saying when to come again."""
        left, since_s = self._buckets.pop(caller, (float(self._burst), now_s))
        left = min(float(self._burst), left + (now_s - since_s) * self._per_s)
        admitted = left >= 1
        self._buckets[caller] = (left - 1 if admitted else left, now_s)
        if len(self._buckets) > self._callers_max:
            self._buckets.popitem(last=False)
        if not admitted:
            raise CSCError(too_many_requests(ceil((1 - left) / self._per_s)))

"""How many failures are heard out before somebody has to wait. Rules and counters in memory, no I/O.

Counted by client and address together, so that nobody can lock a partner out from elsewhere. Not in the database: a
secret has 256 bits, so this is no defense of last resort, it keeps guessing from costing us work and audit leaves.
"""

from collections import OrderedDict
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network

_HELD_MAX = 10_000
_SITE_BITS = 64
_NARROW_BURST = 3
_NARROW_AGAIN_S = 20.0
_TOGETHER_S = 10


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

    def failed(self, client_id: str, address: str, *, now: datetime, least: float | None = None) -> None:
        """Draw one. `least` is how far down it goes: what is counted and not stopped would run up a debt."""
        key = (client_id, address)
        left = self._left(key, now) - 1
        self._buckets[key] = (left if least is None else max(least, left), now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _HELD_MAX:
            self._buckets.popitem(last=False)

    def _left(self, key: tuple[str, str], now: datetime) -> float:
        left, since = self._buckets.get(key, (float(self._attempts_max), now))
        grown = left + (now - since).total_seconds() / self._attempt_again_s
        return min(float(self._attempts_max), grown)


class FairThrottle:
    """Everything draws from it, and nobody is made to wait for what others do.

    An address has `burst` and one more every `again_s`. While all together take more than `together_per_s`, each has a
    few and one more every `_NARROW_AGAIN_S`: what many addresses can cost is bounded by how many they are, and whoever
    comes from an address of her own is heard at once. A bound that is simply shared would be a lever to lock all out.
    """

    def __init__(self, *, burst: int, again_s: float, together_per_s: float) -> None:
        self._roomy = Throttle(attempts_max=burst, attempt_again_s=again_s)
        self._narrow = Throttle(attempts_max=min(burst, _NARROW_BURST), attempt_again_s=max(again_s, _NARROW_AGAIN_S))
        together = max(1, round(together_per_s * _TOGETHER_S))
        self._together = Throttle(attempts_max=together, attempt_again_s=1 / together_per_s)

    def take_or_wait_s(self, address: str, *, now: datetime) -> float:
        """Take one and answer 0, or answer how long this address must wait and take nothing."""
        site = site_of(address)
        wait_s = self._roomy.wait_s("", site, now=now)
        if self._together.wait_s("", "", now=now):
            wait_s = max(wait_s, self._narrow.wait_s("", site, now=now))
        if wait_s:
            return wait_s
        self._roomy.failed("", site, now=now)
        self._narrow.failed("", site, now=now, least=0)
        self._together.failed("", "", now=now, least=0)
        return 0.0


def site_of(address: str) -> str:
    """Whose address it is: of IPv6 the first half, since a single customer has the whole second half to choose from."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if not isinstance(known, IPv6Address):
        return address
    if known.ipv4_mapped:
        return str(known.ipv4_mapped)
    return str(ip_network((int(known), _SITE_BITS), strict=False))

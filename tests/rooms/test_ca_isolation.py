"""A thousand orders over six CAs at once, one of which hangs: the others keep the rate that each has alone.

The clock is the loop's own and jumps to what comes next, so the figures are of the queues and not of this machine.
The same with the real room, database and bus is measured by `./rakkan bench certificates-hanging`.
"""

import asyncio
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.orders import Issued, Order, Outcome, State
from shared.contracts.ca_connector import OrderCertificate
from tests.support.ca_connector import ConnectorRoom, FakeAuthority
from tests.support.certificates import authority

ORDERS = 1000
NAMES = ("one", "two", "three", "four", "five")
SHARE = ORDERS // (len(NAMES) + 1)
LATENCY_S = 0.3
CHAIN = (authority("A certificate").certificate.public_bytes(Encoding.DER),)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Nobody waits: when nothing is ready, it is at once as late as the next thing that was to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._late_s = 0.0

    def time(self) -> float:
        return self._late_s

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]  # asyncio's own
            self._late_s = max(self._late_s, self._scheduled[0]._when)  # type: ignore[attr-defined]  # likewise
        super()._run_once()  # type: ignore[misc]  # likewise


@dataclass
class SlowAuthority(FakeAuthority):
    """Each order takes its time; one that hangs never answers."""

    hangs: bool = False
    last_s: float = 0.0
    done: int = 0

    async def submit(self, order: Order) -> Outcome:
        self.asked.append((order.order_id, order.state))
        await asyncio.sleep(1e9 if self.hangs else LATENCY_S)
        self.done += 1
        self.last_s = asyncio.get_running_loop().time()
        return Issued(CHAIN)


async def rates(names: tuple[str, ...], *, beside: bool) -> dict[str, float]:
    """Orders per second at each of these, with one that hangs beside them or without."""
    authorities = {name: SlowAuthority() for name in names}
    everybody = authorities | ({"hanging": SlowAuthority(hangs=True)} if beside else {})
    room = ConnectorRoom(everybody, timeout_s=30)
    async with room.open():
        began_s = asyncio.get_running_loop().time()
        for index in range(SHARE):
            for name in everybody:
                order_id = f"{name}-{index}"
                await room.handlers.order_certificate(
                    OrderCertificate(order_id=order_id, authority=name, csr=order_id.encode())
                )
        while any(one.done < SHARE for one in authorities.values()):  # noqa: ASYNC110 - in the loop's own time
            await asyncio.sleep(0.1)
        if beside:
            hung = [order for order in room.store.orders.values() if order.authority == "hanging"]
            assert len(hung) == SHARE
            assert not any(order.state is State.ISSUED for order in hung)
        return {name: SHARE / (one.last_s - began_s) for name, one in authorities.items()}


def in_time_of_its_own(names: tuple[str, ...], *, beside: bool) -> dict[str, float]:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(rates(names, beside=beside))


def test_a_ca_that_hangs_takes_nothing_from_the_rate_of_five_others() -> None:
    alone = {name: in_time_of_its_own((name,), beside=False)[name] for name in NAMES}
    together = in_time_of_its_own(NAMES, beside=True)
    for name in NAMES:
        assert alone[name] == pytest.approx(4 / LATENCY_S, rel=0.1)
        assert together[name] >= 0.9 * alone[name]

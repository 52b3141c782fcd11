"""A CA without an API: an operator carries the requests there and the certificates back (`batch.py` of this room).

An order is pending from the moment it is placed until its certificate is imported, however long that takes. To place it
again does nothing, for nothing is sent. What is to be revoked is revoked there by people, who then say so here.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from services.ca_connector.authorities import Capabilities, Health, Surroundings
from services.ca_connector.orders import Order, Outcome, Pending
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from shared.registry.model import Entry
from shared.settings import SettingsError

PROTOCOL = "manual"
_HANDLE = b"by hand"
_LOOK_AGAIN = timedelta(days=1)
"""Nothing comes of it: the import moves the order, whenever it comes."""


class Connection(Entry):
    """Nothing leads there."""


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "Manual":  # noqa: A001, ARG001 - the shape all adapters have
    if not ca.anchors:
        raise SettingsError(f"{surroundings.name} works by files and needs anchors: an import is checked by them")
    return Manual(now=surroundings.now)


class Manual:
    capabilities = Capabilities(polls=True, revokes=False, renews=False, repeatable=True, waits_for_people=True)

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self.now = now

    async def submit(self, order: Order) -> Outcome:  # noqa: ARG002 - it waits, whichever it is
        return Pending(_HANDLE, self.now() + _LOOK_AGAIN)

    async def poll(self, order: Order) -> Outcome:  # noqa: ARG002 - likewise
        return Pending(_HANDLE, self.now() + _LOOK_AGAIN)

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """It waits for no word of ours."""

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:  # noqa: ARG002 - it can do neither
        raise RakkanError(Code.AUTHORITY_REFUSED, f"order {order.order_id}: this CA revokes by hand")

    async def check(self) -> Health:
        """There is nobody to ask."""
        return Health()

    async def close(self) -> None:
        """Nothing is held."""

"""What every certification authority can do, one file beside this for each protocol."""

from datetime import datetime
from typing import Protocol

from services.ca_connector.orders import Order, Outcome


class Authority(Protocol):
    """An adapter to one CA. AUTHORITY_UNAVAILABLE (or another retryable code) leaves the order as it is.

    `submit` is called again for an order whose answer was lost. Where the CA would issue twice, the adapter looks for
    the order at the CA first, by its id or the key of its request. What `submit` and `poll` give back is committed
    before anybody hears of it, so a certificate that was lost on the way was never seen.
    """

    async def submit(self, order: Order) -> Outcome: ...

    async def poll(self, order: Order) -> Outcome:
        """Ask about a PENDING order by its handle."""
        ...

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:
        """Revoke what was issued on the order. Revoking twice is one revocation."""
        ...

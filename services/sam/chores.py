"""How the sweep goes through credentials: one after the other, and one that fails keeps no other waiting."""

from collections.abc import Awaitable, Callable

import structlog

from shared.errors import RakkanError

log = structlog.get_logger()


async def for_each(page: Callable[[str], Awaitable[list[str]]], do: Callable[[str], Awaitable[None]]) -> None:
    """Do it for every id of every page. A row that was edited is refused, logged, and left to an operator."""
    after = ""
    while ids := await page(after):
        for one in ids:
            try:
                await do(one)
            except RakkanError as trouble:
                log.warning("credential left as it is", credential_id=one, chore=do.__name__, why=str(trouble))
        after = ids[-1]

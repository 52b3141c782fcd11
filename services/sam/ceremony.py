"""The key ceremony of the SAM's token: the PIN pepper, and the key its rows are sealed with.

`python -m services.sam.ceremony` with `RAKKAN_HSM__*`. Run again, it keeps what is.
"""

import structlog

from services.sam.token import PEPPER_LABEL, ROWS_LABEL
from shared.ceremony import CeremonySettings, hold
from shared.hsm import Token

log = structlog.get_logger()


async def perform(settings: CeremonySettings) -> None:
    """Create what is missing."""
    async with Token.open(settings.hsm) as token:
        for label in (PEPPER_LABEL, ROWS_LABEL):
            created = await token.create_mac_key(label)
            log.info("key created" if created else "key kept", label=label, serial=token.serial)


if __name__ == "__main__":
    hold("sam", CeremonySettings, perform)

"""The key ceremony of the SAM's token: the PIN pepper, and the key its rows are sealed with.

`python -m services.sam.ceremony` with `RAKKAN_HSM__*`. Run again, it keeps what is.
"""

import asyncio
import sys

import structlog
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.sam.token import PEPPER_LABEL, ROWS_LABEL
from shared import logs
from shared.errors import RakkanError
from shared.hsm import Token
from shared.settings import HSM, PREFIX, SettingsError, load

log = structlog.get_logger()


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    hsm: HSM


async def perform(settings: Settings) -> None:
    """Create what is missing."""
    async with Token.open(settings.hsm) as token:
        for label in (PEPPER_LABEL, ROWS_LABEL):
            created = await token.create_mac_key(label)
            log.info("key created" if created else "key kept", label=label, serial=token.serial)


def main() -> None:
    logs.configure("info", room="sam", instance="ceremony")
    try:
        asyncio.run(perform(load(Settings)))
    except (SettingsError, OSError, RakkanError) as fault:
        sys.stderr.write(f"rakkan sam ceremony: {fault}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()

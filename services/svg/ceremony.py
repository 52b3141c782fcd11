"""The key ceremony of the SVG's token: the KEK, made by the security officer, and the secret of the outer envelopes.

`python -m services.svg.ceremony` with `RAKKAN_HSM__*` and `RAKKAN_CEREMONY__SO_PIN_FILE`. Run again, it keeps what is.
"""

import asyncio
import sys
from pathlib import Path

import structlog
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.svg.token import OUTER_SECRET
from shared import logs
from shared.errors import RakkanError
from shared.hsm import Token
from shared.settings import HSM, PREFIX, Section, SettingsError, load, secret

log = structlog.get_logger()


class Ceremony(Section):
    so_pin_file: Path
    """The security officer's PIN. It is needed for this ceremony only and has no place on a running host."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    hsm: HSM
    ceremony: Ceremony
    kek: str = "kek-1"


async def perform(settings: Settings) -> None:
    """Create what is missing. HSM_UNAVAILABLE when the module does not enforce what the KEK says."""
    async with Token.open(settings.hsm) as token:
        kek = await token.ceremony_kek(secret(settings.ceremony.so_pin_file), label=settings.kek)
        log.info("kek created" if kek else "kek kept", label=settings.kek, serial=token.serial)
        await token.run(lambda session: session.prove_kek(settings.kek))
        log.info("unwrap template enforced by the HSM", label=settings.kek)
        outer = await token.create_mac_key(OUTER_SECRET)
        log.info("outer secret created" if outer else "outer secret kept", label=OUTER_SECRET, serial=token.serial)


def main() -> None:
    logs.configure("info", room="svg", instance="ceremony")
    try:
        asyncio.run(perform(load(Settings)))
    except (SettingsError, OSError, RakkanError) as fault:
        sys.stderr.write(f"rakkan svg ceremony: {fault}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()

"""The key ceremony of the SVG's token: the KEK, made by the security officer, and the secret of the outer envelopes.

`python -m services.svg.ceremony` with `RAKKAN_HSM__*` and `RAKKAN_CEREMONY__SO_PIN_FILE`. Run again, it keeps what is.
"""

from pathlib import Path

import structlog

from services.svg.token import OUTER_SECRET
from shared.ceremony import CeremonySettings, hold
from shared.hsm import Token
from shared.settings import Section, secret

log = structlog.get_logger()


class Ceremony(Section):
    so_pin_file: Path
    """The security officer's PIN. It is needed for this ceremony only and has no place on a running host."""


class Settings(CeremonySettings):
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


if __name__ == "__main__":
    hold("svg", Settings, perform)

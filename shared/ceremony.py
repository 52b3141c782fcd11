"""How a key ceremony is held: a program that makes what a room's HSM token lacks, and keeps what is there."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic_settings import BaseSettings, SettingsConfigDict

from shared import logs
from shared.errors import RakkanError
from shared.settings import HSM, PREFIX, SettingsError, load


class CeremonySettings(BaseSettings):
    """What every ceremony needs: the token, and nothing of a running room."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    hsm: HSM


S = TypeVar("S", bound=CeremonySettings)


def hold(room: str, settings_type: type[S], perform: Callable[[S], Awaitable[None]]) -> None:
    """Hold it. The exit status is 2 when it cannot be held, with the reason on standard error."""
    logs.configure("info", room=room, instance="ceremony")

    async def performed() -> None:
        await perform(load(settings_type))

    try:
        asyncio.run(performed())
    except (SettingsError, OSError, ValueError, RakkanError) as fault:
        sys.stderr.write(f"rakkan {room} ceremony: {fault}\n")
        sys.exit(2)

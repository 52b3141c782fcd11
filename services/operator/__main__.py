"""The operator's door, wired: words, keys, the bus, and an exit status."""

import asyncio
import logging
import sys

import structlog

from services.operator.door import Door, Inputs, collect
from services.operator.settings import Settings
from services.operator.terminal import NotUnderstoodError, Terminal
from services.operator.words import Words, describe, parser
from shared.errors import RakkanError
from shared.messaging.bus import Bus
from shared.messaging.topology import OPERATOR
from shared.runtime import read_keys
from shared.settings import SettingsError, load

DONE, REFUSED, NOT_UNDERSTOOD = 0, 1, 2


def main(arguments: list[str]) -> int:
    words = parser().parse_args(arguments)
    terminal = Terminal(as_json=words.json)
    # Standard output is for results, and what libraries say of lost connections is told as a refusal.
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        settings = load(Settings)
        inputs = collect(words, terminal)
        try:
            asyncio.run(_do(words, inputs, settings, terminal))
        finally:
            inputs.close()
    except RakkanError as refusal:
        terminal.progress(describe(refusal))
        return REFUSED
    except (NotUnderstoodError, SettingsError) as fault:
        terminal.progress(f"Not understood: {fault}")
        return NOT_UNDERSTOOD
    except OSError as trouble:
        terminal.progress(f"Failed: {trouble}")
        return REFUSED
    except (KeyboardInterrupt, EOFError):
        terminal.progress("Stopped.")
        return REFUSED
    return DONE


async def _do(words: Words, inputs: Inputs, settings: Settings, terminal: Terminal) -> None:
    try:
        trust, messages_key, sealing_key = read_keys(settings)
    except (OSError, ValueError, TypeError) as fault:
        raise SettingsError(f"the keys of this door: {fault}") from None
    bus = Bus(settings.broker, OPERATOR, messages_key, trust)
    door = Door(
        bus=bus,
        trust=trust,
        sealing_key=sealing_key,
        terminal=terminal,
        ask_timeout_s=settings.ask_timeout_s,
        authentication_url=settings.authentication_url,
    )
    async with bus.connected():
        await door.do(words, inputs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

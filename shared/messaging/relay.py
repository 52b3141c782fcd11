"""Carries jobs from the outbox of a room to the broker, each at least once. Knows no job."""

import asyncio

import asyncpg
import structlog

from shared.database import reachable
from shared.errors import RakkanError
from shared.messaging.bus import Bus
from shared.messaging.outbox import Outbox, Posted
from shared.messaging.rabbitmq import LinkLostError

log = structlog.get_logger()

_JOBS_AT_ONCE = 50
_PAUSE_S = 0.2
_TROUBLE_PAUSE_S = 2.0


async def relay(outbox: Outbox, bus: Bus) -> None:
    """Run until cancelled. A row is deleted only after the broker confirmed it; until then nobody else sends it."""
    while True:
        try:
            # What asyncpg raises when the server goes away is of many kinds; one not caught would end the relay.
            with reachable():
                async with outbox.take(_JOBS_AT_ONCE) as (jobs, confirmed):
                    for job in jobs:
                        if await _sent(bus, job):
                            confirmed.append(job.message_id)
            pause_s = _PAUSE_S if len(confirmed) == len(jobs) else _TROUBLE_PAUSE_S
        except (asyncpg.PostgresError, RakkanError) as trouble:
            log.warning("outbox not reached", why=str(trouble))
            pause_s = _TROUBLE_PAUSE_S
        await asyncio.sleep(pause_s)


async def _sent(bus: Bus, job: Posted) -> bool:
    try:
        await bus.send_job(job)
    except (LinkLostError, RakkanError) as trouble:
        log.warning("job not sent yet", type=job.type, message_id=job.message_id, why=str(trouble))
        return False
    return True

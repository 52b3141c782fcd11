"""The SVG's table of contents: what is wired to what. `--workers N` supervises N of them."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from services.svg import supervisor
from services.svg.handlers import Handlers
from services.svg.pool import KeyPool
from services.svg.settings import Settings
from services.svg.store import Store
from services.svg.token import SVGToken
from shared import logs, runtime
from shared.contracts.svg import DestroyKey, GenerateKey, SignDigests
from shared.hsm import Token
from shared.messaging import bus
from shared.settings import SettingsError, load


@asynccontextmanager
async def build(room: runtime.Room[Settings]) -> AsyncIterator[bus.Handlers]:
    settings = room.settings
    store = Store(room.pool, room.audit)
    async with Token.open(settings.hsm) as opened:
        token = SVGToken(opened, kek=settings.kek)
        await token.probe()
        room.health.check("hsm", token.probe)
        pool = KeyPool(
            store=store,
            token=token,
            kek=settings.kek,
            targets=settings.key_pool.targets,
            idle_s=settings.key_pool.idle_s,
        )
        handlers = Handlers(
            store=store,
            token=token,
            trust=room.trust,
            sealing_key=room.sealing_key,
            kek=settings.kek,
            now=lambda: datetime.now(UTC),
            began=pool.work_began,
        )
        filling = asyncio.create_task(pool.keep_filled(), name="key pool")
        try:
            yield {
                SignDigests: handlers.sign_digests,
                GenerateKey: handlers.generate_key,
                DestroyKey: handlers.destroy_key,
            }
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m services.svg", description=__doc__)
    arguments.add_argument("--workers", type=int, help="processes on this host; RAKKAN_WORKERS without it")
    try:
        workers = arguments.parse_args().workers or load(Settings).workers
    except SettingsError as fault:
        sys.stderr.write(f"rakkan svg: {fault}\n")
        sys.exit(supervisor.WRONG_SETTINGS)
    if workers == 1:
        runtime.run("svg", Settings, build)
    else:
        logs.configure("info", room="svg", instance="supervisor")
        sys.exit(supervisor.run(workers))


if __name__ == "__main__":
    main()

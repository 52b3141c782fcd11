"""Authentication, wired."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial

import structlog

from services.authentication.app import ROOM, make_app
from services.authentication.handlers import Handlers
from services.authentication.mailing import Mailer
from services.authentication.notices import Notices, send_for_ever
from services.authentication.settings import Settings
from services.authentication.signers import add_signer_pages
from services.authentication.store import Store
from services.authentication.store_accounts import AccountStore
from services.authentication.store_notices import NoticeStore
from shared import messaging, runtime
from shared.audit import AuditWriter
from shared.database import Pool
from shared.errors import RakkanError
from shared.http import serve_http
from shared.registry import RegistrySource
from shared.settings import SettingsError
from shared.tokens import verifying_keys
from shared.trust import Purpose, SigningKey

log = structlog.get_logger()

_SWEEP_EVERY_S = 300.0


@asynccontextmanager
async def build(room: runtime.Room[Settings]) -> AsyncIterator[messaging.bus.Handlers]:
    settings = room.settings
    tokens_key = SigningKey.load(settings.tokens_key_file)
    if tokens_key.key_id not in room.trust.verifying_keys(ROOM, Purpose.TOKENS):
        raise SettingsError("the trust bundle does not list the key of RAKKAN_TOKENS_KEY_FILE: nobody would trust it")
    store = Store(room.pool, room.audit)
    handlers = Handlers(
        store=store,
        bus=room.bus,
        trust=room.trust,
        keys=verifying_keys(room.trust),
        sealing_key=room.sealing_key,
        now=_now,
    )
    accounts = AccountStore(room.pool, room.audit)
    notices = make_notices(room.pool, room.audit, settings)
    add_pages = partial(add_signer_pages, store=accounts, bus=room.bus, trust=room.trust, settings=settings, now=_now)
    registries = RegistrySource(settings.registry, room.trust, room.registry) if settings.registry is not None else None
    if registries is not None:
        room.health.check("registry", registries.check)
    app = make_app(
        store,
        room.bus,
        room.trust,
        tokens_key,
        settings,
        add_pages=add_pages,
        registries=registries,
        now=_now,
    )
    async with (
        registries.watched() if registries is not None else nullcontext(),
        serve_http(app, settings.http) as port,
        asyncio.TaskGroup() as group,
    ):
        tasks = [
            group.create_task(_sweep(store, accounts)),
            group.create_task(send_for_ever(notices, every_s=settings.notices.every_s, sleep=asyncio.sleep)),
        ]
        log.info("door open", url=settings.issuer, port=port)
        yield {**handlers.by_message(), **notices.by_message()}
        for task in tasks:
            task.cancel()


def make_notices(pool: Pool, audit: AuditWriter, settings: Settings) -> Notices:
    host = settings.notices.host
    mailer = Mailer(settings.notices, host) if host else None
    return Notices(store=NoticeStore(pool, audit), mailer=mailer, settings=settings, now=_now)


async def _sweep(store: Store, accounts: AccountStore) -> None:
    while True:
        try:
            await store.sweep(now=_now())
            await accounts.sweep(now=_now())
        except RakkanError as trouble:
            log.warning("sweep put off", detail=trouble.detail)
        await asyncio.sleep(_SWEEP_EVERY_S)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    runtime.run(ROOM, Settings, build)

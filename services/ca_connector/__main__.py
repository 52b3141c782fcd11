"""The CA connector's table of contents: what is wired to what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from cryptography import x509

from services.ca_connector.authorities.local import NAME, LocalAuthority
from services.ca_connector.handlers import Handlers
from services.ca_connector.profile import Profile
from services.ca_connector.settings import Settings
from services.ca_connector.store import Store
from services.ca_connector.sweeping import Sweep
from services.ca_connector.token import CAKey
from shared import runtime
from shared.contracts.ca_connector import ConfirmOrder, OrderCertificate, RevokeCertificate
from shared.hsm import Token
from shared.messaging import bus


def now() -> datetime:
    """Whole seconds: certificates and CRLs know no finer time."""
    return datetime.now(UTC).replace(microsecond=0)


@asynccontextmanager
async def build(room: runtime.Room[Settings]) -> AsyncIterator[bus.Handlers]:
    settings = room.settings
    store = Store(room.pool, room.audit)
    async with Token.open(settings.hsm) as token:
        local = LocalAuthority(
            certificate=x509.load_pem_x509_certificate(settings.local.certificate_file.read_bytes()),
            key=await CAKey.find(token),
            profile=Profile(
                validity=timedelta(days=settings.local.validity_days),
                policies=settings.local.policies,
                crl_url=settings.local.crl_url,
                issuer_url=settings.local.issuer_url,
            ),
            lists=store,
            crl_lifetime=timedelta(hours=settings.local.crl_hours),
            now=now,
        )
        local.check_key()
        stuck = timedelta(seconds=settings.watch.stuck_s)
        # Shorter than `stuck`: nobody takes up an order while another still waits for its authority.
        answer_s = settings.watch.stuck_s * 0.75
        handlers = Handlers(store=store, authorities={NAME: local}, answer_timeout_s=answer_s, now=now)
        sweep = Sweep(store=store, steps=handlers, renew_crl=local.renew_crl, stuck=stuck, now=now)
        sweeping = asyncio.create_task(sweep.run(every_s=settings.watch.every_s), name="sweep")

        async def check_sweep() -> None:
            if sweeping.done():
                sweeping.result()

        room.health.check("hsm", token.probe)
        room.health.check("crl", local.check_crl)
        room.health.check("sweep", check_sweep)
        room.health.page(f"/crl/{NAME}.crl", "application/pkix-crl", local.crl_page)
        room.health.page(f"/ca/{NAME}.cer", "application/pkix-cert", local.certificate_page)
        try:
            yield {
                OrderCertificate: handlers.order_certificate,
                ConfirmOrder: handlers.confirm_order,
                RevokeCertificate: handlers.revoke_certificate,
            }
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)


if __name__ == "__main__":
    runtime.run("ca_connector", Settings, build)

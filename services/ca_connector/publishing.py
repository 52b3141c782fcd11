"""What a CA in this room publishes on the side port: its CRL and its certificate. Knows no other CA."""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import structlog

from services.ca_connector.authorities import Publisher
from services.ca_connector.queues import Desk
from shared.errors import Code, RakkanError
from shared.health import Health
from shared.registry import Registry

log = structlog.get_logger()


class Queues(Protocol):
    @property
    def desks(self) -> Mapping[str, Desk]: ...


class Publishing:
    def __init__(self, queues: Queues, health: Health) -> None:
        self._queues = queues
        self._health = health

    async def use(self, _: Registry) -> None:
        """Have a page for each list and certificate; of a CA that has left they say that nothing is there."""
        for name in self._publishers():
            self._health.page(f"/crl/{name}.crl", "application/pkix-crl", partial(self._crl_page, name))
            self._health.page(f"/ca/{name}.cer", "application/pkix-cert", partial(self._certificate_page, name))

    async def renew(self) -> None:
        """Make each CRL anew at half of its time."""
        for name, publisher in self._publishers().items():
            if await publisher.renew_crl():
                log.info("crl renewed", authority=name)

    async def check(self) -> None:
        """Raise unless each list is current: relying parties would refuse every certificate."""
        for publisher in self._publishers().values():
            await publisher.check_crl()

    async def _crl_page(self, name: str) -> bytes:
        return await self._publisher(name).crl_page()

    async def _certificate_page(self, name: str) -> bytes:
        return await self._publisher(name).certificate_page()

    def _publisher(self, name: str) -> Publisher:
        publisher = self._publishers().get(name)
        if publisher is None:
            raise RakkanError(Code.NOT_FOUND, f"no authority {name} publishes here")
        return publisher

    def _publishers(self) -> dict[str, Publisher]:
        authorities = {name: desk.authority for name, desk in self._queues.desks.items()}
        return {name: authority for name, authority in authorities.items() if isinstance(authority, Publisher)}

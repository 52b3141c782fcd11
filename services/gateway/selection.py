"""Which trust services a request gets: by its base URL, its client's default, its tenant, and what it names itself.

Rules only, no I/O. Resolved once for each request and handed on; nothing behind it looks at the registry again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from services.gateway.refusals import FOREIGN_SERVICE, UNKNOWN_SERVICE, CSCError, invalid
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority, Registry, TimeStampingAuthority, VirtualService
from shared.registry.model import TimestampChoice


@dataclass(frozen=True, slots=True)
class Selection:
    """What one request may use, and what it gets when it names nothing."""

    registry: Registry
    service_name: str | None = None
    """The virtual service: of the base URL, or else the default of the client."""
    tenant_id: str | None = None
    """None where no token came: then only what is open to every tenant is there."""

    @property
    def service(self) -> VirtualService | None:
        return None if self.service_name is None else self.registry.services[self.service_name]

    @property
    def extension(self) -> bool:
        """Whether this client may be told of trust services, and may name them."""
        return self.registry.extension

    @property
    def visible_authorities(self) -> tuple[str, ...] | None:
        """CAs whose credentials are seen here; None: of every CA. Credentials of others look unknown."""
        service = self.service
        if service is None:
            return None
        own = () if service.certification_authority is None else (service.certification_authority,)
        return tuple(dict.fromkeys((*own, *service.visible_authorities))) or None

    @property
    def certification_authorities(self) -> Mapping[str, CertificationAuthority]:
        """What the tenant may order at, through this service."""
        visible = self.visible_authorities
        return {
            name: authority
            for name, authority in self.registry.certification_authorities.items()
            if self._serves(authority) and (visible is None or name in visible)
        }

    @property
    def time_stamping_authorities(self) -> Mapping[str, TimeStampingAuthority]:
        return {name: tsa for name, tsa in self.registry.time_stamping_authorities.items() if self._serves(tsa)}

    @property
    def certification_authority(self) -> str | None:
        """Where a new credential comes from when the request names no CA."""
        service = self.service
        if service is not None and service.certification_authority is not None:
            return service.certification_authority
        return self.registry.defaults.certification_authority

    @property
    def certificate_profile(self) -> str | None:
        """Of a new credential, when the request names none: the service's, or else the default of the CA."""
        service = self.service
        if service is not None and service.certificate_profile is not None:
            return service.certificate_profile
        name = self.certification_authority
        return None if name is None else self.registry.certification_authorities[name].default_profile

    @property
    def default_timestamps(self) -> TimestampChoice | None:
        service = self.service
        return (service.timestamps if service is not None else None) or self.registry.defaults.timestamps

    def timestamps(self, *, authority: str | None, assurance_class: str | None, today: date) -> TimestampChoice | None:
        """The TSA or the class that the request names, or the default; None leaves the choice to the connector.

        What is not there, or not this tenant's, is refused alike: nobody learns of another tenant's authorities.
        """
        if authority is not None:
            if authority not in self.time_stamping_authorities:
                raise RakkanError(Code.TSA_UNKNOWN, f"{authority} is none of this tenant's")
            return TimestampChoice(authority=authority)
        if assurance_class is not None:
            if not any(tsa.in_class(assurance_class, today) for tsa in self.time_stamping_authorities.values()):
                raise CSCError(invalid("Invalid parameter timeStampingClass"))
            return TimestampChoice(assurance_class=assurance_class)
        return self.default_timestamps

    def _serves(self, authority: CertificationAuthority | TimeStampingAuthority) -> bool:
        return authority.tenants is None if self.tenant_id is None else authority.serves(self.tenant_id)


def check_service(registry: Registry, name: str | None) -> None:
    """Raise unless the base URL names a virtual service, or none."""
    if name is not None and name not in registry.services:
        raise CSCError(UNKNOWN_SERVICE)


def select_for_client(registry: Registry, *, service_name: str | None, client_id: str, tenant_id: str) -> Selection:
    """For a client with a good token. The base URL comes before the client's default."""
    check_service(registry, service_name)
    name = service_name or registry.defaults.clients.get(client_id)
    if name is not None and not registry.services[name].serves(tenant_id):
        raise CSCError(FOREIGN_SERVICE)
    return Selection(registry, name, tenant_id)


def select_for_anybody(registry: Registry, *, service_name: str | None) -> Selection:
    """For `info`, which needs no token."""
    check_service(registry, service_name)
    return Selection(registry, service_name)

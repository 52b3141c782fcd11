"""Which CA and profile a client's request leads to, chosen when it asks: the signer is shown what she agrees to.

Rules over the registry of the moment, no I/O. Without a registry nothing is offered but signatures.
"""

from typing import Protocol

from services.authentication.asking import Asked
from services.authentication.changes import Change, refused
from services.authentication.clients import Client
from services.authentication.documents import read_details
from services.authentication.oauth import Refusal
from shared.contracts.issuance import CREATION
from shared.errors import Code, RakkanError
from shared.registry import Registry
from shared.registry.choosing import CertificateChoice, CertificateWish, Offer, choose, offer_of


class Registries(Protocol):
    """Whoever holds the registry of trust services."""

    @property
    def current(self) -> Registry: ...


class Choosing:
    """As the gateway would choose for the same client."""

    def __init__(self, registries: Registries | None) -> None:
        self._registries = registries

    def qualifiers(self, known: tuple[str, ...], client: Client) -> tuple[str, ...]:
        """What a client may name instead of a credential: what settings know, and what leads to a key for one use."""
        registry = self._registry
        if registry is None:
            return known
        offered = _offer(registry, client).authorities.values()
        found = [
            profile.signature_qualifier
            for ca in offered
            for profile in ca.profiles.values()
            if profile.short_term and profile.signature_qualifier is not None
        ]
        return (*known, *found)

    def chosen(self, asked: Asked, client: Client) -> Asked:
        """The request with the CA and the profile that it leads to, where something is to be made for it."""
        if asked.scope == CREATION:
            change = read_details(f"[{asked.details}]")[0]
            wish = change.wish if isinstance(change, Change) else None
            choice: CertificateChoice | None = self._for_creation(wish or CertificateWish(), client)
        elif asked.qualifier is not None and asked.credential_id is None:
            choice = self._for_once(asked.qualifier, client)
        else:
            return asked
        if choice is None:
            return asked
        return asked.model_copy(update={"authority": choice.authority, "certificate_profile": choice.profile})

    def labels(self, authority: str | None, profile: str | None) -> tuple[str, str]:
        """What a person is shown of them."""
        registry = self._registry
        ca = registry.certification_authorities.get(authority or "") if registry is not None else None
        found = ca.profiles.get(profile or "") if ca is not None else None
        if ca is None or found is None:
            return authority or "", profile or ""
        return ca.label, found.label

    def _for_creation(self, wish: CertificateWish, client: Client) -> CertificateChoice:
        registry = self._registry
        if registry is None:
            raise refused("is of a type that is not supported")
        if not registry.extension and (wish.authority or wish.profile):
            raise refused("has members that are not supported")
        try:
            return choose(wish, _offer(registry, client))
        except RakkanError as refusal:
            if refusal.code is Code.AUTHORITY_FORBIDDEN:
                raise Refusal("access_denied", "The certification authority is not open to this client") from None
            raise refused(f"leads to no certification authority and profile: {refusal.code}") from None

    def _for_once(self, qualifier: str, client: Client) -> CertificateChoice | None:
        """None when the qualifier means no such thing: then there is a credential to choose."""
        registry = self._registry
        if registry is None:
            return None
        try:
            return choose(CertificateWish(qualifier=qualifier), _offer(registry, client), short_term=True)
        except RakkanError:
            return None

    @property
    def _registry(self) -> Registry | None:
        return None if self._registries is None else self._registries.current


def _offer(registry: Registry, client: Client) -> Offer:
    """At the gateway, where the client's default service is the only one that is known here."""
    name = registry.defaults.clients.get(client.client_id)
    service = registry.services.get(name) if name is not None else None
    if service is None:
        return offer_of(registry, client.tenant_id)
    own = () if service.certification_authority is None else (service.certification_authority,)
    return offer_of(
        registry,
        client.tenant_id,
        visible=tuple(dict.fromkeys((*own, *service.visible_authorities))) or None,
        authority=service.certification_authority,
        profile=service.certificate_profile,
    )

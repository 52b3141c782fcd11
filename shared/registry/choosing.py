"""Which CA and which of its profiles a new certificate is of, when a request names them in part. Rules only, no I/O.

The signer's page and the partners' door must come to the same answer, so both ask here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shared.errors import Code, RakkanError
from shared.registry.model import CertificateProfile, CertificationAuthority, Registry


@dataclass(frozen=True, slots=True)
class CertificateWish:
    """What a request names. Nothing at all is a wish for the default."""

    authority: str | None = None
    profile: str | None = None
    policy: str | None = None
    """An OID: `certificatePolicy` (CSC 2.2)."""
    qualifier: str | None = None
    """`signatureQualifier`."""


@dataclass(frozen=True, slots=True)
class CertificateChoice:
    authority: str
    profile: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a caller may choose from, and what it gets when it does not choose."""

    authorities: Mapping[str, CertificationAuthority]
    default: CertificateChoice | None
    foreign: frozenset[str] = frozenset()
    """CAs there are, and not for this caller: it is told so."""


def offer_of(
    registry: Registry,
    tenant_id: str,
    *,
    visible: tuple[str, ...] | None = None,
    authority: str | None = None,
    profile: str | None = None,
) -> Offer:
    """For a tenant, through a virtual service that shows `visible` and whose own choice comes before the default."""
    authorities = registry.certification_authorities
    shown = {name: ca for name, ca in authorities.items() if visible is None or name in visible}
    open_to = {name: ca for name, ca in shown.items() if ca.serves(tenant_id)}
    name = authority or registry.defaults.certification_authority
    default = None
    if name in open_to:
        own = profile if authority is not None else None
        default = CertificateChoice(name, own or open_to[name].default_profile)
    return Offer(open_to, default, frozenset(shown) - frozenset(open_to))


def choose(wish: CertificateWish, offer: Offer, *, short_term: bool = False) -> CertificateChoice:
    """The one CA and profile that the wish leads to, else AUTHORITY_*, PROFILE_UNKNOWN, POLICY_ or QUALIFIER_UNKNOWN.

    A profile decides, then a CA with a policy, a policy, a qualifier, and last the default. What is not decided by the
    request is decided by the default, where that is among what is left; a guess is never made.
    """
    if wish.authority is not None and wish.authority not in offer.authorities:
        is_foreign = wish.authority in offer.foreign
        raise RakkanError(Code.AUTHORITY_FORBIDDEN if is_foreign else Code.AUTHORITY_UNKNOWN, wish.authority)
    left = [
        (CertificateChoice(name, profile_name), profile)
        for name, ca in offer.authorities.items()
        for profile_name, profile in ca.profiles.items()
        if profile.short_term is short_term and wish.authority in (None, name)
    ]
    steps: tuple[tuple[str | None, Code, Callable[[CertificateChoice, CertificateProfile], bool]], ...] = (
        (wish.profile, Code.PROFILE_UNKNOWN, lambda choice, _: choice.profile == wish.profile),
        (wish.policy, Code.POLICY_UNKNOWN, lambda _, profile: wish.policy in profile.policies),
        (wish.qualifier, Code.QUALIFIER_UNKNOWN, lambda _, profile: profile.signature_qualifier == wish.qualifier),
    )
    undecided = Code.AUTHORITY_UNKNOWN
    for named, code, fits in steps:
        if named is None:
            continue
        left = [(choice, profile) for choice, profile in left if fits(choice, profile)]
        undecided = code if undecided is Code.AUTHORITY_UNKNOWN else undecided
        if not left:
            raise RakkanError(code, f"nothing there fits {named}")
    choices = [choice for choice, _ in left]
    for likely in (offer.default, *_defaults_of(choices, offer)):
        if likely in choices:
            return likely
    if len(choices) == 1:
        return choices[0]
    raise RakkanError(undecided, f"{len(choices)} profiles fit, and none of them is the default")


def _defaults_of(choices: list[CertificateChoice], offer: Offer) -> tuple[CertificateChoice, ...]:
    """Of a single CA its own default; of several, what the default CA has."""
    names = {choice.authority for choice in choices}
    if len(names) == 1:
        return tuple(CertificateChoice(name, offer.authorities[name].default_profile) for name in names)
    default = offer.default.authority if offer.default is not None else None
    of_default = tuple(choice for choice in choices if choice.authority == default)
    return of_default if len(of_default) == 1 else ()

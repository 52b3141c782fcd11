"""What may be ordered at which CA, for whom, as the registry has it now. Rules only, no I/O."""

from datetime import datetime
from typing import Protocol

from services.sam import certificates
from services.sam.rows import Signer
from shared.algorithms import KeyAlgorithm, Profile, check_key_allowed
from shared.errors import Code, RakkanError
from shared.registry import CertificateProfile, CertificationAuthority, Registry


class Registries(Protocol):
    """Whoever holds the registry: `current` is the one in use at this moment."""

    @property
    def current(self) -> Registry: ...


def find_profile(registry: Registry, authority: str, profile: str) -> tuple[CertificationAuthority, CertificateProfile]:
    """The CA and its profile; AUTHORITY_UNKNOWN or PROFILE_UNKNOWN."""
    ca = registry.certification_authorities.get(authority)
    if ca is None:
        raise RakkanError(Code.AUTHORITY_UNKNOWN, f"no certification authority {authority} in the registry")
    if profile not in ca.profiles:
        raise RakkanError(Code.PROFILE_UNKNOWN, f"{authority} has no profile {profile}")
    return ca, ca.profiles[profile]


def check_may_order(
    registry: Registry,
    *,
    authority: str,
    profile: str,
    signer: Signer,
    key_algorithm: KeyAlgorithm,
    algorithms: Profile,
    now: datetime,
) -> CertificateProfile:
    """The profile, when this signer may have a certificate of it on such a key now.

    AUTHORITY_UNKNOWN, AUTHORITY_FORBIDDEN (another tenant's), AUTHORITY_UNAVAILABLE (in maintenance), PROFILE_UNKNOWN
    (also: for another kind of subject), SIGN_ALGORITHM_REFUSED.
    """
    ca, found = find_profile(registry, authority, profile)
    if not ca.serves(signer.tenant_id):
        raise RakkanError(Code.AUTHORITY_FORBIDDEN, f"{authority} does not serve {signer.tenant_id}")
    if ca.status != "available":
        raise RakkanError(Code.AUTHORITY_UNAVAILABLE, f"{authority} takes no orders: {ca.status}")
    certificates.subject_of(signer, found)
    if key_algorithm not in found.key_algorithms:
        raise RakkanError(Code.SIGN_ALGORITHM_REFUSED, f"{authority}/{profile} certifies no {key_algorithm} keys")
    check_key_allowed(key_algorithm, algorithms, now=now)
    return found

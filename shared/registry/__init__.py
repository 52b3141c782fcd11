"""The trust services this RSSP works with: which CAs, which TSAs, and which of them a virtual service offers.

`model` says what stands in the registry, `signing` who must have signed it, `source` how a room holds it.
"""

from shared.registry.model import (
    CertificateProfile,
    CertificationAuthority,
    Registry,
    TimeStampingAuthority,
    VirtualService,
)
from shared.registry.source import RegistrySource

__all__ = [
    "CertificateProfile",
    "CertificationAuthority",
    "Registry",
    "RegistrySource",
    "TimeStampingAuthority",
    "VirtualService",
]

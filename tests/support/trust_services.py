"""A registry of trust services for tests: two CAs, two TSAs, virtual services over them, and one tenant of its own."""

from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from shared.registry import Registry
from tests.support.certificates import authority

ANCHOR = authority("An anchor").certificate.public_bytes(Encoding.PEM).decode()
POLICY = "2.999.3161.1"


def certification_authority(label: str, **changes: Any) -> dict[str, Any]:
    return {
        "label": label,
        "protocol": "cmp",
        "anchors": [ANCHOR],
        "profiles": {"signing": {"label": "Signing", "policies": ["0.4.0.194112.1.2"]}, "seal": {"label": "Seal"}},
        "default_profile": "signing",
    } | changes


def time_stamping_authority(label: str, **changes: Any) -> dict[str, Any]:
    return {
        "label": label,
        "url": "https://tsa.example/",
        "anchors": [ANCHOR],
        "policies": [POLICY],
        "classes": [{"name": "standard", "since": "2020-01-01"}],
    } | changes


def registry_of(**changes: Any) -> Registry:
    """`changes` replace whole members."""
    members: dict[str, Any] = {
        "version": 1,
        "certification_authorities": {
            "blue": certification_authority("Blue CA"),
            "red": certification_authority("Red CA"),
            "hidden": certification_authority("Rival's CA", tenants=["rival"]),
        },
        "time_stamping_authorities": {
            "clock-1": time_stamping_authority("First clock"),
            "clock-2": time_stamping_authority("Second clock"),
            "hidden-clock": time_stamping_authority(
                "Rival's clock", tenants=["rival"], classes=[{"name": "gold", "since": "2020-01-01"}]
            ),
        },
        "services": {
            "shop": {
                "label": "The shop",
                "description": "Signatures for the shop",
                "certification_authority": "blue",
                "certificate_profile": "seal",
                "timestamps": {"authority": "clock-2"},
            },
            "both": {"label": "Both", "certification_authority": "blue", "visible_authorities": ["red"]},
            "classy": {"label": "Classy", "timestamps": {"assurance_class": "standard"}},
            "private": {"label": "Private", "tenants": ["rival"]},
            "clock": {
                "label": "A clock",
                "tenants": ["t1"],
                "timestamps": {"assurance_class": "standard"},
                "timestamp_networks": ["127.0.0.0/8", "2001:db8::/32"],
            },
        },
        "defaults": {"certification_authority": "red", "clients": {"acme-old": "shop"}},
    }
    return Registry.model_validate(members | changes)

"""The registry of trust services of the local stack: its own CA and TSAs, signed by its two officers.

In production officers write and sign it; see docs/operating/README.md.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.account import Account
from deploy.local.keys import OFFICERS, Keys
from deploy.local.tsa import OTHER_POLICY, POLICY
from shared.registry.signing import sign
from shared.trust import SigningKey

CLASS = "standard"
MACHINES = "machines"
"""The virtual service whose plain RFC 3161 endpoint takes programs of this machine, in the name of the tenant."""
TENANT = "demo"
TSAS = {"local": "Rakkan local TSA", "second": "Rakkan second TSA"}
"""Name in the registry to label. Both stand in the same class; the first is the cheaper and so the one asked."""


class LocalRegistry:
    """`write` puts a registry in use: rooms that run take it up by themselves."""

    def __init__(self, run_folder: Path, keys: Keys, account: Account) -> None:
        self._keys = keys
        self._account = account
        self.file = run_folder / "registry.json"
        self.signatures_file = run_folder / "registry.json.sig"

    def settings(self, room: str) -> dict[str, str]:
        return {
            "RAKKAN_REGISTRY__FILE": str(self.file),
            "RAKKAN_REGISTRY__SIGNATURES_FILE": str(self.signatures_file),
            "RAKKAN_REGISTRY__SECRETS_FOLDER": str(self._keys.registry_secrets_folder(room)),
            # Who tries things out waits for them.
            "RAKKAN_REGISTRY__RELOAD_S": "1",
        }

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        return found

    def write(self, registry: Mapping[str, Any]) -> None:
        """With the next version, unless it says what the present one says."""
        present = self.read()
        version = present.pop("version", 0)
        if present == registry:
            return
        text = json.dumps({"version": version + 1, **registry}, indent=2, ensure_ascii=False) + "\n"
        signatures = b"[]"
        for officer in OFFICERS:
            signatures = sign(text.encode(), SigningKey.load(self._keys.officer_key_file(officer)).key, signatures)
        self._account.write(self.file, text, mode=0o644)
        self._account.write(self.signatures_file, signatures.decode(), mode=0o644)


@dataclass(frozen=True)
class LocalTSA:
    name: str
    label: str
    url: str
    anchors_file: Path


def local_registry(*, ca_anchor: Path, tsas: Iterable[LocalTSA], ca_url: str | None = None) -> dict[str, Any]:
    """One CA and two TSAs: what a newcomer's stack has. `ca_url` is where the CA publishes its CRL."""
    tsas = tuple(tsas)
    return {
        "certification_authorities": {
            "local": {
                "label": "Rakkan local CA",
                "protocol": "local",
                "connection": local_connection(ca_url) if ca_url else {},
                "anchors": [ca_anchor.read_text()],
                # In the same room: what takes longer will not come.
                "timeout_s": 5,
                "profiles": {
                    "signing": {
                        "label": "Document signing",
                        "validity_days_max": 365,
                        "policies": ["2.999.3647.1"],
                        "key_algorithms": ["p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096", "ed25519"],
                    }
                },
                "default_profile": "signing",
            }
        },
        "time_stamping_authorities": {tsa.name: _tsa(tsa, cost=cost) for cost, tsa in enumerate(tsas, start=1)},
        "services": {
            MACHINES: {
                "label": "Time-stamps for programs that know RFC 3161 alone",
                "tenants": [TENANT],
                "timestamps": {"assurance_class": CLASS},
                "timestamp_networks": ["127.0.0.0/8", "::1/128"],
            },
            **{f"clock-{tsa.name}": _service(tsa) for tsa in tsas},
        },
        "defaults": {"certification_authority": "local", "timestamps": {"assurance_class": CLASS}},
    }


def _service(tsa: LocalTSA) -> dict[str, Any]:
    return {"label": f"Time-stamps of {tsa.label} alone", "timestamps": {"authority": tsa.name}}


def local_connection(ca_url: str) -> dict[str, str]:
    """Of the CA `local`, whose room publishes at this address."""
    return {"crl_url": f"{ca_url}/crl/local.crl", "issuer_url": f"{ca_url}/ca/local.cer"}


def _tsa(tsa: LocalTSA, *, cost: int) -> dict[str, Any]:
    return {
        "label": tsa.label,
        "url": tsa.url,
        "anchors": [tsa.anchors_file.read_text()],
        "check_revocation": False,
        "classes": [{"name": CLASS, "since": "2026-01-01"}],
        "policies": [POLICY, OTHER_POLICY],
        "default_policy": POLICY,
        "accuracy_max_ms": 1000,
        "cost": cost,
    }

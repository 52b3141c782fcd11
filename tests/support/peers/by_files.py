"""A certification authority that is the openssl program and a desk: a file of requests comes, certificates leave."""

import json
import secrets
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.support.by_hand import ByHand
from tests.support.peers import Lack
from tests.support.peers.running import write_secrets


class OpenSSLByFiles:
    name = "openssl-by-files"
    lacks: frozenset[Lack] = frozenset({Lack.REVOCATION})
    """Its people revoke, and keep no list of it here."""

    def start(self, folder: Path) -> None:
        self.desk = ByHand(folder)
        self.secrets = write_secrets(folder / "secrets")

    def stop(self) -> None:
        """Nothing of it runs."""

    def entry(self) -> dict[str, Any]:
        return {
            "label": "Example CA by files",
            "protocol": "manual",
            "anchors": [self.desk.root],
            "profiles": {"signing": {"label": "Document signing", "issuance": "external", "validity_days_max": 30}},
            "default_profile": "signing",
        }

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        raise NotImplementedError(f"{certificate.serial_number}: {Lack.REVOCATION}")

    def certify(self, bundle: Path) -> list[Path]:
        """Certificates for all requests of an exported bundle, and that of the issuing CA."""
        requests = [json.loads(one["request"]) for one in json.loads(bundle.read_text())["requests"]]
        names = [f"{secrets.token_hex(4)}.pem" for _ in requests]
        issued = [self.desk.issue(one["csr"].encode(), name) for one, name in zip(requests, names, strict=True)]
        return [*issued, self.desk.issuing]

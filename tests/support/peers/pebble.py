"""Pebble, the ACME server that the people of Let's Encrypt test clients with: it refuses good nonces on purpose.

It certifies domains alone and drops the subject of a request, so that no signer's certificate comes of it: what it is
good for is the protocol. It has its own tests (tests/interop/test_acme.py) and stands not in the common body.
"""

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.local.program import wait_until
from tests.support.est_server import Maker, certify_web_server
from tests.support.peers.environments import program as path_of
from tests.support.peers.running import free_port, program, write_secrets

BINDING = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
_ENVIRONMENT = {
    "PEBBLE_VA_NOSLEEP": "1",
    "PEBBLE_WFE_NONCEREJECT": "30",
    "PEBBLE_ALTERNATE_ROOTS": "1",
    "PEBBLE_AUTHZREUSE": "0",
}


def account_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class Pebble:
    def __init__(self, *, believes_every_challenge: bool = True) -> None:
        self.environment = _ENVIRONMENT | ({"PEBBLE_VA_ALWAYS_VALID": "1"} if believes_every_challenge else {})

    def start(self, folder: Path) -> None:
        path = path_of("pebble", package="pebble")
        folder.mkdir(exist_ok=True)
        root = Maker("Example web root")
        certify_web_server(folder / "web.pem", root)
        self.anchor = root.certificate.public_bytes(Encoding.PEM).decode()
        self.secrets = write_secrets(
            folder / "secrets", account=account_key(), another=account_key(), binding=BINDING, wrong="A" * 43
        )
        port, self.management = free_port(), free_port()
        self.directory = f"https://127.0.0.1:{port}/dir"
        nowhere = free_port()
        configuration = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": "web.pem",
            "privateKey": "web.pem",
            "httpPort": nowhere,
            "tlsPort": nowhere,
            "externalAccountBindingRequired": True,
            "externalAccountMACKeys": {"kid-1": BINDING},
        }
        (folder / "configuration.json").write_text(json.dumps({"pebble": configuration}))
        self.program = program("pebble", folder)
        self.program.start(
            [path, "-config", "configuration.json", "-dnsserver", f"127.0.0.1:{nowhere}"],
            self.environment,
            folder=folder,
        )
        self.http = httpx.Client(verify=ssl.create_default_context(cadata=self.anchor), trust_env=False)
        wait_until(self._answers, self.program, timeout_s=20)

    def stop(self) -> None:
        self.http.close()
        self.program.stop()

    def entry(self, *, root: int = 0) -> dict[str, Any]:
        return {
            "label": "Example CA on Pebble",
            "protocol": "acme",
            "connection": {
                "directory": self.directory,
                "account_key": "account",
                "binding_key_id": "kid-1",
                "binding_key": "binding",
                "tls_anchors": [self.anchor],
            },
            "anchors": [self.pem(f"roots/{root}")],
            "profiles": {"signing": {"label": "A domain"}},
            "default_profile": "signing",
        }

    def pem(self, path: str) -> str:
        return self.http.get(f"https://127.0.0.1:{self.management}/{path}").text

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        return '"Revoked"' in self.pem(f"cert-status-by-serial/{certificate.serial_number:x}")

    def _answers(self) -> bool:
        try:
            return self.http.get(self.directory).is_success
        except httpx.HTTPError:
            return False

"""A certification authority that is not ours, beside the local stack: cfssl, where it is installed, and what names it.

Its key and its secret are made for this stack and lie in its folder. It shows that the suite works with more than one
CA; nobody should trust what it signs.
"""

import json
import secrets
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.local.ports import answers
from deploy.local.program import StackError
from deploy.local.stack import Stack

NAME = "cfssl"
"""Of the CA in the registry, and of the virtual service whose credentials come from it."""
LOCAL_SERVICE = "local-ca"
PACKAGE = "golang-cfssl"
_PORT = "cfssl http"
_SECRET = "cfssl-key"  # noqa: S105 - the name of a secret
_LIFETIME = timedelta(days=3650)
_START_S = 20.0


class ForeignCA:
    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._account = stack.rooms.account
        self.folder = stack.folder / NAME
        self.anchors_file = self.folder / "ca.pem"

    @staticmethod
    def is_installed() -> bool:
        return shutil.which("cfssl") is not None

    def start(self) -> None:
        """Made when it is not there yet, running, and in the registry that the rooms take up by themselves."""
        program = self._stack.rooms.foreign_ca
        if not self.anchors_file.exists():
            self._make()
        if not program.running():
            self._stack.ports.renew([_PORT])
            port = str(self._stack.ports[_PORT])
            argv = [shutil.which("cfssl") or "cfssl", "serve", "-address", "127.0.0.1", "-port", port]
            argv += ["-ca", "ca.pem", "-ca-key", "ca.key", "-config", "configuration.json"]
            program.start(argv, {"PATH": "/usr/bin:/bin"}, folder=self.folder)
        deadline = time.monotonic() + _START_S
        while not answers(self._stack.ports[_PORT]):
            program.check_running()
            if time.monotonic() > deadline:
                raise StackError(f"cfssl does not answer after {_START_S:.0f} s.\n{program.log_tail()}")
            time.sleep(0.05)
        self._register()

    def _make(self) -> None:
        """ca.pem last: what is half made is made again."""
        self._account.folder(self.folder)
        key = ec.generate_private_key(ec.SECP256R1())
        shared = secrets.token_hex(16)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        self._account.write(self.folder / "ca.key", private)
        # It knows contentCommitment by no other spelling.
        profile = {"usages": ["content committment"], "expiry": "2160h", "auth_key": "ra"}
        configuration = {
            "signing": {"default": profile, "profiles": {"docsign": profile}},
            "auth_keys": {"ra": {"type": "standard", "key": shared}},
        }
        self._account.write(self.folder / "configuration.json", json.dumps(configuration))
        secrets_folder = self._stack.keys.registry_secrets_folder("ca_connector")
        self._account.write(self._account.folder(secrets_folder) / _SECRET, shared)
        certificate = _root(key).public_bytes(serialization.Encoding.PEM)
        self._account.write(self.anchors_file, certificate, mode=0o644)

    def _register(self) -> None:
        """The CA, and a virtual service for each: what a client chooses by its base URL alone."""
        registry = self._stack.rooms.registry.read()
        registry.pop("version", None)
        registry.setdefault("certification_authorities", {})[NAME] = self._entry()
        services = registry.setdefault("services", {})
        services[NAME] = {"label": "Certificates of another CA", "certification_authority": NAME}
        services[LOCAL_SERVICE] = {"label": "Certificates of our own CA", "certification_authority": "local"}
        self._stack.rooms.registry.write(registry)

    def _entry(self) -> dict[str, Any]:
        return {
            "label": "A CA on cfssl",
            "protocol": "cfssl",
            "connection": {
                "url": f"http://127.0.0.1:{self._stack.ports[_PORT]}",
                "key": _SECRET,
                "authority_key_id": "empty",
            },
            "anchors": [self.anchors_file.read_text()],
            "profiles": {
                "signing": {"label": "Document signing", "ca_profile": "docsign", "validity_days_max": 90},
            },
            "default_profile": "signing",
        }


def _root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cfssl demonstration CA")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def anchors_of(stack: Stack, service: str) -> Path:
    """What a signature through this virtual service leads to."""
    return ForeignCA(stack).anchors_file if service == NAME else stack.rooms.anchors_file

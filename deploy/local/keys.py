"""Every secret of the local stack, each in a file of its own, and the trust bundle with the public halves.

In production an operator makes these and mounts them; see docs/operating/README.md.
"""

import base64
import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deploy.local.account import Account
from deploy.local.softhsm import LABELS
from shared.messaging.topology import SENDERS
from shared.trust import Purpose, key_id_of

EPOCH = 1
OFFICERS = ("registrar", "auditor")
"""Who sign the local registry of trust services: two, as in production."""
_PRIVATE: dict[Purpose, Any] = {Purpose.MESSAGES: Ed25519PrivateKey, Purpose.SEALING: X25519PrivateKey}


class Keys:
    """`folder(room)` holds what is that room's. Made once; a second `make` adds only what is missing."""

    def __init__(self, run_folder: Path, account: Account) -> None:
        self._root = run_folder / "secrets"
        self._account = account
        self._lock = threading.RLock()  # the parts of a stack start in threads, and each makes sure of its keys
        self.bundle_file = run_folder / "trust.json"

    def folder(self, sender: str) -> Path:
        return self._root / sender

    def key_file(self, sender: str, purpose: Purpose) -> Path:
        return self.folder(sender) / f"{purpose}.pem"

    def password_file(self, sender: str, of: str) -> Path:
        """`of` is `broker` or `database`."""
        return self.folder(sender) / f"{of}_password"

    def pin_file(self, room: str) -> Path:
        return self.folder(room) / "pin"

    def so_pin_file(self, room: str) -> Path:
        """Of the token's security officer; only ceremonies use it."""
        return self.folder(room) / "so_pin"

    def officer_key_file(self, officer: str) -> Path:
        return self._root / "officers" / f"{officer}.pem"

    def registry_secrets_folder(self, room: str) -> Path:
        """One file for each secret that the registry names."""
        return self.folder(room) / "registry"

    def secrets_key_file(self, room: str) -> Path:
        """Under which authentication keeps what it has to read again."""
        return self.folder(room) / "secrets_key"

    @property
    def administrator_password(self) -> str:
        return self._secret(self._root / "administrator_password")

    def password(self, sender: str, of: str) -> str:
        return self._secret(self.password_file(sender, of))

    def pin(self, room: str) -> str:
        return self._pin(self.pin_file(room))

    def so_pin(self, room: str) -> str:
        return self._pin(self.so_pin_file(room))

    def make(self) -> None:
        with self._lock:
            self._make()

    def _make(self) -> None:
        self._account.folder(self._root)
        for sender in SENDERS:
            self._account.folder(self.folder(sender))
            self.password(sender, "broker")
            self.password(sender, "database")
            if sender in LABELS:
                self.pin(sender)
                self.so_pin(sender)
        self._kept(self.secrets_key_file("authentication"), lambda: base64.b64encode(secrets.token_bytes(32)).decode())
        self._account.folder(self._root / "officers")
        for room in ("ca_connector", "tsa_connector"):
            self._account.folder(self.registry_secrets_folder(room))
        rooms = {sender: self._public_keys(sender) for sender in SENDERS}
        officers = {officer: [self._key(self.officer_key_file(officer), Ed25519PrivateKey)] for officer in OFFICERS}
        registry = {"signatures_min": len(OFFICERS), "officers": officers}
        bundle = json.dumps({"epoch": EPOCH, "rooms": rooms, "registry": registry}, indent=2) + "\n"
        self._account.write(self.bundle_file, bundle, mode=0o644)

    def _public_keys(self, sender: str) -> dict[str, list[dict[str, str]]]:
        extra = {"sam": [Purpose.ACTIVATIONS], "authentication": [Purpose.TOKENS]}.get(sender, [])
        return {
            purpose: [self._key(self.key_file(sender, purpose), _PRIVATE.get(purpose, Ed25519PrivateKey))]
            for purpose in (Purpose.MESSAGES, Purpose.SEALING, *extra)
        }

    def _key(self, file: Path, kind: Any) -> dict[str, str]:
        if not file.exists():
            new = kind.generate()
            self._account.write(file, new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key = load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey | X25519PrivateKey):
            raise TypeError(f"{file} holds another kind of key")
        public = key.public_key()
        raw = base64.b64encode(public.public_bytes_raw()).decode()
        return {"key_id": key_id_of(public), "public_key": raw}

    def _secret(self, file: Path) -> str:
        return self._kept(file, lambda: secrets.token_urlsafe(24))

    def _pin(self, file: Path) -> str:
        return self._kept(file, lambda: f"{secrets.randbelow(10**12):012d}")

    def _kept(self, file: Path, new: Callable[[], str]) -> str:
        with self._lock:
            if not file.exists():
                self._account.folder(self._root)
                self._account.folder(file.parent)
                self._account.write(file, new() + "\n")
            return file.read_text().rstrip("\n")

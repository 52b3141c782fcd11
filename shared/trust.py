"""Who is who between the rooms: the trust bundle with every room's public keys, and a room's own private keys.

The bundle is one JSON file, mounted read-only. Each purpose lists its keys, two while a key is being rotated; the first
is the one to use, all are accepted. `epoch` is raised after a restore from backup, which ends every older message,
authorization and activation.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import Code, RakkanError


class Purpose(StrEnum):
    """What a key may be used for. One key has one purpose."""

    MESSAGES = "messages"
    SEALING = "sealing"
    ACTIVATIONS = "activations"
    TOKENS = "tokens"


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key_id: str
    public_key: str
    """Raw 32 bytes in base64."""


class _Officers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    signatures_min: int = Field(default=2, ge=1)
    officers: dict[str, list[_Key]]


class _Bundle(BaseModel):
    model_config = ConfigDict(extra="forbid")

    epoch: int
    rooms: dict[str, dict[Purpose, list[_Key]]]
    registry: _Officers | None = None


@dataclass(frozen=True)
class RegistryOfficers:
    """The persons who sign the registry of trust services. A person with two keys is one person."""

    signatures_min: int
    keys: Mapping[str, Ed25519PublicKey]
    names: Mapping[str, str]
    """Key id to the officer's name."""


_NOBODY = RegistryOfficers(signatures_min=2, keys={}, names={})


@dataclass(frozen=True)
class Trust:
    """The bundle, loaded."""

    epoch: int
    verifying: Mapping[tuple[str, Purpose], Mapping[str, Ed25519PublicKey]]
    sealing: Mapping[str, X25519PublicKey]
    registry: RegistryOfficers = _NOBODY

    @classmethod
    def load(cls, file: Path) -> "Trust":
        bundle = _Bundle.model_validate_json(file.read_bytes())
        verifying: dict[tuple[str, Purpose], Mapping[str, Ed25519PublicKey]] = {}
        sealing: dict[str, X25519PublicKey] = {}
        for room, purposes in bundle.rooms.items():
            for purpose, keys in purposes.items():
                raw = {key.key_id: base64.b64decode(key.public_key, validate=True) for key in keys}
                if purpose is Purpose.SEALING:
                    sealing[room] = X25519PublicKey.from_public_bytes(next(iter(raw.values())))
                else:
                    verifying[room, purpose] = {
                        key_id: Ed25519PublicKey.from_public_bytes(key) for key_id, key in raw.items()
                    }
        return cls(epoch=bundle.epoch, verifying=verifying, sealing=sealing, registry=_officers(bundle.registry))

    def verifying_keys(self, room: str, purpose: Purpose) -> Mapping[str, Ed25519PublicKey]:
        """Key id to key; empty when the room has none of this purpose."""
        return self.verifying.get((room, purpose), {})

    def sealing_key(self, room: str) -> X25519PublicKey:
        try:
            return self.sealing[room]
        except KeyError:
            raise RakkanError(Code.FORBIDDEN, f"the trust bundle has no sealing key of {room}") from None


def _officers(officers: _Officers | None) -> RegistryOfficers:
    if officers is None:
        return _NOBODY
    keys: dict[str, Ed25519PublicKey] = {}
    names: dict[str, str] = {}
    for name, theirs in officers.officers.items():
        for key in theirs:
            keys[key.key_id] = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public_key, validate=True))
            names[key.key_id] = name
    return RegistryOfficers(signatures_min=officers.signatures_min, keys=keys, names=names)


@dataclass(frozen=True)
class SigningKey:
    """A private key with the id under which the bundle lists its public half."""

    key_id: str
    key: Ed25519PrivateKey

    @classmethod
    def load(cls, file: Path) -> "SigningKey":
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(f"{file} holds no Ed25519 private key")
        return cls(key_id=key_id_of(key.public_key()), key=key)


def load_sealing_key(file: Path) -> X25519PrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, X25519PrivateKey):
        raise TypeError(f"{file} holds no X25519 private key")
    return key


def key_id_of(key: Ed25519PublicKey | X25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes_raw())
    return digest.finalize().hex()[:16]

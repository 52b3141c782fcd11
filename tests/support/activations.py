"""A SAM for tests of the SVG: it signs activations and seals shares, honest ones and others."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared.activation import Activation, Use, sign_activation
from shared.algorithms import Family, Hash, KeyAlgorithm, Profile, Scheme
from shared.contracts.svg import DestroyKey, GenerateKey, SignDigests
from shared.sealing import Secrets, seal
from shared.trust import Purpose, SigningKey, Trust, key_id_of

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SCHEMES = {Family.EC: Scheme.ECDSA, Family.RSA: Scheme.RSA_PSS, Family.ED25519: Scheme.ED25519}


def signing_key() -> SigningKey:
    key = Ed25519PrivateKey.generate()
    return SigningKey(key_id_of(key.public_key()), key)


@dataclass
class SAM:
    """Signs what it is told to; `share` is the share of every key of this SAM."""

    epoch: int = 1
    key: SigningKey = field(default_factory=signing_key)
    svg_sealing_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    share: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    now: datetime = NOW

    @property
    def trust(self) -> Trust:
        return Trust(
            epoch=self.epoch,
            verifying={("sam", Purpose.ACTIVATIONS): {self.key.key_id: self.key.key.public_key()}},
            sealing={"svg": self.svg_sealing_key.public_key()},
        )

    def activation(self, **changes: Any) -> Activation:
        facts: dict[str, Any] = {
            "epoch": self.epoch,
            "use": Use.GENERATE,
            "operation_id": secrets.token_hex(8),
            "key_id": "key-1",
            "owner": "tenant/signer",
            "key_algorithm": KeyAlgorithm.P256,
            "profile": Profile.EU,
            "signatures_max": 10,
            "issued_at": self.now,
            "expires_at": self.now + timedelta(minutes=1),
        }
        return Activation(**(facts | changes))

    def to_sign(self, public_key: bytes, *messages: bytes, **changes: Any) -> Activation:
        """An activation for SHA-256 digests of the messages under one new authorization."""
        algorithm = changes.get("key_algorithm", KeyAlgorithm.P256)
        scheme = SCHEMES[algorithm.family]
        facts: dict[str, Any] = {
            "use": Use.SIGN,
            "public_key_hash": hashlib.sha256(public_key).digest(),
            "authorization_id": secrets.token_hex(8),
            "occurrences": tuple(range(len(messages))),
            "scheme": scheme,
            "hash": Hash.SHA256,
            "salt_bytes": 32 if scheme is Scheme.RSA_PSS else None,
            "digests": tuple(hashlib.sha256(message).digest() for message in messages),
        }
        return self.activation(**(facts | changes))

    def sealed(self, message: str, activation: Activation, share: bytes | None = None) -> bytes:
        text = base64.b64encode(self.share if share is None else share).decode()
        return seal(
            Secrets.of(share=text),
            to=self.svg_sealing_key.public_key(),
            message=message,
            subject=activation.operation_id,
        )

    def generate(self, activation: Activation) -> GenerateKey:
        return GenerateKey(
            activation=sign_activation(activation, self.key), share=self.sealed(GenerateKey.TYPE, activation)
        )

    def sign(self, activation: Activation, *, share: bytes | None = None) -> SignDigests:
        return SignDigests(
            activation=sign_activation(activation, self.key), share=self.sealed(SignDigests.TYPE, activation, share)
        )

    def destroy(self, activation: Activation) -> DestroyKey:
        return DestroyKey(activation=sign_activation(activation, self.key))

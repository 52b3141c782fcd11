"""A database and an HSM of the SVG for tests of its handlers: plain fields, and the rules the real ones obey."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from services.svg.checks import Key, Operation, content_hash_of
from services.svg.wrapping import KeyAttributes, NewKey, Wrapped, close_envelope, open_envelope, outer_secret_input
from shared.activation import Activation
from shared.algorithms import KeyAlgorithm, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.verification import verify_all


@dataclass
class FakeFinishing:
    operation: Operation
    store: "FakeStore"

    async def done(self, activation: Activation, values: tuple[bytes, ...], *, hsm_serial: str) -> None:
        assert hsm_serial
        self.store.operations[activation.operation_id] = replace(self.operation, state="done", values=values)
        self.store.leaves.append("key.used")


@dataclass
class FakeStore:
    keys: dict[str, Key] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    spent: set[tuple[str | None, int]] = field(default_factory=set)
    pooled: list[tuple[KeyAlgorithm, NewKey]] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)
    refusals: list[tuple[str, Code, bool]] = field(default_factory=list)
    down: bool = False

    async def key(self, key_id: str) -> Key | None:
        self._up()
        return self.keys.get(key_id)

    async def operation(self, operation_id: str) -> Operation | None:
        return self.operations.get(operation_id)

    async def intend(self, activation: Activation, token: bytes) -> Key | None:
        self._up()
        assert token
        key = self.keys.get(activation.key_id)
        if key is None or key.wrapped is None or activation.operation_id in self.operations:
            return None
        if key.attributes.owner != activation.owner:
            return None
        spends = {(activation.authorization_id, occurrence) for occurrence in activation.occurrences}
        if spends & self.spent:
            raise RakkanError(Code.ACTIVATION_SPENT)
        self.spent |= spends
        self.operations[activation.operation_id] = Operation(
            activation.operation_id, content_hash_of(activation), "intent"
        )
        return key

    async def try_again(self, activation: Activation) -> None:
        assert self.operations[activation.operation_id].state == "intent"
        self.leaves.append("key.use_repeated")

    @asynccontextmanager
    async def finishing(self, operation_id: str) -> AsyncIterator[FakeFinishing]:
        yield FakeFinishing(self.operations[operation_id], self)

    async def add_key(
        self, activation: Activation, token: bytes, attributes: KeyAttributes, public_key: bytes, wrapped: Wrapped
    ) -> bool:
        assert token
        if attributes.key_id in self.keys:
            return False
        self.keys[attributes.key_id] = Key(
            attributes, public_key, wrapped.wrapped, content_hash_of(activation), wrapped.resident
        )
        self.leaves.append("key.generated")
        return True

    @asynccontextmanager
    async def destroying(self, activation: Activation) -> AsyncIterator[Key | None]:
        key = self.keys.get(activation.key_id)
        yield key
        if key is not None and key.wrapped is not None:
            self.keys[activation.key_id] = replace(key, wrapped=None, resident=None)
            self.leaves.append("key.destroyed")

    async def take_pooled(self, algorithm: KeyAlgorithm, kek: str) -> NewKey | None:
        for entry in self.pooled:
            if entry[0] is algorithm and entry[1].kek == kek:
                self.pooled.remove(entry)
                return entry[1]
        return None

    async def count_pooled(self, algorithm: KeyAlgorithm, kek: str) -> int:
        return sum(entry[0] is algorithm and entry[1].kek == kek for entry in self.pooled)

    async def add_pooled(self, algorithm: KeyAlgorithm, new: NewKey) -> None:
        self.pooled.append((algorithm, new))

    async def refuse(self, event: str, activation: Activation | None, refusal: RakkanError) -> None:
        self.refusals.append((event, refusal.code, activation is not None))

    def _up(self) -> None:
        if self.down:
            raise RakkanError(Code.UNAVAILABLE)


@dataclass
class FakeToken:
    """P-256 only. `gone` and `wrong` are what an HSM can do to us."""

    serial: str = "fake-1"
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    uses: int = 0
    destroyed: list[bytes] = field(default_factory=list)
    resident: bool = False
    gone: bool = False
    wrong: bool = False

    async def generate(self, algorithm: KeyAlgorithm) -> NewKey:
        assert algorithm is KeyAlgorithm.P256
        key = ec.generate_private_key(ec.SECP256R1())
        inner = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return NewKey(public, inner, "kek-1")

    async def assign(self, new: NewKey, attributes: KeyAttributes, share: bytes) -> Wrapped:
        wrapped = close_envelope(new.inner, attributes, secret=self._secret(attributes.key_id), share=share)
        return Wrapped(wrapped, b"R1" if self.resident else None)

    async def sign(
        self, key: Key, share: bytes, algorithm: SignatureAlgorithm, digests: tuple[bytes, ...]
    ) -> tuple[bytes, ...]:
        if self.gone:
            raise RakkanError(Code.HSM_UNAVAILABLE)
        assert key.wrapped is not None
        inner = open_envelope(key.wrapped, key.attributes, secret=self._secret(key.attributes.key_id), share=share)
        self.uses += 1
        private = serialization.load_der_private_key(inner, None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        prehashed = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
        signed = digests[::-1] if self.wrong else digests
        values = tuple(private.sign(digest, prehashed) for digest in signed)
        verify_all(key.public_key, algorithm, digests, values)
        return values

    async def destroy(self, resident: bytes) -> None:
        self.destroyed.append(resident)

    def _secret(self, key_id: str) -> bytes:
        return hashlib.sha256(self.secret + outer_secret_input(key_id)).digest()

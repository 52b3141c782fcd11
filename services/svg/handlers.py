"""The story of each message the SVG takes: read, check, note the intent, use the HSM, record, answer."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.svg.checks import (
    Key,
    Operation,
    check_attributes,
    check_generating,
    check_key,
    check_same,
    check_signing,
    check_use,
)
from services.svg.wrapping import KeyAttributes, NewKey, Wrapped, share_of
from shared.activation import Activation, Use, read_activation
from shared.algorithms import KeyAlgorithm, SignatureAlgorithm
from shared.contracts.svg import (
    DestroyKey,
    GenerateKey,
    KeyDestroyed,
    KeyGenerated,
    SignatureValues,
    SignDigests,
)
from shared.errors import Code, RakkanError
from shared.sealing import Secrets, unseal
from shared.trust import Trust


class Finishing(Protocol):
    operation: Operation

    async def done(self, activation: Activation, values: tuple[bytes, ...], *, hsm_serial: str) -> None: ...


class Store(Protocol):
    async def key(self, key_id: str) -> Key | None: ...
    async def operation(self, operation_id: str) -> Operation | None: ...
    async def intend(self, activation: Activation, token: bytes) -> Key | None: ...
    async def try_again(self, activation: Activation) -> None: ...
    def finishing(self, operation_id: str) -> AbstractAsyncContextManager[Finishing]: ...
    async def add_key(
        self, activation: Activation, token: bytes, attributes: KeyAttributes, public_key: bytes, wrapped: Wrapped
    ) -> bool: ...
    def destroying(self, activation: Activation) -> AbstractAsyncContextManager[Key | None]: ...
    async def take_pooled(self, algorithm: KeyAlgorithm, kek: str) -> NewKey | None: ...
    async def refuse(self, event: str, activation: Activation | None, refusal: RakkanError) -> None: ...


class Token(Protocol):
    @property
    def serial(self) -> str: ...
    async def generate(self, algorithm: KeyAlgorithm) -> NewKey: ...
    async def assign(self, new: NewKey, attributes: KeyAttributes, share: bytes) -> Wrapped: ...
    async def sign(
        self, key: Key, share: bytes, algorithm: SignatureAlgorithm, digests: tuple[bytes, ...]
    ) -> tuple[bytes, ...]: ...
    async def destroy(self, resident: bytes) -> None: ...


@dataclass
class _Asked:
    """What is known of a message when it is refused."""

    activation: Activation | None = None


class Handlers:
    def __init__(
        self,
        *,
        store: Store,
        token: Token,
        trust: Trust,
        sealing_key: X25519PrivateKey,
        kek: str,
        now: Callable[[], datetime],
        began: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._token = token
        self._trust = trust
        self._sealing_key = sealing_key
        self._kek = kek
        self._now = now
        self._began = began

    async def sign_digests(self, request: SignDigests) -> SignatureValues:
        """Use a key as the activation says. No value leaves that is not verified and recorded."""
        async with self._refusals_noted("key.use_refused") as asked:
            activation = asked.activation = read_activation(request.activation, self._trust, now=self._now())
            check_signing(activation, now=self._now())
            share = share_of(self._unseal(request.share, SignDigests.TYPE, activation))
            key = await self._store.intend(activation, request.activation)
            if key is None:
                recorded = await self._seen_before(activation)
                if recorded.state == "done":
                    return SignatureValues(values=recorded.values)
                key = await self._store.key(activation.key_id)
            return await self._sign(activation, check_key(activation, key), share)

    async def _sign(self, activation: Activation, key: Key, share: bytes) -> SignatureValues:
        async with self._store.finishing(activation.operation_id) as finishing:
            # Another worker may have been faster with the same message: its value is the only one.
            if finishing.operation.state == "done":
                return SignatureValues(values=finishing.operation.values)
            values = await self._token.sign(key, share, activation.algorithm, activation.digests)
            await finishing.done(activation, values, hsm_serial=self._token.serial)
        return SignatureValues(values=values)

    async def _seen_before(self, activation: Activation) -> Operation:
        """The record of the same operation. Tried again without a value it signs the same digests, nothing else."""
        operation = await self._store.operation(activation.operation_id)
        if operation is None:
            check_key(activation, await self._store.key(activation.key_id))
            raise RakkanError(Code.UNAVAILABLE, "the key came up in this moment")
        check_same(activation, operation.content_hash)
        if operation.state == "intent":
            await self._store.try_again(activation)
        return operation

    async def generate_key(self, request: GenerateKey) -> KeyGenerated:
        """Make a key for its owner, or name the one this activation made before."""
        async with self._refusals_noted("key.generation_refused") as asked:
            activation = asked.activation = read_activation(request.activation, self._trust, now=self._now())
            check_generating(activation, now=self._now())
            share = share_of(self._unseal(request.share, GenerateKey.TYPE, activation))
            kept = await self._store.key(activation.key_id)
            if kept is None:
                kept = await self._generate(activation, request.activation, share)
            kept = check_key(activation, kept)
            check_same(activation, kept.content_hash)
            return KeyGenerated(
                key_id=activation.key_id, algorithm=activation.key_algorithm, public_key=kept.public_key
            )

    async def _generate(self, activation: Activation, token: bytes, share: bytes) -> Key | None:
        algorithm = activation.key_algorithm
        new = await self._store.take_pooled(algorithm, self._kek) or await self._token.generate(algorithm)
        attributes = KeyAttributes(
            key_id=activation.key_id,
            owner=activation.owner,
            kind=activation.kind,
            key_algorithm=algorithm,
            profile=activation.profile,
            signatures_max=activation.signatures_max,
            public_key_hash=hashlib.sha256(new.public_key).digest(),
            kek=new.kek,
        )
        wrapped = await self._token.assign(new, attributes, share)
        added = await self._store.add_key(activation, token, attributes, new.public_key, wrapped)
        if not added and wrapped.resident is not None:
            await self._token.destroy(wrapped.resident)
        return await self._store.key(activation.key_id)

    async def destroy_key(self, request: DestroyKey) -> KeyDestroyed:
        """Destroy the wrapped key. Without it and its share nothing can bring the private key back."""
        async with self._refusals_noted("key.destruction_refused") as asked:
            activation = asked.activation = read_activation(request.activation, self._trust, now=self._now())
            check_use(activation, Use.DESTROY)
            async with self._store.destroying(activation) as key:
                if key is None:
                    raise RakkanError(Code.KEY_UNKNOWN, "no such key")
                check_attributes(activation, key)
                if key.resident is not None:
                    await self._token.destroy(key.resident)
            return KeyDestroyed(
                key_id=activation.key_id,
                public_key_hash=hashlib.sha256(key.public_key).digest(),
                audit_reference=activation.operation_id,
            )

    def _unseal(self, sealed: bytes, message: str, activation: Activation) -> Secrets:
        return unseal(sealed, key=self._sealing_key, message=message, subject=activation.operation_id)

    @asynccontextmanager
    async def _refusals_noted(self, event: str) -> AsyncIterator[_Asked]:
        self._began()
        asked = _Asked()
        try:
            yield asked
        except RakkanError as refusal:
            # Without the database there is nowhere to note it, and nothing was decided either.
            if refusal.code is not Code.UNAVAILABLE:
                await self._store.refuse(event, asked.activation, refusal)
            raise

"""Authorizing and spending: the way of every signature through the SAM."""

import base64
import hashlib
import secrets as random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from services.sam import authorizations
from services.sam.access import Access, Presented
from services.sam.activating import Activator
from services.sam.authorizations import AuthorizedHash
from services.sam.rows import PASSKEY, Authorization, Credential, Signer
from services.sam.settings import Authorizations
from services.sam.store import Bound
from shared.algorithms import Hash, SignatureAlgorithm
from shared.audit import AuditWriter, digest_set_hash
from shared.contracts.base import Done, Request
from shared.contracts.sam import Authorize, Authorized, CheckFactor, ExtendAuthorization, Signed, SignHash
from shared.contracts.svg import SignatureValues, SignDigests
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.sealing import Secrets, seal
from shared.tokens import AccessToken


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer(self, signer_id: str) -> Signer: ...

    async def locked_authorization(self, connection: Connection, sad_hash: bytes) -> Authorization | None: ...

    async def locked_authorization_of_token(
        self, connection: Connection, authorization_id: str
    ) -> Authorization | None: ...

    async def hashes(self, connection: Connection, authorization_id: str) -> tuple[AuthorizedHash, ...]: ...

    async def add_authorization(self, connection: Connection, bound: Bound, *, waiting_max: int) -> None: ...

    async def replace_authorization(self, connection: Connection, authorization_id: str) -> None: ...

    async def activation(self, connection: Connection, operation_id: str) -> bytes | None: ...

    async def spend(
        self,
        connection: Connection,
        authorization: Authorization,
        occurrences: tuple[int, ...],
        *,
        operation_id: str,
        activation: bytes,
    ) -> None: ...


class Verifier(Protocol):
    async def verify(self, signer_id: str, secrets: Secrets, *, otp_required: bool) -> str: ...


class Bus(Protocol):
    async def ask(self, request: SignDigests) -> SignatureValues: ...


@dataclass(frozen=True)
class SigningHandlers:
    store: Store
    access: Access
    verifier: Verifier
    activator: Activator
    bus: Bus
    audit: AuditWriter
    gateway_key: X25519PublicKey
    limits: Authorizations
    epoch: int
    now: Callable[[], datetime]

    async def check_factor(self, request: CheckFactor) -> Done:
        """Say whether a factor of the credential can be asked for; TOTP needs nothing sent."""
        _, token = await self._caller(request, request.secrets, request.credential_id)
        credential = await self.access.credential(request.credential_id, token, authorities=request.authorities)
        signer = await self.store.signer(credential.signer_id)
        known = _factors(credential)
        if request.factor not in known:
            raise RakkanError(Code.FACTOR_UNKNOWN, f"the credential has {', '.join(known) or 'none'}")
        if request.factor == "PIN" and signer.pin_tries_left == 0:
            raise RakkanError(Code.PIN_LOCKED)
        if request.factor == "OTP" and signer.otp_tries_left == 0:
            raise RakkanError(Code.OTP_LOCKED)
        return Done()

    async def authorize(self, request: Authorize) -> Authorized:
        """Verify the signer's factors, and only then write down what they authorize."""
        now = self.now()
        secrets, token = await self._caller(request, request.secrets, request.credential_id)
        credential = await self.access.credential(request.credential_id, token, authorities=request.authorities)
        authorizations.check_by_factors(credential)
        authorizations.check_usable(credential, now=now)
        authorizations.check_wish(
            credential, signatures=request.signatures, digests=request.digests, hash_=request.hash
        )
        factors = await self.verifier.verify(credential.signer_id, secrets, otp_required=credential.otp_required)
        hashes = authorizations.listed(request.digests or (), request.hash)
        bound = self._bound(
            credential, token, request.signatures, hashes, is_bound=request.digests is not None, began_at=now, now=now
        )
        sad, bound = _with_sad(bound)
        async with self.store.transaction() as connection:
            await self.store.add_authorization(connection, bound, waiting_max=self.limits.waiting_max_per_credential)
            await self._note(connection, "authorization.made", bound.authorization, policy=f"SCAL1-pin {factors}")
        return self._authorized(request, sad, bound.authorization, now=now)

    async def extend(self, request: ExtendAuthorization) -> Authorized:
        """Carry what is left of an authorization over to a new SAD; the old one ends."""
        now = self.now()
        secrets, token = await self._caller(request, request.secrets, request.credential_id)
        credential = await self.access.credential(request.credential_id, token, authorities=request.authorities)
        authorizations.check_by_factors(credential)
        authorizations.check_extendable(credential)
        authorizations.check_usable(credential, now=now)
        async with self.store.transaction() as connection:
            current = authorizations.check_sad(
                await self.store.locked_authorization(connection, _sad_hash(secrets)),
                credential_id=request.credential_id,
                client_id=token.client_id,
                epoch=self.epoch,
                now=now,
            )
            left = current.signatures - current.used
            if current.replaced or left == 0:
                raise RakkanError(Code.SAD_INVALID, "nothing is left to extend")
            listed = await self._hashes(connection, current)
            hashes = _carried(credential, listed, request.digests or (), request.hash, left=left)
            bound = self._bound(
                credential,
                token,
                left,
                hashes,
                is_bound=current.bound or request.digests is not None,
                began_at=current.began_at,
                now=now,
            )
            sad, bound = _with_sad(bound)
            await self.store.replace_authorization(connection, current.authorization_id)
            await self.store.add_authorization(connection, bound, waiting_max=self.limits.waiting_max_per_credential)
            await self._note(connection, "authorization.extended", bound.authorization, policy="SCAL1-pin")
        return self._authorized(request, sad, bound.authorization, now=now)

    async def sign_hash(self, request: SignHash) -> Signed:
        """Spend the authorization, write down the activation, and only then let the key be used."""
        now = self.now()
        parties = await self.access.parties(
            request.secrets,
            message=request.TYPE,
            credential_id=request.credential_id,
            now=now,
            authorities=request.authorities,
        )
        credential = parties.credential
        presented = await self.access.presented(parties.secrets, parties.token, request.credential_id, now=now)
        authorizations.check_usable(credential, now=now)
        algorithm = SignatureAlgorithm(request.scheme, request.hash, request.salt_bytes)
        authorizations.check_request(credential, algorithm, request.digests)
        async with self.store.transaction() as connection:
            authorization = authorizations.check_sad(
                await self._authorization(connection, presented),
                credential_id=request.credential_id,
                client_id=parties.token.client_id,
                epoch=self.epoch,
                now=now,
            )
            operation_id = authorizations.operation_id(authorization.authorization_id, algorithm, request.digests)
            activation = await self.store.activation(connection, operation_id)
            if activation is None:
                activation = await self._spend(
                    connection, credential, parties.signer, authorization, algorithm, request.digests, operation_id
                )
        values = await self.bus.ask(
            SignDigests(
                activation=activation,
                share=self.activator.sealed_share(credential, message=SignDigests.TYPE, operation_id=operation_id),
            )
        )
        if len(values.values) != len(request.digests):
            raise RakkanError(Code.INTERNAL, "the SVG returned another number of values")
        return Signed(values=values.values, certificate=credential.chain[0])

    async def _spend(
        self,
        connection: Connection,
        credential: Credential,
        signer: Signer,
        authorization: Authorization,
        algorithm: SignatureAlgorithm,
        digests: tuple[bytes, ...],
        operation_id: str,
    ) -> bytes:
        listed = await self._hashes(connection, authorization) if authorization.bound else ()
        occurrences = authorizations.occurrences_to_spend(authorization, listed, digests, hash_=algorithm.hash)
        activation = self.activator.to_sign(
            credential, signer, authorization, occurrences, algorithm, digests, operation_id=operation_id
        )
        await self.store.spend(connection, authorization, occurrences, operation_id=operation_id, activation=activation)
        await self.audit.write(
            connection,
            "key.activated",
            actor_type="client",
            actor_id=authorization.client_id,
            tenant=credential.tenant_id,
            subject={
                "credential_id": credential.credential_id,
                "key_id": credential.key_id,
                "signer_id": credential.signer_id,
                "authorization_id": authorization.authorization_id,
                "operation_id": operation_id,
            },
            digest_set_hash=digest_set_hash(digests),
            sad_hash=_hex(authorization.sad_hash),
            token_hash=hashlib.sha256(activation).hexdigest(),
        )
        return activation

    async def _authorization(self, connection: Connection, presented: Presented) -> Authorization | None:
        if presented.authorization_id is not None:
            return await self.store.locked_authorization_of_token(connection, presented.authorization_id)
        return await self.store.locked_authorization(connection, presented.sad_hash or b"")

    async def _hashes(self, connection: Connection, authorization: Authorization) -> tuple[AuthorizedHash, ...]:
        """The authorized hashes, RECORD_DAMAGED unless they are those the authorization was sealed with."""
        listed = await self.store.hashes(connection, authorization.authorization_id)
        if authorizations.set_hash(listed) != authorization.digest_set_hash:
            raise RakkanError(Code.RECORD_DAMAGED, "the authorized hashes are not as the SAM wrote them")
        return listed

    async def _caller(
        self, request: Request[Authorized] | Request[Done], sealed: bytes, credential_id: str
    ) -> tuple[Secrets, AccessToken]:
        return await self.access.caller(sealed, message=request.TYPE, subject=credential_id, now=self.now())

    def _bound(
        self,
        credential: Credential,
        token: AccessToken,
        signatures: int,
        hashes: tuple[AuthorizedHash, ...],
        *,
        is_bound: bool,
        began_at: datetime,
        now: datetime,
    ) -> Bound:
        last = began_at + timedelta(seconds=self.limits.extended_lifetime_max_s)
        authorization = Authorization(
            authorization_id=random.token_hex(16),
            sad_hash=None,
            request_id=authorizations.request_id_of(credential, operation.current().message_id or random.token_hex(16)),
            credential_id=credential.credential_id,
            tenant_id=credential.tenant_id,
            client_id=token.client_id,
            signatures=signatures,
            bound=is_bound,
            digest_set_hash=authorizations.set_hash(hashes),
            epoch=self.epoch,
            began_at=began_at,
            expires_at=min(now + timedelta(seconds=self.limits.lifetime_s), last),
        )
        return Bound(authorization, hashes)

    def _authorized(
        self, request: Authorize | ExtendAuthorization, sad: str, authorization: Authorization, *, now: datetime
    ) -> Authorized:
        sealed = seal(Secrets.of(sad=sad), to=self.gateway_key, message=request.TYPE, subject=request.credential_id)
        return Authorized(sad=sealed, expires_in_s=int((authorization.expires_at - now).total_seconds()))

    async def _note(self, connection: Connection, event: str, authorization: Authorization, *, policy: str) -> None:
        await self.audit.write(
            connection,
            event,
            actor_type="client",
            actor_id=authorization.client_id,
            tenant=authorization.tenant_id,
            subject={
                "credential_id": authorization.credential_id,
                "authorization_id": authorization.authorization_id,
            },
            digest_set_hash=authorization.digest_set_hash.hex(),
            sad_hash=_hex(authorization.sad_hash),
            policy_id=policy,
        )


def _sad_hash(secrets: Secrets) -> bytes:
    if secrets.sad is None:
        raise RakkanError(Code.SAD_INVALID)
    return hashlib.sha256(secrets.sad.get_secret_value().encode()).digest()


def _with_sad(bound: Bound) -> tuple[str, Bound]:
    """A new SAD: 256 random bits, of which only the hash is kept."""
    sad = base64.urlsafe_b64encode(random.token_bytes(32)).decode().rstrip("=")
    sad_hash = hashlib.sha256(sad.encode()).digest()
    return sad, replace(bound, authorization=replace(bound.authorization, sad_hash=sad_hash))


def _factors(credential: Credential) -> tuple[str, ...]:
    if credential.assurance == PASSKEY:
        return ()
    return ("PIN", "OTP") if credential.otp_required else ("PIN",)


def _hex(value: bytes | None) -> str | None:
    return value.hex() if value is not None else None


def _carried(
    credential: Credential,
    listed: tuple[AuthorizedHash, ...],
    added: tuple[bytes, ...],
    hash_: Hash | None,
    *,
    left: int,
) -> tuple[AuthorizedHash, ...]:
    """What is still to be signed, and what is added. A credential linked to its hashes takes no new ones (CSC 11.8)."""
    unspent = [entry for entry in listed if entry.operation_id is None]
    known = [entry.digest for entry in unspent]
    new = [digest for digest in added if digest not in known]
    if new and credential.hashes_required:
        raise RakkanError(Code.HASH_NOT_AUTHORIZED, "the signer has not seen these hashes")
    if len(unspent) + len(new) > left:
        raise RakkanError(Code.TOO_MANY_SIGNATURES, f"{left} signatures are left")
    entries = [(entry.digest, entry.hash) for entry in unspent] + [(digest, hash_) for digest in new]
    return tuple(AuthorizedHash(index, digest, kind, None) for index, (digest, kind) in enumerate(entries))

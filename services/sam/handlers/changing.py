"""What a signer, or her tenant's client, does to a credential there is: renew, stop, end, certify by hand."""

import os
import secrets as random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from services.sam.access import Access
from services.sam.authorities import check_may_order, find_profile
from services.sam.authorizations import check_usable
from services.sam.chores import for_each
from services.sam.endings import OVER, end
from services.sam.handlers.enrolling import SHARE_BYTES, post_prepare
from services.sam.handlers.ordering import OrderingHandlers, new_order_id
from services.sam.rows import Credential, Signer, State
from shared.audit import AuditWriter
from shared.contracts.base import Done
from shared.contracts.issuance import (
    DELETION,
    InstallCertificate,
    IssuanceChecked,
    ReadRequest,
    RemoveCredential,
    RenewCredential,
    RequestRead,
    StopCredential,
)
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import outbox
from shared.tokens import AccessToken

SUSPENDED_ON_REQUEST = "suspended on request"


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer(self, signer_id: str, connection: "Connection | None" = None) -> Signer: ...

    async def credential(self, credential_id: str) -> Credential | None: ...

    async def locked_credential(self, connection: Connection, credential_id: str) -> Credential: ...

    async def superseding(self, connection: Connection, credential_id: str) -> Credential | None: ...

    async def add_credential(self, connection: Connection, credential: Credential) -> bool: ...

    async def change_credential(self, connection: Connection, credential: Credential) -> Credential: ...

    async def renewable(self, after: str, *, due: Sequence[tuple[str, str, int]], now: datetime) -> list[str]: ...


@dataclass(frozen=True)
class ChangingHandlers:
    store: Store
    access: Access
    ordering: OrderingHandlers
    audit: AuditWriter
    now: Callable[[], datetime]

    async def remove_credential(self, request: RemoveCredential) -> Done:
        """It stops with this commit; its key is destroyed and its certificate revoked, if wanted, by what follows."""
        token, found = await self._reached(
            request.secrets, request.TYPE, request.credential_id, request.authorities, scopes=frozenset({DELETION})
        )
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential(connection, found.credential_id)
            if credential.state in OVER:
                return Done()
            await end(
                self.store,
                connection,
                credential,
                ending="deleted",
                reason="deleted by its signer" if token.user_id else "deleted by a client",
                revoke_as=request.revoke_as,
            )
            asked = {} if request.revoke_as is None else {"revocation_reason": str(request.revoke_as)}
            await self._note(connection, "credential.ended", credential, token, **asked)
        return Done()

    async def stop_credential(self, request: StopCredential) -> Done:
        """Stop or resume. What the operator stopped, only the operator starts again."""
        token, found = await self._reached(request.secrets, request.TYPE, request.credential_id, request.authorities)
        async with self.store.transaction() as connection:
            credential = await self.store.locked_credential(connection, found.credential_id)
            wanted = State.SUSPENDED if request.stopped else State.ACTIVE
            if credential.state is wanted:
                return Done()
            if credential.state not in (State.ACTIVE, State.SUSPENDED):
                raise RakkanError(Code.CREDENTIAL_DISABLED, f"the credential is {credential.state}")
            if not request.stopped and credential.reason != SUSPENDED_ON_REQUEST:
                raise RakkanError(Code.CREDENTIAL_DISABLED, "suspended by somebody else")
            reason = SUSPENDED_ON_REQUEST if request.stopped else None
            await self.store.change_credential(connection, replace(credential, state=wanted, reason=reason))
            event = "credential.suspended" if request.stopped else "credential.resumed"
            await self._note(connection, event, credential, token)
        return Done()

    async def renew_credential(self, request: RenewCredential) -> IssuanceChecked:
        """Order a new certificate; until it is linked everything goes on as it is."""
        token, credential = await self._reached(
            request.secrets, request.TYPE, request.credential_id, request.authorities
        )
        return await self._renew(credential, rekey=request.rekey, token=token)

    async def renew_due(self) -> None:
        """By itself, as the profile of each certificate says."""
        now = self.now()
        due = [
            (name, profile_name, profile.renew_days_before)
            for name, ca in self.ordering.registries.current.certification_authorities.items()
            for profile_name, profile in ca.profiles.items()
            if profile.renew_days_before is not None
        ]
        if due:
            await for_each(lambda after: self.store.renewable(after, due=due, now=now), self._renew_due)

    async def _renew_due(self, credential_id: str) -> None:
        credential = await self.store.credential(credential_id)
        if credential is not None:
            registry = self.ordering.registries.current
            _, profile = find_profile(registry, credential.authority, credential.certificate_profile)
            await self._renew(credential, rekey=profile.rekey_on_renewal, token=None)

    async def read_request(self, request: ReadRequest) -> RequestRead:
        """For a CA that certifies by hand: the request, and the SAM's word that the key was made in the HSM."""
        _, credential = await self._reached(request.secrets, request.TYPE, request.credential_id, request.authorities)
        async with self.store.transaction() as connection:
            waiting = await self._waiting(connection, credential)
            signer = await self.store.signer(credential.signer_id, connection)
        if waiting.state in (State.REQUESTED, State.GENERATED) or waiting.csr is None:
            raise RakkanError(Code.ISSUANCE_PENDING, "its key is not made yet")
        order_id = waiting.renewal_id or waiting.order_id or waiting.credential_id
        origin = self.ordering.origin_of(waiting, signer, order_id=order_id)
        return RequestRead(csr=waiting.csr, origin=origin)

    async def install_certificate(self, request: InstallCertificate) -> Done:
        """Link what came by hand. It is checked as if a connector had delivered it."""
        token, found = await self._reached(request.secrets, request.TYPE, request.credential_id, request.authorities)
        registry = self.ordering.registries.current
        _, profile = find_profile(registry, found.authority, found.certificate_profile)
        if profile.issuance != "external":
            raise RakkanError(Code.CREDENTIAL_DISABLED, "its certificates come from the CA itself")
        async with self.store.transaction() as connection:
            waiting = await self._waiting(connection, found)
            if waiting.state is not State.ORDERED and waiting.renewal_id is None:
                raise RakkanError(Code.ISSUANCE_PENDING, "its key is not made yet")
            await self.ordering.install(connection, waiting, request.chain)
            await self._note(connection, "certificate.installed", found, token)
        return Done()

    async def _waiting(self, connection: Connection, credential: Credential) -> Credential:
        """The row that waits for a certificate: the credential's own (its first, or a renewal), or its next key's."""
        current = await self.store.locked_credential(connection, credential.credential_id)
        if current.state in (State.REQUESTED, State.GENERATED, State.ORDERED):
            return current
        if current.renewal_id is not None and current.state in (State.ACTIVE, State.SUSPENDED):
            return current
        next_key = await self.store.superseding(connection, credential.credential_id)
        if next_key is None:
            raise RakkanError(Code.CREDENTIAL_DISABLED, "it waits for no certificate")
        return next_key

    async def _renew(self, credential: Credential, *, rekey: bool, token: AccessToken | None) -> IssuanceChecked:
        now = self.now()
        check_usable(credential, now=now)
        if credential.one_time:
            raise RakkanError(Code.CREDENTIAL_DISABLED, "made for one authorization")
        signer = await self.store.signer(credential.signer_id)
        check_may_order(
            self.ordering.registries.current,
            authority=credential.authority,
            profile=credential.certificate_profile,
            signer=signer,
            key_algorithm=credential.key_algorithm,
            algorithms=credential.profile,
            now=now,
        )
        order = None
        renewal_id = new_order_id()
        if not rekey:
            order = await self.ordering.renewal(credential, signer, renewal_id)
        async with self.store.transaction() as connection:
            current = await self.store.locked_credential(connection, credential.credential_id)
            under_way = current.renewal_id or await self.store.superseding(connection, credential.credential_id)
            if under_way or current.version != credential.version:
                return IssuanceChecked(credential_id=credential.credential_id, state="pending")
            if order is not None:
                renewing = replace(current, renewal_id=renewal_id, csr=order.csr, reason=None)
                await self.store.change_credential(connection, renewing)
                await outbox.post(connection, order, message_id=f"order:{renewal_id}")
            else:
                await self._add_next_key(connection, current)
            await self._note(connection, "credential.renewing", current, token, kind="rekey" if rekey else "renewal")
        return IssuanceChecked(credential_id=credential.credential_id, state="pending")

    async def _add_next_key(self, connection: Connection, credential: Credential) -> None:
        key_id = random.token_hex(16)
        next_key = replace(
            credential,
            credential_id=f"k{random.token_hex(12)}",
            supersedes=credential.credential_id,
            state=State.REQUESTED,
            reason=None,
            key_id=key_id,
            share=self.ordering.activator.new_share(key_id, os.urandom(SHARE_BYTES)),
            public_key=None,
            order_id=None,
            csr=None,
            chain=(),
            certificate_status="none",
            not_after=None,
            version=1,
            status_checked_at=None,
        )
        await self.store.add_credential(connection, next_key)
        await post_prepare(connection, next_key.credential_id)

    async def _reached(
        self,
        sealed: bytes,
        message: str,
        credential_id: str,
        authorities: Sequence[str] | None,
        *,
        scopes: frozenset[str] = frozenset(),
    ) -> tuple[AccessToken, Credential]:
        _, token = await self.access.caller(
            sealed, message=message, subject=credential_id, now=self.now(), scopes=scopes
        )
        credential = await self.access.credential(credential_id, token, authorities=authorities)
        if credential.supersedes is not None:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        return token, credential

    async def _note(
        self, connection: Connection, event: str, credential: Credential, token: AccessToken | None, **more: str
    ) -> None:
        actor_type = "room" if token is None else "signer" if token.user_id else "client"
        await self.audit.write(
            connection,
            event,
            actor_type=actor_type,
            actor_id=token.client_id if token is not None else "sam",
            tenant=credential.tenant_id,
            subject=credential.audit_subject | more,
        )

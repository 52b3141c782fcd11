"""How a signer comes by an authenticator, logs in with it, sees what it approved, and is rid of it."""

import hashlib
import secrets as random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from services.sam import authenticators, contexts, evidence
from services.sam.evidence import RelyingParty
from services.sam.rows import Authenticator, Challenge, Signer, Ticket
from services.sam.settings import WebAuthn
from services.sam.store import Decided
from shared.audit import AuditWriter
from shared.contracts.approval import (
    AddAuthenticator,
    AuthenticatorAdded,
    AuthenticatorRow,
    Document,
    EnrollmentOpened,
    HistoryRow,
    IssueTicket,
    LoginOpened,
    OpenEnrollment,
    OpenLogin,
    PasskeyAssertion,
    ReadOverview,
    RemoveAuthenticator,
    SignerFound,
    SignerOverview,
    TicketIssued,
    VerifyLogin,
)
from shared.contracts.authentication import NoticeAuthenticator
from shared.contracts.base import Done
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.messaging import operation, outbox
from shared.sealing import Secrets, seal, unseal

_CHALLENGE_BYTES = 32
_TICKET_BYTES = 32


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def signer(self, signer_id: str, connection: "Connection | None" = None) -> Signer: ...

    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer: ...

    async def locked_signer(self, connection: Connection, signer_id: str) -> Signer: ...

    async def authenticators_of(
        self, signer_id: str, connection: "Connection | None" = None
    ) -> tuple[Authenticator, ...]: ...

    async def locked_authenticator(self, connection: Connection, authenticator_id: str) -> Authenticator | None: ...

    async def locked_passkey(self, connection: Connection, webauthn_id: bytes) -> Authenticator | None: ...

    async def add_authenticator(self, connection: Connection, authenticator: Authenticator) -> None: ...

    async def change_authenticator(self, connection: Connection, authenticator: Authenticator) -> None: ...

    async def note_use(self, connection: Connection, authenticator: Authenticator, *, sign_count: int) -> None: ...

    async def locked_challenge(self, connection: Connection, challenge_id: str) -> Challenge | None: ...

    async def add_challenge(self, connection: Connection, challenge: Challenge) -> None: ...

    async def spend_challenge(self, connection: Connection, challenge_id: str) -> None: ...

    async def ticket(self, connection: Connection, ticket_hash: bytes) -> Ticket | None: ...

    async def add_ticket(self, connection: Connection, ticket: Ticket) -> None: ...

    async def spend_ticket(self, connection: Connection, ticket_hash: bytes) -> None: ...

    async def decided(self, signer_id: str, *, limit: int) -> list[Decided]: ...


@dataclass(frozen=True)
class AuthenticatorHandlers:
    store: Store
    audit: AuditWriter
    party: RelyingParty
    rules: WebAuthn
    sealing_key: X25519PrivateKey
    operator_key: X25519PublicKey
    now: Callable[[], datetime]

    async def open_login(self, _: OpenLogin) -> LoginOpened:
        challenge = self._challenge(purpose="login")
        async with self.store.transaction() as connection:
            await self.store.add_challenge(connection, challenge)
        return LoginOpened(
            login_id=challenge.challenge_id, challenge=challenge.challenge, expires_at=challenge.expires_at
        )

    async def verify_login(self, request: VerifyLogin) -> SignerFound:
        """Say whose passkey answered. The challenge counts once."""
        now = self.now()
        async with self.store.transaction() as connection:
            challenge = authenticators.check_challenge(
                await self.store.locked_challenge(connection, request.login_id), purpose="login", now=now
            )
            authenticator = await self._verify(
                connection, request.passkey, challenge=challenge.challenge, signer_id=None, now=now
            )
            signer = await self.store.signer(authenticator.signer_id, connection)
            await self.store.spend_challenge(connection, challenge.challenge_id)
            await self._note(connection, "signer.logged_in", signer, authenticator_id=authenticator.authenticator_id)
        return _found(signer)

    async def issue_ticket(self, request: IssueTicket) -> TicketIssued:
        """Take the registration authority's word that this person is the signer, and write down that it gave it."""
        signer = await self.store.signer_of_user(request.tenant_id, request.user_id)
        text = random.token_urlsafe(_TICKET_BYTES)
        ticket = Ticket(
            ticket_hash=_ticket_hash(text),
            signer_id=signer.signer_id,
            expires_at=self.now() + timedelta(seconds=self.rules.ticket_lifetime_s),
        )
        async with self.store.transaction() as connection:
            await self.store.add_ticket(connection, ticket)
            await self._note(connection, "ticket.issued", signer, ticket_hash=ticket.ticket_hash.hex())
        sealed = seal(Secrets.of(ticket=text), to=self.operator_key, message=request.TYPE, subject=request.user_id)
        return TicketIssued(ticket=sealed, expires_at=ticket.expires_at)

    async def open_enrollment(self, request: OpenEnrollment) -> EnrollmentOpened:
        """Begin. A ticket is spent when the authenticator is added: who gives up half-way can begin again."""
        now = self.now()
        named = None
        if request.tenant_id is not None and request.user_id is not None:
            named = await self.store.signer_of_user(request.tenant_id, request.user_id)
        async with self.store.transaction() as connection:
            ticket = None
            if request.secrets is not None:
                ticket = authenticators.check_ticket(
                    await self.store.ticket(connection, self._opened_ticket(request)),
                    signer_id=named.signer_id if named else None,
                    now=now,
                )
                named = named or await self.store.signer(ticket.signer_id, connection)
            if named is None:
                raise RakkanError(Code.TICKET_REFUSED, "neither a ticket nor a signer")
            existing = await self.store.authenticators_of(named.signer_id, connection)
            approving: tuple[bytes, ...] = ()
            if ticket is None:
                approving = authenticators.webauthn_ids(authenticators.usable(existing, now=now))
                if not approving:
                    raise RakkanError(Code.AUTHENTICATOR_REQUIRED, "an addition is approved by a passkey")
            challenge = self._challenge(
                purpose="enrollment", signer_id=named.signer_id, ticket_hash=ticket.ticket_hash if ticket else None
            )
            await self.store.add_challenge(connection, challenge)
        return EnrollmentOpened(
            enrollment_id=challenge.challenge_id,
            challenge=challenge.challenge,
            signer=_found(named),
            user_handle=authenticators.user_handle(named.signer_id),
            exclude=authenticators.webauthn_ids(one for one in existing if one.removed_at is None),
            approving=approving,
            expires_at=challenge.expires_at,
        )

    async def add_authenticator(self, request: AddAuthenticator) -> AuthenticatorAdded:
        """Enrol what answered the challenge, by the ticket's or an older authenticator's right."""
        contexts.check_shown(request.label)
        now = self.now()
        async with self.store.transaction() as connection:
            challenge = authenticators.check_challenge(
                await self.store.locked_challenge(connection, request.enrollment_id), purpose="enrollment", now=now
            )
            by = await self._approve_addition(connection, request, challenge, now=now)
            # Locked, so that of two first ones at once only one is the first; after the authenticator that approves,
            # because an approval of hers takes the two in that order.
            signer = await self.store.locked_signer(connection, challenge.signer_id or "")
            existing = await self.store.authenticators_of(signer.signer_id, connection)
            authenticator = self._new(request, challenge, existing, now=now)
            await self.store.add_authenticator(connection, authenticator)
            await self.store.spend_challenge(connection, challenge.challenge_id)
            await self._note(
                connection,
                "authenticator.added",
                signer,
                authenticator_id=authenticator.authenticator_id,
                kind=authenticator.kind,
                public_key_hash=hashlib.sha256(authenticator.public_key).hexdigest(),
                **by,
            )
            await outbox.post(
                connection, _notice(authenticator, signer), message_id=f"notice:{authenticator.authenticator_id}"
            )
        return AuthenticatorAdded(
            authenticator_id=authenticator.authenticator_id, usable_from=authenticator.usable_from
        )

    async def remove_authenticator(self, request: RemoveAuthenticator) -> Done:
        """It approves nothing from this commit on, and does not come back."""
        signer = await self.store.signer_of_user(request.tenant_id, request.user_id)
        async with self.store.transaction() as connection:
            found = await self.store.locked_authenticator(connection, request.authenticator_id)
            if found is None or found.signer_id != signer.signer_id:
                raise RakkanError(Code.NOT_FOUND, "no such authenticator of this signer")
            if found.removed_at is not None:
                return Done()
            await self.store.change_authenticator(connection, replace(found, removed_at=self.now()))
            await self._note(connection, "authenticator.removed", signer, authenticator_id=found.authenticator_id)
        return Done()

    async def read_overview(self, request: ReadOverview) -> SignerOverview:
        signer = await self.store.signer_of_user(request.tenant_id, request.user_id)
        decided = await self.store.decided(signer.signer_id, limit=request.history_max)
        return SignerOverview(
            authenticators=tuple(
                AuthenticatorRow(
                    authenticator_id=one.authenticator_id,
                    label=one.label,
                    kind=one.kind,
                    added_at=one.added_at,
                    usable_from=one.usable_from,
                    removed=one.removed_at is not None,
                )
                for one in reversed(await self.store.authenticators_of(signer.signer_id))
            ),
            history=tuple(_history(one) for one in decided),
        )

    async def _verify(
        self,
        connection: Connection,
        assertion: PasskeyAssertion,
        *,
        challenge: bytes,
        signer_id: str | None,
        now: datetime,
    ) -> Authenticator:
        authenticator = authenticators.check_may_answer(
            await self.store.locked_passkey(connection, assertion.credential_id),
            kind="passkey",
            signer_id=signer_id,
            now=now,
        )
        sign_count = evidence.verify_assertion(
            assertion,
            party=self.party,
            challenge=challenge,
            webauthn_id=authenticator.webauthn_id,
            public_key=authenticator.public_key,
            sign_count=authenticator.sign_count,
            backup_eligible=authenticator.backup_eligible,
            user_handle=authenticators.user_handle(authenticator.signer_id),
        )
        await self.store.note_use(connection, authenticator, sign_count=sign_count)
        return authenticator

    async def _approve_addition(
        self, connection: Connection, request: AddAuthenticator, challenge: Challenge, *, now: datetime
    ) -> dict[str, str]:
        """By what right it is added, for the record."""
        if challenge.ticket_hash is not None:
            ticket = await self.store.ticket(connection, challenge.ticket_hash)
            authenticators.check_ticket(ticket, signer_id=challenge.signer_id, now=now)
            await self.store.spend_ticket(connection, challenge.ticket_hash)
            return {"ticket_hash": challenge.ticket_hash.hex()}
        if request.approving is None:
            raise RakkanError(Code.EVIDENCE_REFUSED, "not approved by an authenticator of the signer")
        approving = await self._verify(
            connection, request.approving, challenge=challenge.challenge, signer_id=challenge.signer_id, now=now
        )
        return {"approved_by": approving.authenticator_id}

    def _new(
        self, request: AddAuthenticator, challenge: Challenge, existing: tuple[Authenticator, ...], *, now: datetime
    ) -> Authenticator:
        signer_id = challenge.signer_id or ""
        common = Authenticator(
            authenticator_id=random.token_hex(16),
            signer_id=signer_id,
            kind="device",
            label=request.label,
            webauthn_id=None,
            public_key=request.device_key or b"",
            sign_count=0,
            backup_eligible=False,
            added_at=now,
            usable_from=authenticators.usable_from(existing, cooling_off_s=self.rules.cooling_off_s, now=now),
            removed_at=None,
            version=1,
        )
        if request.device_key is not None:
            evidence.check_device_key(request.device_key)
            proof = request.device_proof or b""
            evidence.verify_device_signature(proof, public_key=request.device_key, data=challenge.challenge)
            return common
        made = evidence.verify_registration(
            client_data_json=request.client_data_json,
            attestation_object=request.attestation_object,
            challenge=challenge.challenge,
            party=self.party,
        )
        return replace(
            common,
            kind="passkey",
            webauthn_id=made.webauthn_id,
            public_key=made.public_key,
            sign_count=made.sign_count,
            backup_eligible=made.backup_eligible,
        )

    def _challenge(
        self,
        *,
        purpose: authenticators.Purpose,
        signer_id: str | None = None,
        ticket_hash: bytes | None = None,
    ) -> Challenge:
        return Challenge(
            challenge_id=random.token_hex(16),
            purpose=purpose,
            challenge=random.token_bytes(_CHALLENGE_BYTES),
            signer_id=signer_id,
            ticket_hash=ticket_hash,
            expires_at=self.now() + timedelta(seconds=self.rules.context_lifetime_s),
        )

    def _opened_ticket(self, request: OpenEnrollment) -> bytes:
        given = unseal(request.secrets or b"", key=self.sealing_key, message=request.TYPE, subject="")
        if given.ticket is None:
            raise RakkanError(Code.TICKET_REFUSED)
        return _ticket_hash(given.ticket.get_secret_value())

    async def _note(self, connection: Connection, event: str, signer: Signer, **subject: str) -> None:
        caller = operation.current().caller
        by_operator = caller == "operator"
        await self.audit.write(
            connection,
            event,
            actor_type="operator" if by_operator else "signer",
            actor_id=caller if by_operator else signer.signer_id,
            tenant=signer.tenant_id,
            subject={"signer_id": signer.signer_id} | subject,
        )


def _notice(authenticator: Authenticator, signer: Signer) -> NoticeAuthenticator:
    """What its owner is told by another way than the page."""
    return NoticeAuthenticator(
        authenticator_id=authenticator.authenticator_id,
        tenant_id=signer.tenant_id,
        user_id=signer.user_id,
        added_at=authenticator.added_at,
        usable_from=authenticator.usable_from,
    )


def _ticket_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _found(signer: Signer) -> SignerFound:
    return SignerFound(tenant_id=signer.tenant_id, user_id=signer.user_id, display_name=signer.common_name)


def _history(decided: Decided) -> HistoryRow:
    row, context = decided.row, contexts.read(decided.row.context)
    if row.decided_at is None:
        raise RakkanError(Code.RECORD_DAMAGED, "a context without a decision")
    return HistoryRow(
        at=row.decided_at,
        client_id=row.client_id,
        client_name=row.client_name,
        credential_id=row.credential_id,
        outcome="approved" if row.outcome == "approved" else "refused",
        reference_code=contexts.reference_code(row.client_id, (one.digest for one in context.documents)),
        documents=tuple(Document(digest=one.digest, label=one.label) for one in context.documents),
        signed=decided.signed,
    )

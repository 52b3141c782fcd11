"""Wires the SAM: what is built from what, and which message goes to which handler."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from services.sam.access import Access
from services.sam.activating import Activator
from services.sam.evidence import RelyingParty
from services.sam.handlers.approving import ApprovingHandlers
from services.sam.handlers.authenticators import AuthenticatorHandlers
from services.sam.handlers.changing import ChangingHandlers
from services.sam.handlers.creating import CreatingHandlers
from services.sam.handlers.ending import EndingHandlers
from services.sam.handlers.enrolling import EnrollingHandlers
from services.sam.handlers.ordering import OrderingHandlers
from services.sam.handlers.reading import ReadingHandlers
from services.sam.handlers.signing import SigningHandlers
from services.sam.handlers.verifying import FactorVerifier
from services.sam.rows import RowSeal
from services.sam.settings import Settings
from services.sam.store import Store
from services.sam.sweeping import Chore, sweep
from services.sam.token import SAMToken
from shared.contracts import approval, issuance, sam
from shared.hsm import Token
from shared.messaging.bus import Handlers
from shared.registry import RegistrySource
from shared.runtime import Room, run
from shared.tokens import TokenReader, verifying_keys
from shared.trust import SigningKey


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def build(room: Room[Settings]) -> AsyncIterator[Handlers]:
    settings, trust, audit = room.settings, room.trust, room.audit
    registries = RegistrySource(settings.registry, trust, room.registry)
    room.health.check("registry", registries.check)
    async with Token.open(settings.hsm) as hsm:
        room.health.check("hsm", hsm.probe)
        token = SAMToken(hsm)
        seal = RowSeal(await token.unseal_row_key())
        store = Store(room.pool, seal)
        access = Access(store, room.sealing_key, TokenReader(verifying_keys(trust)))
        verifier = FactorVerifier(store, token, seal, audit, settings.factors, _now)
        key = SigningKey.load(settings.activations_key_file)
        activator = Activator(key, seal, trust.sealing_key("svg"), trust.epoch, _now)
        signing = SigningHandlers(
            store,
            access,
            verifier,
            activator,
            room.bus,
            audit,
            trust.sealing_key("gateway"),
            settings.authorizations,
            trust.epoch,
            _now,
        )
        enrolling = EnrollingHandlers(
            store,
            verifier,
            activator,
            seal,
            audit,
            room.sealing_key,
            trust.sealing_key("operator"),
            registries,
            settings.factors,
            _now,
        )
        ordering = OrderingHandlers(store, activator, room.bus, audit, registries, _now)
        creating = CreatingHandlers(store, access, activator, audit, registries, _now)
        changing = ChangingHandlers(store, access, ordering, audit, _now)
        ending = EndingHandlers(
            store, verifier, activator, room.bus, audit, room.sealing_key, registries, settings.factors, _now
        )
        chores = (ending.end_expired, ending.end_spent, changing.renew_due)
        async with registries.watched(), _sweeping(store, chores):
            yield {
                **_routes(signing, ReadingHandlers(store, access, _now), enrolling, ordering, ending),
                **_issuance_routes(creating, changing),
                **_approval_routes(*_approvals(room, store)),
            }


def _approvals(room: Room[Settings], store: Store) -> tuple[ApprovingHandlers, AuthenticatorHandlers]:
    rules, trust, audit = room.settings.webauthn, room.trust, room.audit
    party = RelyingParty(rules.rp_id, rules.origins, allow_backed_up=rules.allow_backed_up)
    approving = ApprovingHandlers(store, audit, party, rules, room.settings.authorizations, trust.epoch, _now)
    operator_key = trust.sealing_key("operator")
    return approving, AuthenticatorHandlers(store, audit, party, rules, room.sealing_key, operator_key, _now)


def _routes(
    signing: SigningHandlers,
    reading: ReadingHandlers,
    enrolling: EnrollingHandlers,
    ordering: OrderingHandlers,
    ending: EndingHandlers,
) -> Handlers:
    return {
        sam.ListCredentials: reading.list_credentials,
        sam.DescribeCredential: reading.describe_credential,
        sam.ListInventory: reading.list_inventory,
        sam.CheckFactor: signing.check_factor,
        sam.Authorize: signing.authorize,
        sam.ExtendAuthorization: signing.extend,
        sam.SignHash: signing.sign_hash,
        sam.AddSigner: enrolling.add_signer,
        sam.AddCredential: enrolling.add_credential,
        sam.PrepareCredential: ordering.prepare_credential,
        sam.AcceptCertificate: ordering.accept_certificate,
        sam.RefuseOrder: ordering.refuse_order,
        sam.RevokeTokens: ending.revoke_tokens,
        sam.SuspendCredential: ending.suspend_credential,
        sam.UnlockSigner: ending.unlock_signer,
        sam.DeleteCredential: ending.delete_credential,
        sam.EndCredential: ending.end_credential,
        sam.NoteCertificateStatus: ending.note_certificate_status,
    }


def _issuance_routes(creating: CreatingHandlers, changing: ChangingHandlers) -> Handlers:
    return {
        issuance.CreateCredential: creating.create_credential,
        issuance.CheckIssuance: creating.check_issuance,
        issuance.PrepareOnce: creating.prepare_once,
        issuance.RemoveCredential: changing.remove_credential,
        issuance.StopCredential: changing.stop_credential,
        issuance.RenewCredential: changing.renew_credential,
        issuance.ReadRequest: changing.read_request,
        issuance.InstallCertificate: changing.install_certificate,
    }


def _approval_routes(approving: ApprovingHandlers, authenticators: AuthenticatorHandlers) -> Handlers:
    return {
        approval.ListApprovable: approving.list_approvable,
        approval.OpenContext: approving.open_context,
        approval.ApproveContext: approving.approve_context,
        approval.RefuseContext: approving.refuse_context,
        approval.OpenLogin: authenticators.open_login,
        approval.VerifyLogin: authenticators.verify_login,
        approval.OpenEnrollment: authenticators.open_enrollment,
        approval.AddAuthenticator: authenticators.add_authenticator,
        approval.RemoveAuthenticator: authenticators.remove_authenticator,
        approval.ReadOverview: authenticators.read_overview,
        approval.IssueTicket: authenticators.issue_ticket,
    }


@asynccontextmanager
async def _sweeping(store: Store, chores: Sequence[Chore]) -> AsyncIterator[None]:
    task = asyncio.create_task(sweep(store, now=_now, chores=chores), name="sweep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


if __name__ == "__main__":
    run("sam", Settings, build)

"""Wires the SAM: what is built from what, and which message goes to which handler."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from services.sam.access import Access
from services.sam.activating import Activator
from services.sam.certificates import load_anchors
from services.sam.evidence import RelyingParty
from services.sam.handlers.approving import ApprovingHandlers
from services.sam.handlers.authenticators import AuthenticatorHandlers
from services.sam.handlers.ending import EndingHandlers
from services.sam.handlers.enrolling import EnrollingHandlers
from services.sam.handlers.reading import ReadingHandlers
from services.sam.handlers.signing import SigningHandlers
from services.sam.handlers.verifying import FactorVerifier
from services.sam.rows import RowSeal
from services.sam.settings import Settings
from services.sam.store import Store
from services.sam.sweeping import sweep
from services.sam.token import SAMToken
from shared.contracts import approval, sam
from shared.hsm import Token
from shared.messaging.bus import Handlers
from shared.runtime import Room, run
from shared.tokens import TokenReader, verifying_keys
from shared.trust import SigningKey


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def build(room: Room[Settings]) -> AsyncIterator[Handlers]:
    settings, trust, audit = room.settings, room.trust, room.audit
    anchors = _read_anchors(settings.authorities_file)
    async with Token.open(settings.hsm) as hsm:
        room.health.check("hsm", hsm.probe)
        token = SAMToken(hsm)
        seal = RowSeal(await token.unseal_row_key())
        store = Store(room.pool, seal)
        access = Access(store, room.sealing_key, TokenReader(verifying_keys(trust)))
        verifier = FactorVerifier(store, token, seal, audit, settings.factors, _now)
        activator = Activator(
            SigningKey.load(settings.activations_key_file), seal, trust.sealing_key("svg"), trust.epoch, _now
        )
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
        reading = ReadingHandlers(store, access, _now)
        enrolling = EnrollingHandlers(
            store,
            verifier,
            activator,
            seal,
            room.bus,
            audit,
            room.sealing_key,
            trust.sealing_key("operator"),
            anchors,
            settings.factors,
            _now,
        )
        ending = EndingHandlers(store, verifier, activator, room.bus, audit, room.sealing_key, settings.factors, _now)
        rules = settings.webauthn
        party = RelyingParty(rules.rp_id, rules.origins, allow_backed_up=rules.allow_backed_up)
        approving = ApprovingHandlers(store, audit, party, rules, settings.authorizations, trust.epoch, _now)
        authenticators = AuthenticatorHandlers(
            store, audit, party, rules, room.sealing_key, trust.sealing_key("operator"), _now
        )
        async with _sweeping(store):
            yield {**_routes(signing, reading, enrolling, ending), **_approval_routes(approving, authenticators)}


def _routes(
    signing: SigningHandlers, reading: ReadingHandlers, enrolling: EnrollingHandlers, ending: EndingHandlers
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
        sam.PrepareCredential: enrolling.prepare_credential,
        sam.AcceptCertificate: enrolling.accept_certificate,
        sam.RefuseOrder: enrolling.refuse_order,
        sam.RevokeTokens: ending.revoke_tokens,
        sam.SuspendCredential: ending.suspend_credential,
        sam.UnlockSigner: ending.unlock_signer,
        sam.DeleteCredential: ending.delete_credential,
        sam.EndCredential: ending.end_credential,
        sam.NoteCertificateStatus: ending.note_certificate_status,
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
async def _sweeping(store: Store) -> AsyncIterator[None]:
    task = asyncio.create_task(sweep(store, now=_now), name="sweep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _read_anchors(file: Path) -> dict[str, tuple[x509.Certificate, ...]]:
    """Each authority's trust anchors; paths are relative to the file that names them."""
    files: dict[str, str] = json.loads(file.read_bytes())
    return {name: load_anchors((file.parent / anchors).read_bytes()) for name, anchors in files.items()}


if __name__ == "__main__":
    run("sam", Settings, build)

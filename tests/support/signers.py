"""What stands around the pages signers meet: a SAM that remembers, requests of clients, rows, and a passkey."""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fastapi import FastAPI

from services.authentication.approving import Shown
from services.authentication.idp import Flow
from services.authentication.passwords import Password
from services.authentication.requests import AuthorizationRequest
from services.authentication.sessions import SessionRow
from services.authentication.settings import IdP, Settings
from services.authentication.signers import add_signer_pages
from shared.algorithms import Hash
from shared.contracts import approval
from shared.contracts.approval import Document, PasskeyAssertion, SignerFound
from shared.contracts.base import Done, Request
from shared.contracts.issuance import IssuanceChecked, PrepareOnce
from shared.errors import Code, RakkanError
from shared.http import Edge
from shared.sealing import unseal
from shared.settings import Broker, Database, TrustFiles
from shared.trust import Trust
from tests.support.authentication import Clock

ORIGIN = "https://as.example"
TICKET = "ticket-of-alice"
COOLING_OFF = timedelta(days=1)
KEPT = timedelta(minutes=5)
SAM_KEY = X25519PrivateKey.generate()
TRUST = Trust(epoch=1, verifying={}, sealing={"sam": SAM_KEY.public_key()})


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True)
class Passkey:
    """As much of a passkey as the fake SAM looks at: it knows whose it is, and signs what it is asked."""

    credential_id: bytes
    secret: bytes

    @classmethod
    def new(cls) -> "Passkey":
        return cls(secrets.token_bytes(16), secrets.token_bytes(16))

    def answer(self, options: dict[str, Any]) -> dict[str, str]:
        """The form fields that the page's script fills in."""
        client_data = json.dumps({"type": "webauthn.get", "challenge": options["challenge"]}).encode()
        signature = hmac.digest(self.secret, client_data, "sha256")
        return {
            "credential_id": b64(self.credential_id),
            "client_data_json": b64(client_data),
            "authenticator_data": b64(b"flags"),
            "signature": b64(signature),
            "user_handle": "",
        }


@dataclass(frozen=True)
class Authenticator:
    signer: tuple[str, str]
    key: Any
    row: approval.AuthenticatorRow


@dataclass
class Context:
    request: approval.OpenContext
    opened: approval.ContextOpened
    state: str = "open"


@dataclass(frozen=True)
class Opened:
    """A log-in or an enrollment under way."""

    challenge: bytes
    expires_at: datetime
    signer: tuple[str, str] = ("", "")
    needs_approval: bool = False


class FakeSAM:
    """Obeys the contract of `shared.contracts.approval`, in memory."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.names = {("acme", "alice"): "Alice Example", ("acme", "bob"): "Bob", ("other", "carol"): "Carol"}
        self.tickets = {TICKET: ("acme", "alice")}
        self.authenticators: dict[bytes, Authenticator] = {}
        self.credentials: dict[tuple[str, str], list[approval.ApprovableCredential]] = {
            signer: [credential(f"cred-{signer[1]}", name)] for signer, name in self.names.items()
        }
        self.contexts: dict[str, Context] = {}
        self.opened: dict[str, Opened] = {}
        self.history: list[tuple[tuple[str, str], approval.HistoryRow]] = []
        self.down = False
        self.asked: list[Request[Any]] = []
        self.made: list[str] = []
        """States of the credential that is made for one approval, one for each look; the last one stays."""

    async def ask(self, request: Request[Any]) -> Any:
        if self.down:
            raise RakkanError(Code.UNAVAILABLE, "nobody answers")
        self.asked.append(request)
        return getattr(self, request.TYPE.split(".")[1])(request)

    def prepare_once(self, request: PrepareOnce) -> IssuanceChecked:
        state: Any = self.made.pop(0) if len(self.made) > 1 else self.made[0]
        if state == "active":
            self.credentials[request.tenant_id, request.user_id].append(credential("cred-once", "Made for once"))
        return IssuanceChecked(credential_id="cred-once", state=state, reason="the CA said no")

    def enrol(self, signer: tuple[str, str], passkey: Passkey, label: str = "Phone") -> None:
        self.add(signer, passkey.credential_id, passkey, label, usable_from=self.clock.now())

    def add(
        self, signer: tuple[str, str], credential_id: bytes, key: Any, label: str, *, usable_from: datetime
    ) -> approval.AuthenticatorAdded:
        authenticator_id = hashlib.sha256(credential_id).hexdigest()[:16]
        row = approval.AuthenticatorRow(
            authenticator_id=authenticator_id,
            label=label,
            kind="passkey",
            added_at=self.clock.now(),
            usable_from=usable_from,
            removed=False,
        )
        self.authenticators[credential_id] = Authenticator(signer, key, row)
        return approval.AuthenticatorAdded(authenticator_id=authenticator_id, usable_from=usable_from)

    # --- what is checked; a SAM that meets a real browser checks otherwise ---

    def check(self, authenticator: Authenticator, given: PasskeyAssertion, challenge: bytes) -> None:
        expected = hmac.digest(authenticator.key.secret, given.client_data_json, "sha256")
        if given.signature != expected or json.loads(given.client_data_json)["challenge"] != b64(challenge):
            raise RakkanError(Code.EVIDENCE_REFUSED)

    def read_new(self, request: approval.AddAuthenticator, challenge: bytes) -> tuple[bytes, Any]:
        if json.loads(request.client_data_json)["challenge"] != b64(challenge):
            raise RakkanError(Code.EVIDENCE_REFUSED)
        passkey = Passkey(request.attestation_object[:16], request.attestation_object[16:])
        return passkey.credential_id, passkey

    # --- the handlers ---

    def open_login(self, _: approval.OpenLogin) -> approval.LoginOpened:
        login_id, opened = self._begin()
        return approval.LoginOpened(login_id=login_id, challenge=opened.challenge, expires_at=opened.expires_at)

    def verify_login(self, request: approval.VerifyLogin) -> SignerFound:
        opened = self._take(request.login_id)
        found = self._verify(request.passkey, opened.challenge)
        return self._found(found.signer)

    def list_approvable(self, request: approval.ListApprovable) -> approval.SignerCredentials:
        return approval.SignerCredentials(
            credentials=tuple(self.credentials.get((request.tenant_id, request.user_id), ()))
        )

    def open_context(self, request: approval.OpenContext) -> approval.ContextOpened:
        signer = (request.tenant_id, request.user_id)
        found = [c for c in self.credentials.get(signer, ()) if c.credential_id == request.credential_id]
        if not found:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        usable = tuple(key for key, a in self.authenticators.items() if a.signer == signer and self._usable(a))
        if not usable:
            raise RakkanError(Code.AUTHENTICATOR_REQUIRED)
        nonce = secrets.token_bytes(32)
        context = nonce + request.model_dump_json().encode()
        opened = approval.ContextOpened(
            context_id=secrets.token_hex(16),
            challenge=hashlib.sha256(context).digest(),
            context=context,
            reference_code=base64.b32encode(hashlib.sha256(nonce).digest())[:6].decode(),
            credential=found[0],
            authenticators=usable,
            expires_at=self.clock.now() + KEPT,
        )
        self.contexts[opened.context_id] = Context(request, opened)
        return opened

    def approve_context(self, request: approval.ApproveContext) -> approval.ContextApproved:
        context = self._context(request.context_id)
        if context.state != "open":
            raise RakkanError(Code.CONTEXT_SPENT)
        if self.clock.now() >= context.opened.expires_at:
            raise RakkanError(Code.CONTEXT_EXPIRED)
        if request.passkey is None:
            raise RakkanError(Code.EVIDENCE_REFUSED)
        found = self._verify(request.passkey, context.opened.challenge)
        if found.signer != (context.request.tenant_id, context.request.user_id):
            raise RakkanError(Code.EVIDENCE_REFUSED)
        context.state = "approved"
        self._note(context, "approved")
        return approval.ContextApproved(authorization_id=f"auth-{request.context_id}", expires_in_s=120)

    def refuse_context(self, request: approval.RefuseContext) -> Done:
        context = self._context(request.context_id)
        if context.state != "open":
            raise RakkanError(Code.CONTEXT_SPENT)
        if self.clock.now() >= context.opened.expires_at:
            raise RakkanError(Code.CONTEXT_EXPIRED)
        context.state = "refused"
        self._note(context, "refused")
        return Done()

    def open_enrollment(self, request: approval.OpenEnrollment) -> approval.EnrollmentOpened:
        if request.secrets is not None:
            ticket = unseal(request.secrets, key=SAM_KEY, message=approval.OpenEnrollment.TYPE).ticket
            signer = self.tickets.get(ticket.get_secret_value() if ticket else "")
            if signer is None:
                raise RakkanError(Code.TICKET_REFUSED)
            approving: tuple[bytes, ...] = ()
        else:
            signer = (request.tenant_id or "", request.user_id or "")
            approving = tuple(k for k, a in self.authenticators.items() if a.signer == signer and self._usable(a))
            if not approving:
                raise RakkanError(Code.AUTHENTICATOR_REQUIRED)
        enrollment_id, opened = self._begin(signer, needs_approval=bool(approving))
        return approval.EnrollmentOpened(
            enrollment_id=enrollment_id,
            challenge=opened.challenge,
            signer=self._found(signer),
            user_handle=hashlib.sha256(":".join(signer).encode()).digest(),
            exclude=tuple(key for key, a in self.authenticators.items() if a.signer == signer),
            approving=approving,
            expires_at=opened.expires_at,
        )

    def add_authenticator(self, request: approval.AddAuthenticator) -> approval.AuthenticatorAdded:
        opened = self._take(request.enrollment_id)
        credential_id, key = self.read_new(request, opened.challenge)
        usable_from = self.clock.now()
        if opened.needs_approval:
            if request.approving is None or self._verify(request.approving, opened.challenge).signer != opened.signer:
                raise RakkanError(Code.EVIDENCE_REFUSED)
            usable_from += COOLING_OFF
        self.tickets = {ticket: signer for ticket, signer in self.tickets.items() if signer != opened.signer}
        return self.add(opened.signer, credential_id, key, request.label, usable_from=usable_from)

    def read_overview(self, request: approval.ReadOverview) -> approval.SignerOverview:
        signer = (request.tenant_id, request.user_id)
        if signer not in self.names:
            raise RakkanError(Code.NOT_FOUND)
        return approval.SignerOverview(
            authenticators=tuple(a.row for a in self.authenticators.values() if a.signer == signer),
            history=tuple(row for who, row in reversed(self.history) if who == signer),
        )

    def remove_authenticator(self, request: approval.RemoveAuthenticator) -> Done:
        for key, a in self.authenticators.items():
            if a.row.authenticator_id == request.authenticator_id and a.signer == (request.tenant_id, request.user_id):
                self.authenticators[key] = replace(a, row=a.row.model_copy(update={"removed": True}))
                return Done()
        raise RakkanError(Code.NOT_FOUND)

    # --- within ---

    def _begin(self, signer: tuple[str, str] = ("", ""), *, needs_approval: bool = False) -> tuple[str, Opened]:
        opened = Opened(secrets.token_bytes(32), self.clock.now() + KEPT, signer, needs_approval)
        name = secrets.token_hex(16)
        self.opened[name] = opened
        return name, opened

    def _take(self, name: str) -> Opened:
        opened = self.opened.pop(name, None)
        if opened is None:
            raise RakkanError(Code.CONTEXT_UNKNOWN)
        if self.clock.now() >= opened.expires_at:
            raise RakkanError(Code.CONTEXT_EXPIRED)
        return opened

    def _verify(self, given: PasskeyAssertion, challenge: bytes) -> Authenticator:
        found = self.authenticators.get(given.credential_id)
        if found is None or not self._usable(found):
            raise RakkanError(Code.EVIDENCE_REFUSED)
        self.check(found, given, challenge)
        return found

    def _usable(self, authenticator: Authenticator) -> bool:
        return not authenticator.row.removed and self.clock.now() >= authenticator.row.usable_from

    def _context(self, context_id: str) -> Context:
        if context_id not in self.contexts:
            raise RakkanError(Code.CONTEXT_UNKNOWN)
        return self.contexts[context_id]

    def _found(self, signer: tuple[str, str]) -> SignerFound:
        return SignerFound(tenant_id=signer[0], user_id=signer[1], display_name=self.names[signer])

    def _note(self, context: Context, outcome: Any) -> None:
        asked = context.request
        row = approval.HistoryRow(
            at=self.clock.now(),
            client_id=asked.client_id,
            client_name=asked.client_name,
            credential_id=asked.credential_id,
            outcome=outcome,
            reference_code=context.opened.reference_code,
            documents=asked.documents,
            signed=0,
        )
        self.history.append(((asked.tenant_id, asked.user_id), row))


def credential(credential_id: str, name: str) -> approval.ApprovableCredential:
    return approval.ApprovableCredential(
        credential_id=credential_id,
        description="Signing",
        subject=f"CN={name},2.5.4.5=PNOJP-1234,O=Acme,C=JP",
        issuer="CN=Rakkan Test CA,C=JP",
        not_after=datetime.fromisoformat("2028-03-31T14:59:59+00:00"),
        scal="2",
    )


class FakeRequests:
    """Requests of clients: bound to the first session that shows them, decided once."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[str, AuthorizationRequest] = {}
        self.bound: dict[str, str] = {}
        self.outcomes: dict[str, dict[str, Any]] = {}

    def add(self, request_id: str = "req-1", **changed: Any) -> AuthorizationRequest:
        facts: dict[str, Any] = {
            "request_id": request_id,
            "client_id": "documenso",
            "client_name": "Documenso",
            "tenant_id": "acme",
            "scope": "credential",
            "credential_id": "cred-alice",
            "signatures": 2,
            "documents": (
                Document(digest=hashlib.sha256(b"contract").digest(), label="Contract 2026-118.pdf"),
                Document(digest=hashlib.sha256(b"annex").digest(), label="別紙1 見積書.pdf"),
            ),
            "hash": Hash.SHA256,
            "description": "",
            "lang": None,
            "login_hint": None,
            "redirect_uri": "https://app.example/callback?x=1",
            "expires_at": self.clock.now() + timedelta(minutes=10),
        } | changed
        self.rows[request_id] = AuthorizationRequest(**facts)
        return self.rows[request_id]

    async def open(self, request_id: str, *, session_id: str) -> AuthorizationRequest:
        row = self.rows.get(request_id)
        if row is None or request_id in self.outcomes or self.clock.now() >= row.expires_at:
            raise RakkanError(Code.NOT_FOUND)
        if self.bound.setdefault(request_id, session_id) != session_id:
            raise RakkanError(Code.FORBIDDEN)
        return row

    async def granted(self, request_id: str, *, session_id: str, **facts: Any) -> str:
        row = await self.open(request_id, session_id=session_id)
        self.outcomes[request_id] = {"outcome": "granted", **facts}
        return f"{row.redirect_uri}&code=the-code&state=s"

    async def denied(
        self, request_id: str, *, session_id: str, error: str = "access_denied", description: str = ""
    ) -> str:
        row = await self.open(request_id, session_id=session_id)
        self.outcomes[request_id] = {"outcome": "denied", "error": error, "description": description}
        return f"{row.redirect_uri}&error={error}&state=s"


@dataclass
class FakeAccounts:
    """The rows of `AccountStore`, by its rules."""

    sessions: dict[str, SessionRow] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    passwords: dict[tuple[str, str], Password] = field(default_factory=dict)
    failures: dict[tuple[str, str], tuple[int, datetime]] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)
    contexts: dict[str, Shown] = field(default_factory=dict)
    refused: list[dict[str, str]] = field(default_factory=list)

    async def session(self, session_id: str) -> SessionRow | None:
        return None if session_id in self.ended else self.sessions.get(session_id)

    async def add_session(self, session_id: str, row: SessionRow) -> None:
        self.sessions[session_id] = row

    async def see(self, session_id: str, *, at: datetime) -> None:
        self.sessions[session_id] = replace(self.sessions[session_id], seen_at=at)

    async def speak(self, session_id: str, language: str) -> None:
        self.sessions[session_id] = replace(self.sessions[session_id], language=language)

    async def log_in(self, old_id: str, new_id: str, row: SessionRow, *, at: datetime) -> None:
        if old_id in self.ended:
            raise RakkanError(Code.FORBIDDEN)
        await self.end_session(old_id, at=at)
        self.sessions[new_id] = row

    async def end_session(self, session_id: str, *, at: datetime) -> None:  # noqa: ARG002 - the real one keeps it
        self.ended.add(session_id)

    async def note_refused(self, **facts: str) -> None:
        self.refused.append(facts)

    async def has_password(self, tenant_id: str, user_id: str) -> bool:
        return (tenant_id, user_id) in self.passwords

    async def charge(self, tenant_id: str, user_id: str, *, at: datetime) -> Password | None:
        signer = (tenant_id, user_id)
        failures, not_before = self.failures.get(signer, (0, at))
        if signer not in self.passwords or at < not_before:
            return None
        self.failures[signer] = (failures + 1, at + timedelta(seconds=min(2**failures, 900)))
        return self.passwords[signer]

    async def succeed(self, password: Password, *, step: int) -> None:
        signer = (password.tenant_id, password.user_id)
        if self.passwords[signer].totp_step >= step:
            raise RakkanError(Code.OTP_INVALID)
        self.passwords[signer] = replace(password, totp_step=step)
        self.failures.pop(signer, None)

    async def set_password(self, password: Password) -> None:
        self.passwords[password.tenant_id, password.user_id] = password

    async def remove_password(self, tenant_id: str, user_id: str, *, at: datetime) -> None:  # noqa: ARG002 - likewise
        self.passwords.pop((tenant_id, user_id), None)

    async def keep_flow(self, state: str, flow: Flow) -> None:
        self.flows[state] = flow

    async def take_flow(self, state: str, *, visit_id: str) -> Flow | None:
        if state in self.flows and self.flows[state].visit_id == visit_id:
            return self.flows.pop(state)
        return None

    async def shown(self, request_id: str) -> Shown | None:
        return self.contexts.get(request_id)

    async def show(self, shown: Shown, *, instead_of: str | None) -> None:
        now = self.contexts.get(shown.request_id)
        if now is None or (now.visit_id == shown.visit_id and now.context.context_id == instead_of):
            self.contexts[shown.request_id] = shown


@dataclass
class Front:
    """The pages with everything around them faked, and browsers to open them in."""

    clock: Clock = field(default_factory=Clock)
    accounts: FakeAccounts = field(default_factory=FakeAccounts)
    origin: str = ORIGIN
    secrets_key_file: Path | None = None
    idp: IdP = field(default_factory=IdP)
    sam: FakeSAM = field(init=False)
    requests: FakeRequests = field(init=False)
    app: Edge = field(init=False)

    def __post_init__(self) -> None:
        self.sam = FakeSAM(self.clock)
        self.requests = FakeRequests(self.clock)
        self.app = self.make_app(self.sam)

    def make_app(self, sam: FakeSAM) -> Edge:
        app = FastAPI()
        settings = self.settings
        add_signer_pages(
            app,
            self.requests,
            store=self.accounts,
            bus=sam,
            trust=TRUST,
            settings=settings,
            now=self.clock.now,
        )
        return Edge(app, door=settings.http, room="authentication")

    @property
    def settings(self) -> Settings:
        nowhere = Path("/nowhere")
        return Settings(
            broker=Broker(password_file=nowhere),
            trust=TrustFiles(bundle_file=nowhere, messages_key_file=nowhere, sealing_key_file=nowhere),
            database=Database(password_file=nowhere),
            issuer=self.origin,
            tokens_key_file=nowhere,
            secrets_key_file=self.secrets_key_file,
            time_zone="Asia/Tokyo",
            idp=self.idp,
        )

    def browser(self, address: str = "127.0.0.1") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, client=(address, 1))
        return httpx.AsyncClient(transport=transport, base_url=self.origin)

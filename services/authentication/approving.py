"""The story of one approval: who asks for what is shown, the signer's act goes to the SAM, the answer to the client.

This room shows and carries. That exactly these hashes were approved, and by whom, the SAM verifies itself.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from starlette.responses import Response

from services.authentication import passkeys
from services.authentication.login import login_address
from services.authentication.requests import AuthorizationRequest
from services.authentication.visits import REFUSALS, Visit
from shared.contracts.approval import (
    ApprovableCredential,
    ApproveContext,
    ContextOpened,
    ListApprovable,
    OpenContext,
    RefuseContext,
)
from shared.contracts.base import R, Request
from shared.contracts.issuance import CREATION, DELETION, PrepareOnce
from shared.errors import Code, RakkanError

log = structlog.get_logger()

CONSENTS = {
    "service": "consent.html",
    CREATION: "consent_creation.html",
    DELETION: "consent_deletion.html",
}
"""What is granted by a word, since no signature comes of it."""
_LOOKS_MAX = 40
_LOOK_AGAIN_S = 0.25
_UNUSABLE = (
    Code.PROFILE_UNKNOWN,
    Code.AUTHORITY_UNKNOWN,
    Code.AUTHORITY_FORBIDDEN,
    Code.FACTOR_UNKNOWN,
    Code.MALFORMED,
    Code.AUTHENTICATOR_REQUIRED,
    Code.CREDENTIAL_UNKNOWN,
    Code.CREDENTIAL_DISABLED,
    Code.ASSURANCE_REFUSED,
    Code.CERTIFICATE_EXPIRED,
    Code.TOO_MANY_SIGNATURES,
    Code.HASHES_REQUIRED,
    Code.DIGEST_LENGTH,
)
_OVER = (Code.CONTEXT_EXPIRED, Code.CONTEXT_SPENT, Code.CONTEXT_UNKNOWN)


@dataclass(frozen=True)
class Shown:
    """Which context a request's page shows, and in whose browser."""

    request_id: str
    visit_id: str
    context: ContextOpened


class Requests(Protocol):
    async def open(self, request_id: str, *, session_id: str) -> AuthorizationRequest: ...
    async def granted(
        self,
        request_id: str,
        *,
        session_id: str,
        tenant_id: str,
        user_id: str,
        authorization_id: str | None,
        credential_id: str | None,
        expires_in_s: int | None = None,
    ) -> str: ...
    async def denied(
        self, request_id: str, *, session_id: str, error: str = "access_denied", description: str = ""
    ) -> str: ...


class Store(Protocol):
    async def shown(self, request_id: str) -> Shown | None: ...
    async def show(self, shown: Shown, *, instead_of: str | None) -> None: ...


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


class Approving:
    def __init__(self, *, requests: Requests, store: Store, bus: Bus, now: Callable[[], datetime]) -> None:
        self._requests = requests
        self._store = store
        self._bus = bus
        self._now = now

    async def show(self, visit: Visit) -> Response:
        """The page. The first browser that sees a request keeps it, from before the log-in on."""
        request = await self._open(visit)
        visit = visit.speaking(request.lang or "")
        if not visit.session.is_logged_in:
            return visit.go(login_address(_path(request)))
        if not _is_for(visit, request):
            return visit.message("for_another", status=403, logout=_path(request))
        if request.scope in CONSENTS:
            return visit.page(CONSENTS[request.scope], request=request, **self._facts(request))
        try:
            return await self._show_approval(visit, request)
        except RakkanError as error:
            # The SAM will not have it shown. The signer can still say no, which takes the client's browser back.
            if error.code not in _UNUSABLE:
                raise
            log.info("approval not shown", client=request.client_id, code=error.code, detail=error.detail)
            status, name = REFUSALS[Code.HASHES_REQUIRED if error.code is Code.MALFORMED else error.code]
            return visit.message(name, status=status, refuse=request, sends_to=request.redirect_uri)

    async def _show_approval(self, visit: Visit, request: AuthorizationRequest) -> Response:
        if request.authority is not None and request.certificate_profile is not None:
            credential_id: str | tuple[ApprovableCredential, ...] | None = await self._made_for_once(visit, request)
        else:
            credential_id = request.credential_id or await self._chosen(visit, request)
        if credential_id is None:
            return visit.message("being_made", status=202, again=_path(request))
        if isinstance(credential_id, tuple):
            return visit.page("choose.html", request=request, credentials=credential_id, **self._facts(request))
        if visit.query.get("again"):
            await self._context(visit, request, credential_id, anew=True)
            return visit.go(_path(request))  # so that a reload shows the same one
        return self._approval(visit, request, await self._context(visit, request, credential_id))

    async def approve(self, visit: Visit) -> Response:
        request = await self._decidable(visit)
        if request.scope in CONSENTS:
            return await self._grant(visit, request, credential_id=request.credential_id)
        shown = await self._shown(visit, request)
        if visit.form.get("context_id") != shown.context.context_id:
            return visit.message("page_old", status=409, again=_path(request))
        if not passkeys.is_there(visit.form):
            return self._approval(visit, request, shown.context, refusal="needs_script", status=400)
        try:
            approved = await self._bus.ask(
                ApproveContext(context_id=shown.context.context_id, passkey=passkeys.assertion(visit.form))
            )
        except RakkanError as error:
            if error.code is Code.EVIDENCE_REFUSED:
                return self._approval(visit, request, shown.context, refusal="approval_refused", status=403)
            if error.code in _OVER:
                return visit.message("context_over", status=409, again=f"{_path(request)}?again=1")
            raise
        return await self._grant(
            visit,
            request,
            authorization_id=approved.authorization_id,
            credential_id=shown.context.credential.credential_id,
            expires_in_s=approved.expires_in_s,
        )

    async def refuse(self, visit: Visit) -> Response:
        """No is always taken: also without script, and when there is nothing to approve with."""
        request = await self._decidable(visit)
        shown = await self._store.shown(request.request_id)
        if shown is not None and shown.visit_id == visit.session.row.visit_id:
            try:
                await self._bus.ask(RefuseContext(context_id=shown.context.context_id))
            except RakkanError as error:
                # What is over cannot be approved any more either. What is spent was: then no would be a lie.
                if error.code not in (Code.CONTEXT_EXPIRED, Code.CONTEXT_UNKNOWN):
                    raise
        return visit.go(
            await self._requests.denied(
                request.request_id, session_id=visit.session.row.visit_id, description="The signer refused"
            )
        )

    async def _open(self, visit: Visit) -> AuthorizationRequest:
        request_id: str = visit.request.path_params["request_id"]
        request = await self._requests.open(request_id, session_id=visit.session.row.visit_id)
        if self._now() >= request.expires_at:
            raise RakkanError(Code.EXPIRED, "the authorization request")
        return request

    async def _decidable(self, visit: Visit) -> AuthorizationRequest:
        """The request, when it is this signer's to decide and the form is of its page."""
        request = await self._open(visit)
        visit.check_form(f"approve/{request.request_id}")
        if not _is_for(visit, request):
            raise RakkanError(Code.FORBIDDEN, "the request is for another signer")
        return request

    async def _chosen(self, visit: Visit, request: AuthorizationRequest) -> str | tuple[ApprovableCredential, ...]:
        """The credential where there is one, or was chosen; or those to choose from."""
        signer = visit.session.signer
        listed = await self._bus.ask(ListApprovable(tenant_id=signer.tenant_id, user_id=signer.user_id))
        wished = visit.query.get("credential")
        shown = await self._store.shown(request.request_id)
        if wished is None and shown is not None:
            wished = shown.context.credential.credential_id
        if len(listed.credentials) == 1:
            wished = listed.credentials[0].credential_id
        if not listed.credentials:
            raise RakkanError(Code.AUTHENTICATOR_REQUIRED, "no credential that can be approved here")
        if wished in {credential.credential_id for credential in listed.credentials}:
            return str(wished)
        return listed.credentials

    async def _made_for_once(self, visit: Visit, request: AuthorizationRequest) -> str | None:
        """The credential that is made for this one approval; None while its certificate is still under way."""
        signer = visit.session.signer
        for _ in range(_LOOKS_MAX):
            prepared = await self._bus.ask(
                PrepareOnce(
                    tenant_id=signer.tenant_id,
                    user_id=signer.user_id,
                    request_id=f"r{request.request_id}",
                    authority=request.authority or "",
                    profile=request.certificate_profile or "",
                )
            )
            if prepared.state == "active":
                return prepared.credential_id
            if prepared.state != "pending":
                raise RakkanError(Code.CREDENTIAL_DISABLED, f"not made: {prepared.reason or prepared.state}")
            await asyncio.sleep(_LOOK_AGAIN_S)
        return None

    async def _context(
        self, visit: Visit, request: AuthorizationRequest, credential_id: str, *, anew: bool = False
    ) -> ContextOpened:
        """The context on show, which a reload does not change, or a new one."""
        before = await self._store.shown(request.request_id)
        if (
            before is not None
            and before.visit_id == visit.session.row.visit_id
            and before.context.credential.credential_id == credential_id
            and self._now() < before.context.expires_at
            and not anew
        ):
            return before.context
        signer = visit.session.signer
        if request.hash is None or not request.documents:
            raise RakkanError(Code.HASHES_REQUIRED, "the request names no hashes")
        opened = await self._bus.ask(
            OpenContext(
                tenant_id=signer.tenant_id,
                user_id=signer.user_id,
                client_id=request.client_id,
                client_name=request.client_name,
                credential_id=credential_id,
                signatures=request.signatures,
                documents=request.documents,
                hash=request.hash,
            )
        )
        shown = Shown(request.request_id, visit.session.row.visit_id, opened)
        await self._store.show(shown, instead_of=before.context.context_id if before else None)
        return (await self._shown(visit, request)).context

    async def _shown(self, visit: Visit, request: AuthorizationRequest) -> Shown:
        shown = await self._store.shown(request.request_id)
        if shown is None or shown.visit_id != visit.session.row.visit_id:
            raise RakkanError(Code.FORBIDDEN, "no context was shown to this session")
        return shown

    async def _grant(
        self,
        visit: Visit,
        request: AuthorizationRequest,
        *,
        authorization_id: str | None = None,
        credential_id: str | None = None,
        expires_in_s: int | None = None,
    ) -> Response:
        signer = visit.session.signer
        return visit.go(
            await self._requests.granted(
                request.request_id,
                session_id=visit.session.row.visit_id,
                tenant_id=signer.tenant_id,
                user_id=signer.user_id,
                authorization_id=authorization_id,
                credential_id=credential_id,
                expires_in_s=expires_in_s,
            )
        )

    def _approval(
        self,
        visit: Visit,
        request: AuthorizationRequest,
        context: ContextOpened,
        *,
        refusal: str | None = None,
        status: int = 200,
    ) -> Response:
        expires_at = min(context.expires_at, request.expires_at)
        return visit.page(
            "approve.html",
            status=status,
            request=request,
            context=context,
            refusal=refusal,
            expires_at=expires_at,
            seconds_left=max(0, int((expires_at - self._now()).total_seconds())),
            options=passkeys.written(passkeys.asking(context.challenge, allow=context.authenticators)),
            **self._facts(request),
        )

    def _facts(self, request: AuthorizationRequest) -> dict[str, str]:
        parts = urlsplit(request.redirect_uri)
        host = parts.hostname or f"{parts.scheme}:"
        return {"sends_to": request.redirect_uri, "returns_to": host, "path": _path(request)}


def _path(request: AuthorizationRequest) -> str:
    return f"/approve/{request.request_id}"


def _is_for(visit: Visit, request: AuthorizationRequest) -> bool:
    signer = visit.session.signer
    return signer.tenant_id == request.tenant_id and request.login_hint in (None, signer.user_id)

"""How a signer adds a passkey: with a registration authority's ticket, or approved by a passkey she has."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from starlette.responses import Response

from services.authentication import passkeys
from services.authentication.login import login_address
from services.authentication.visits import Visit
from shared.contracts.approval import OpenEnrollment
from shared.contracts.base import R, Request
from shared.errors import Code, RakkanError
from shared.sealing import Secrets, seal

_TICKET_MAX = 256
_LABEL_MAX = 64


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


class Enrolling:
    def __init__(self, *, bus: Bus, sealing_key: X25519PublicKey, service: str, now: Callable[[], datetime]) -> None:
        self._bus = bus
        self._sealing_key = sealing_key
        self._service = service
        self._now = now

    async def show(self, visit: Visit) -> Response:
        """Spends nothing: programs that look at links in mails come here too."""
        ticket = visit.query.get("ticket", "")[:_TICKET_MAX]
        if not ticket and not visit.session.is_logged_in:
            return visit.go(login_address("/account"))
        return visit.page("enroll.html", ticket=ticket)

    async def begin(self, visit: Visit) -> Response:
        visit.check_form("enroll")
        ticket = visit.form.get("ticket", "")
        if ticket:
            sealed = seal(Secrets.of(ticket=ticket[:_TICKET_MAX]), to=self._sealing_key, message=OpenEnrollment.TYPE)
            request = OpenEnrollment(secrets=sealed)
        else:
            signer = visit.session.signer
            request = OpenEnrollment(tenant_id=signer.tenant_id, user_id=signer.user_id)
        opened = await self._bus.ask(request)
        making = passkeys.making(
            opened.challenge,
            service=self._service,
            handle=opened.user_handle,
            name=f"{opened.signer.user_id} ({opened.signer.tenant_id})",
            display_name=opened.signer.display_name,
            exclude=opened.exclude,
        )
        approving = passkeys.asking(opened.challenge, allow=opened.approving) if opened.approving else None
        return visit.page(
            "enroll_key.html",
            enrollment_id=opened.enrollment_id,
            signer=opened.signer,
            label=visit.form.get("label", "").strip()[:_LABEL_MAX],
            making=passkeys.written(making),
            approving=passkeys.written(approving),
            needs_approval=approving is not None,
        )

    async def finish(self, visit: Visit) -> Response:
        enrollment_id = visit.form.get("enrollment_id", "")
        visit.check_form(f"enroll/{enrollment_id}")
        if not passkeys.is_there(visit.form):
            return visit.message("needs_script", status=400, again="/account")
        label = visit.form.get("label", "").strip() or "Passkey"
        if len(label) > _LABEL_MAX:
            raise RakkanError(Code.MALFORMED, "the label is too long")
        request = passkeys.addition(visit.form, enrollment_id=enrollment_id, label=label)
        added = await self._bus.ask(request)
        waits = added.usable_from > self._now()
        return visit.page("enrolled.html", label=label, usable_from=added.usable_from, waits=waits)

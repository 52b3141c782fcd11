"""A signer's own page: her authenticators, what she approved and refused, and the password that logs in.

Whatever weakens or changes how she is known wants a session that began with a passkey.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from starlette.responses import Response

from services.authentication import passwords
from services.authentication.login import login_address
from services.authentication.pages import qr_code
from services.authentication.passwords import Password, Vault
from services.authentication.visits import Visit
from shared.contracts.approval import ReadOverview, RemoveAuthenticator, SignerFound
from shared.contracts.base import R, Request
from shared.errors import Code, RakkanError


class Store(Protocol):
    async def has_password(self, tenant_id: str, user_id: str) -> bool: ...
    async def set_password(self, password: Password) -> None: ...
    async def remove_password(self, tenant_id: str, user_id: str, *, at: datetime) -> None: ...


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


class Account:
    def __init__(
        self, *, store: Store, bus: Bus, vault: Vault | None, service: str, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._bus = bus
        self._vault = vault
        self._service = service
        self._now = now

    async def show(self, visit: Visit) -> Response:
        if not visit.session.is_logged_in:
            return visit.go(login_address("/account"))
        signer = visit.session.signer
        overview = await self._bus.ask(ReadOverview(tenant_id=signer.tenant_id, user_id=signer.user_id))
        return visit.page(
            "account.html",
            signer=signer,
            overview=overview,
            now=self._now(),
            may_change=visit.session.row.method == "passkey",
            has_passwords=self._vault is not None,
            has_password=await self._store.has_password(signer.tenant_id, signer.user_id),
        )

    async def ask_removal(self, visit: Visit) -> Response:
        signer = _by_passkey(visit)
        overview = await self._bus.ask(ReadOverview(tenant_id=signer.tenant_id, user_id=signer.user_id, history_max=1))
        wished = visit.request.path_params["authenticator_id"]
        found = [row for row in overview.authenticators if row.authenticator_id == wished and not row.removed]
        if not found:
            raise RakkanError(Code.NOT_FOUND, "no such authenticator")
        left = sum(not row.removed for row in overview.authenticators) - 1
        return visit.page("remove.html", authenticator=found[0], left=left)

    async def remove(self, visit: Visit) -> Response:
        authenticator_id = visit.request.path_params["authenticator_id"]
        visit.check_form(f"remove/{authenticator_id}")
        signer = _by_passkey(visit)
        await self._bus.ask(
            RemoveAuthenticator(tenant_id=signer.tenant_id, user_id=signer.user_id, authenticator_id=authenticator_id)
        )
        return visit.go("/account")

    async def ask_password(self, visit: Visit) -> Response:
        if not visit.session.is_logged_in:
            return visit.go(login_address("/account/password"))
        _by_passkey(visit)
        return self._password_page(visit, passwords.new_totp_secret())

    async def set_password(self, visit: Visit) -> Response:
        """The code shows that the signer's app has the secret; until then nothing is kept here."""
        visit.check_form("password")
        signer = _by_passkey(visit)
        vault = self._passwords()
        secret = vault.open(_sealed(visit), about=self._pending(visit))
        password = visit.form.get("password", "")
        try:
            passwords.check_new(password, user_id=signer.user_id)
        except RakkanError:
            return self._password_page(visit, secret, refusal="password_weak")
        now = self._now()
        code = passwords.read_code(visit.form.get("code", ""))
        try:
            step = passwords.check_code(secret, code, last_step=0, unix_s=now.timestamp())
        except RakkanError:
            return self._password_page(visit, secret, refusal="code_wrong")
        await self._store.set_password(
            Password(
                tenant_id=signer.tenant_id,
                user_id=signer.user_id,
                display_name=signer.display_name,
                password_hash=await asyncio.to_thread(passwords.hash_new, password),
                totp_sealed=vault.seal(secret, about=f"totp/{signer.tenant_id}/{signer.user_id}"),
                totp_step=step,
            )
        )
        return visit.go("/account")

    async def remove_password(self, visit: Visit) -> Response:
        visit.check_form("password/remove")
        signer = visit.session.signer
        await self._store.remove_password(signer.tenant_id, signer.user_id, at=self._now())
        return visit.go("/account")

    def _password_page(self, visit: Visit, secret: str, *, refusal: str | None = None) -> Response:
        sealed = self._passwords().seal(secret, about=self._pending(visit))
        address = passwords.totp_address(secret, user_id=visit.session.signer.user_id, service=self._service)
        return visit.page(
            "password.html",
            status=400 if refusal else 200,
            secret=" ".join(secret[i : i + 4] for i in range(0, len(secret), 4)),
            address=address,
            picture=qr_code(address),
            pending=base64.b64encode(sealed).decode(),
            refusal=refusal,
        )

    def _passwords(self) -> Vault:
        if self._vault is None:
            raise RakkanError(Code.NOT_FOUND, "passwords are off")
        return self._vault

    def _pending(self, visit: Visit) -> str:
        signer = visit.session.signer
        return f"pending-totp/{visit.session.row.visit_id}/{signer.tenant_id}/{signer.user_id}"


def _by_passkey(visit: Visit) -> SignerFound:
    signer = visit.session.signer
    if visit.session.row.method != "passkey":
        raise RakkanError(Code.AUTHENTICATOR_REQUIRED, "log in with a passkey for this")
    return signer


def _sealed(visit: Visit) -> bytes:
    try:
        return base64.b64decode(visit.form.get("pending", ""), validate=True)
    except (binascii.Error, ValueError):
        raise RakkanError(Code.MALFORMED, "the form is damaged") from None

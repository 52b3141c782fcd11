"""How a signer logs in and out: by passkey, which the SAM verifies, or by password and code. It authorizes nothing."""

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

import structlog
from starlette.responses import JSONResponse, Response

from services.authentication import passkeys, passwords
from services.authentication.passwords import Password, Vault
from services.authentication.sessions import Method
from services.authentication.throttle import FairThrottle, Throttle, site_of
from services.authentication.visits import Visit
from shared.contracts.approval import OpenLogin, SignerFound, VerifyLogin
from shared.contracts.base import R, Request
from shared.errors import Code, RakkanError

log = structlog.get_logger()

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
# Only pages of ours, by name: `//host`, `/\host` and the like would lead to another site.
_NEXT = re.compile(r"/(?:account(?:/password)?|approve/[A-Za-z0-9._~:-]{1,200})")
_HASHING_AT_ONCE = 2  # 64 MiB and a core each
_TYPED_MAX = 512


class Store(Protocol):
    async def charge(self, tenant_id: str, user_id: str, *, at: datetime) -> Password | None: ...
    async def succeed(self, password: Password, *, step: int) -> None: ...
    async def note_refused(self, *, tenant_id: str, user_id: str, method: str, reason: str) -> None: ...


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


def next_page(wished: str | None) -> str:
    return wished if wished and _NEXT.fullmatch(wished) else "/account"


def login_address(next_path: str) -> str:
    return f"/login?next={quote(next_path, safe='')}"


class Login:
    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        vault: Vault | None,
        throttle: Throttle,
        begun: FairThrottle,
        idp_name: str | None,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._bus = bus
        self._vault = vault
        self._throttle = throttle
        self._begun = begun
        self._idp_name = idp_name
        self._now = now
        self._hashing = asyncio.Semaphore(_HASHING_AT_ONCE)

    async def show(self, visit: Visit) -> Response:
        return self._page(visit, next_page(visit.query.get("next")))

    async def begin(self, visit: Visit) -> Response:
        """A challenge, when the signer reaches for her passkey: one made with the page would be stale by then."""
        visit.check_form("login")
        # Each one is a row at the SAM, and anybody can ask for it.
        wait_s = self._begun.take_or_wait_s(visit.address, now=self._now())
        if wait_s:
            headers = {"Retry-After": str(int(wait_s) + 1)}
            return visit.with_cookie(JSONResponse({"error": "temporarily_unavailable"}, 429, headers))
        opened = await self._bus.ask(OpenLogin())
        return visit.with_cookie(JSONResponse({"login_id": opened.login_id, **passkeys.asking(opened.challenge)}))

    async def by_passkey(self, visit: Visit) -> Response:
        visit.check_form("login")
        going_to = next_page(visit.form.get("next"))
        if not passkeys.is_there(visit.form):
            return self._page(visit, going_to, refusal="needs_script", status=400)
        request = VerifyLogin(login_id=_identifier(visit, "login_id"), passkey=passkeys.assertion(visit.form))
        try:
            signer = await self._bus.ask(request)
        except RakkanError as error:
            if error.code not in (Code.EVIDENCE_REFUSED, *_STALE):
                raise
            await self._note_passkey_refused(visit, error.code)
            refusal = "login_stale" if error.code in _STALE else "login_passkey_refused"
            return self._page(visit, going_to, refusal=refusal, status=403)
        return await self._logged_in(visit, signer, "passkey", going_to)

    async def _note_passkey_refused(self, visit: Visit, reason: Code) -> None:
        """Noted while they are few: nobody is made to wait here, and nobody fills the audit log either."""
        now, site = self._now(), site_of(visit.address)
        if self._throttle.wait_s("passkey", site, now=now):
            log.warning("log-in refused", method="passkey", reason=reason)
            return
        self._throttle.failed("passkey", site, now=now)
        await self._store.note_refused(tenant_id="", user_id="", method="passkey", reason=reason)

    async def by_password(self, visit: Visit) -> Response:
        """One answer for whatever is wrong, and about as late: no telling names, passwords, codes and waits apart."""
        visit.check_form("login")
        going_to = next_page(visit.form.get("next"))
        now = self._now()
        site = site_of(visit.address)
        wait_s = self._throttle.wait_s("login", site, now=now)
        if wait_s:
            response = self._page(visit, going_to, refusal="login_throttled", status=429)
            response.headers["Retry-After"] = str(int(wait_s) + 1)
            return response
        try:
            signer = await self._verify(visit, now)
        except RakkanError as error:
            if error.code not in (Code.PIN_INVALID, Code.OTP_INVALID):
                raise
            self._throttle.failed("login", site, now=now)
            await self._store.note_refused(
                tenant_id=_typed(visit, "tenant"), user_id=_typed(visit, "user"), method="password", reason=error.code
            )
            return self._page(visit, going_to, refusal="login_refused", status=403)
        return await self._logged_in(visit, signer, "password", going_to)

    async def _verify(self, visit: Visit, now: datetime) -> SignerFound:
        if self._vault is None:
            raise RakkanError(Code.NOT_FOUND, "passwords are off")
        tenant_id, user_id = _typed(visit, "tenant"), _typed(visit, "user")
        password = await self._store.charge(tenant_id, user_id, at=now) if tenant_id and user_id else None
        known_hash = password.password_hash if password else passwords.NOBODYS_HASH
        async with self._hashing:
            await asyncio.to_thread(passwords.check, known_hash, visit.form.get("password", "")[:_TYPED_MAX])
        if password is None:
            raise RakkanError(Code.PIN_INVALID)
        secret = self._vault.open(password.totp_sealed, about=f"totp/{tenant_id}/{user_id}")
        code = passwords.read_code(visit.form.get("code", "")[:_TYPED_MAX])
        step = passwords.check_code(secret, code, last_step=password.totp_step, unix_s=now.timestamp())
        await self._store.succeed(password, step=step)
        return SignerFound(tenant_id=tenant_id, user_id=user_id, display_name=password.display_name)

    async def log_out(self, visit: Visit) -> Response:
        visit.check_form("logout")
        await visit.sessions.end(visit.session)
        return visit.in_session(await visit.sessions.begin()).go(login_address(next_page(visit.form.get("next"))))

    async def _logged_in(self, visit: Visit, signer: SignerFound, method: Method, going_to: str) -> Response:
        session = await visit.sessions.log_in(visit.session, signer, method)
        return visit.in_session(session).go(going_to)

    def _page(self, visit: Visit, going_to: str, *, refusal: str | None = None, status: int = 200) -> Response:
        return visit.page(
            "login.html",
            status=status,
            connects=True,
            next=going_to,
            refusal=refusal,
            tenant=_typed(visit, "tenant"),
            user=_typed(visit, "user"),
            has_passwords=self._vault is not None,
            idp_name=self._idp_name,
        )


_STALE = (Code.CONTEXT_EXPIRED, Code.CONTEXT_SPENT, Code.CONTEXT_UNKNOWN)


def _typed(visit: Visit, name: str) -> str:
    """An identifier as it was typed, or nothing when it cannot be one."""
    text = visit.form.get(name, "").strip()
    return text if _IDENTIFIER.fullmatch(text) else ""


def _identifier(visit: Visit, name: str) -> str:
    text = _typed(visit, name)
    if not text:
        raise RakkanError(Code.MALFORMED, f"{name} is missing or no identifier")
    return text

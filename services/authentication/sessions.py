"""Browser sessions: the cookie, their ends, and the token that every form carries. Knows no page and no SQL."""

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, Protocol

from shared.contracts.approval import SignerFound
from shared.errors import Code, RakkanError

Method = Literal["passkey", "password", "idp"]
_NOBODYS = timedelta(hours=1)  # anybody can have one by asking, and each is a row
_SEEN_AGAIN = timedelta(seconds=30)  # a write for every request would buy nothing


@dataclass(frozen=True)
class SessionRow:
    """What is known of a browser. `visit_id` stays the same through a log-in, where the cookie changes.

    An authorization request is bound to the visit: a cookie that somebody planted before the log-in is worth nothing
    after it, and the request that was opened before it is still this browser's.
    """

    visit_id: str
    tenant_id: str | None
    user_id: str | None
    display_name: str
    method: Method | None
    language: str | None
    seen_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Session:
    session_id: str = field(repr=False)
    row: SessionRow

    @property
    def signer(self) -> SignerFound:
        """Who is logged in; FORBIDDEN when nobody is."""
        if self.row.tenant_id is None or self.row.user_id is None:
            raise RakkanError(Code.FORBIDDEN, "nobody is logged in")
        return SignerFound(tenant_id=self.row.tenant_id, user_id=self.row.user_id, display_name=self.row.display_name)

    @property
    def is_logged_in(self) -> bool:
        return self.row.user_id is not None

    def form_token(self, form: str) -> str:
        """What this session's form of this name carries. It gives away nothing of the session's id."""
        return hmac.digest(self.session_id.encode(), b"rakkan-form/1\0" + form.encode(), "sha256").hex()

    def check_form(self, form: str, token: str | None) -> None:
        """FORBIDDEN unless the token is of this form in this session: another site can send a form, not read ours."""
        if token is None or not hmac.compare_digest(self.form_token(form).encode(), token.encode()):
            raise RakkanError(Code.FORBIDDEN, "the form is of another session, or another form")


class Store(Protocol):
    async def session(self, session_id: str) -> SessionRow | None: ...
    async def add_session(self, session_id: str, row: SessionRow) -> None: ...
    async def see(self, session_id: str, *, at: datetime) -> None: ...
    async def speak(self, session_id: str, language: str) -> None: ...
    async def log_in(self, old_id: str, new_id: str, row: SessionRow, *, at: datetime) -> None: ...
    async def end_session(self, session_id: str, *, at: datetime) -> None: ...


class Sessions:
    def __init__(self, store: Store, *, https: bool, idle_s: int, lifetime_s: int, now: Callable[[], datetime]) -> None:
        self._store = store
        self._https = https
        self._idle = timedelta(seconds=idle_s)
        self._lifetime = timedelta(seconds=lifetime_s)
        self._now = now

    @property
    def cookie_name(self) -> str:
        # __Host- makes the browser refuse a cookie that another host of the domain, or plain http, tries to set.
        return "__Host-rakkan" if self._https else "rakkan"

    def cookie(self, session: Session) -> str:
        """The Set-Cookie header.

        Lax, not Strict: a partner sends the signer here by a redirect, and the identity provider sends her back by
        one. A Strict cookie would stay behind on both ways, and she would find herself logged out and her request in a
        session she no longer has. What Lax lets through are top-level GETs, and no GET here changes anything; forms
        carry a token besides.
        """
        secure = "; Secure" if self._https else ""
        return f"{self.cookie_name}={session.session_id}; Path=/; HttpOnly; SameSite=Lax{secure}"

    async def of(self, cookies: Mapping[str, str]) -> Session | None:
        """The session of a browser, if it has one that lives."""
        session_id = cookies.get(self.cookie_name, "")
        if not session_id or len(session_id) > 128:  # noqa: PLR2004 - ours have 43 characters
            return None
        row = await self._store.session(session_id)
        now = self._now()
        if row is None or now >= row.expires_at or now >= row.seen_at + self._idle:
            return None
        if now >= row.seen_at + _SEEN_AGAIN:
            await self._store.see(session_id, at=now)
        return Session(session_id, row)

    async def begin(self) -> Session:
        """A session of nobody yet."""
        now = self._now()
        session = Session(
            secrets.token_urlsafe(32),
            SessionRow(
                visit_id=secrets.token_urlsafe(16),
                tenant_id=None,
                user_id=None,
                display_name="",
                method=None,
                language=None,
                seen_at=now,
                expires_at=now + min(self._lifetime, _NOBODYS),
            ),
        )
        await self._store.add_session(session.session_id, session.row)
        return session

    async def log_in(self, session: Session, signer: SignerFound, method: Method) -> Session:
        """The signer's session in place of the one before, under a new id: nobody can have planted that."""
        now = self._now()
        visit_id = session.row.visit_id if not session.is_logged_in else secrets.token_urlsafe(16)
        row = replace(
            session.row,
            visit_id=visit_id,
            tenant_id=signer.tenant_id,
            user_id=signer.user_id,
            display_name=signer.display_name,
            method=method,
            seen_at=now,
            expires_at=now + self._lifetime,
        )
        following = Session(secrets.token_urlsafe(32), row)
        await self._store.log_in(session.session_id, following.session_id, row, at=now)
        return following

    async def speak(self, session: Session, language: str) -> Session:
        await self._store.speak(session.session_id, language)
        return replace(session, row=replace(session.row, language=language))

    async def end(self, session: Session) -> None:
        await self._store.end_session(session.session_id, at=self._now())

"""Telling a signer that an authenticator was added: who is told, in which words, and when it is tried again.

The SAM promises each notice in the transaction that adds the authenticator; here it is a row before it is anything
else, and stays one until a mail server took it. A mail may come twice, under one Message-ID; none is lost.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, formataddr
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

import structlog

from services.authentication import words
from services.authentication.settings import Settings
from shared.contracts.authentication import NoticeAuthenticator, SetNoticeAddress
from shared.contracts.base import Done, Message, Reply
from shared.errors import RakkanError
from shared.messaging import operation

log = structlog.get_logger()

_AT_ONCE = 10
_FIRST_WAIT_S = 60
_WAIT_MAX_S = 3600
_TRIED_FOR = timedelta(days=7)
Outcome = Literal["sent", "undeliverable"]


class MailRefusedError(Exception):
    """The server does not know the recipient, and will not when it is asked again."""


class MailTroubleError(Exception):
    """The server cannot be reached or does not take mail now."""


@dataclass(frozen=True)
class Notice:
    notice_id: str
    tenant_id: str
    user_id: str
    added_at: datetime
    usable_from: datetime
    attempts: int
    email: str | None
    """Where the signer wants it; None when she has named nothing."""


class Store(Protocol):
    async def set_address(self, tenant_id: str, user_id: str, email: str | None, *, at: datetime) -> None: ...
    async def add_notice(self, notice: NoticeAuthenticator, *, at: datetime) -> None: ...
    async def take_notices(self, limit: int, *, now: datetime, wait_s: Callable[[int], float]) -> list[Notice]: ...
    async def end_notice(self, notice: Notice, outcome: Outcome, *, reason: str, at: datetime) -> None: ...


class Mailer(Protocol):
    async def send(self, message: EmailMessage, *, to: str) -> None:
        """MailRefusedError or MailTroubleError unless the server took it."""
        ...


class Notices:
    """`mailer` is None where notices are off."""

    def __init__(self, *, store: Store, mailer: Mailer | None, settings: Settings, now: Callable[[], datetime]) -> None:
        self._store = store
        self._mailer = mailer
        self._settings = settings
        self._now = now

    def by_message(self) -> dict[type[Message], Callable[[Any], Awaitable[Reply | None]]]:
        return {SetNoticeAddress: self.set_address, NoticeAuthenticator: self.take_up}

    async def set_address(self, request: SetNoticeAddress) -> Done:
        await self._store.set_address(request.tenant_id, request.user_id, request.email, at=self._now())
        return Done()

    async def take_up(self, job: NoticeAuthenticator) -> None:
        """Kept before it is sent: the message is acknowledged then, and a mail server may be away for days."""
        if self._mailer is None:
            log.info("notice not sent", why="no mail server in the settings", notice_id=job.authenticator_id)
            return
        await self._store.add_notice(job, at=self._now())

    async def send_waiting(self) -> None:
        """Try those whose time has come; each is put off before it is tried, so that a crash costs a wait only."""
        if self._mailer is None:
            return
        for notice in await self._store.take_notices(_AT_ONCE, now=self._now(), wait_s=wait_s):
            with operation.begin("authentication", timeout_s=self._settings.notices.timeout_s):
                await self._send(self._mailer, notice)

    async def _send(self, mailer: Mailer, notice: Notice) -> None:
        operators = self._settings.notices.operator_email
        for to, who in ((notice.email, "signer"), (operators, "operator")):
            if to is None:
                continue
            try:
                await mailer.send(compose(notice, self._settings, to=to, now=self._now()), to=to)
            except MailRefusedError:
                log.warning("notice refused", notice_id=notice.notice_id, to=who)
            except MailTroubleError as trouble:
                await self._put_off(notice, str(trouble))
                return
            else:
                await self._store.end_notice(notice, "sent", reason=who, at=self._now())
                return
        reason = "refused" if notice.email or operators else "no_address"
        log.error("notice undeliverable", notice_id=notice.notice_id, why=reason)
        await self._store.end_notice(notice, "undeliverable", reason=reason, at=self._now())

    async def _put_off(self, notice: Notice, why: str) -> None:
        if self._now() < notice.added_at + _TRIED_FOR:
            log.warning("notice put off", notice_id=notice.notice_id, attempts=notice.attempts, why=why)
            return
        log.error("notice undeliverable", notice_id=notice.notice_id, why=why)
        await self._store.end_notice(notice, "undeliverable", reason="unreachable", at=self._now())


async def send_for_ever(notices: Notices, *, every_s: float, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Run until cancelled."""
    while True:
        try:
            await notices.send_waiting()
        except RakkanError as trouble:
            log.warning("notices put off", detail=trouble.detail)
        await sleep(every_s)


def wait_s(attempts: int) -> float:
    """How long until the next try, after so many."""
    return float(min(_FIRST_WAIT_S * 2 ** min(attempts, 16), _WAIT_MAX_S))


def compose(notice: Notice, settings: Settings, *, to: str, now: datetime) -> EmailMessage:
    """The mail, in every language at once: which one its reader knows is not known here.

    Nothing in it is secret, and nothing in it was typed by whoever added the authenticator.
    """
    zone = ZoneInfo(settings.time_zone)
    facts = {
        "service": settings.service_name,
        "user": notice.user_id,
        "organization": notice.tenant_id,
        "at": _shown(notice.added_at, zone),
        "usable_from": _shown(notice.usable_from, zone),
        "address": f"{settings.issuer}/account",
    }
    texts = words.load()
    waits = notice.usable_from > notice.added_at
    bodies = [texts[language]["notice_waits" if waits else "notice_at_once"] for language in ("ja", "en")]
    subjects = [texts[language]["notice_subject"].format(**facts) for language in ("ja", "en")]
    sender = settings.notices.sender
    message = EmailMessage()
    message["From"] = formataddr((settings.service_name, sender))
    message["To"] = to
    message["Subject"] = " / ".join(subjects)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<notice-{notice.notice_id}@{sender.partition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n\n----\n\n".join(body.format(**facts) for body in bodies) + "\n", cte="base64")
    return message


def _shown(at: datetime, zone: ZoneInfo) -> str:
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")

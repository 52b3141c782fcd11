"""One request of a browser, from its cookie to the answer: session, language, form, refusals. Knows no story."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import structlog
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from services.authentication import words
from services.authentication.pages import Pages, accepted_language
from services.authentication.sessions import Session, Sessions
from services.authentication.throttle import Throttle, site_of
from shared.errors import RETRYABLE, Code, RakkanError

log = structlog.get_logger()

_CARRIED = ("next", "ticket", "credential")
_CARRIED_MAX = 300
_FIELDS_MAX = 30
_FORM = "application/x-www-form-urlencoded"
# What a signer is told, by status and name of the text.
REFUSALS: dict[Code, tuple[int, str]] = {
    Code.FORBIDDEN: (403, "not_yours"),
    Code.MALFORMED: (400, "malformed"),
    Code.NOT_FOUND: (404, "not_found"),
    Code.CONTEXT_UNKNOWN: (404, "not_found"),
    Code.EXPIRED: (410, "expired"),
    Code.CONTEXT_EXPIRED: (410, "expired"),
    Code.CONTEXT_SPENT: (409, "decided"),
    Code.CONFLICT: (409, "decided"),
    Code.EVIDENCE_REFUSED: (403, "evidence_refused"),
    Code.AUTHENTICATOR_REQUIRED: (403, "authenticator_required"),
    Code.TICKET_REFUSED: (403, "ticket_refused"),
    Code.CREDENTIAL_UNKNOWN: (403, "credential_unusable"),
    Code.CREDENTIAL_DISABLED: (403, "credential_unusable"),
    Code.ASSURANCE_REFUSED: (403, "credential_unusable"),
    Code.CERTIFICATE_EXPIRED: (403, "credential_unusable"),
    Code.CLIENT_REFUSED: (403, "request_unusable"),
    Code.PROFILE_UNKNOWN: (403, "request_unusable"),
    Code.AUTHORITY_UNKNOWN: (403, "request_unusable"),
    Code.AUTHORITY_FORBIDDEN: (403, "request_unusable"),
    Code.FACTOR_UNKNOWN: (403, "authenticator_required"),
    Code.TOO_MANY_SIGNATURES: (403, "request_unusable"),
    Code.HASHES_REQUIRED: (403, "request_unusable"),
    Code.DIGEST_LENGTH: (403, "request_unusable"),
}


@dataclass(frozen=True)
class Visit:
    """A request with everything that was found out about it."""

    request: Request
    session: Session
    language: words.Language
    pages: Pages
    sessions: Sessions
    is_new: bool
    form: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else ""

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    def page(self, template: str, **facts: Any) -> Response:
        where: dict[str, Any] = {"here": self._here(), "carried": self._carried()}
        return self.with_cookie(self.pages.page(template, self.session, self.language, **where, **facts))

    def message(
        self, name: str, *, status: int = 200, again: str | None = None, sends_to: str | None = None, **facts: Any
    ) -> Response:
        """A page that only says something; `again` is where to go on."""
        return self.page("message.html", status=status, sends_to=sends_to, name=name, again=again, facts=facts)

    def go(self, address: str) -> Response:
        """303: the browser fetches the next page by GET, and sends no form on (RFC 9700 4.12)."""
        return self.with_cookie(RedirectResponse(address, status_code=303))

    def with_cookie(self, response: Response) -> Response:
        if self.is_new:
            response.headers.append("Set-Cookie", self.sessions.cookie(self.session))
        return response

    def check_form(self, name: str) -> None:
        self.session.check_form(name, self.form.get("form_token"))

    def in_session(self, session: Session) -> "Visit":
        return replace(self, session=session, is_new=True)

    def speaking(self, language: str) -> "Visit":
        """In the language that a request asks for, unless the signer chose one."""
        wished = words.language_of(language)
        return replace(self, language=wished) if wished and self.session.row.language is None else self

    def _here(self) -> str:
        """The address of the page for the language links; of a page that a form led to, nothing."""
        return self.request.url.path if self.request.method == "GET" else ""

    def _carried(self) -> str:
        """What the language links take along, ending in `&`."""
        carried = {name: self.query[name][:_CARRIED_MAX] for name in _CARRIED if self.query.get(name)}
        return f"{urlencode(carried)}&" if carried else ""


Handler = Callable[[Visit], Awaitable[Response]]


class Entrance:
    """Makes a visit of every request and a page of every refusal."""

    def __init__(self, pages: Pages, sessions: Sessions, begun: Throttle, now: Callable[[], datetime]) -> None:
        self._pages = pages
        self._sessions = sessions
        self._begun = begun
        self._now = now

    def add(self, app: FastAPI, method: str, path: str, handler: Handler) -> None:
        async def endpoint(request: Request) -> Response:
            session = await self._sessions.of(request.cookies)
            if session is None and (wait_s := self._new_session_wait_s(request)):
                return _too_many(wait_s)
            visit = await self._visit(request, session)
            try:
                if method == "POST":
                    visit = replace(visit, form=await _read_form(request))
                return await handler(visit)
            except RakkanError as refusal:
                return _refused(visit, refusal)

        app.add_api_route(path, endpoint, methods=[method], include_in_schema=False, response_model=None)

    def _new_session_wait_s(self, request: Request) -> float:
        """Each new one is a row, and anybody can have one by coming without a cookie."""
        now, site = self._now(), site_of(request.client.host if request.client else "")
        wait_s = self._begun.wait_s("", site, now=now)
        if not wait_s:
            self._begun.failed("", site, now=now)
        return wait_s

    async def _visit(self, request: Request, session: Session | None) -> Visit:
        is_new = session is None
        if session is None:
            session = await self._sessions.begin()
        chosen = words.language_of(request.query_params.get("lang", ""))
        if chosen and chosen != session.row.language:
            session = await self._sessions.speak(session, chosen)
        language = words.language_of(session.row.language or "") or accepted_language(
            request.headers.get("accept-language", "")
        )
        return Visit(request, session, language, self._pages, self._sessions, is_new)


def _too_many(wait_s: float) -> Response:
    """Without a session there is no page to say it on."""
    text = (
        "アクセスが集中しています。少し待ってから、もう一度開いてください。\n"
        "There are very many visits from here at the moment. Wait a few seconds and open this again.\n"
    )
    return PlainTextResponse(text, status_code=429, headers={"Retry-After": str(int(wait_s) + 1)})


def _refused(visit: Visit, refusal: RakkanError) -> Response:
    if refusal.code is Code.FORBIDDEN and visit.is_new and visit.request.method == "POST":
        return visit.message("session_ended", status=403, again="/login")
    if refusal.code in REFUSALS:
        status, name = REFUSALS[refusal.code]
        log.info("page refused", path=visit.request.url.path[:200], code=refusal.code, detail=refusal.detail)
    elif refusal.code in RETRYABLE:
        status, name = 503, "unavailable"
        log.warning("page not served", code=refusal.code, detail=refusal.detail)
    else:
        status, name = 500, "failed"
        log.error("page failed", code=refusal.code, detail=refusal.detail)
    again = visit.request.url.path if status == 503 and visit.request.method == "GET" else None  # noqa: PLR2004 - HTTP
    return visit.message(name, status=status, again=again)


async def _read_form(request: Request) -> Mapping[str, str]:
    """The fields of a form, each once. Of another site's form nothing is read where the browser says so."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise RakkanError(Code.FORBIDDEN, "a form of another site")
    if request.headers.get("content-type", "").split(";", maxsplit=1)[0].strip().lower() != _FORM:
        raise RakkanError(Code.MALFORMED, "not a form")
    try:
        fields = parse_qsl(
            (await request.body()).decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX, errors="strict"
        )
    except ValueError:  # also what UnicodeDecodeError is
        raise RakkanError(Code.MALFORMED, "the form cannot be read") from None
    form = dict(fields)
    if len(form) != len(fields):
        raise RakkanError(Code.MALFORMED, "a field is there twice")
    return form

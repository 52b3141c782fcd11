"""HTTP to a certification authority: gives back answers and knows nothing of what they mean. Only here is httpx known.

We talk to whom the registry names and to nobody else: no redirects, no proxies or netrc of the environment, and URLs
that a CA hands out are asked only at its own origin. An answer has a limit in bytes and an exchange one in time.
"""

import asyncio
import base64
import email.utils
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx

from shared.errors import Code, RakkanError
from shared.settings import SettingsError

_FAULT = 500
_REDIRECTS = range(300, 400)
_OUR_CREDENTIALS = frozenset({401, 403, 407})
_SURELY_NOT_DONE = frozenset({429, 503})
"""Statuses by which a server says that it did not take the request up."""
_RETRY_AFTER_MAX = timedelta(days=400)
_KEPT_S = 5.0
"""A kept connection that the server is just closing would make a request uncertain: keep none for long."""
NO_STATUSES: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Answer:
    """A whole answer: below 500, no redirect, not about our credentials."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def retry_after(self, now: datetime) -> datetime | None:
        """When the server wants to be asked again (RFC 9110 10.2.3); nothing when it says none that can be read."""
        written = self.headers.get("retry-after", "").strip()
        if written.isascii() and written.isdigit() and len(written) < len("1000000000"):
            return now + min(timedelta(seconds=int(written)), _RETRY_AFTER_MAX)
        try:
            at = email.utils.parsedate_to_datetime(written)
        except ValueError:
            return None
        return min(at if at.tzinfo else at.replace(tzinfo=UTC), now + _RETRY_AFTER_MAX)


class Peer:
    """One CA's web server, with what it knows us by."""

    def __init__(
        self, http: httpx.AsyncClient, *, base_url: str, timeout_s: float, answer_bytes_max: int, knocks: bool = False
    ) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._origin = _origin(httpx.URL(base_url))
        self._timeout_s = timeout_s
        self._answer_bytes_max = answer_bytes_max
        self._knocks = knocks
        self._answered_at = float("-inf")

    @classmethod
    def open(
        cls,
        base_url: str,
        *,
        timeout_s: float,
        answer_bytes_max: int = 1_000_000,
        connections_max: int = 64,
        tls_anchors: tuple[str, ...] = (),
        client_certificate: Path | None = None,
        authorization: str | None = None,
    ) -> Self:
        """Reads files, and no network. `tls_anchors` (PEM) replace what the system believes.

        `client_certificate` is a PEM file of certificate and key; `authorization` a header's whole value.
        """
        http = httpx.AsyncClient(
            verify=_tls(base_url, tls_anchors, client_certificate),
            headers={"accept-encoding": "identity", "user-agent": "rakkan"}
            | ({} if authorization is None else {"authorization": authorization}),
            timeout=httpx.Timeout(timeout_s),
            limits=httpx.Limits(max_connections=connections_max, keepalive_expiry=_KEPT_S),
            follow_redirects=False,
            trust_env=False,
        )
        return cls(
            http,
            base_url=base_url,
            timeout_s=timeout_s,
            answer_bytes_max=answer_bytes_max,
            knocks=client_certificate is not None and base_url.startswith("https:"),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        expects: Iterable[str] | None = None,
        returns: frozenset[int] = NO_STATUSES,
        once: bool = False,
    ) -> Answer:
        """One exchange. `path` is relative to the base URL, or a whole URL of the same origin.

        `expects`: media types, of which a success must be one. `returns`: statuses that are given back although they
        would raise. `once`: what may have reached the CA and was not answered raises INDETERMINATE, since to ask again
        might be a second certificate; without it that is AUTHORITY_UNAVAILABLE. What surely was not taken up is
        AUTHORITY_UNAVAILABLE, a refusal of our credentials AUTHORITY_REFUSED, nonsense AUTHORITY_UNTRUSTED.
        """
        wanted = None if expects is None else frozenset(expects)
        sent = _Sent()
        request = self._http.build_request(
            method,
            self._url(path),
            content=content,
            headers={**({} if wanted is None else {"accept": ", ".join(sorted(wanted))}), **(headers or {})},
            extensions={"trace": sent.trace},
        )
        unanswered = Code.INDETERMINATE if once else Code.AUTHORITY_UNAVAILABLE
        if once and self._knocks:
            await self._knock()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._exchange(request)
        except (TimeoutError, httpx.TimeoutException):
            code = unanswered if sent.begun else Code.AUTHORITY_UNAVAILABLE
            raise RakkanError(code, f"no answer in {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise _broken(error, unanswered if sent.begun else Code.AUTHORITY_UNAVAILABLE) from None
        if answer.status not in returns:
            _check_status(answer.status, unanswered)
        _check_type(answer, wanted)
        return answer

    async def _knock(self) -> None:
        """A question that changes nothing, before one that must not be doubted, unless one was just answered.

        In TLS 1.3 a server refuses our certificate only after we began to write, and its alert may get lost in the
        end of the connection: to the request itself that would look as if it might have arrived.
        """
        clock = asyncio.get_running_loop()
        if clock.time() - self._answered_at < _KEPT_S:
            return
        sent = _Sent()
        request = self._http.build_request("HEAD", f"{self._base_url}/", extensions={"trace": sent.trace})
        try:
            async with asyncio.timeout(self._timeout_s):
                await (await self._http.send(request, stream=True)).aclose()
        except (TimeoutError, httpx.TimeoutException):
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE, f"no answer in {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            hung_up = sent.begun and isinstance(error, httpx.ReadError | httpx.RemoteProtocolError)
            code = Code.AUTHORITY_REFUSED if hung_up else Code.AUTHORITY_UNAVAILABLE
            raise _broken(error, code) from None

    async def _exchange(self, request: httpx.Request) -> Answer:
        response = await self._http.send(request, stream=True)
        try:
            if "content-encoding" in response.headers:
                raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an encoded body, which was not asked for")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > self._answer_bytes_max:
                    detail = f"an answer of more than {self._answer_bytes_max} bytes"
                    raise RakkanError(Code.AUTHORITY_UNTRUSTED, detail)
            self._answered_at = asyncio.get_running_loop().time()
            return Answer(response.status_code, dict(response.headers), bytes(body))
        finally:
            await response.aclose()

    def _url(self, path: str) -> httpx.URL:
        try:
            url = httpx.URL(path if "://" in path else f"{self._base_url}/{path.lstrip('/')}")
        except httpx.InvalidURL:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an address that cannot be read") from None
        if _origin(url) != self._origin:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an address at another origin than the authority's own")
        return url


def basic(username: str, password: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class _Sent:
    """Whether a request began to be written: from then on the CA may have it."""

    begun = False

    async def trace(self, event: str, _: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            self.begun = True


def _tls(base_url: str, anchors: tuple[str, ...], client_certificate: Path | None) -> ssl.SSLContext:
    if not base_url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # believes nobody; the system's anchors take time to read
    context = ssl.create_default_context(cadata="\n".join(anchors) or None)
    if client_certificate is not None:
        try:
            context.load_cert_chain(client_certificate, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"{client_certificate} holds no certificate and key: {type(error).__name__}") from None
    return context


def _no_password() -> str:
    """Without this OpenSSL asks the terminal."""
    raise SettingsError("the key of a client certificate is encrypted, and no password is known")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _broken(error: httpx.HTTPError, code: Code) -> RakkanError:
    """What a broken exchange means. In TLS 1.3 a server refuses our certificate after we began to write."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RakkanError(Code.AUTHORITY_UNTRUSTED, "the server's certificate is not the authority's")
        if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
            return RakkanError(Code.AUTHORITY_REFUSED, "our client certificate was refused")
        cause = cause.__cause__ or cause.__context__
    return RakkanError(code, f"the exchange broke off: {type(error).__name__}")


def _check_status(status: int, unanswered: Code) -> None:
    if status in _OUR_CREDENTIALS:
        raise RakkanError(Code.AUTHORITY_REFUSED, f"HTTP status {status}: our credentials are refused")
    if status in _SURELY_NOT_DONE:
        raise RakkanError(Code.AUTHORITY_UNAVAILABLE, f"HTTP status {status}")
    if status in _REDIRECTS:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"HTTP status {status}: redirects are not followed")
    if status >= _FAULT:
        raise RakkanError(unanswered, f"HTTP status {status}")


def _check_type(answer: Answer, wanted: frozenset[str] | None) -> None:
    # Some servers send no type; a portal's HTML page with status 200 does.
    if wanted is None or not answer.body or not answer.content_type or not httpx.codes.is_success(answer.status):
        return
    if answer.content_type not in wanted:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"an answer of the type {answer.content_type[:60]!r}")

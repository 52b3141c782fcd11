"""The TSAs' endpoints, and where certificate statuses are told: gives back bodies, knows nothing of what they mean.

We talk to whom the registry names, or a certificate that its anchors vouch for. HTTP itself is `http.py`.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Self

from services.tsa_connector.http import Answer, NotSentError, Origin, check_header
from services.tsa_connector.logins import Login, Secrets, open_login
from shared.errors import Code, RakkanError
from shared.registry import TimeStampingAuthority
from shared.settings import SettingsError

_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"
_OK = 200
_REFUSALS = {400, 401, 403, 404, 405, 407, 415}
"""Statuses that repeat themselves until an operator mends something."""
_STATUS_BYTES_MAX = 8_388_608
_STATUS_TIMEOUT_S = 5.0
_BASE_HEADERS = {"accept-encoding": "identity", "user-agent": "rakkan"}
_HEADERS = _BASE_HEADERS | {"accept": _REPLY, "content-type": _QUERY}


class TSAClient:
    """One TSA's endpoint, with what it knows us by."""

    def __init__(self, origin: Origin, login: Login, *, timeout_s: float) -> None:
        self._origin = origin
        self._login = login
        self.timeout_s = timeout_s

    @classmethod
    def open(cls, tsa: TimeStampingAuthority, secrets: Secrets) -> Self:
        """Reads files, and no network. Raises SettingsError for a secret that is missing or cannot be used."""
        login = open_login(tsa.login, secrets)
        for name, value in login.headers(b"").items():
            check_header(name, value)
        origin = Origin(
            tsa.url,
            tls=_tls(tsa, login),
            connect_timeout_s=tsa.connect_timeout_s,
            connections_max=tsa.connections_max,
            bytes_max=tsa.answer_bytes_max,
        )
        return cls(origin, login, timeout_s=tsa.timeout_s)

    def close(self) -> None:
        self._origin.close()

    async def ask(self, query: bytes, *, timeout_s: float) -> bytes:
        """The answer's body, asked for once."""
        headers = {**_HEADERS, **self._login.headers(query)}
        answer = await self._origin.request("POST", query, headers=headers, timeout_s=timeout_s)
        _check_head(answer)
        return answer.body

    async def connect(self) -> None:
        """Whether anybody is there. Costs no token and no quota."""
        await self._origin.knock()


class StatusClient:
    """Where CRLs and OCSP answers come from. Each is asked so seldom that no connection is kept."""

    async def crl(self, url: str) -> bytes:
        return await self._fetch(url, "GET", b"", {})

    async def ocsp(self, url: str, query: bytes) -> bytes:
        return await self._fetch(url, "POST", query, {"content-type": "application/ocsp-request"})

    async def _fetch(self, url: str, method: str, content: bytes, headers: Mapping[str, str]) -> bytes:
        try:
            origin = Origin(
                url,
                tls=ssl.create_default_context() if url.startswith("https:") else None,
                connect_timeout_s=_STATUS_TIMEOUT_S,
                connections_max=1,
                bytes_max=_STATUS_BYTES_MAX,
            )
            answer = await origin.request(
                method,
                content,
                headers={**_BASE_HEADERS, **headers, "connection": "close"},
                timeout_s=_STATUS_TIMEOUT_S,
            )
        except (SettingsError, ValueError):  # a certificate may name anything
            raise RakkanError(Code.TSA_UNAVAILABLE, "no address that can be asked") from None
        if answer.status != _OK:
            raise RakkanError(Code.TSA_UNAVAILABLE, f"HTTP status {answer.status}")
        return answer.body


def _tls(tsa: TimeStampingAuthority, login: Login) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata="\n".join(tsa.tls_anchors) if tsa.tls_anchors else None)
    if login.certificate_file is not None:
        try:
            context.load_cert_chain(login.certificate_file)
        except (OSError, ssl.SSLError):
            raise SettingsError(f"{login.certificate_file.name} is no PEM of certificate and key") from None
    return context


def _check_head(answer: Answer) -> None:
    if answer.status in _REFUSALS:
        raise RakkanError(Code.TSA_REFUSED, f"HTTP status {answer.status}")
    if answer.status != _OK:
        raise RakkanError(Code.TSA_UNAVAILABLE, f"HTTP status {answer.status}")
    if "content-encoding" in answer.headers:
        raise RakkanError(Code.TSA_UNTRUSTED, "an encoded body, which was not asked for")
    # RFC 3161 3.4 names the type. Some TSAs send none; a portal's HTML page with status 200 does.
    content_type = answer.headers.get("content-type", _REPLY).partition(";")[0].strip().lower()
    if content_type != _REPLY:
        raise RakkanError(Code.TSA_UNTRUSTED, "an answer of another content type")


class Clients:
    """The client of each TSA of the registry; those of an older registry end when their last answer is in."""

    def __init__(self, tsas: Mapping[str, TimeStampingAuthority], secrets: Secrets) -> None:
        self._secrets = secrets
        self._open = self._opened(tsas)
        self._retired: set[asyncio.Task[None]] = set()

    def of(self, name: str) -> TSAClient:
        try:
            return self._open[name]
        except KeyError:
            raise NotSentError(Code.TSA_UNAVAILABLE, f"{name} has left the registry") from None

    def use(self, tsas: Mapping[str, TimeStampingAuthority]) -> None:
        """All anew, since a secret may have changed as well; SettingsError leaves the former in use."""
        new = self._opened(tsas)
        former, self._open = self._open, new
        patience_s = max((client.timeout_s for client in former.values()), default=0.0) + 1.0
        self._retire(former, after_s=patience_s)

    async def close(self) -> None:
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        for client in self._open.values():
            client.close()

    def _opened(self, tsas: Mapping[str, TimeStampingAuthority]) -> dict[str, TSAClient]:
        return {name: TSAClient.open(tsa, self._secrets) for name, tsa in tsas.items()}

    def _retire(self, former: Mapping[str, TSAClient], *, after_s: float) -> None:
        async def close() -> None:
            try:
                await asyncio.sleep(after_s)
            finally:
                for client in former.values():
                    client.close()

        task = asyncio.create_task(close(), name="close former clients")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

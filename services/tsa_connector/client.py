"""HTTP to TSAs and to where certificate statuses are told: gives back bodies, knows nothing of what they mean.

We talk to whom the registry names, or a certificate that its anchors vouch for: no redirects, no proxies or netrc of
the environment. An answer has a limit in bytes, held while it comes in, and an exchange one in time. Only here is httpx
known.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Self

import httpx

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


class NotSentError(RakkanError):
    """TSA_UNAVAILABLE, and surely nothing reached the TSA."""


class BrokenError(RakkanError):
    """TSA_UNAVAILABLE: the connection broke. A kept one may have been stale, so once more may help."""


class LateError(RakkanError):
    """TSA_UNAVAILABLE: no whole answer in time."""


class TSAClient:
    """One TSA's endpoint, with what it knows us by."""

    def __init__(self, http: httpx.AsyncClient, tsa: TimeStampingAuthority, login: Login) -> None:
        self._http = http
        self._tsa = tsa
        self.timeout_s = tsa.timeout_s
        self._login = login
        self._url = httpx.URL(tsa.url)

    @classmethod
    def open(cls, tsa: TimeStampingAuthority, secrets: Secrets) -> Self:
        """Reads files, and no network. Raises SettingsError for a secret that is missing or no certificate with key."""
        login = open_login(tsa.login, secrets)
        http = httpx.AsyncClient(
            verify=_tls(tsa, login),
            headers=_BASE_HEADERS | {"accept": _REPLY, "content-type": _QUERY},
            timeout=httpx.Timeout(tsa.timeout_s, connect=tsa.connect_timeout_s),
            limits=httpx.Limits(max_connections=tsa.connections_max, keepalive_expiry=30.0),
            follow_redirects=False,
            trust_env=False,
        )
        return cls(http, tsa, login)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, query: bytes, *, timeout_s: float) -> bytes:
        """The answer's body, asked for once."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(query)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSentError(Code.TSA_UNAVAILABLE, f"cannot be reached: {type(error).__name__}") from None
        except (TimeoutError, httpx.TimeoutException):
            raise LateError(Code.TSA_UNAVAILABLE, f"no answer in {timeout_s:.3g} s") from None
        except httpx.HTTPError as error:
            raise BrokenError(Code.TSA_UNAVAILABLE, f"the connection broke: {type(error).__name__}") from None

    async def _ask(self, query: bytes) -> bytes:
        headers = self._login.headers(query)
        async with self._http.stream("POST", self._url, content=query, headers=headers) as response:
            _check_head(response)
            return await _body(response, bytes_max=self._tsa.answer_bytes_max)

    async def connect(self) -> None:
        """Whether anybody is there: a connection, TLS included, and not a word over it. Costs no token and no quota."""
        try:
            async with asyncio.timeout(self._tsa.connect_timeout_s):
                context = _tls(self._tsa, self._login) if self._url.scheme == "https" else None
                port = self._url.port or (443 if context else 80)
                _, writer = await asyncio.open_connection(self._url.host, port, ssl=context)
                writer.close()
        except (OSError, ssl.SSLError) as error:  # TimeoutError is an OSError
            raise NotSentError(Code.TSA_UNAVAILABLE, f"cannot be reached: {type(error).__name__}") from None


class StatusClient:
    """Where CRLs and OCSP answers come from."""

    def __init__(self) -> None:
        self._http = httpx.AsyncClient(
            headers=_BASE_HEADERS, timeout=_STATUS_TIMEOUT_S, follow_redirects=False, trust_env=False
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def crl(self, url: str) -> bytes:
        return await self._fetch(self._http.build_request("GET", url))

    async def ocsp(self, url: str, query: bytes) -> bytes:
        headers = {"content-type": "application/ocsp-request"}
        return await self._fetch(self._http.build_request("POST", url, content=query, headers=headers))

    async def _fetch(self, request: httpx.Request) -> bytes:
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                response = await self._http.send(request, stream=True)
                try:
                    if response.status_code != _OK:
                        raise RakkanError(Code.TSA_UNAVAILABLE, f"HTTP status {response.status_code}")
                    return await _body(response, bytes_max=_STATUS_BYTES_MAX)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise RakkanError(Code.TSA_UNAVAILABLE, f"cannot be reached: {type(error).__name__}") from None


def _tls(tsa: TimeStampingAuthority, login: Login) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata="\n".join(tsa.tls_anchors) if tsa.tls_anchors else None)
    if login.certificate_file is not None:
        try:
            context.load_cert_chain(login.certificate_file)
        except (OSError, ssl.SSLError):
            raise SettingsError(f"{login.certificate_file.name} is no PEM of certificate and key") from None
    return context


def _check_head(response: httpx.Response) -> None:
    if response.status_code in _REFUSALS:
        raise RakkanError(Code.TSA_REFUSED, f"HTTP status {response.status_code}")
    if response.status_code != _OK:
        raise RakkanError(Code.TSA_UNAVAILABLE, f"HTTP status {response.status_code}")
    if "content-encoding" in response.headers:
        raise RakkanError(Code.TSA_UNTRUSTED, "an encoded body, which was not asked for")
    # RFC 3161 3.4 names the type. Some TSAs send none; a portal's HTML page with status 200 does.
    content_type = response.headers.get("content-type", _REPLY).partition(";")[0].strip().lower()
    if content_type != _REPLY:
        raise RakkanError(Code.TSA_UNTRUSTED, "an answer of another content type")


async def _body(response: httpx.Response, *, bytes_max: int) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > bytes_max:
            raise RakkanError(Code.TSA_UNTRUSTED, f"an answer of more than {bytes_max} bytes")
    return bytes(body)


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
            await client.close()

    def _opened(self, tsas: Mapping[str, TimeStampingAuthority]) -> dict[str, TSAClient]:
        return {name: TSAClient.open(tsa, self._secrets) for name, tsa in tsas.items()}

    def _retire(self, former: Mapping[str, TSAClient], *, after_s: float) -> None:
        async def close() -> None:
            try:
                await asyncio.sleep(after_s)
            finally:
                for client in former.values():
                    await client.close()

        task = asyncio.create_task(close(), name="close former clients")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

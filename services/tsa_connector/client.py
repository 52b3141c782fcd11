"""HTTP to the TSA: gives back the body of an answer and knows nothing of what it means. Only this file knows httpx."""

import asyncio
import ssl
from typing import Self

import httpx

from services.tsa_connector.settings import TSA
from shared.errors import Code, RakkanError
from shared.settings import secret

_CONTENT_TYPE = "application/timestamp-reply"
_OK = 200
_REFUSALS = {400, 401, 403, 404, 405, 407, 415}
"""Statuses that repeat themselves until an operator mends something."""


class TSAClient:
    """One TSA's endpoint, with what we authenticate by."""

    def __init__(self, http: httpx.AsyncClient, *, url: str, timeout_s: float, answer_bytes_max: int) -> None:
        self._http = http
        self._url = url
        self._timeout_s = timeout_s
        self._answer_bytes_max = answer_bytes_max

    @classmethod
    def open(cls, settings: TSA) -> Self:
        """Without redirects, without the environment's proxies and netrc: we talk to whom the settings name."""
        tls = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        http = httpx.AsyncClient(
            verify=tls,
            auth=_authentication(settings),
            headers={"accept": _CONTENT_TYPE, "accept-encoding": "identity", "user-agent": "rakkan"}
            | _authorization(settings),
            timeout=httpx.Timeout(settings.timeout_s, connect=settings.connect_timeout_s),
            limits=httpx.Limits(max_connections=settings.connections_max, keepalive_expiry=30.0),
            follow_redirects=False,
            trust_env=False,
        )
        return cls(http, url=settings.url, timeout_s=settings.timeout_s, answer_bytes_max=settings.answer_bytes_max)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, query: bytes) -> bytes:
        """The answer's body. A connection that breaks is tried once more, in the same time: a kept one may be stale."""
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._ask_once(query)
                except (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                    return await self._ask_once(query)
        except (TimeoutError, httpx.TimeoutException):
            raise RakkanError(Code.TSA_UNAVAILABLE, f"no answer in {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise RakkanError(Code.TSA_UNAVAILABLE, f"cannot be reached: {type(error).__name__}") from None

    async def _ask_once(self, query: bytes) -> bytes:
        headers = {"content-type": "application/timestamp-query"}
        async with self._http.stream("POST", self._url, content=query, headers=headers) as response:
            _check_head(response)
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > self._answer_bytes_max:
                    raise RakkanError(Code.TSA_UNTRUSTED, f"an answer of more than {self._answer_bytes_max} bytes")
            return bytes(body)


def _check_head(response: httpx.Response) -> None:
    if response.status_code in _REFUSALS:
        raise RakkanError(Code.TSA_REFUSED, f"HTTP status {response.status_code}")
    if response.status_code != _OK:
        raise RakkanError(Code.TSA_UNAVAILABLE, f"HTTP status {response.status_code}")
    if "content-encoding" in response.headers:
        raise RakkanError(Code.TSA_UNTRUSTED, "an encoded body, which was not asked for")
    # RFC 3161 3.4 names the type. Some TSAs send none; a portal's HTML page with status 200 does.
    content_type = response.headers.get("content-type", _CONTENT_TYPE).partition(";")[0].strip().lower()
    if content_type != _CONTENT_TYPE:
        raise RakkanError(Code.TSA_UNTRUSTED, "an answer of another content type")


def _authentication(settings: TSA) -> httpx.Auth | None:
    if settings.username is None or settings.password_file is None:
        return None
    return httpx.BasicAuth(settings.username, secret(settings.password_file))


def _authorization(settings: TSA) -> dict[str, str]:
    return {} if settings.bearer_file is None else {"authorization": f"Bearer {secret(settings.bearer_file)}"}

"""An operator's identity provider logs signers in: an OpenID Connect client, code flow with PKCE. No authorization.

Who may approve a signature is not its to say: the SAM wants a passkey that it enrolled itself.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import httpx
import structlog
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.responses import Response

from services.authentication.login import next_page
from services.authentication.settings import IdP
from services.authentication.visits import Visit
from shared.contracts.approval import ReadOverview, SignerFound
from shared.contracts.base import R, Request
from shared.errors import Code, RakkanError
from shared.settings import secret

log = structlog.get_logger()

_ALGORITHMS = ("RS256", "PS256", "ES256", "Ed25519", "EdDSA")
_CLOCKS_DIFFER_S = 60
_FLOW_S = 600
_ANSWER_BYTES_MAX = 262_144
_DISCOVERY_KEPT = timedelta(hours=1)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Flow:
    """A log-in under way: what the answer must fit."""

    visit_id: str
    nonce: str
    code_verifier: str = field(repr=False)
    continue_to: str
    expires_at: datetime


@dataclass(frozen=True)
class Discovered:
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    until: datetime


class Store(Protocol):
    async def keep_flow(self, state: str, flow: Flow) -> None: ...
    async def take_flow(self, state: str, *, visit_id: str) -> Flow | None: ...
    async def note_refused(self, *, tenant_id: str, user_id: str, method: str, reason: str) -> None: ...


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


class IdentityProvider:
    """The pages `/idp/start` and `/idp/callback`."""

    def __init__(
        self,
        settings: IdP,
        *,
        issuer: str,
        own_address: str,
        store: Store,
        bus: Bus,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._issuer = issuer
        self._callback = f"{own_address}/idp/callback"
        self._store = store
        self._bus = bus
        self._now = now
        self._discovered: Discovered | None = None

    async def start(self, visit: Visit) -> Response:
        discovered = await self._discover()
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        flow = Flow(
            visit_id=visit.session.row.visit_id,
            nonce=secrets.token_urlsafe(32),
            code_verifier=verifier,
            continue_to=next_page(visit.query.get("next")),
            expires_at=self._now() + timedelta(seconds=_FLOW_S),
        )
        await self._store.keep_flow(state, flow)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._callback,
            "scope": self._settings.scope,
            "state": state,
            "nonce": flow.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "ui_locales": visit.language,
        }
        separator = "&" if urlsplit(discovered.authorization_endpoint).query else "?"
        return visit.go(f"{discovered.authorization_endpoint}{separator}{urlencode(query)}")

    async def callback(self, visit: Visit) -> Response:
        """Only in the browser that began, only once, and only from this provider (RFC 9207)."""
        flow = await self._store.take_flow(visit.query.get("state", ""), visit_id=visit.session.row.visit_id)
        if flow is None or self._now() >= flow.expires_at:
            raise RakkanError(Code.FORBIDDEN, "no log-in was begun in this browser, or it took too long")
        if visit.query.get("iss", self._issuer) != self._issuer:
            raise RakkanError(Code.FORBIDDEN, "the answer is from another provider")
        code = visit.query.get("code")
        if not code:
            log.info("log-in refused by the identity provider", error=visit.query.get("error", "")[:100])
            return visit.message("idp_refused", status=403, again="/login")
        try:
            claims = await self._exchange(code, flow)
            signer = await self._known(claims)
        except RakkanError as error:
            if error.code is not Code.FORBIDDEN:
                raise
            log.warning("log-in by the identity provider refused", detail=error.detail)
            await self._store.note_refused(
                tenant_id=self._settings.tenant_id, user_id="", method="idp", reason=error.code
            )
            return visit.message("idp_refused", status=403, again="/login")
        session = await visit.sessions.log_in(visit.session, signer, "idp")
        return visit.in_session(session).go(flow.continue_to)

    async def _known(self, claims: dict[str, Any]) -> SignerFound:
        """The signer that the SAM knows by this name; FORBIDDEN when it knows none."""
        user_id = claims.get(self._settings.user_id_claim)
        if not isinstance(user_id, str) or not _IDENTIFIER.fullmatch(user_id):
            raise RakkanError(Code.FORBIDDEN, f"no identifier in the claim {self._settings.user_id_claim}")
        request = ReadOverview(tenant_id=self._settings.tenant_id, user_id=user_id, history_max=1)
        try:
            await self._bus.ask(request)
        except RakkanError as error:
            if error.code not in (Code.NOT_FOUND, Code.USER_ID_UNKNOWN):
                raise
            raise RakkanError(Code.FORBIDDEN, "the provider's user is no signer here") from None
        name = claims.get("name")
        return SignerFound(
            tenant_id=self._settings.tenant_id,
            user_id=user_id,
            display_name=name[:255] if isinstance(name, str) and name else user_id,
        )

    async def _exchange(self, code: str, flow: Flow) -> dict[str, Any]:
        discovered = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": flow.code_verifier,
        }
        answer = await self._fetch("POST", discovered.token_endpoint, data=form, auth=self._authentication())
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise RakkanError(Code.FORBIDDEN, "the provider's answer has no ID token")
        keys = await self._fetch("GET", discovered.jwks_uri)
        return check_id_token(
            token,
            keys,
            issuer=self._issuer,
            client_id=self._settings.client_id,
            nonce=flow.nonce,
            now=self._now(),
        )

    async def _discover(self) -> Discovered:
        if self._discovered is None or self._now() >= self._discovered.until:
            document = await self._fetch("GET", f"{self._issuer}/.well-known/openid-configuration")
            if document.get("issuer") != self._issuer:
                raise RakkanError(Code.UNAVAILABLE, "the provider calls itself otherwise")
            self._discovered = Discovered(
                authorization_endpoint=_address(document.get("authorization_endpoint")),
                token_endpoint=_address(document.get("token_endpoint")),
                jwks_uri=_address(document.get("jwks_uri")),
                until=self._now() + _DISCOVERY_KEPT,
            )
        return self._discovered

    def _authentication(self) -> httpx.BasicAuth:
        file = self._settings.client_secret_file
        if file is None:
            raise RakkanError(Code.UNAVAILABLE, "no client secret for the identity provider")
        return httpx.BasicAuth(self._settings.client_id, secret(file))

    async def _fetch(self, method: str, address: str, **more: Any) -> dict[str, Any]:
        """A JSON object of the provider's. FORBIDDEN when it refuses, UNAVAILABLE when it is away or talks nonsense."""
        try:
            async with _client() as client, client.stream(method, address, **more) as response:
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > _ANSWER_BYTES_MAX:
                        raise RakkanError(Code.UNAVAILABLE, "the identity provider's answer is too long")
            answer = json.loads(body)
        except (httpx.HTTPError, ValueError) as trouble:
            raise RakkanError(Code.UNAVAILABLE, f"identity provider: {type(trouble).__name__}") from None
        if response.is_client_error:
            raise RakkanError(Code.FORBIDDEN, f"the identity provider answered {response.status_code}")
        if not response.is_success or not isinstance(answer, dict):
            raise RakkanError(Code.UNAVAILABLE, f"the identity provider answered {response.status_code}")
        return answer


class _Registry(jws.JWSRegistry):
    """The header names the key, the list here says which algorithms there are: neither none nor HMAC.

    joserfc warns of the name EdDSA, which providers still write for Ed25519.
    """

    def get_alg(self, name: str) -> Any:
        if name not in _ALGORITHMS:
            raise RakkanError(Code.FORBIDDEN, "an ID token by an algorithm that is not allowed")
        return self.algorithms[name]


def check_id_token(
    token: str, keys: dict[str, Any], *, issuer: str, client_id: str, nonce: str, now: datetime
) -> dict[str, Any]:
    """The claims of an ID token that is for us, from this provider, of this log-in and of now (OIDC Core 3.1.3.7)."""
    try:
        claims = jwt.decode(token, KeySet.import_key_set(keys), registry=_Registry()).claims  # type: ignore[arg-type] # joserfc wants its own TypedDict
    except (JoseError, ValueError, KeyError, TypeError):
        raise RakkanError(Code.FORBIDDEN, "the ID token is not signed by a key of the provider") from None
    if claims.get("iss") != issuer:
        raise RakkanError(Code.FORBIDDEN, "the ID token is of another provider")
    audience = claims.get("aud")
    if audience not in (client_id, [client_id]):
        raise RakkanError(Code.FORBIDDEN, "the ID token is for others too, or for others only")
    if claims.get("azp", client_id) != client_id:
        raise RakkanError(Code.FORBIDDEN, "the ID token was issued to another party")
    if not isinstance(claims.get("nonce"), str) or not hmac.compare_digest(claims["nonce"].encode(), nonce.encode()):
        raise RakkanError(Code.FORBIDDEN, "the ID token is of another log-in")
    unix_s = now.timestamp()
    expires, issued = claims.get("exp"), claims.get("iat")
    if not isinstance(expires, int | float) or unix_s >= expires + _CLOCKS_DIFFER_S:
        raise RakkanError(Code.FORBIDDEN, "the ID token has expired")
    if not isinstance(issued, int | float) or not issued - _CLOCKS_DIFFER_S <= unix_s <= issued + _FLOW_S:
        raise RakkanError(Code.FORBIDDEN, "the ID token is not of now")
    return dict(claims)


def _address(value: Any) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise RakkanError(Code.UNAVAILABLE, "the provider names an address that is not https")
    return str(value)


@asynccontextmanager
async def _client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=httpx.Timeout(5.0), follow_redirects=False, trust_env=False) as client:
        yield client

"""Who comes in, through which service, and how often: the header, its token, the proof of a bound one. Asks no room."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic
from typing import Protocol

import structlog
from starlette.requests import Request

from services.gateway import settings
from services.gateway.bases import service_of
from services.gateway.csc.model import Version
from services.gateway.handlers import Caller
from services.gateway.limits import Buckets
from services.gateway.refusals import MALFORMED_HEADER, CSCError
from services.gateway.selection import Selection, check_service, select_for_anybody, select_for_client
from shared.dpop import ALGORITHMS, ReplayMemory, check_proof
from shared.errors import Code, RakkanError
from shared.mtls import check_bound
from shared.proxies import certificate_of
from shared.registry import Registry
from shared.tokens import AccessToken, TokenReader, verifying_keys
from shared.trust import Trust

_AUTHORIZATION = re.compile(r"(bearer|dpop) +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)
_TOKEN_MAX = 8192
_NOT_OF_THE_TOKEN = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
"""What `info` refuses with all the same: another service's path, another tenant's service, too many at once."""


@dataclass(frozen=True, slots=True)
class _Presented:
    """A token as the header carries it."""

    text: str
    with_proof: bool


class Registries(Protocol):
    """The registry of trust services; another one from one request to the next when the operator changes it."""

    @property
    def current(self) -> Registry: ...


class Entrance:
    """Lets in clients with a good token. Each token is checked again by the room that acts on it."""

    def __init__(self, settings: settings.Settings, trust: Trust, registries: Registries) -> None:
        limits = settings.limits
        self._registries = registries
        self._public_url = settings.public_url
        self._tokens = TokenReader(verifying_keys(trust))
        self._seen = ReplayMemory()
        self._clients = Buckets(per_s=limits.requests_per_s, burst=limits.burst, callers_max=limits.callers_max)
        self._strangers = Buckets(
            per_s=limits.anonymous_requests_per_s, burst=limits.anonymous_burst, callers_max=limits.callers_max
        )

    def client(self, request: Request, version: Version) -> Caller:
        """The client of a good token, within its rate."""
        now = datetime.now(UTC)
        registry, service_name = self._registries.current, service_of(request)
        try:
            check_service(registry, service_name)
            presented = _presented(request, version)
            facts = self._tokens.read(presented.text, now=now)
            self._check_possession(request, presented, facts, now=now)
        except (CSCError, RakkanError):
            self.stranger(request)
            raise
        structlog.contextvars.bind_contextvars(client_id=facts.client_id, tenant_id=facts.tenant_id)
        self._clients.take(facts.client_id, now_s=monotonic())
        selection = select_for_client(
            registry, service_name=service_name, client_id=facts.client_id, tenant_id=facts.tenant_id
        )
        return Caller(presented.text, facts, selection)

    def anybody(self, request: Request, version: Version) -> Selection:
        """Who asks for `info`: a client when a good token came, which is shown more; else whoever it is.

        A token that does not do is not refused, since `info` wants none (CSC 11.1).
        """
        if "authorization" in request.headers:
            try:
                return self.client(request, version).selection
            except (CSCError, RakkanError) as error:
                if isinstance(error, CSCError) and error.refusal.status in _NOT_OF_THE_TOKEN:
                    raise
        else:
            self.stranger(request)
        return select_for_anybody(self._registries.current, service_name=service_of(request))

    def stranger(self, request: Request) -> None:
        """Anybody, within the rate of an address."""
        self._strangers.take(request.client.host if request.client else "", now_s=monotonic())

    def check_sad(self, sad: str, caller: Caller) -> None:
        """A credential token in the place of a SAD keeps its binding: whoever stole it needs its key all the same.

        Only the binding is looked at here; whether the SAD is good at all is the SAM's to say.
        """
        try:
            facts = self._tokens.read(sad, now=datetime.now(UTC))
        except RakkanError:
            return
        if facts.key_thumbprint not in (None, caller.facts.key_thumbprint):
            raise RakkanError(Code.SAD_INVALID, "a token bound to another key than the request's")
        if facts.certificate_thumbprint not in (None, caller.facts.certificate_thumbprint):
            raise RakkanError(Code.SAD_INVALID, "a token bound to another certificate than the request's")

    def _check_possession(self, request: Request, presented: _Presented, facts: AccessToken, *, now: datetime) -> None:
        """RFC 9449 7.1 and 7.2: a token bound to a key comes with a proof by it, and never as a plain Bearer.

        RFC 8705 3: one bound to a certificate comes over a connection that showed it.
        """
        if facts.certificate_thumbprint is not None:
            check_bound(certificate_of(request.scope), thumbprint=facts.certificate_thumbprint, now=now)
        if presented.with_proof != (facts.key_thumbprint is not None):
            raise RakkanError(Code.TOKEN_INVALID, "a token bound to a key comes as DPoP, any other as Bearer")
        if facts.key_thumbprint is None:
            return
        proofs = request.headers.getlist("dpop")
        if len(proofs) != 1:
            raise RakkanError(Code.TOKEN_INVALID, "exactly one DPoP proof, please")
        check_proof(
            proofs[0],
            method=request.method,
            url=self._public_url + request.url.path,
            access_token=presented.text,
            key_thumbprint=facts.key_thumbprint,
            now=now,
            seen=self._seen,
        )


def challenge(request: Request, status: int, error: str) -> dict[str, str]:
    """WWW-Authenticate for a 401: both ways are open, and the one that was tried is told what was wrong."""
    if status != HTTPStatus.UNAUTHORIZED:
        return {}
    # RFC 6750 knows one word for every token that does not do; which it was stands in the body.
    wrong = f', error="invalid_token", error_description="{error}"'
    tried_proof = request.headers.get("authorization", "").lower().startswith("dpop ")
    bearer = 'Bearer realm="rakkan"' + ("" if tried_proof else wrong)
    dpop = f'DPoP realm="rakkan", algs="{" ".join(ALGORITHMS)}"' + (wrong if tried_proof else "")
    return {"WWW-Authenticate": f"{bearer}, {dpop}"}


def _presented(request: Request, version: Version) -> _Presented:
    headers = request.headers.getlist("authorization")
    found = _AUTHORIZATION.fullmatch(headers[0]) if len(headers) == 1 else None
    if found is None:
        raise CSCError(MALFORMED_HEADER.of(version))
    if len(found[2]) > _TOKEN_MAX:
        raise RakkanError(Code.TOKEN_INVALID, "longer than any of ours")
    return _Presented(found[2], with_proof=found[1].lower() == "dpop")

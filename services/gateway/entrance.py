"""Who comes in and how often: the Authorization header, its token, the proof of a bound one. Asks no room."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic

import structlog
from starlette.requests import Request

from services.gateway import settings
from services.gateway.csc.model import Version
from services.gateway.handlers import Caller
from services.gateway.limits import Buckets
from services.gateway.refusals import MALFORMED_HEADER, CSCError
from shared.dpop import ALGORITHMS, ReplayMemory, check_proof
from shared.errors import Code, RakkanError
from shared.tokens import AccessToken, TokenReader, verifying_keys
from shared.trust import Trust

_AUTHORIZATION = re.compile(r"(bearer|dpop) +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)
_TOKEN_MAX = 8192


@dataclass(frozen=True, slots=True)
class _Presented:
    """A token as the header carries it."""

    text: str
    with_proof: bool


class Entrance:
    """Lets in clients with a good token. Each token is checked again by the room that acts on it."""

    def __init__(self, settings: settings.Settings, trust: Trust) -> None:
        limits = settings.limits
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
        try:
            presented = _presented(request, version)
            facts = self._tokens.read(presented.text, now=now)
            self._check_possession(request, presented, facts, now=now)
        except (CSCError, RakkanError):
            self.stranger(request)
            raise
        structlog.contextvars.bind_contextvars(client_id=facts.client_id, tenant_id=facts.tenant_id)
        self._clients.take(facts.client_id, now_s=monotonic())
        return Caller(presented.text, facts)

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
        if facts.key_thumbprint is not None and facts.key_thumbprint != caller.facts.key_thumbprint:
            raise RakkanError(Code.SAD_INVALID, "a token bound to another key than the request's")

    def _check_possession(self, request: Request, presented: _Presented, facts: AccessToken, *, now: datetime) -> None:
        """RFC 9449 7.1 and 7.2: a bound token comes with a proof by its key, and never as a plain Bearer."""
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

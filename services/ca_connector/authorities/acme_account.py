"""An ACME account (RFC 8555 6 and 7.3): every request signed by its key under a nonce of the server. Knows no order."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, Final, Self

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from services.ca_connector.answers import look, words
from services.ca_connector.client import Answer, Peer
from shared.errors import Code, RakkanError
from shared.settings import SettingsError

JSON = "application/json"
PROBLEM = "application/problem+json"
_JOSE = "application/jose+json"
_ERRORS = "urn:ietf:params:acme:error:"
_NONCES_MAX = 16
_TRIES = 8
"""A server may refuse a good nonce any time, and says then which one it will take (RFC 8555 6.5)."""
_FAULT, _NOT_FOUND = 400, 404
_READ_TOO: Final = frozenset({401, 403})
_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_REGISTRY = JWSRegistry(strict_check_header=False, algorithms=[*_ALGORITHMS.values(), "RS256", "Ed25519", "HS256"])
_NOT_US = frozenset(
    {
        "accountDoesNotExist",
        "externalAccountRequired",
        "unauthorized",
        "userActionRequired",
        "invalidContact",
        "unsupportedContact",
        "badSignatureAlgorithm",
    }
)
_LATER = frozenset({"rateLimited", "serverInternal"})
Key = ECKey | RSAKey | OKPKey


@dataclass(frozen=True)
class Problem:
    """RFC 8555 6.7, with the detail that is fit to be shown."""

    kind: str
    detail: str

    @classmethod
    def of(cls, document: Any) -> Self:
        kind = look(document, "/type")
        detail = look(document, "/detail")
        below = [look(one, "/detail") for one in look(document, "/subproblems") or () if isinstance(one, dict)]
        said = [one for one in (detail, *below) if isinstance(one, str)]
        return cls(str(kind).removeprefix(_ERRORS)[:60], words("; ".join(said)) or "no reason given")

    def __str__(self) -> str:
        return f"{self.detail} ({self.kind})"

    def raise_unless_about_the_request(self) -> None:
        if self.kind in _NOT_US:
            raise RakkanError(Code.AUTHORITY_REFUSED, f"our account is refused: {self}")
        if self.kind in _LATER:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE, str(self))


@dataclass(frozen=True)
class Binding:
    """To an account that the operator has at the CA outside ACME (RFC 8555 7.3.4)."""

    key_id: str
    key: str
    """base64url, as the CA hands it out."""


class Account:
    """Made, or found again, at its first use."""

    def __init__(
        self, peer: Peer, *, directory: str, key_pem: str, contacts: tuple[str, ...], binding: Binding | None
    ) -> None:
        self._peer = peer
        self._directory_url = directory
        self._key, self._algorithm = _load(key_pem)
        self._contacts = contacts
        self._binding = None if binding is None else (binding.key_id, _secret(binding))
        self._directory: dict[str, str] = {}
        self._nonces: list[str] = []
        self._url: str | None = None

    async def url_of(self, resource: str) -> str:
        if not self._directory:
            answer = await self._peer.request("GET", self._directory_url, expects=(JSON,))
            document = read_json(answer)
            self._directory = {name: value for name, value in document.items() if isinstance(value, str)}
        if resource not in self._directory:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"a directory without {resource}")
        return self._directory[resource]

    async def ask(self, url: str, payload: dict[str, Any] | None = None) -> Answer | Problem:
        """POST under our account; without a payload that reads (POST-as-GET)."""
        if self._url is None:
            self._url = await self._acquire()
        answer = await self._signed(url, payload, {"kid": self._url})
        if isinstance(answer, Problem) and answer.kind == "accountDoesNotExist":
            self._url = None  # it was deleted there: the next request makes it again
        return answer

    async def open(self) -> None:
        """Raise unless the CA knows us, after asking it once more."""
        self._url = await self._acquire()

    async def _acquire(self) -> str:
        url = await self.url_of("newAccount")
        public = self._key.as_dict(private=False)
        payload: dict[str, Any] = {"termsOfServiceAgreed": True}
        if self._contacts:
            payload["contact"] = list(self._contacts)
        if self._binding is not None:
            key_id, key = self._binding
            header = {"alg": "HS256", "kid": key_id, "url": url}
            payload["externalAccountBinding"] = _sign(header, json.dumps(public).encode(), key)
        answer = await self._signed(url, payload, {"jwk": public})
        if isinstance(answer, Problem):
            answer.raise_unless_about_the_request()
            raise RakkanError(Code.AUTHORITY_REFUSED, f"no account: {answer}")
        # A server that knows the account already may leave its object empty.
        status = read_json(answer).get("status", "valid")
        if status != "valid":
            raise RakkanError(Code.AUTHORITY_REFUSED, f"our account is {words(status)}")
        return location(answer)

    async def _signed(self, url: str, payload: dict[str, Any] | None, who: dict[str, Any]) -> Answer | Problem:
        content = b"" if payload is None else json.dumps(payload).encode()
        for _ in range(_TRIES):
            header = {"alg": self._algorithm, "nonce": await self._nonce(), "url": url, **who}
            body = json.dumps(_sign(header, content, self._key)).encode()
            answer = await self._peer.request(
                "POST", url, content=body, headers={"content-type": _JOSE}, returns=_READ_TOO
            )
            self._keep(answer)
            if answer.status < _FAULT:
                _demand_nonce(answer)
                return answer
            problem = _problem(answer)
            if problem.kind != "badNonce":
                return problem
        raise RakkanError(Code.AUTHORITY_UNAVAILABLE, f"no nonce of {_TRIES} was taken")

    async def _nonce(self) -> str:
        if not self._nonces:
            self._keep(await self._peer.request("HEAD", await self.url_of("newNonce")))
        if not self._nonces:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "no nonce came")
        return self._nonces.pop()

    def _keep(self, answer: Answer) -> None:
        nonce = answer.headers.get("replay-nonce", "")
        if re.fullmatch(r"[A-Za-z0-9_-]{1,256}", nonce):
            self._nonces = [*self._nonces[-_NONCES_MAX + 1 :], nonce]


def _demand_nonce(answer: Answer) -> None:
    """Every success brings one (RFC 8555 6.5); some say nothing else, and a portal's page has a good status too."""
    if "replay-nonce" not in answer.headers:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"HTTP status {answer.status} without a nonce")


def _problem(answer: Answer) -> Problem:
    """What the CA says is wrong. A refusal that is none of ACME's may come from something in between."""
    if answer.status == _NOT_FOUND and answer.content_type != PROBLEM:
        return Problem("", "HTTP status 404")
    refused = answer.status in _READ_TOO
    document = {} if refused and answer.content_type not in {JSON, PROBLEM} else read_json(answer)
    if not str(document.get("type", "")).startswith(_ERRORS):
        code = Code.AUTHORITY_REFUSED if refused else Code.AUTHORITY_UNTRUSTED
        raise RakkanError(code, f"HTTP status {answer.status} without an ACME error")
    return Problem.of(document)


def read_json(answer: Answer) -> dict[str, Any]:
    """The object that an answer is; AUTHORITY_UNTRUSTED when it is none."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or answer.content_type not in {JSON, PROBLEM}:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"HTTP status {answer.status} without an ACME object")
    return document


def location(answer: Answer) -> str:
    url = answer.headers.get("location", "")
    if not url.startswith(("https://", "http://")):
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer without the address of what it made")
    return url


def _sign(header: dict[str, Any], payload: bytes, key: Key | OctKey) -> dict[str, Any]:
    signed = jws.serialize_json({"protected": header}, payload, key, registry=_REGISTRY)
    return {"protected": signed["protected"], "payload": signed["payload"], "signature": signed["signature"]}


def _load(pem: str) -> tuple[Key, str]:
    for kind in (ECKey, RSAKey, OKPKey):
        try:
            key = kind.import_key(pem)
        except (JoseError, ValueError, TypeError):
            continue
        if not key.is_private:
            break
        if isinstance(key, ECKey):
            return key, _ALGORITHMS[key.curve_name]
        return key, "RS256" if isinstance(key, RSAKey) else "Ed25519"
    raise SettingsError("the account key is no private key in PEM")


def _secret(binding: Binding) -> OctKey:
    key = binding.key.rstrip("=")
    if not re.fullmatch(r"[A-Za-z0-9_-]{22,1000}", key):
        raise SettingsError("the key of the external account binding is not in base64url, or shorter than 128 bits")
    return OctKey.import_key(base64.urlsafe_b64decode(key + "=" * (-len(key) % 4)))

"""A partner's program as tests play it: tokens, authorizations, signatures over HTTP. Knows only the public doors."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import httpx
from cryptography import x509

from deploy.local.partner import Client
from tests.support.signatures import ECDSA_SHA256, Way

CLEAN = {(500, "server_error"), (503, "temporarily_unavailable")}
"""What a fault of ours may look like from outside."""


@dataclass(frozen=True)
class Answer:
    """What came back, whatever it was."""

    status: int
    body: dict[str, Any]
    leaving: bool = False
    """Whether the server asked us to go elsewhere."""

    @property
    def refusal(self) -> tuple[int, str, str]:
        return self.status, self.body.get("error", ""), self.body.get("error_description", "")

    @property
    def values(self) -> tuple[bytes, ...]:
        assert self.status == 200, self.body
        return tuple(base64.b64decode(value) for value in self.body["signatures"])


@dataclass(frozen=True)
class Partner:
    """`secrets` gathers every secret that was ever used, for the search for secrets in clear."""

    http: httpx.AsyncClient
    gateway_url: str
    authentication_url: str
    client: Client
    secrets: set[str]
    token: str = ""

    async def logged_in(self) -> "Partner":
        answer = await self.ask_token()
        assert answer.status == 200, answer.body
        return replace(self, token=self._kept(answer.body["access_token"]))

    def at(self, *, gateway_url: str = "", authentication_url: str = "") -> "Partner":
        """The same program with the address of a replica."""
        return replace(
            self,
            gateway_url=gateway_url or self.gateway_url,
            authentication_url=authentication_url or self.authentication_url,
        )

    async def ask_token(self) -> Answer:
        credentials = httpx.BasicAuth(self.client.client_id, self._kept(self.client.secret))
        form = {"grant_type": "client_credentials", "scope": "service"}
        url = f"{self.authentication_url}/oauth2/token"
        return _read(await self.http.post(url, data=form, auth=credentials))

    async def revoke(self, token: str) -> int:
        credentials = httpx.BasicAuth(self.client.client_id, self.client.secret)
        url = f"{self.authentication_url}/oauth2/revoke"
        return (await self.http.post(url, data={"token": token}, auth=credentials)).status_code

    async def call(
        self, method: str, parameters: dict[str, Any], *, token: str | None = None, version: str = "v1"
    ) -> Answer:
        bearer = self.token if token is None else token
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        url = f"{self.gateway_url}/csc/{version}/{method}"
        return _read(await self.http.post(url, json=parameters, headers=headers))

    async def certificate(self, credential_id: str) -> x509.Certificate:
        answer = await self.call("credentials/info", {"credentialID": credential_id, "certificates": "single"})
        assert answer.status == 200, answer.body
        return x509.load_der_x509_certificate(base64.b64decode(answer.body["cert"]["certificates"][0]))

    async def ask_sad(
        self, credential_id: str, digests: Iterable[bytes], *, pin: str, otp: str | None = None
    ) -> Answer:
        """Authorize exactly these digests."""
        encoded = _base64(digests)
        wish = {"credentialID": credential_id, "numSignatures": len(encoded), "hash": encoded, "PIN": self._kept(pin)}
        answer = await self.call("credentials/authorize", wish | ({"OTP": otp} if otp is not None else {}))
        if answer.status == 200:
            self._kept(answer.body["SAD"])
        return answer

    async def authorize(self, credential_id: str, *digests: bytes, pin: str, otp: str | None = None) -> str:
        answer = await self.ask_sad(credential_id, digests, pin=pin, otp=otp)
        assert answer.status == 200, answer.body
        sad: str = answer.body["SAD"]
        return sad

    async def sign(self, credential_id: str, sad: str, *digests: bytes, way: Way = ECDSA_SHA256) -> Answer:
        request: dict[str, Any] = {"credentialID": credential_id, "SAD": sad, "hash": _base64(digests)}
        request |= {"signAlgo": way.sign_oid}
        if way.names_hash:
            request["hashAlgo"] = way.hash_oid
        if way.parameters is not None:
            request["signAlgoParams"] = base64.b64encode(way.parameters).decode()
        return await self.call("signatures/signHash", request)

    async def timestamp(self, digest: bytes) -> Answer:
        request = {"hash": _base64([digest])[0], "hashAlgo": "2.16.840.1.101.3.4.2.1"}
        return await self.call("signatures/timestamp", request)

    def _kept(self, secret: str) -> str:
        self.secrets.add(secret)
        return secret


def sad_hash(sad: str) -> bytes:
    """By which the database knows it."""
    return hashlib.sha256(sad.encode()).digest()


def _base64(digests: Iterable[bytes]) -> list[str]:
    return [base64.b64encode(digest).decode() for digest in digests]


def _read(response: httpx.Response) -> Answer:
    leaving = response.headers.get("connection", "").lower() == "close"
    return Answer(response.status_code, response.json() if response.content else {}, leaving)

"""Clients of the authorization server as tests play them, and signers who grant at once."""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from services.authentication.account_tokens import account_token_key
from services.authentication.clients import hash_secret
from services.authentication.oauth import JWT_BEARER
from shared.contracts.authentication import AddClient
from shared.tokens import AccessToken, read_token, verifying_keys
from tests.support.authentication import ISSUER, World, asked_by_operator

SECRET = "rks_secret-of-a-partner"
CALLBACK = "https://partner.example/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SHA256_OID = "2.16.840.1.101.3.4.2.1"
DIGEST = hashlib.sha256(b"contract").digest()
SECOND_DIGEST = hashlib.sha256(b"annex\xff").digest()
KEY = ECKey.generate_key("P-256")
OTHER_KEY = ECKey.generate_key("P-256")


def jwks_of(key: ECKey) -> str:
    return json.dumps(KeySet([key]).as_dict(private=False))


ADDED = (
    AddClient(tenant_id="acme", client_id="web", name="Partner's portal", redirect_uris=(CALLBACK,)),
    AddClient(tenant_id="acme", client_id="web-2", name="Second portal", redirect_uris=(CALLBACK,)),
    AddClient(
        tenant_id="acme",
        client_id="old",
        name="v1 application",
        redirect_uris=(CALLBACK, f"{CALLBACK}?of=old"),
        flags=("pkce-optional", "token-type-sad", "account-tokens"),
    ),
    AddClient(
        tenant_id="acme",
        client_id="bank",
        name="Bank",
        method="private_key_jwt",
        jwks=jwks_of(KEY),
        profile="hardened",
        redirect_uris=(CALLBACK,),
    ),
    AddClient(
        tenant_id="acme",
        client_id="bank-2",
        name="Other bank",
        method="private_key_jwt",
        jwks=jwks_of(OTHER_KEY),
        profile="hardened",
        redirect_uris=(CALLBACK,),
    ),
    AddClient(tenant_id="acme", client_id="batch", name="Asks no signers"),
)


async def add_clients(store: Any, *more: AddClient) -> None:
    """The tenant and the clients above, and more of them, in a real store or a fake one."""
    with asked_by_operator():
        async with store.change() as change:
            await change.add_tenant("acme", "Acme")
            for client in (*ADDED, *more):
                has_secret = client.method == "client_secret"
                await change.add_client(
                    client,
                    secret_hash=hash_secret(client.client_id, SECRET) if has_secret else None,
                    account_token_key=account_token_key(SECRET) if "account-tokens" in client.flags else None,
                )


async def new_world() -> World:
    world = World(attempts_max=1000)
    await add_clients(world.store)
    return world


def basic(client_id: str = "web", secret: str = SECRET) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def authorization(**changed: str | None) -> dict[str, str]:
    """The parameters of a request for scope service; None takes one away."""
    form: dict[str, str | None] = {
        "response_type": "code",
        "client_id": "web",
        "redirect_uri": CALLBACK,
        "scope": "service",
        "state": "af0ifjsldkj",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return {name: value for name, value in (form | changed).items() if value is not None}


def signing(**changed: str | None) -> dict[str, str]:
    """The same for scope credential, with the plain parameters of CSC v2."""
    plain = {"scope": "credential", "credentialID": "c-1", "hashes": b64url(DIGEST), "hashAlgorithmOID": SHA256_OID}
    return authorization(**({**plain, "numSignatures": "1"} | changed))


def detail(**changed: Any) -> dict[str, Any]:
    """One element of authorization_details, in the spelling of 2.2."""
    written = {
        "type": "https://cloudsignatureconsortium.org/2025/credential",
        "credentialID": "c-1",
        "numSignatures": 1,
        "documentDigests": [{"hash": b64(DIGEST), "label": "Contract.pdf", "hashType": "DTBSR"}],
        "hashAlgorithmOID": SHA256_OID,
    } | changed
    return {name: value for name, value in written.items() if value is not None}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Partner:
    """One client's view of the server, and the browser of a signer who grants what is asked."""

    world: World
    client_id: str = "web"
    key: ECKey = field(default_factory=lambda: KEY)
    proof_key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))

    def __post_init__(self) -> None:
        self.http = self.world.client()

    @property
    def is_hardened(self) -> bool:
        return self.client_id.startswith("bank")

    def authenticated(self, path: str, *, proof: bool = True) -> tuple[dict[str, str], dict[str, str]]:
        """Form and headers by which this client proves itself at a path."""
        if not self.is_hardened:
            return {}, basic(self.client_id)
        form = self.assertion()
        return form, {"DPoP": self.proof(path)} if proof else {}

    def assertion(self, **changed: Any) -> dict[str, str]:
        at = int(self.world.clock.now().timestamp())
        claims = {"iss": self.client_id, "sub": self.client_id, "aud": ISSUER, "exp": at + 60, "jti": new_id()}
        text = jwt.encode({"alg": "ES256"}, claims | changed, self.key, algorithms=["ES256"])
        return {"client_id": self.client_id, "client_assertion": text, "client_assertion_type": JWT_BEARER}

    def proof(self, path: str, *, header: Mapping[str, Any] = {}, key: ECKey | None = None, **changed: Any) -> str:
        key = key or self.proof_key
        claims = {"htm": "POST", "htu": ISSUER + path, "iat": int(self.world.clock.now().timestamp()), "jti": new_id()}
        head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False), **header}
        given = {name: value for name, value in (claims | changed).items() if value is not None}
        return jwt.encode(head, given, key, algorithms=["ES256"])

    async def push(self, **form: str) -> httpx.Response:
        own, headers = self.authenticated("/oauth2/pushed_authorize", proof=False)
        return await self.http.post("/oauth2/pushed_authorize", data=form | own, headers=headers)

    async def ask(self, **form: str) -> str:
        """The id of the request that the page would show."""
        if self.is_hardened:
            pushed = await self.push(**form)
            assert pushed.status_code == 201, pushed.text
            form = {"client_id": self.client_id, "request_uri": pushed.json()["request_uri"]}
        answer = await self.http.get("/oauth2/authorize", params=form)
        assert answer.status_code == 303, answer.text
        location = answer.headers["location"]
        assert location.startswith(f"{ISSUER}/approve/"), location
        return str(location.rsplit("/", 1)[1])

    async def grant(self, request_id: str, *, user_id: str = "alice", session_id: str = "s") -> dict[str, str]:
        """What the client is told after the signer said yes."""
        return answer_of(await grant(self.world, request_id, user_id=user_id, session_id=session_id))

    async def code(self, **form: str) -> str:
        told = await self.grant(await self.ask(**(form or authorization(client_id=self.client_id))))
        return told["code"]

    async def redeem(self, code: str, **form: str | None) -> httpx.Response:
        return await self.token(
            **(
                {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
                | form
            )
        )

    async def token(self, **form: str | None) -> httpx.Response:
        own, headers = self.authenticated("/oauth2/token")
        given = {name: value for name, value in (form | own).items() if value is not None}
        return await self.http.post("/oauth2/token", data=given, headers=headers)

    async def refresh(self, refresh_token: str, **form: str) -> httpx.Response:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **form)

    async def revoke(self, text: str, **form: str) -> httpx.Response:
        own, headers = self.authenticated("/oauth2/revoke", proof=False)
        return await self.http.post("/oauth2/revoke", data={"token": text} | form | own, headers=headers)

    def read(self, text: str) -> AccessToken:
        return read_token(text, verifying_keys(self.world.trust), now=self.world.clock.now())


async def grant(world: World, request_id: str, *, user_id: str = "alice", session_id: str = "s") -> str:
    """What the page does when the signer approves: the SAM made the authorization a-1."""
    with asked_by_operator():
        request = await world.oauth.requests.open(request_id, session_id=session_id)
        credential = request.scope == "credential"
        return await world.oauth.requests.granted(
            request_id,
            session_id=session_id,
            tenant_id=request.tenant_id,
            user_id=user_id,
            authorization_id="a-1" if credential else None,
            credential_id=(request.credential_id or "c-1") if credential else None,
        )


def answer_of(location: str) -> dict[str, str]:
    """The parameters of a redirect, none of them twice."""
    pairs = parse_qsl(urlsplit(location).query, keep_blank_values=True)
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, error and description of a JSON refusal."""
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()["error"], answer.json().get("error_description", "")


def told(answer: httpx.Response) -> dict[str, str]:
    """What a redirect from the authorization endpoint tells the client."""
    assert answer.status_code == 303, answer.text
    location = answer.headers["location"]
    assert location.startswith(CALLBACK), location
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def account_token(world: World, **changed: Any) -> str:
    key = OctKey.import_key(hashlib.sha256(SECRET.encode()).digest())
    at = int(world.clock.now().timestamp())
    claims = {"sub": "alice", "iat": at, "jti": new_id(), "azp": "old"} | changed
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode({"alg": "HS256", "typ": "JWT"}, given, key, algorithms=["HS256"])


def new_id() -> str:
    return secrets.token_urlsafe(12)

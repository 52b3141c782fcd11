"""Log-in by an operator's identity provider, against a small provider of ours that signs real ID tokens (joserfc)."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from starlette.responses import JSONResponse, Response

from services.authentication.idp import check_id_token
from services.authentication.settings import IdP
from shared.errors import Code, RakkanError
from shared.http import HTTPDoor, serve_http
from tests.support.authentication import Clock
from tests.support.signers import Front, b64

KEY = ECKey.generate_key("P-256", {"kid": "one"})
KEYS = KeySet([KEY]).as_dict(private=False)
CLIENT = "rakkan"
SECRET = "secret-of-rakkan"


@dataclass
class Provider:
    """One user, logged in already. What it is told to get wrong, it gets wrong."""

    clock: Clock
    issuer: str = ""
    user: str = "alice"
    asked: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, Any] = field(default_factory=dict)
    discovery: dict[str, Any] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        async def discover() -> JSONResponse:
            names = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "jwks"}
            document = {"issuer": self.issuer} | {name: f"{self.issuer}/{path}" for name, path in names.items()}
            return JSONResponse(document | self.discovery)

        @app.get("/jwks")
        async def jwks() -> JSONResponse:
            return JSONResponse(KEYS)

        @app.post("/token")
        async def token(request: Request) -> Response:
            form = dict(parse_qsl((await request.body()).decode()))
            basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
            challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
            if (
                request.headers["authorization"] != f"Basic {basic}"
                or form["code"] != "the-code"
                or challenge.decode() != self.asked["code_challenge"]
                or form["redirect_uri"] != self.asked["redirect_uri"]
            ):
                return JSONResponse({"error": "invalid_grant"}, status_code=400)
            return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": self.token()})

        return app

    def token(self) -> str:
        at = int(self.clock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": self.user,
            "name": "Alice of the IdP",
            "nonce": self.asked["nonce"],
            "iat": at,
            "exp": at + 300,
        }
        return jwt.encode({"alg": "ES256", "kid": "one"}, claims | self.wrong, KEY, algorithms=["ES256"])

    def answer(self, address: str) -> dict[str, str]:
        """What the browser brings back from the authorization endpoint."""
        parts = urlsplit(address)
        assert address.startswith(f"{self.issuer}/auth?")
        self.asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return {"code": "the-code", "state": self.asked["state"], "iss": self.issuer}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider(Clock())
    async with serve_http(provider.app(), HTTPDoor(leave_s=0)) as port:
        provider.issuer = f"http://127.0.0.1:{port}"
        yield provider


@pytest.fixture
def front(provider: Provider, tmp_path: Path) -> Front:
    (tmp_path / "secret").write_text(SECRET)
    idp = IdP(
        issuer=provider.issuer,
        name="Acme SSO",
        client_id=CLIENT,
        client_secret_file=tmp_path / "secret",
        tenant_id="acme",
    )
    return Front(clock=provider.clock, idp=idp)


async def go_there(browser: httpx.AsyncClient, provider: Provider, next_page: str = "/account") -> dict[str, str]:
    answer = await browser.get("/idp/start", params={"next": next_page})
    assert answer.status_code == 303
    return provider.answer(answer.headers["location"])


async def test_a_signer_comes_back_logged_in(front: Front, provider: Provider) -> None:
    browser = front.browser()
    assert "Log in with Acme SSO" in (await browser.get("/login")).text
    brought = await go_there(browser, provider, "/approve/req-1")
    before = browser.cookies["__Host-rakkan"]
    answer = await browser.get("/idp/callback", params=brought)
    assert (answer.status_code, answer.headers["location"]) == (303, "/approve/req-1")
    assert browser.cookies["__Host-rakkan"] != before
    page = await browser.get("/account")
    assert "Alice of the IdP" in page.text
    assert "/account/remove/" not in page.text
    assert provider.asked["code_challenge_method"] == "S256"


async def test_an_answer_is_taken_once_and_in_the_browser_that_began(front: Front, provider: Provider) -> None:
    browser, other = front.browser(), front.browser()
    await other.get("/login")
    brought = await go_there(browser, provider)
    assert (await other.get("/idp/callback", params=brought)).status_code == 403
    assert (await browser.get("/idp/callback", params=brought | {"state": "another"})).status_code == 403
    assert (await browser.get("/idp/callback", params=brought)).status_code == 303
    assert (await browser.get("/idp/callback", params=brought)).status_code == 403


async def test_an_answer_that_comes_late_is_refused(front: Front, provider: Provider) -> None:
    browser = front.browser()
    brought = await go_there(browser, provider)
    front.clock.pass_s(601)
    assert (await browser.get("/idp/callback", params=brought)).status_code == 403


@pytest.mark.parametrize("changed", [{"iss": "https://evil.example"}, {"code": "another"}, {"code": ""}])
async def test_what_another_provider_answers_logs_nobody_in(
    front: Front, provider: Provider, changed: dict[str, str]
) -> None:
    browser = front.browser()
    brought = await go_there(browser, provider)
    assert (await browser.get("/idp/callback", params=brought | changed)).status_code == 403
    assert (await browser.get("/account")).status_code == 303


@pytest.mark.parametrize("user", ["nobody", "", "a b", "<script>", "x" * 200])
async def test_whom_the_sam_does_not_know_is_not_logged_in(front: Front, provider: Provider, user: str) -> None:
    provider.user = user
    browser = front.browser()
    answer = await browser.get("/idp/callback", params=await go_there(browser, provider))
    assert (answer.status_code, "not known here" in answer.text) == (403, True)
    assert front.accounts.refused[-1]["method"] == "idp"


async def test_a_wrong_token_logs_nobody_in(front: Front, provider: Provider) -> None:
    for wrong in ({"nonce": "another"}, {"aud": "another"}, {"iss": "https://evil.example"}):
        provider.wrong = wrong
        browser = front.browser()
        answer = await browser.get("/idp/callback", params=await go_there(browser, provider))
        assert answer.status_code == 403, wrong


@pytest.mark.parametrize(
    "discovery",
    [{"issuer": "https://evil.example"}, {"token_endpoint": "http://evil.example/"}, {"jwks_uri": None}],
)
async def test_a_provider_that_calls_itself_otherwise_is_not_used(
    front: Front, provider: Provider, discovery: dict[str, Any]
) -> None:
    provider.discovery = discovery
    assert (await front.browser().get("/idp/start")).status_code == 503


async def test_it_approves_nothing(front: Front, provider: Provider) -> None:
    """The session shows the page; the SAM wants a passkey all the same, and knows none."""
    front.requests.add()
    browser = front.browser()
    await browser.get("/approve/req-1")
    await browser.get("/idp/callback", params=await go_there(browser, provider, "/approve/req-1"))
    page = await browser.get("/approve/req-1")
    assert (page.status_code, "passkey is needed" in page.text) == (403, True)


async def test_it_is_off_unless_it_is_set() -> None:
    front = Front()
    assert "/idp/start" not in (await front.browser().get("/login")).text
    assert (await front.browser().get("/idp/start")).status_code == 404


def sign(clock: Clock, **changed: Any) -> str:
    provider = Provider(clock, issuer="https://idp.example", asked={"nonce": "n"}, wrong=changed)
    return provider.token()


def check(token: str, clock: Clock) -> dict[str, Any]:
    return check_id_token(token, KEYS, issuer="https://idp.example", client_id=CLIENT, nonce="n", now=clock.now())


def test_an_id_token_says_who() -> None:
    clock = Clock()
    assert check(sign(clock), clock)["sub"] == "alice"
    assert check(sign(clock, aud=[CLIENT], azp=CLIENT), clock)["sub"] == "alice"


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://idp.example/"},
        {"aud": "other"},
        {"aud": [CLIENT, "other"]},
        {"aud": None},
        {"azp": "other"},
        {"nonce": "m"},
        {"nonce": None},
        {"exp": 1},
        {"exp": "soon"},
        {"iat": 1},
        {"iat": 9_999_999_999},
    ],
)
def test_an_id_token_that_does_not_fit_is_refused(changed: dict[str, Any]) -> None:
    clock = Clock()
    with pytest.raises(RakkanError) as refusal:
        check(sign(clock, **changed), clock)
    assert refusal.value.code is Code.FORBIDDEN


def test_an_id_token_of_another_key_or_none_is_refused() -> None:
    clock = Clock()
    good = sign(clock)
    head, body, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    claims = jwt.decode(good, KEY, algorithms=["ES256"]).claims
    # By hand: joserfc itself refuses to take a public key for a secret.
    unsigned = b64(b'{"alg":"HS256","kid":"one"}') + "." + body
    confused = unsigned + "." + b64(hmac.digest(KEY.as_pem(private=False), unsigned.encode(), "sha256"))
    stranger = ECKey.generate_key("P-256", {"kid": "one"})
    foreign = jwt.encode({"alg": "ES256", "kid": "one"}, claims, stranger, algorithms=["ES256"])
    for token in (f"{none}.{body}.", f"{none}.{body}.{signature}", f"{head}.{body}.", confused, foreign, "", "x", "."):
        with pytest.raises(RakkanError):
            check(token, clock)

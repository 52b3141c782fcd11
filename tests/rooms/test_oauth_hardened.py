"""FAPI 2.0 for hardened clients. A test that stands for a module of the OpenID conformance suite names it."""

import hashlib
import hmac
import json
import warnings
from base64 import urlsafe_b64encode
from dataclasses import replace
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from services.authentication.oauth import JWT_BEARER
from tests.support.authentication import ISSUER, World, asked_by_operator
from tests.support.oauth import (
    CALLBACK,
    KEY,
    OTHER_KEY,
    VERIFIER,
    Partner,
    answer_of,
    authorization,
    error_of,
    grant,
    new_id,
    new_world,
    told,
)

BANK = authorization(client_id="bank")


@pytest.fixture
async def world() -> World:
    return await new_world()


@pytest.fixture
def bank(world: World) -> Partner:
    return Partner(world, "bank")


async def push(bank: Partner, **changed: Any) -> httpx.Response:
    """PAR with an assertion that has these claims."""
    return await bank.http.post("/oauth2/pushed_authorize", data=BANK | bank.assertion(**changed))


async def token(bank: Partner, code: str, proof: str | None) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    headers = {"DPoP": proof} if proof else {}
    return await bank.http.post("/oauth2/token", data=form | bank.assertion(), headers=headers)


# --- the way it goes ---


async def test_happy_flow(world: World, bank: Partner) -> None:
    """fapi2-security-profile-final-happy-flow"""
    pushed = await bank.push(**BANK)
    assert pushed.status_code == 201
    given = pushed.json()
    assert given["expires_in"] == 90
    request_uri = given["request_uri"]
    assert request_uri.startswith("urn:ietf:params:oauth:request_uri:")
    answer = await bank.http.get("/oauth2/authorize", params={"client_id": "bank", "request_uri": request_uri})
    assert answer.status_code == 303
    back = answer_of(await grant(world, answer.headers["location"].rsplit("/", 1)[1]))
    assert (back["iss"], back["state"]) == (ISSUER, "af0ifjsldkj")
    issued = (await bank.redeem(back["code"])).json()
    assert issued["token_type"] == "DPoP"
    access = bank.read(issued["access_token"])
    assert access.key_thumbprint == bank.proof_key.thumbprint()
    assert access.user_id == "alice"


async def test_refresh_token(bank: Partner) -> None:
    """fapi2-security-profile-final-refresh-token: not rotated (5.3.2.1), and good with a new proof key."""
    given = (await bank.redeem(await bank.code())).json()
    bank.proof_key = ECKey.generate_key("P-256")
    again = await bank.refresh(given["refresh_token"])
    assert again.status_code == 200
    assert again.json()["refresh_token"] == given["refresh_token"]
    assert bank.read(again.json()["access_token"]).key_thumbprint == bank.proof_key.thumbprint()
    assert (
        error_of(await Partner(bank.world, "bank-2", OTHER_KEY).refresh(given["refresh_token"]))[1] == "invalid_grant"
    )


async def test_client_credentials_are_bound_too(bank: Partner) -> None:
    given = (await bank.token(grant_type="client_credentials")).json()
    assert given["token_type"] == "DPoP"
    assert bank.read(given["access_token"]).key_thumbprint == bank.proof_key.thumbprint()
    without = await bank.http.post("/oauth2/token", data={"grant_type": "client_credentials"} | bank.assertion())
    assert error_of(without)[1] == "invalid_dpop_proof"


async def test_state_only_outside_request_object_not_used(world: World, bank: Partner) -> None:
    """What stands beside a request_uri changes nothing; EUDI's library repeats the state there."""
    pushed = (await bank.push(**BANK)).json()
    front = authorization(client_id="bank", state="other", redirect_uri="https://evil.example/", scope="credential")
    answer = await bank.http.get("/oauth2/authorize", params=front | {"request_uri": pushed["request_uri"]})
    location = await grant(world, answer.headers["location"].rsplit("/", 1)[1])
    assert location.startswith(f"{CALLBACK}?code=")
    assert answer_of(location)["state"] == "af0ifjsldkj"


async def test_user_rejects_authentication(world: World, bank: Partner) -> None:
    """fapi2-security-profile-final-user-rejects-authentication"""
    request_id = await bank.ask(**BANK)
    with asked_by_operator():
        await world.oauth.requests.open(request_id, session_id="s")
        location = await world.oauth.requests.denied(request_id, session_id="s")
    assert answer_of(location) == {"error": "access_denied", "state": "af0ifjsldkj", "iss": ISSUER}


# --- pushed requests ---


async def test_ensure_request_without_pushing_fails(bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-unsigned-authorization-request-without-using-par-fails"""
    refused = told(await bank.http.get("/oauth2/authorize", params=BANK))
    assert (refused["error"], refused["state"]) == ("invalid_request", "af0ifjsldkj")


async def test_par_attempt_reuse_request_uri(bank: Partner, world: World) -> None:
    """fapi2-security-profile-final-par-attempt-reuse-request_uri"""
    pushed = (await bank.push(**BANK)).json()
    front = {"client_id": "bank", "request_uri": pushed["request_uri"]}
    first = await bank.http.get("/oauth2/authorize", params=front)
    # A browser that reloads comes to the same page: it is used up by its end, not by being looked at.
    again = await bank.http.get("/oauth2/authorize", params=front)
    assert first.headers["location"] == again.headers["location"]
    await grant(world, first.headers["location"].rsplit("/", 1)[1])
    used = await bank.http.get("/oauth2/authorize", params=front)
    assert used.status_code == 400
    assert "invalid_request_uri" in used.text


async def test_par_attempt_to_use_expired_request_uri(bank: Partner) -> None:
    """fapi2-security-profile-final-par-attempt-to-use-expired-request_uri"""
    pushed = (await bank.push(**BANK)).json()
    bank.world.clock.pass_s(90)
    front = {"client_id": "bank", "request_uri": pushed["request_uri"]}
    assert "invalid_request_uri" in (await bank.http.get("/oauth2/authorize", params=front)).text


async def test_par_attempt_to_use_request_uri_for_different_client(bank: Partner) -> None:
    """fapi2-security-profile-final-par-attempt-to-use-request_uri-for-different-client"""
    pushed = (await bank.push(**BANK)).json()
    for thief in ("bank-2", "web"):
        front = {"client_id": thief, "request_uri": pushed["request_uri"]}
        answer = await bank.http.get("/oauth2/authorize", params=front)
        assert answer.status_code == 400
        assert "location" not in answer.headers


async def test_par_pushed_authorization_url_as_audience(bank: Partner) -> None:
    """fapi2-security-profile-final-par-test-par-endpoint-url-as-audience-fails

    And -par-test-token-endpoint-url-as-audience-fails and -par-test-array-as-audience-fails.
    The audience is the issuer as one string, or an assertion made for another server could be played here.
    """
    for audience in (
        f"{ISSUER}/oauth2/pushed_authorize",
        f"{ISSUER}/oauth2/token",
        f"{ISSUER}/",
        [ISSUER],
        [f"{ISSUER}/oauth2/pushed_authorize"],
        [ISSUER, "https://other.example"],
        "https://other.example",
        "",
        None,
    ):
        assert error_of(await push(bank, aud=audience)) == (
            401,
            "invalid_client",
            "Invalid parameter client_assertion",
        ), audience


async def test_par_without_client_assertion_fails(bank: Partner) -> None:
    """No module of the suite: a pushed request without any proof of the client."""
    answer = await bank.http.post("/oauth2/pushed_authorize", data=BANK)
    assert error_of(answer) == (400, "invalid_request", "Client authorization required")


async def test_par_ensure_request_uri_in_body_is_refused(bank: Partner) -> None:
    """fapi2-security-profile-final-par-authorization-request-containing-request_uri-form-param"""
    for uri in ("urn:ietf:params:oauth:request_uri:x", "https://evil.example/"):
        answer = await bank.push(**BANK, request_uri=uri)
        assert error_of(answer) == (400, "invalid_request", "Invalid parameter request_uri")


async def test_par_attempt_invalid_http_method(bank: Partner) -> None:
    """fapi2-security-profile-final-par-attempt-invalid-http-method"""
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        assert (await bank.http.request(method, "/oauth2/pushed_authorize", params=BANK)).status_code == 405


async def test_ensure_pkce_required(bank: Partner) -> None:
    """fapi2-security-profile-final-par-ensure-pkce-required, -par-plain-pkce-rejected

    And -incorrect-pkce-code-verifier-rejected.
    """
    for form in (
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge_method": None},
        {"code_challenge": VERIFIER, "code_challenge_method": "plain"},
    ):
        assert error_of(await bank.push(**authorization(client_id="bank", **form)))[1] == "invalid_request"
    assert error_of(await bank.redeem(await bank.code(), code_verifier="w" * 43))[1] == "invalid_grant"
    assert error_of(await bank.redeem(await bank.code(), code_verifier=None))[1] == "invalid_request"


async def test_ensure_redirect_uri_in_authorization_request(bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-redirect-uri-in-authorization-request, -ensure-registered-redirect-uri"""
    missing = await bank.push(**authorization(client_id="bank", redirect_uri=None))
    assert error_of(missing) == (400, "invalid_request", "Missing parameter redirect_uri")
    other = await bank.push(**authorization(client_id="bank", redirect_uri=f"{CALLBACK}?dummy1=lorem"))
    assert error_of(other) == (400, "invalid_request", "Invalid parameter redirect_uri")


async def test_ensure_response_type_code(bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-response-type-code-idtoken-fails, -ensure-response-type-token-fails"""
    for kind in ("code id_token", "token", "id_token", "none"):
        pushed = await bank.push(**authorization(client_id="bank", response_type=kind))
        assert error_of(pushed)[1] == "unsupported_response_type"


async def test_parameters_in_the_query_are_refused(bank: Partner) -> None:
    form = {"grant_type": "client_credentials"} | bank.assertion()
    headers = {"DPoP": bank.proof("/oauth2/token")}
    answer = await bank.http.post("/oauth2/token", params={"clientData": "x"}, data=form, headers=headers)
    assert error_of(answer) == (400, "invalid_request", "Parameters must be sent in the body")


# --- client assertions ---


async def test_ensure_client_assertion_in_token_endpoint(bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-client-assertion-in-token-endpoint"""
    form = {"grant_type": "authorization_code", "code": await bank.code(), "client_id": "bank"}
    answer = await bank.http.post("/oauth2/token", data=form, headers={"DPoP": bank.proof("/oauth2/token")})
    assert error_of(answer) == (400, "invalid_request", "Client authorization required")


async def test_a_client_assertion_of_any_other_make_is_refused(bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-invalid-client-assertions-fail: alg none, symmetric, expired, of others"""
    at = int(bank.world.clock.now().timestamp())
    claims = {"iss": "bank", "sub": "bank", "aud": ISSUER, "exp": at + 60, "jti": new_id()}
    public = KEY.as_pem(private=False)
    forged = [
        forge({"alg": "none"}, claims),
        forge({"alg": "NONE"}, claims),
        forge({"alg": "HS256"}, claims, public),
        forge({"alg": "HS256"}, claims, KEY.as_bytes(private=False)),
        forge({"alg": "ES256"}, claims),
        forge({}, claims, public),
        jwt.encode({"alg": "ES256"}, claims, OTHER_KEY, algorithms=["ES256"]),
        jwt.encode({"alg": "RS256"}, claims, RSAKey.generate_key(2048), algorithms=["RS256"]),
        "eyJhbGciOiJFUzI1NiJ9.e30.",
        "a.b.c",
    ]
    for text in forged:
        form = BANK | {"client_assertion": text, "client_assertion_type": JWT_BEARER}
        answer = await bank.http.post("/oauth2/pushed_authorize", data=form)
        assert error_of(answer)[:2] == (401, "invalid_client"), text
    for changed in (
        {"exp": at},
        {"exp": at + 3600},
        {"exp": None},
        {"iat": at + 60},
        {"nbf": at + 60},
        {"iss": "bank-2"},
        {"sub": "bank-2"},
        {"jti": None},
        {"jti": ""},
    ):
        assert error_of(await push(bank, **changed))[1] in ("invalid_client", "invalid_request"), changed
    assert (await push(bank, iat=at + 8, nbf=at + 8)).status_code == 201  # clocks differ by 8 to 10 seconds


async def test_a_client_assertion_is_good_once(bank: Partner) -> None:
    used = bank.assertion(jti="one")
    assert (await bank.http.post("/oauth2/pushed_authorize", data=BANK | used)).status_code == 201
    assert error_of(await bank.http.post("/oauth2/pushed_authorize", data=BANK | used))[1] == "invalid_client"


async def test_only_the_algorithms_of_fapi_are_good_for_a_hardened_client(world: World, bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-signed-client-assertion-with-RS256-fails"""
    rsa = RSAKey.generate_key(2048)
    jwks = json.dumps({"keys": [rsa.as_dict(private=False)]})
    world.store.rows.clients["bank"] = replace(world.store.rows.clients["bank"], jwks=jwks)
    at = int(world.clock.now().timestamp())
    for algorithm, status in (("RS256", 401), ("PS512", 401), ("PS256", 201)):
        claims = {"iss": "bank", "sub": "bank", "aud": ISSUER, "exp": at + 60, "jti": new_id()}
        text = jwt.encode({"alg": algorithm}, claims, rsa, algorithms=[algorithm])
        form = BANK | {"client_assertion": text, "client_assertion_type": JWT_BEARER}
        assert (await bank.http.post("/oauth2/pushed_authorize", data=form)).status_code == status


def forge(header: dict[str, Any], claims: dict[str, Any], mac_key: bytes = b"") -> str:
    """A JWS that no library would make: any header, and a MAC or nothing for a signature."""
    parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    mark = hmac.digest(mac_key, b".".join(parts), "sha256") if mac_key else b""
    return b".".join([*parts, urlsafe_b64encode(mark).rstrip(b"=")]).decode()


# --- DPoP ---


async def test_dpop_negative_tests(bank: Partner) -> None:
    """fapi2-security-profile-final-dpop-negative-tests: each of these proofs is refused at the token endpoint."""
    at = int(bank.world.clock.now().timestamp())
    path = "/oauth2/token"
    ed = OKPKey.generate_key("Ed25519")
    rsa, small, okp = RSAKey.generate_key(2048), ECKey.generate_key("P-384"), OKPKey.generate_key("X25519")
    private = bank.proof_key.as_dict(private=True)
    public = bank.proof_key.as_dict(private=False)
    signed_by_other = bank.proof(path, header={"jwk": ECKey.generate_key("P-256").as_dict(private=False)})
    claims = {"htm": "POST", "htu": ISSUER + path, "iat": at, "jti": new_id()}

    def made(algorithm: str, key: Any, jwk: Any) -> str:
        head = {"alg": algorithm, "typ": "dpop+jwt", "jwk": jwk}
        with warnings.catch_warnings(action="ignore", category=SecurityWarning):  # clients still write EdDSA
            return jwt.encode(head, claims | {"jti": new_id()}, key, algorithms=[algorithm])

    bad = [
        bank.proof(path, header={"typ": "JWT"}),
        bank.proof(path, header={"typ": "at+jwt"}),
        bank.proof(path, header={"jwk": private}),
        forge({"alg": "ES256", "typ": "dpop+jwt", "jwk": "text"}, claims),
        forge({"alg": "ES256", "typ": "dpop+jwt", "jwk": [public]}, claims),
        forge({"alg": "ES256", "typ": "dpop+jwt", "jwk": {**public, "x": "AA"}}, claims),
        forge({"alg": "ES256", "typ": "dpop+jwt"}, claims),
        forge({"alg": "none", "typ": "dpop+jwt", "jwk": public}, claims),
        forge({"alg": "HS256", "typ": "dpop+jwt", "jwk": public}, claims, KEY.as_pem(private=False)),
        forge({"alg": "HS256", "typ": "dpop+jwt", "jwk": {"kty": "oct", "k": "a2V5"}}, claims, b"key"),
        bank.proof(path, header={"jwk": okp.as_dict(private=False)}),
        signed_by_other,
        bank.proof(path, htm="GET"),
        bank.proof(path, htm="post"),
        bank.proof(path, htm=None),
        bank.proof(path, htu=f"{ISSUER}/oauth2/revoke"),
        bank.proof(path, htu="https://other.example/oauth2/token"),
        bank.proof(path, htu=f"http://as.example{path}"),
        bank.proof(path, htu=f"https://as.example:8443{path}"),
        bank.proof(path, htu=f"https://user@as.example{path}"),
        bank.proof(path, htu=f"https://as.example{path}/"),
        bank.proof(path, htu=path),
        bank.proof(path, htu=None),
        bank.proof(path, htu=7),
        bank.proof(path, iat=at - 61),
        bank.proof(path, iat=at + 60),
        bank.proof(path, iat=None),
        bank.proof(path, iat=str(at)),
        bank.proof(path, iat=True),
        bank.proof(path, iat=1e300),
        bank.proof(path, jti=None),
        bank.proof(path, jti=""),
        bank.proof(path, jti="j" * 256),
        bank.proof(path, jti=5),
        made("RS256", rsa, rsa.as_dict(private=False)),
        made("ES384", small, small.as_dict(private=False)),
        bank.proof(path)[:-6],
        bank.proof(path) + "x" * 9000,
        "a.b.c",
        "",
    ]
    for proof in bad:
        answer = await bank.http.post(
            path, data={"grant_type": "client_credentials"} | bank.assertion(), headers={"DPoP": proof}
        )
        assert error_of(answer)[:2] == (400, "invalid_dpop_proof"), proof
    for good in (
        bank.proof(path, htu=f"https://AS.example:443{path}?q=1#f"),
        bank.proof(path, iat=at - 50),
        bank.proof(path, iat=at + 8),
        made("PS256", rsa, rsa.as_dict(private=False)),
        made("EdDSA", ed, ed.as_dict(private=False)),
        made("Ed25519", ed, ed.as_dict(private=False)),
    ):
        answer = await bank.http.post(
            path, data={"grant_type": "client_credentials"} | bank.assertion(), headers={"DPoP": good}
        )
        assert answer.status_code == 200, answer.text


async def test_dpop_proof_replay(bank: Partner) -> None:
    """Part of fapi2-security-profile-final-dpop-negative-tests; also between two processes."""
    proof = bank.proof("/oauth2/token")
    form = {"grant_type": "client_credentials"}
    other_process = bank.world.client()
    first = await bank.http.post("/oauth2/token", data=form | bank.assertion(), headers={"DPoP": proof})
    assert first.status_code == 200
    again = await other_process.post("/oauth2/token", data=form | bank.assertion(), headers={"DPoP": proof})
    assert error_of(again)[1] == "invalid_dpop_proof"


async def test_two_proofs_are_refused(bank: Partner) -> None:
    headers = [("DPoP", bank.proof("/oauth2/token")), ("DPoP", bank.proof("/oauth2/token"))]
    form = {"grant_type": "client_credentials"} | bank.assertion()
    assert error_of(await bank.http.post("/oauth2/token", data=form, headers=headers))[1] == "invalid_dpop_proof"


async def test_check_dpop_proof_nbf_exp_and_ath_are_no_matter_here(bank: Partner) -> None:
    """fapi2-security-profile-final-check-dpop-proof-nbf-exp: the window is iat's; extra claims are ignored."""
    ath = urlsafe_b64encode(hashlib.sha256(b"x").digest()).rstrip(b"=").decode()
    proof = bank.proof("/oauth2/token", ath=ath, nonce="n")
    assert (await token(bank, await bank.code(), proof)).status_code == 200


async def test_ensure_holder_of_key_required(bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-holder-of-key-required: no proof, no token; the code stays good."""
    code = await bank.code()
    assert error_of(await token(bank, code, None))[1] == "invalid_dpop_proof"
    assert (await token(bank, code, bank.proof("/oauth2/token"))).status_code == 200


async def test_dpop_jkt_binds_the_code(bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-mismatched-dpop-jkt-fails

    And -ensure-token-endpoint-fails-with-mismatched-dpop-jkt.
    """
    jkt = bank.proof_key.thumbprint()
    other = ECKey.generate_key("P-256")
    code = await bank.code(**BANK, dpop_jkt=jkt)
    assert error_of(await token(bank, code, bank.proof("/oauth2/token", key=other)))[1] == "invalid_dpop_proof"
    code = await bank.code(**BANK, dpop_jkt=jkt)
    assert (await token(bank, code, bank.proof("/oauth2/token"))).status_code == 200
    # A proof at the PAR endpoint binds it too (RFC 9449 10.1), and must not contradict the parameter.
    form = BANK | bank.assertion()
    headers = {"DPoP": bank.proof("/oauth2/pushed_authorize")}
    both = await bank.http.post(
        "/oauth2/pushed_authorize", data=form | {"dpop_jkt": other.thumbprint()}, headers=headers
    )
    assert error_of(both) == (400, "invalid_request", "Invalid parameter dpop_jkt")
    headers = {"DPoP": bank.proof("/oauth2/pushed_authorize")}
    pushed = await bank.http.post("/oauth2/pushed_authorize", data=BANK | bank.assertion(), headers=headers)
    front = {"client_id": "bank", "request_uri": pushed.json()["request_uri"]}
    page = (await bank.http.get("/oauth2/authorize", params=front)).headers["location"]
    code = (await bank.grant(page.rsplit("/", 1)[1]))["code"]
    assert error_of(await token(bank, code, bank.proof("/oauth2/token", key=other)))[1] == "invalid_dpop_proof"


async def test_a_compat_client_may_bind_its_tokens(world: World) -> None:
    web = Partner(world)
    form = {"grant_type": "client_credentials"}
    _, headers = web.authenticated("/oauth2/token")
    given = await web.http.post("/oauth2/token", data=form, headers=headers | {"DPoP": web.proof("/oauth2/token")})
    assert given.json()["token_type"] == "DPoP"
    bad = await web.http.post("/oauth2/token", data=form, headers=headers | {"DPoP": web.proof("/elsewhere")})
    assert error_of(bad)[1] == "invalid_dpop_proof"


# --- codes ---


async def test_attempt_reuse_authorization_code_after_one_second(bank: Partner) -> None:
    """fapi2-security-profile-final-attempt-reuse-authorization-code-after-one-second"""
    code = await bank.code()
    given = (await bank.redeem(code)).json()
    bank.world.clock.pass_s(1)
    assert error_of(await bank.redeem(code))[1] == "invalid_grant"
    assert bank.read(given["access_token"]).token_id in {one.token_id for one in bank.world.sam.revocations}


async def test_ensure_authorization_code_is_bound_to_client(world: World, bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-authorization-code-is-bound-to-client"""
    code = await bank.code()
    thief = Partner(world, "bank-2", OTHER_KEY)
    assert error_of(await thief.redeem(code))[1] == "invalid_grant"


async def test_ensure_long_state(world: World, bank: Partner) -> None:
    """fapi2-security-profile-final-ensure-authorization-request-with-long-state; a long nonce too"""
    form = authorization(client_id="bank", state="s" * 2000, nonce="n" * 2000)
    assert answer_of(await grant(world, await bank.ask(**form)))["state"] == "s" * 2000

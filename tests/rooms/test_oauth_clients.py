"""The request sequences of real clients, as their sources and their traffic show them."""

import json
from typing import Any

import httpx
import pytest

from tests.support.authentication import ISSUER, World
from tests.support.oauth import (
    CALLBACK,
    CHALLENGE,
    DIGEST,
    SHA256_OID,
    VERIFIER,
    Partner,
    answer_of,
    authorization,
    b64,
    b64url,
    basic,
    grant,
    new_world,
    signing,
)


@pytest.fixture
async def world() -> World:
    return await new_world()


async def approved(world: World, answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 303, answer.text
    return answer_of(await grant(world, answer.headers["location"].rsplit("/", 1)[1]))


async def test_documenso_speaks_v1_with_pkce_twice(world: World) -> None:
    """Scope service, then scope credential with `hash` in base64url; SAD by its type; refresh, revoke."""
    http = world.client()
    headers = basic("old")
    service = {
        "response_type": "code",
        "client_id": "old",
        "redirect_uri": CALLBACK,
        "state": "abc",
        "code_challenge_method": "S256",
        "code_challenge": CHALLENGE,
        "scope": "service",
        "lang": "en-US",
    }
    code = (await approved(world, await http.get("/oauth2/authorize", params=service)))["code"]
    redeeming = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    tokens = (await http.post("/oauth2/token", data=redeeming, headers=headers)).json()
    assert tokens["token_type"] == "Bearer"

    asked = {"credentialID": "c-1", "numSignatures": "1", "hash": b64url(DIGEST), "description": "Lease"}
    back = await approved(world, await http.get("/oauth2/authorize", params=service | {"scope": "credential"} | asked))
    assert back["state"] == "abc"
    sad = (await http.post("/oauth2/token", data=redeeming | {"code": back["code"]}, headers=headers)).json()
    assert (sad["token_type"], sad["expires_in"] <= 300, "refresh_token" in sad) == ("SAD", True, False)

    refreshing = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "scope": "service"}
    again = (await http.post("/oauth2/token", data=refreshing, headers=headers)).json()
    revoked = await http.post("/oauth2/revoke", data={"token": again["refresh_token"]}, headers=headers)
    assert (revoked.status_code, revoked.content) == (204, b"")


async def test_eudi_kotlin_pushes_first_and_repeats_the_state(world: World) -> None:
    """Nimbus: prompt=login, scope and details together, upper-case hashType; the token answer echoes them."""
    http = world.client()
    assert (await http.get("/.well-known/openid-configuration")).status_code == 404
    metadata = (await http.get("/.well-known/oauth-authorization-server")).json()
    wanted = {
        "type": "https://cloudsignatureconsortium.org/2025/credential",
        "credentialID": "c-1",
        "numSignatures": 1,
        "documentDigests": [{"hash": b64(DIGEST), "label": "sample.pdf", "hashType": "DTBSR"}],
        "hashAlgorithmOID": SHA256_OID,
        "locations": [],
    }
    form = authorization(scope="credential", prompt="login", authorization_details=json.dumps([wanted]))
    pushing = httpx.URL(metadata["pushed_authorization_request_endpoint"])
    pushed = await http.post(pushing, data=form, headers=basic())
    assert pushed.json()["expires_in"] > 5  # what it takes when there is none
    front = {"client_id": "web", "state": "af0ifjsldkj", "request_uri": pushed.json()["request_uri"]}
    back = await approved(world, await http.get(metadata["authorization_endpoint"], params=front))
    redeeming = {
        "client_id": "web",
        "grant_type": "authorization_code",
        "code": back["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "authorization_details": json.dumps([wanted]),
    }
    given = (await http.post(metadata["token_endpoint"], data=redeeming, headers=basic())).json()
    assert given["authorization_details"] == [wanted]
    assert {"access_token", "token_type", "expires_in", "credentialID"} <= given.keys()
    revoked = await http.post("/revoke", data={"token": given["access_token"]}, headers=basic())
    assert revoked.status_code == 204  # it builds <oauth2>/revoke, not <oauth2>/oauth2/revoke


async def test_eudi_swift_changes_the_alphabet_between_its_steps(world: World) -> None:
    """Type `credential` with scope, base64url without padding first, base64 at the token endpoint, state again."""
    http = world.client()

    def details(encoded: str) -> str:
        item = {
            "documentDigests": [{"label": "file", "hash": encoded}],
            "credentialID": "c-1",
            "hashAlgorithmOID": SHA256_OID,
            "locations": [],
            "type": "credential",
        }
        return json.dumps([item])

    form = authorization(scope="credential", authorization_details=details(b64url(DIGEST)), lang="en")
    back = await approved(world, await http.get("/oauth2/authorize", params=form))
    redeeming = {
        "grant_type": "authorization_code",
        "client_id": "web",
        "client_secret": "rks_secret-of-a-partner",
        "code": back["code"],
        "state": back["state"],
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "authorization_details": details(b64(DIGEST)),
    }
    given = (await http.post("/oauth2/token", data=redeeming)).json()
    assert given["authorization_details"] == json.loads(details(b64url(DIGEST)))


async def test_eudi_python_sends_all_of_it_in_the_query(world: World) -> None:
    """The relying party posts its token request with an empty body, and authenticates by header."""
    http = world.client()
    back = await approved(world, await http.get("/oauth2/authorize", params=authorization()))
    query = {
        "grant_type": "authorization_code",
        "code": back["code"],
        "client_id": "web",
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    given = await http.post("/oauth2/token", params=query, headers=basic())
    assert given.status_code == 200
    # Its requests to create and delete hold what Python prints of a list. That is not JSON, and nothing guesses.
    creation: list[dict[str, Any]] = [{"type": "https://cloudsignatureconsortium.org/2025/credential-creation"}]
    form = authorization(scope=None, authorization_details=str(creation))
    answer = await http.get("/oauth2/authorize", params=form)
    assert "error=invalid_authorization_details" in answer.headers["location"]


async def test_a_v1_client_without_pkce_signs_with_what_it_gets(world: World) -> None:
    """As v1 is written: no PKCE, `hash`, secret in the form."""
    old = Partner(world, "old")
    form = signing(
        client_id="old",
        hash=b64url(DIGEST),
        hashes=None,
        hashAlgorithmOID=None,
        code_challenge=None,
        code_challenge_method=None,
    )
    back = await old.grant(await old.ask(**form))
    redeeming = {
        "grant_type": "authorization_code",
        "code": back["code"],
        "client_id": "old",
        "client_secret": "rks_secret-of-a-partner",
        "redirect_uri": CALLBACK,
        "clientData": "12345678",
    }
    given = (await old.http.post("/oauth2/token", data=redeeming)).json()
    assert given["token_type"] == "SAD"
    assert back["iss"] == ISSUER

"""The token and revocation endpoints as a partner meets them: every row of CSC API 4.4 and 4.5 that applies."""

import base64
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from services.authentication.clients import hash_secret
from services.authentication.oauth import JWT_BEARER
from shared.contracts.authentication import AddClient, SuspendClient, SuspendTenant
from shared.errors import RakkanError
from shared.messaging import operation
from shared.tokens import read_token, verifying_keys, write_token
from shared.trust import SigningKey
from tests.support.authentication import ISSUER, World, asked_by_operator, signing_key

SECRET = "rks_secret-of-partner-1"
OTHER_SECRET = "rks_secret-of-partner-2"
KEY = ECKey.generate_key("P-256")
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
async def world() -> World:
    world = World()
    jwks = json.dumps(KeySet([KEY]).as_dict(private=False))
    with asked_by_operator():
        async with world.store.change() as change:
            for tenant_id in ("acme", "other"):
                await change.add_tenant(tenant_id, tenant_id)
            for client_id, tenant_id, secret in (("partner-1", "acme", SECRET), ("partner:2", "other", OTHER_SECRET)):
                added = AddClient(tenant_id=tenant_id, client_id=client_id, name="P")
                await change.add_client(added, secret_hash=hash_secret(client_id, secret))
            keyed = AddClient(tenant_id="acme", client_id="keyed", name="K", method="private_key_jwt", jwks=jwks)
            await change.add_client(keyed, secret_hash=None)
    return world


@pytest.fixture
def partner(world: World) -> httpx.AsyncClient:
    return world.client()


def post_secret(client_id: str = "partner-1", secret: str = SECRET) -> dict[str, str]:
    return {"client_id": client_id, "client_secret": secret}


def basic(client_id: str = "partner-1", secret: str = SECRET) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def assertion(world: World, **changed: Any) -> dict[str, str]:
    at = int(world.clock.now().timestamp())
    claims = {"iss": "keyed", "sub": "keyed", "aud": ISSUER, "exp": at + 60, "jti": "one"} | changed
    text = jwt.encode({"alg": "ES256"}, claims, KEY, algorithms=["ES256"])
    return {"client_assertion": text, "client_assertion_type": JWT_BEARER}


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()["error"], answer.json().get("error_description", "")


async def token_of(partner: httpx.AsyncClient, **form: str) -> str:
    answer = await partner.post("/oauth2/token", data=GRANT | (form or post_secret()))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


# --- tokens ---


async def test_a_client_gets_a_token_bound_to_it_and_its_tenant(world: World, partner: httpx.AsyncClient) -> None:
    answer = await partner.post("/oauth2/token", data=GRANT | {"scope": "service", "clientData": "x"}, headers=basic())
    assert answer.status_code == 200
    given = answer.json()
    assert (given["token_type"], given["expires_in"], given["scope"]) == ("Bearer", 3600, "service")
    assert answer.headers["cache-control"] == "no-store"
    token = read_token(given["access_token"], verifying_keys(world.trust), now=world.clock.now())
    assert (token.client_id, token.tenant_id, token.issuer) == ("partner-1", "acme", ISSUER)
    assert token.expires_at - token.issued_at == timedelta(seconds=3600)
    assert world.events[-1] == "token.issued"
    assert given["access_token"] not in str(world.store.rows.leaves)


async def test_the_ways_a_client_may_authenticate(world: World, partner: httpx.AsyncClient) -> None:
    for form, headers in (
        (post_secret(), {}),
        ({}, basic()),
        ({"client_id": "partner-1"}, basic()),
        ({}, basic("partner:2", OTHER_SECRET)),
        ({}, basic("partner%3A2", OTHER_SECRET)),
        (assertion(world), {}),
        (assertion(world, jti="two") | {"client_id": "keyed"}, {}),
    ):
        assert (await partner.post("/oauth2/token", data=GRANT | form, headers=headers)).status_code == 200, form


async def test_parameters_may_stand_in_the_query_but_no_secrets(partner: httpx.AsyncClient) -> None:
    assert (await partner.post("/oauth2/token", params=GRANT, headers=basic())).status_code == 200
    answer = await partner.post("/oauth2/token", params=GRANT | post_secret())
    assert refusal(answer)[:2] == (400, "invalid_request")


TOKEN_ROWS: list[tuple[dict[str, str], dict[str, str], int, str, str]] = [
    (GRANT, {}, 400, "invalid_request", "Missing parameter client_id"),
    ({"client_id": "partner-1"}, {}, 400, "invalid_request", "Missing parameter grant_type"),
    ({"grant_type": ""} | post_secret(), {}, 400, "invalid_request", "Missing parameter grant_type"),
    (
        {"grant_type": "authorization_code"} | post_secret(),
        {},
        400,
        "invalid_request",
        "Missing parameter code",
    ),
    (
        {"grant_type": "refresh_token"} | post_secret(),
        {},
        400,
        "invalid_request",
        "Missing parameter refresh_token",
    ),
    ({"grant_type": "password"} | post_secret(), {}, 400, "invalid_request", "Invalid parameter grant_type"),
    ({"grant_type": "implicit"}, basic(), 400, "invalid_request", "Invalid parameter grant_type"),
    (GRANT | post_secret("nobody"), {}, 400, "invalid_request", "Invalid parameter client_id"),
    (GRANT | post_secret("' or true --"), {}, 400, "invalid_request", "Invalid parameter client_id"),
    (GRANT | {"client_id": "keyed"}, basic(), 400, "invalid_request", "Invalid parameter client_id"),
    (GRANT | post_secret(secret="wrong"), {}, 400, "invalid_request", "Invalid parameter client_secret"),
    (GRANT | post_secret("partner:2"), {}, 400, "invalid_request", "Invalid parameter client_secret"),
    (GRANT | post_secret("keyed"), {}, 400, "invalid_request", "Invalid parameter client_secret"),
    (GRANT, basic(secret="wrong"), 400, "invalid_request", "Invalid parameter client_secret"),
    (
        {"grant_type": "authorization_code", "code": "c"} | post_secret(),
        {},
        400,
        "invalid_grant",
        "Invalid parameter code",
    ),
    (
        {"grant_type": "refresh_token", "refresh_token": "r"} | post_secret(),
        {},
        400,
        "invalid_grant",
        "Invalid parameter refresh_token",
    ),
    (GRANT | {"client_id": "partner-1"}, {}, 400, "invalid_request", "Client authorization required"),
    (GRANT | {"scope": "credential"} | post_secret(), {}, 400, "invalid_scope", "Invalid parameter scope"),
    (GRANT | {"scope": "service credential"} | post_secret(), {}, 400, "invalid_scope", "Invalid parameter scope"),
    (GRANT, {"Authorization": "Bearer x"}, 401, "invalid_client", "Invalid authorization header"),
    (GRANT, {"Authorization": "Basic"}, 401, "invalid_client", "Invalid authorization header"),
    (GRANT, {"Authorization": "Basic !!!"}, 401, "invalid_client", "Invalid authorization header"),
    (GRANT, {"Authorization": "Basic bm9jb2xvbg=="}, 401, "invalid_client", "Invalid authorization header"),
    (GRANT, {"Authorization": "Basic /w=="}, 401, "invalid_client", "Invalid authorization header"),
    (
        GRANT | post_secret(),
        basic(),
        400,
        "invalid_request",
        "A client authenticates in one way only",
    ),
    (
        GRANT | post_secret() | {"client_assertion": "a.b.c"},
        {},
        400,
        "invalid_request",
        "A client authenticates in one way only",
    ),
    (GRANT | {"client_assertion": "a.b.c"}, {}, 400, "invalid_request", "Missing parameter client_assertion_type"),
    (
        GRANT | {"client_assertion": "a.b.c", "client_assertion_type": "saml"},
        {},
        400,
        "invalid_request",
        "Invalid parameter client_assertion_type",
    ),
    (
        GRANT | {"client_assertion": "a.b.c", "client_assertion_type": JWT_BEARER},
        {},
        401,
        "invalid_client",
        "Invalid parameter client_assertion",
    ),
]


@pytest.mark.parametrize(("form", "headers", "status", "error", "description"), TOKEN_ROWS)
async def test_a_bad_token_request_is_refused_in_the_words_of_the_csc(
    world: World,
    partner: httpx.AsyncClient,
    form: dict[str, str],
    headers: dict[str, str],
    status: int,
    error: str,
    description: str,
) -> None:
    answer = await partner.post("/oauth2/token", data=form, headers=headers)
    assert refusal(answer) == (status, error, description)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert not world.store.rows.tokens


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        ("grant_type=client_credentials&grant_type=client_credentials", "application/x-www-form-urlencoded"),
        (json.dumps(GRANT | post_secret()), "application/json"),
        ("&".join(f"p{n}=1" for n in range(60)), "application/x-www-form-urlencoded"),
        (b"grant_type=%ff\xff", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_that_is_no_proper_form_is_refused(
    partner: httpx.AsyncClient, content: str | bytes, content_type: str
) -> None:
    answer = await partner.post("/oauth2/token", content=content, headers=basic() | {"Content-Type": content_type})
    assert refusal(answer)[:2] == (400, "invalid_request")


async def test_a_parameter_in_body_and_query_is_refused(partner: httpx.AsyncClient) -> None:
    answer = await partner.post("/oauth2/token", params=GRANT, data=GRANT, headers=basic())
    assert refusal(answer) == (400, "invalid_request", "A parameter is there twice")


async def test_other_methods_and_paths_are_refused_in_json(partner: httpx.AsyncClient) -> None:
    assert refusal(await partner.get("/oauth2/token"))[:2] == (405, "invalid_request")
    assert refusal(await partner.post("/oauth2/nothing"))[:2] == (404, "invalid_request")


# --- assertions ---


async def test_an_assertion_is_good_once(world: World, partner: httpx.AsyncClient) -> None:
    form = GRANT | assertion(world)
    assert (await partner.post("/oauth2/token", data=form)).status_code == 200
    answer = await partner.post("/oauth2/token", data=form)
    assert refusal(answer) == (401, "invalid_client", "Invalid parameter client_assertion")


async def test_bad_assertions_are_refused(world: World, partner: httpx.AsyncClient) -> None:
    at = int(world.clock.now().timestamp())
    for changed in ({"aud": "https://other.example"}, {"exp": at - 1}, {"iss": "partner-1"}, {"jti": None}):
        answer = await partner.post("/oauth2/token", data=GRANT | assertion(world, **changed))
        assert refusal(answer) == (401, "invalid_client", "Invalid parameter client_assertion"), changed
    foreign = GRANT | assertion(world) | {"client_id": "partner-1"}
    assert refusal(await partner.post("/oauth2/token", data=foreign))[:2] == (401, "invalid_client")
    assert not world.store.spent


# --- guessing ---


async def test_guessing_is_slowed_and_leaves_traces(world: World) -> None:
    world.attempts_max = 3
    async with world.client() as partner:
        wrong = GRANT | post_secret(secret="wrong")
        for _ in range(3):
            assert refusal(await partner.post("/oauth2/token", data=wrong))[0] == 400
        for form in (wrong, GRANT | post_secret()):
            answer = await partner.post("/oauth2/token", data=form)
            assert refusal(answer)[:2] == (429, "temporarily_unavailable")
            assert answer.headers["retry-after"] == "6"
        assert world.events.count("token.refused") == 3
        await token_of(partner, **post_secret("partner:2", OTHER_SECRET))
        world.clock.pass_s(6)
        await token_of(partner)


async def test_invented_client_ids_share_one_count(world: World) -> None:
    world.attempts_max = 3
    async with world.client() as partner:
        statuses = [
            (await partner.post("/oauth2/token", data=GRANT | post_secret(f"nobody{n}"))).status_code for n in range(5)
        ]
    assert statuses == [400, 400, 400, 429, 429]
    assert "nobody" not in str(world.store.rows.leaves)


# --- revocation ---


@pytest.mark.parametrize("path", ["/oauth2/revoke", "/revoke"])
async def test_a_client_revokes_its_token(world: World, partner: httpx.AsyncClient, path: str) -> None:
    text = await token_of(partner)
    token = read_token(text, verifying_keys(world.trust), now=world.clock.now())
    for hint in ({"token_type_hint": "access_token"}, {"token_type_hint": "refresh_token"}, {}):
        answer = await partner.post(path, data={"token": text} | hint, headers=basic())
        assert (answer.status_code, answer.content) == (204, b"")
    revoked = world.sam.revocations[0]
    assert (revoked.token_id, revoked.client_id, revoked.until) == (token.token_id, None, token.expires_at)
    assert world.events[-1] == "token.revoked"
    with pytest.raises(RakkanError):
        await world.store.check_alive(token)


REVOKE_ROWS: list[tuple[dict[str, str], dict[str, str], int, str, str]] = [
    ({}, basic(), 400, "invalid_request", "Missing parameter token"),
    (
        {"token": "x", "token_type_hint": "id_token"},
        basic(),
        400,
        "invalid_request",
        "Invalid parameter token_type_hint",
    ),
    ({"token": "x"}, basic(), 400, "invalid_request", "Invalid string parameter token"),
    (
        {"token": "x", "token_type_hint": "refresh_token"},
        basic(),
        400,
        "invalid_request",
        "Invalid string parameter token",
    ),
    ({"token": "x"}, {}, 400, "invalid_request", "Missing parameter client_id"),
    ({"token": "x", "client_id": "partner-1"}, {}, 400, "invalid_request", "Client authorization required"),
    ({"token": "x"} | post_secret("nobody"), {}, 400, "invalid_request", "Invalid parameter client_id"),
    ({"token": "x"} | post_secret(secret="no"), {}, 400, "invalid_request", "Invalid parameter client_secret"),
    ({"token": "x"}, {"Authorization": "Digest x"}, 401, "invalid_client", "Invalid authorization header"),
]


@pytest.mark.parametrize(("form", "headers", "status", "error", "description"), REVOKE_ROWS)
async def test_a_bad_revocation_is_refused_in_the_words_of_the_csc(
    world: World,
    partner: httpx.AsyncClient,
    form: dict[str, str],
    headers: dict[str, str],
    status: int,
    error: str,
    description: str,
) -> None:
    answer = await partner.post("/oauth2/revoke", data=form, headers=headers)
    assert refusal(answer) == (status, error, description)
    assert not world.sam.revocations


async def test_a_token_of_another_client_is_not_revoked(world: World, partner: httpx.AsyncClient) -> None:
    text = await token_of(partner)
    answer = await partner.post("/oauth2/revoke", data={"token": text}, headers=basic("partner:2", OTHER_SECRET))
    assert refusal(answer) == (400, "invalid_request", "Invalid string parameter token")
    assert not world.sam.revocations
    assert not world.store.rows.revoked


async def test_an_expired_token_and_one_by_a_foreign_key_are_no_tokens(
    world: World, partner: httpx.AsyncClient
) -> None:
    text = await token_of(partner)
    token = read_token(text, verifying_keys(world.trust), now=world.clock.now())
    foreign = write_token(token, signing_key())
    borrowed = write_token(token, SigningKey(key_id=world.new_key.key_id, key=signing_key().key))
    world.clock.pass_s(3601)
    for bad in (text, foreign, borrowed):
        answer = await partner.post("/oauth2/revoke", data={"token": bad}, headers=basic())
        assert refusal(answer) == (400, "invalid_request", "Invalid string parameter token")
    assert not world.sam.revocations


async def test_without_the_sam_nothing_is_revoked_and_the_client_may_ask_again(
    world: World, partner: httpx.AsyncClient
) -> None:
    text = await token_of(partner)
    world.sam.down = True
    answer = await partner.post("/oauth2/revoke", data={"token": text}, headers=basic())
    assert refusal(answer)[:2] == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"]
    assert not world.store.rows.revoked
    assert world.events[-1] == "token.issued"
    world.sam.down = False
    assert (await partner.post("/oauth2/revoke", data={"token": text}, headers=basic())).status_code == 204


async def test_without_the_database_no_token_is_given(world: World, partner: httpx.AsyncClient) -> None:
    world.store.down = True
    answer = await partner.post("/oauth2/token", data=GRANT | post_secret())
    assert refusal(answer)[:2] == (503, "temporarily_unavailable")


# --- suspension ---


@pytest.mark.parametrize(
    "suspend",
    [SuspendClient(client_id="partner-1", suspended=True), SuspendTenant(tenant_id="acme", suspended=True)],
)
async def test_a_suspended_client_gets_no_token(
    world: World, partner: httpx.AsyncClient, suspend: SuspendClient | SuspendTenant
) -> None:
    with asked_by_operator():
        await world.handlers.by_message()[type(suspend)](suspend)
    answer = await partner.post("/oauth2/token", data=GRANT | post_secret())
    assert refusal(answer) == (401, "invalid_client", "The client is suspended")
    wrong = await partner.post("/oauth2/token", data=GRANT | post_secret(secret="wrong"))
    assert refusal(wrong) == (400, "invalid_request", "Invalid parameter client_secret")
    await token_of(partner, **post_secret("partner:2", OTHER_SECRET))


async def test_a_token_given_in_the_second_of_a_suspension_that_ended_is_alive(
    world: World, partner: httpx.AsyncClient
) -> None:
    old = await token_of(partner)
    with asked_by_operator():
        for suspended in (True, False):
            await world.handlers.suspend_client(SuspendClient(client_id="partner-1", suspended=suspended))
    new = await token_of(partner)
    before = world.sam.revocations[0].issued_before
    assert before is not None
    keys = verifying_keys(world.trust)
    assert read_token(old, keys, now=world.clock.now()).issued_at < before
    token = read_token(new, keys, now=world.clock.now())
    assert token.issued_at >= before
    await world.store.check_alive(token)


# --- metadata and keys ---


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/oauth2",
        "/oauth2/.well-known/oauth-authorization-server",
    ],
)
async def test_the_metadata_says_what_is_there(partner: httpx.AsyncClient, path: str) -> None:
    metadata = (await partner.get(path)).json()
    assert metadata["issuer"] == ISSUER
    assert metadata["grant_types_supported"] == ["authorization_code", "refresh_token", "client_credentials"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert (await partner.get(metadata["authorization_endpoint"])).status_code == 400
    assert "none" not in metadata["token_endpoint_auth_signing_alg_values_supported"]
    for name in ("token_endpoint", "revocation_endpoint", "pushed_authorization_request_endpoint"):
        assert refusal(await partner.post(metadata[name]))[0] == 400
    assert (await partner.get(metadata["jwks_uri"])).status_code == 200


async def test_this_is_no_openid_provider(partner: httpx.AsyncClient) -> None:
    assert (await partner.get("/.well-known/openid-configuration")).status_code == 404


async def test_tokens_of_both_keys_are_good_while_the_key_is_changed(world: World) -> None:
    async with world.client(key=world.old_key) as before, world.client(key=world.new_key) as after:
        published = (await after.get("/oauth2/jwks")).json()
        assert {key["kid"] for key in published["keys"]} == {world.old_key.key_id, world.new_key.key_id}
        assert all("d" not in key and key["use"] == "sig" for key in published["keys"])
        keys = KeySet.import_key_set(published)
        for door in (before, after):
            text = await token_of(door)
            assert jwt.decode(text, keys, algorithms=["Ed25519"]).claims["client_id"] == "partner-1"
            revoked = await after.post("/oauth2/revoke", data={"token": text}, headers=basic())
            assert revoked.status_code == 204


async def test_the_openapi_page_knows_the_endpoints(partner: httpx.AsyncClient) -> None:
    paths = (await partner.get("/openapi.json")).json()["paths"]
    assert {"/oauth2/token", "/oauth2/revoke", "/oauth2/jwks"} <= set(paths)


async def test_no_operation_is_left_in_hand(partner: httpx.AsyncClient) -> None:
    await token_of(partner)
    with pytest.raises(LookupError):
        operation.current()

"""The authorization endpoint: where answers go, and every parameter that is refused, before and after that is known."""

import copy

import httpx
import pytest

from services.authentication.asking import STATE_CHARS_MAX
from shared.errors import Code, RakkanError
from tests.support.authentication import ISSUER, World, asked_by_operator
from tests.support.oauth import (
    CALLBACK,
    DIGEST,
    SECOND_DIGEST,
    SHA256_OID,
    Partner,
    account_token,
    answer_of,
    authorization,
    b64,
    b64url,
    grant,
    new_world,
    signing,
    told,
)

ELSEWHERE = [
    "https://partner.example",
    "https://partner.example/",
    "https://partner.example/Callback",
    "https://partner.example/CALLBACK",
    "https://PARTNER.example/callback",
    "https://partner.EXAMPLE/callback",
    "HTTPS://partner.example/callback",
    "http://partner.example/callback",
    "https://partner.example:443/callback",
    "https://partner.example:8443/callback",
    "https://partner.example:/callback",
    "https://partner.example:0443/callback",
    "https://partner.example/callback/",
    "https://partner.example//callback",
    "https://partner.example/./callback",
    "https://partner.example/../callback",
    "https://partner.example/a/../callback",
    "https://partner.example/callback/.",
    "https://partner.example/callback/..",
    "https://partner.example/callback/../../evil",
    "https://partner.example/callback%2f..%2fevil",
    "https://partner.example/%2e%2e/callback",
    "https://partner.example/%63allback",
    "https://partner.example/callbac%6b",
    "https://partner.example/callback%00",
    "https://partner.example/callback%0d%0aLocation:https://evil.example",
    "https://partner.example/callback\r\nLocation: https://evil.example",
    "https://partner.example/callback%20",
    "https://partner.example/callback ",
    " https://partner.example/callback",
    "https://partner.example/callback?",
    "https://partner.example/callback?a=b",
    "https://partner.example/callback&a=b",
    "https://partner.example/callback#",
    "https://partner.example/callback#fragment",
    "https://partner.example/callback%23fragment",
    "https://partner.example/callback;jsessionid=1",
    "https://partner.example/callbackx",
    "https://partner.example/callbac",
    "https://partner.example./callback",
    "https://partner.example.evil.example/callback",
    "https://evil.example/callback",
    "https://evil.example/https://partner.example/callback",
    "https://evil.example?https://partner.example/callback",
    "https://evil.example#https://partner.example/callback",
    "https://partner.example@evil.example/callback",
    "https://user@partner.example/callback",
    "https://user:secret@partner.example/callback",
    "https://partner.example%40evil.example/callback",
    "https://partner.example\\@evil.example/callback",
    "https://evil.example\\.partner.example/callback",
    "https:\\\\partner.example\\callback",
    "https:/partner.example/callback",
    "https:partner.example/callback",
    "//partner.example/callback",
    "/callback",
    "callback",
    "https://www.partner.example/callback",
    "https://*.example/callback",
    "https://partner.example/*",
    "https://p\u0430rtner.example/callback",
    "https://xn--prtner-4ve.example/callback",
    "https://partner\u3002example/callback",
    "https://partner.example/callb\u00e0ck",
    "https://partner.example\u2215callback",
    "https://\uff50artner.example/callback",
    "https://127.0.0.1/callback",
    "https://localhost/callback",
    "http://localhost/callback",
    "javascript:alert(1)//https://partner.example/callback",
    "data:text/html,https://partner.example/callback",
    "urn:ietf:wg:oauth:2.0:oob",
    "null",
    "https://partner.example/callback,https://evil.example/",
    "https://partner.example/callback https://evil.example/",
]
"""More than sixty addresses that look like the registered one, or that somebody takes for it."""


@pytest.fixture
async def world() -> World:
    return await new_world()


@pytest.fixture
def partner(world: World) -> Partner:
    return Partner(world)


async def asked(partner: Partner, form: dict[str, str]) -> httpx.Response:
    return await partner.http.get("/oauth2/authorize", params=form)


def shown(answer: httpx.Response) -> str:
    """The text of an error page: to the person, and to nobody else."""
    assert "location" not in answer.headers
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


# --- where answers go ---


async def test_the_variants_are_many_and_none_is_the_registered_one() -> None:
    assert len(set(ELSEWHERE)) >= 60
    assert CALLBACK not in ELSEWHERE


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
async def test_answers_go_to_the_registered_address_to_the_letter(partner: Partner, elsewhere: str) -> None:
    answer = await asked(partner, authorization(redirect_uri=elsewhere))
    assert answer.status_code == 400
    assert "Invalid parameter redirect_uri" in shown(answer)
    assert not partner.world.store.rows.requests
    pushed = await partner.push(**authorization(redirect_uri=elsewhere))
    assert pushed.json() == {"error": "invalid_request", "error_description": "Invalid parameter redirect_uri"}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"client_id": None}, "Missing parameter client_id"),
        ({"client_id": "nobody"}, "Invalid parameter client_id"),
        ({"client_id": "../web"}, "Invalid parameter client_id"),
        ({"client_id": "<script>alert(1)</script>"}, "Invalid parameter client_id"),
        ({"client_id": "batch"}, "Invalid parameter redirect_uri"),
        ({"client_id": "old", "redirect_uri": None}, "Missing parameter redirect_uri"),
        ({"request_uri": "https://evil.example/request.jwt"}, "Invalid parameter request_uri"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:nonsense"}, "Invalid parameter request_uri"),
    ],
)
async def test_before_the_address_is_known_the_person_is_told(
    partner: Partner, form: dict[str, str | None], text: str
) -> None:
    answer = await asked(partner, authorization(**form))
    assert answer.status_code == 400
    assert text in shown(answer)


async def test_a_doubled_parameter_is_refused(partner: Partner) -> None:
    for name, value in authorization().items():
        answer = await partner.http.get("/oauth2/authorize", params=[*authorization().items(), (name, value)])
        assert "twice" in shown(answer)
        pushed = await partner.http.post(
            "/oauth2/pushed_authorize", params={name: value}, data=authorization(), headers=partner.authenticated("")[1]
        )
        assert pushed.json()["error"] == "invalid_request"


async def test_answers_keep_the_query_of_the_registered_address(world: World) -> None:
    old = Partner(world, "old")
    request_id = await old.ask(**authorization(client_id="old", redirect_uri=f"{CALLBACK}?of=old"))
    location = await grant(world, request_id)
    assert location.startswith(f"{CALLBACK}?of=old&code=")
    assert answer_of(location)["of"] == "old"


async def test_the_answer_names_its_issuer_and_repeats_the_state(world: World, partner: Partner) -> None:
    state = "a b+c&d=e%20\u3042\u2028<>\"'"
    told_ = answer_of(await grant(world, await partner.ask(**authorization(state=state))))
    assert told_.keys() == {"code", "state", "iss"}
    assert (told_["state"], told_["iss"]) == (state, ISSUER)
    assert "state" not in answer_of(await grant(world, await partner.ask(**authorization(state=None))))


async def test_a_long_state_is_repeated_and_a_longer_one_refused(world: World, partner: Partner) -> None:
    longest = "s" * STATE_CHARS_MAX
    assert answer_of(await grant(world, await partner.ask(**authorization(state=longest))))["state"] == longest
    refused = told(await asked(partner, authorization(state=longest + "s")))
    assert refused == {"error": "invalid_request", "error_description": "Invalid parameter state", "iss": ISSUER}


async def test_parameters_nobody_knows_are_left_alone(partner: Partner) -> None:
    extra = {"prompt": "login", "nonce": "n" * 3000, "clientData": "x", "lang": "ja", "display": "page"}
    assert await partner.ask(**authorization(), **extra)


async def test_the_endpoint_takes_post_too(partner: Partner) -> None:
    answer = await partner.http.post("/oauth2/authorize", data=authorization())
    assert answer.headers["location"].startswith(f"{ISSUER}/approve/")
    assert answer.status_code == 303
    assert (await partner.http.put("/oauth2/authorize")).status_code == 405


async def test_the_aliases_that_real_clients_use(partner: Partner) -> None:
    assert (await partner.http.get("/authorize", params=authorization())).status_code == 303
    headers = partner.authenticated("")[1]
    pushed = await partner.http.post("/pushed_authorize", data=authorization(), headers=headers)
    assert pushed.status_code == 201
    answer = await partner.http.post("/token", data={"grant_type": "client_credentials"}, headers=headers)
    token = answer.json()["access_token"]
    assert (await partner.http.post("/revoke", data={"token": token}, headers=headers)).status_code == 204


# --- what is asked ---


@pytest.mark.parametrize(
    ("form", "error", "description"),
    [
        ({"response_type": None}, "invalid_request", "Missing parameter response_type"),
        ({"response_type": "token"}, "unsupported_response_type", "Invalid parameter response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type", "Invalid parameter response_type"),
        ({"response_mode": "fragment"}, "invalid_request", "Invalid parameter response_mode"),
        ({"response_mode": "form_post"}, "invalid_request", "Invalid parameter response_mode"),
        ({"request": "ey.."}, "request_not_supported", None),
        ({"scope": "openid"}, "invalid_scope", "Invalid parameter scope"),
        ({"scope": "service credential"}, "invalid_scope", "Invalid parameter scope"),
        ({"scope": "credential service"}, "invalid_scope", "Invalid parameter scope"),
        ({"lang": "<b>"}, "invalid_request", "Invalid parameter lang"),
        ({"description": "d" * 501}, "invalid_request", "Invalid parameter description"),
        ({"description": "pay\u202egnp.exe"}, "invalid_request", "Invalid parameter description"),
        ({"description": "a\x00b"}, "invalid_request", "Invalid parameter description"),
        ({"credentialID": "c-1"}, "invalid_request", "Invalid parameter credentialID"),
        ({"hashes": "x"}, "invalid_request", "Invalid parameter hashes"),
        ({"dpop_jkt": "short"}, "invalid_request", "Invalid parameter dpop_jkt"),
        ({"account_token": "ey.."}, "invalid_request", "Invalid parameter account_token"),
    ],
)
async def test_a_bad_request_is_refused_to_the_client(
    partner: Partner, form: dict[str, str | None], error: str, description: str | None
) -> None:
    refused = told(await asked(partner, authorization(**form)))
    assert (refused["error"], refused["state"], refused["iss"]) == (error, "af0ifjsldkj", ISSUER)
    assert description in (None, refused["error_description"])
    assert not partner.world.store.rows.requests


@pytest.mark.parametrize(
    ("form", "error", "description"),
    [
        ({"credentialID": None}, "invalid_request", "Missing parameter credentialID"),
        ({"credentialID": "c" * 256}, "invalid_request", "Invalid parameter credentialID"),
        ({"hashes": None}, "invalid_request", "Missing parameter hashes"),
        ({"hashes": "!!"}, "invalid_request", "Invalid parameter hashes"),
        ({"hashes": b64url(DIGEST) + ","}, "invalid_request", "Invalid parameter hashes"),
        ({"hashes": b64url(DIGEST[:31])}, "invalid_request", "Invalid parameter hashes"),
        ({"hashes": ",".join([b64url(DIGEST)] * 1001)}, "invalid_request", "Invalid parameter hashes"),
        ({"hash": b64url(DIGEST)}, "invalid_request", "Invalid parameter hashes"),
        ({"hashAlgorithmOID": None}, "invalid_request", "Missing parameter hashAlgorithmOID"),
        ({"hashAlgorithmOID": "1.3.14.3.2.26"}, "invalid_request", "Invalid parameter hashAlgorithmOID"),
        ({"hashAlgorithmOID": "2.16.840.1.101.3.4.2.2"}, "invalid_request", "Invalid parameter hashes"),
        ({"numSignatures": "0"}, "invalid_request", "Invalid parameter numSignatures"),
        ({"numSignatures": "2"}, "invalid_request", "Invalid parameter numSignatures"),
        ({"numSignatures": "-1"}, "invalid_request", "Invalid parameter numSignatures"),
        ({"numSignatures": "1.0"}, "invalid_request", "Invalid parameter numSignatures"),
        ({"numSignatures": "\u0661"}, "invalid_request", "Invalid parameter numSignatures"),
        ({"signatureQualifier": "eu_eidas_qes"}, "invalid_request", "Invalid parameter signatureQualifier"),
        ({"authorization_details": "[]"}, "invalid_request", "Invalid parameter credentialID"),
    ],
)
async def test_bad_plain_parameters_are_refused_to_the_client(
    partner: Partner, form: dict[str, str | None], error: str, description: str
) -> None:
    answer = await partner.http.post("/oauth2/authorize", data=signing(**form))
    refused = told(answer)
    assert (refused["error"], refused["error_description"]) == (error, description)


@pytest.mark.parametrize(
    "hashes",
    [
        {"hashes": f"{b64url(DIGEST)},{b64url(SECOND_DIGEST)}", "hashAlgorithmOID": SHA256_OID},
        {"hashes": f"{b64(DIGEST)},{b64(SECOND_DIGEST)}", "hashAlgorithmOID": SHA256_OID},
        {"hashes": f"{b64url(DIGEST)}=,{b64(SECOND_DIGEST)[:-1]}", "hashAlgorithmOID": SHA256_OID},
        {"hash": f"{b64url(DIGEST)},{b64url(SECOND_DIGEST)}", "hashes": None, "hashAlgorithmOID": None},
        {"hash": f"{b64(DIGEST)},{b64(SECOND_DIGEST)}", "hashes": None},
    ],
)
async def test_both_alphabets_and_both_versions_mean_the_same_bytes(
    world: World, partner: Partner, hashes: dict[str, str | None]
) -> None:
    request_id = await partner.ask(**signing(**hashes, numSignatures="2", description="Lease \u5951\u7d04"))
    with asked_by_operator():
        request = await world.oauth.requests.open(request_id, session_id="s")
    assert [document.digest for document in request.documents] == [DIGEST, SECOND_DIGEST]
    assert (request.signatures, request.hash, request.credential_id) == (2, "sha256", "c-1")
    assert (request.client_name, request.description) == ("Partner's portal", "Lease \u5951\u7d04")
    assert (request.redirect_uri, request.lang, request.login_hint) == (CALLBACK, None, None)


# --- whose it is ---


async def test_a_request_belongs_to_the_first_browser_session_that_shows_it(world: World, partner: Partner) -> None:
    request_id = await partner.ask(**authorization())
    requests = world.oauth.requests
    with asked_by_operator():
        await requests.open(request_id, session_id="hers")
        await requests.open(request_id, session_id="hers")
        for attempt in (
            requests.open(request_id, session_id="his"),
            requests.granted(
                request_id,
                session_id="his",
                tenant_id="acme",
                user_id="mallory",
                authorization_id=None,
                credential_id=None,
            ),
            requests.denied(request_id, session_id="his"),
        ):
            with pytest.raises(RakkanError) as refusal:
                await attempt
            assert refusal.value.code is Code.FORBIDDEN
    assert "code" in answer_of(await grant(world, request_id, session_id="hers"))


async def test_a_request_that_nobody_opened_cannot_be_granted(world: World, partner: Partner) -> None:
    request_id = await partner.ask(**authorization())
    with asked_by_operator(), pytest.raises(RakkanError):
        await world.oauth.requests.denied(request_id, session_id="s")


async def test_a_request_is_ended_once(world: World, partner: Partner) -> None:
    request_id = await partner.ask(**authorization())
    await grant(world, request_id)
    with asked_by_operator():
        for attempt in (
            world.oauth.requests.open(request_id, session_id="s"),
            world.oauth.requests.denied(request_id, session_id="s"),
        ):
            with pytest.raises(RakkanError) as refusal:
                await attempt
            assert refusal.value.code is Code.NOT_FOUND


async def test_a_request_expires(world: World, partner: Partner) -> None:
    request_id = await partner.ask(**authorization())
    world.clock.pass_s(600)
    with asked_by_operator(), pytest.raises(RakkanError) as refusal:
        await world.oauth.requests.open(request_id, session_id="s")
    assert refusal.value.code is Code.NOT_FOUND


async def test_a_refusal_of_the_signer_goes_to_the_client(world: World, partner: Partner) -> None:
    request_id = await partner.ask(**signing())
    with asked_by_operator():
        await world.oauth.requests.open(request_id, session_id="s")
        location = await world.oauth.requests.denied(request_id, session_id="s", description="The signer refused")
    assert answer_of(location) == {
        "error": "access_denied",
        "error_description": "The signer refused",
        "state": "af0ifjsldkj",
        "iss": ISSUER,
    }
    assert world.events[-1] == "authorization.denied"


@pytest.mark.parametrize(
    "granted",
    [
        {"tenant_id": "other"},
        {"credential_id": "c-2"},
        {"credential_id": None},
        {"authorization_id": None},
    ],
)
async def test_what_was_not_asked_cannot_be_granted(
    world: World, partner: Partner, granted: dict[str, str | None]
) -> None:
    request_id = await partner.ask(**signing())
    facts = {"tenant_id": "acme", "user_id": "alice", "authorization_id": "a-1", "credential_id": "c-1"} | granted
    with asked_by_operator():
        await world.oauth.requests.open(request_id, session_id="s")
        before = copy.deepcopy(world.store.rows.grants)
        with pytest.raises(RakkanError) as refusal:
            await world.oauth.requests.granted(request_id, session_id="s", **facts)  # type: ignore[arg-type]  # bad on purpose
    assert refusal.value.code is Code.FORBIDDEN
    assert world.store.rows.grants == before


async def test_a_flood_of_requests_is_told_to_wait(world: World) -> None:
    endpoint = world.client()
    answers = [(await endpoint.get("/oauth2/authorize", params=authorization())).status_code for _ in range(201)]
    assert answers[:200] == [303] * 200
    refused = await endpoint.get("/oauth2/authorize", params=authorization())
    assert refused.status_code == 429
    assert refused.headers["retry-after"]
    world.clock.pass_s(1)
    assert (await endpoint.get("/oauth2/authorize", params=authorization())).status_code == 303


# --- account tokens ---


async def test_an_account_token_names_the_one_who_may_grant(world: World) -> None:
    old = Partner(world, "old")
    form = authorization(client_id="old", account_token=account_token(world))
    request_id = await old.ask(**form)
    with asked_by_operator():
        assert (await world.oauth.requests.open(request_id, session_id="s")).login_hint == "alice"
    with pytest.raises(RakkanError) as refusal:
        await grant(world, request_id, user_id="bob")
    assert refusal.value.code is Code.FORBIDDEN
    assert "code" in answer_of(await grant(world, request_id))
    assert told(await asked(old, form))["error_description"] == "Invalid parameter account_token"  # used before


async def test_bad_account_tokens_are_refused(world: World) -> None:
    old = Partner(world, "old")
    at = int(world.clock.now().timestamp())
    for changed in (
        {"azp": "web"},
        {"azp": None},
        {"sub": None},
        {"sub": "<alice>"},
        {"jti": None},
        {"jti": 7},
        {"iat": None},
        {"iat": "now"},
        {"iat": at - 601},
        {"iat": at + 60},
    ):
        form = authorization(client_id="old", account_token=account_token(world, **changed))
        assert told(await asked(old, form))["error"] == "invalid_request", changed
    good = account_token(world)
    head, body, mark = good.split(".")
    none = "eyJhbGciOiJub25lIn0"
    for text in (f"{none}.{body}.", f"{none}.{body}.{mark}", f"{head}.{body}.", good[:-4], "x" * 5000):
        assert "error" in told(await asked(old, authorization(client_id="old", account_token=text))), text
    # A client that was not added with account tokens sends none.
    assert "error" in told(await asked(Partner(world), authorization(account_token=account_token(world, azp="web"))))

"""Codes, refresh tokens and what comes of them: redeemed once, by whom they were made for, and dead when reused."""

from datetime import timedelta

import pytest

from services.authentication.grants import digest_of
from shared.contracts.authentication import SuspendClient
from shared.errors import Code, RakkanError
from tests.support.authentication import World, asked_by_operator
from tests.support.oauth import (
    CALLBACK,
    CHALLENGE,
    VERIFIER,
    Partner,
    authorization,
    error_of,
    new_world,
    signing,
)

BAD_CODE = (400, "invalid_grant", "Invalid parameter code")
BAD_REFRESH = (400, "invalid_grant", "Invalid parameter refresh_token")


@pytest.fixture
async def world() -> World:
    return await new_world()


@pytest.fixture
def partner(world: World) -> Partner:
    return Partner(world)


async def is_alive(world: World, partner: Partner, text: str) -> bool:
    try:
        await world.store.check_alive(partner.read(text))
    except RakkanError as refusal:
        return refusal.code not in {Code.TOKEN_INVALID, Code.TOKEN_EXPIRED}
    return True


# --- what a code is good for ---


async def test_a_code_of_scope_service_gives_a_token_of_the_signer(world: World, partner: Partner) -> None:
    answer = await partner.redeem(await partner.code())
    assert answer.status_code == 200
    given = answer.json()
    assert (given["token_type"], given["expires_in"], given["scope"]) == ("Bearer", 3600, "service")
    assert given["refresh_token"].startswith("rkr_")
    token = partner.read(given["access_token"])
    assert (token.user_id, token.client_id, token.tenant_id) == ("alice", "web", "acme")
    assert (token.authorization_id, token.credential_id, token.key_thumbprint) == (None, None, None)
    assert world.events[-2:] == ["authorization.granted", "token.issued"]


async def test_a_code_of_scope_credential_gives_a_token_of_one_authorization(world: World, partner: Partner) -> None:
    code = await partner.code(**signing())
    world.clock.pass_s(20)
    given = (await partner.redeem(code)).json()
    token = partner.read(given["access_token"])
    assert (token.scope, token.authorization_id, token.credential_id) == ("credential", "a-1", "c-1")
    assert given["expires_in"] <= 280
    assert "refresh_token" not in given
    assert given["credentialID"] == "c-1"


async def test_a_credential_token_lives_no_longer_than_its_authorization(world: World, partner: Partner) -> None:
    request_id = await partner.ask(**signing())
    with asked_by_operator():
        await world.oauth.requests.open(request_id, session_id="s")
        location = await world.oauth.requests.granted(
            request_id,
            session_id="s",
            tenant_id="acme",
            user_id="alice",
            authorization_id="a-1",
            credential_id="c-1",
            expires_in_s=45,
        )
    code = location.split("code=")[1].split("&")[0]
    assert (await partner.redeem(code)).json()["expires_in"] <= 45


async def test_nothing_secret_is_stored_or_noted_in_clear(world: World, partner: Partner) -> None:
    request_id = await partner.ask(**authorization())
    code = (await partner.grant(request_id))["code"]
    given = (await partner.redeem(code)).json()
    kept = str(world.store.rows)
    for text in (request_id, code, given["access_token"], given["refresh_token"]):
        assert text not in kept
    assert digest_of(code) in world.store.rows.codes


# --- reuse ---


async def test_a_reused_code_ends_every_token_that_came_of_it(world: World, partner: Partner) -> None:
    code = await partner.code()
    first = (await partner.redeem(code)).json()
    second = (await partner.refresh(first["refresh_token"])).json()
    assert error_of(await partner.redeem(code)) == BAD_CODE
    ids = {partner.read(given["access_token"]).token_id for given in (first, second)}
    assert {revocation.token_id for revocation in world.sam.revocations} == ids
    for given in (first, second):
        assert not await is_alive(world, partner, given["access_token"])
    assert error_of(await partner.refresh(second["refresh_token"])) == BAD_REFRESH
    assert "code.reused" in world.events


async def test_a_reused_code_ends_a_token_of_scope_credential(world: World, partner: Partner) -> None:
    code = await partner.code(**signing())
    given = (await partner.redeem(code)).json()
    assert error_of(await partner.redeem(code)) == BAD_CODE
    assert [one.token_id for one in world.sam.revocations] == [partner.read(given["access_token"]).token_id]
    assert not await is_alive(world, partner, given["access_token"])


async def test_without_the_sam_a_reuse_is_answered_later_and_nothing_is_half_done(
    world: World, partner: Partner
) -> None:
    code = await partner.code()
    given = (await partner.redeem(code)).json()
    world.sam.down = True
    assert error_of(await partner.redeem(code))[:2] == (503, "temporarily_unavailable")
    assert await is_alive(world, partner, given["access_token"])
    world.sam.down = False
    assert error_of(await partner.redeem(code)) == BAD_CODE
    assert not await is_alive(world, partner, given["access_token"])


async def test_a_code_stolen_by_another_client_is_no_use_and_no_harm(world: World, partner: Partner) -> None:
    code = await partner.code()
    assert error_of(await Partner(world, "web-2").redeem(code)) == BAD_CODE
    assert (await partner.redeem(code)).status_code == 200


async def test_a_code_that_came_with_a_wrong_proof_is_spent(partner: Partner) -> None:
    for wrong in ({"code_verifier": "x" * 43}, {"code_verifier": None}, {"redirect_uri": "https://evil.example/"}):
        code = await partner.code()
        assert (await partner.redeem(code, **wrong)).status_code == 400
        assert error_of(await partner.redeem(code)) == BAD_CODE


async def test_a_code_expires_after_a_minute(world: World, partner: Partner) -> None:
    code = await partner.code()
    world.clock.pass_s(60)
    assert error_of(await partner.redeem(code)) == (400, "invalid_grant", "Authorization code is invalid or expired")


async def test_a_code_dies_when_its_client_is_suspended_and_stays_dead(world: World, partner: Partner) -> None:
    code = await partner.code()
    given = (await partner.redeem(await partner.code())).json()
    world.clock.pass_s(2)
    with asked_by_operator():
        for suspended in (True, False):
            await world.handlers.suspend_client(SuspendClient(client_id="web", suspended=suspended))
    assert error_of(await partner.redeem(code))[:2] == (400, "invalid_grant")
    assert error_of(await partner.refresh(given["refresh_token"]))[:2] == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({"code": None}, (400, "invalid_request", "Missing parameter code")),
        ({"code": "nonsense"}, BAD_CODE),
        ({"code": ""}, (400, "invalid_request", "Missing parameter code")),
        ({"code_verifier": None}, (400, "invalid_request", "Missing parameter code_verifier")),
        ({"code_verifier": CHALLENGE}, (400, "invalid_grant", "Invalid parameter code_verifier")),
        ({"code_verifier": VERIFIER + "A"}, (400, "invalid_grant", "Invalid parameter code_verifier")),
        ({"code_verifier": VERIFIER.lower()}, (400, "invalid_grant", "Invalid parameter code_verifier")),
        (
            {"redirect_uri": CALLBACK + "/"},
            (
                400,
                "invalid_grant",
                "redirect_uri parameter does not match redirect_uri parameter of authorization request",
            ),
        ),
        (
            {"redirect_uri": None},
            (
                400,
                "invalid_grant",
                "redirect_uri parameter does not match redirect_uri parameter of authorization request",
            ),
        ),
        ({"grant_type": "implicit"}, (400, "invalid_request", "Invalid parameter grant_type")),
    ],
)
async def test_a_bad_redemption_is_refused_in_the_words_of_the_csc(
    partner: Partner, form: dict[str, str | None], wanted: tuple[int, str, str]
) -> None:
    code = await partner.code()
    assert error_of(await partner.redeem(**({"code": code} | form))) == wanted  # type: ignore[arg-type]  # None is absent


async def test_a_redirect_uri_that_was_left_out_may_be_left_out_again(partner: Partner) -> None:
    for given in (None, CALLBACK):
        code = await partner.code(**authorization(redirect_uri=None))
        assert (await partner.redeem(code, redirect_uri=given)).status_code == 200
    code = await partner.code(**authorization(redirect_uri=None))
    assert (await partner.redeem(code, redirect_uri="https://evil.example/")).status_code == 400


# --- PKCE ---


@pytest.mark.parametrize(
    ("challenge", "method", "description"),
    [
        (None, None, "Missing parameter code_challenge"),
        (None, "S256", "Missing parameter code_challenge"),
        (CHALLENGE, None, "Invalid parameter code_challenge_method"),
        (VERIFIER, "plain", "Invalid parameter code_challenge_method"),
        (CHALLENGE, "s256", "Invalid parameter code_challenge_method"),
        (CHALLENGE, "S512", "Invalid parameter code_challenge_method"),
        (CHALLENGE[:-1], "S256", "Invalid parameter code_challenge"),
        (CHALLENGE + "=", "S256", "Invalid parameter code_challenge"),
        (CHALLENGE + "A", "S256", "Invalid parameter code_challenge"),
    ],
)
async def test_only_s256_is_proof(
    partner: Partner, challenge: str | None, method: str | None, description: str
) -> None:
    form = authorization(code_challenge=challenge, code_challenge_method=method)
    answer = await partner.http.get("/oauth2/authorize", params=form)
    assert f"error=invalid_request&error_description={description.replace(' ', '+')}" in answer.headers["location"]


async def test_a_v1_client_may_leave_pkce_out_but_not_halfway(world: World) -> None:
    old = Partner(world, "old")
    without = authorization(client_id="old", code_challenge=None, code_challenge_method=None)
    assert (await old.redeem(await old.code(**without), code_verifier=None)).status_code == 200
    # A verifier for a request without challenge: the code was put in the place of another.
    assert error_of(await old.redeem(await old.code(**without)))[1] == "invalid_grant"
    # And one that used PKCE must finish with it.
    assert (await old.redeem(await old.code(**authorization(client_id="old")), code_verifier=None)).status_code == 400
    plain = authorization(client_id="old", code_challenge=VERIFIER, code_challenge_method="plain")
    assert "error=invalid_request" in (await old.http.get("/oauth2/authorize", params=plain)).headers["location"]


# --- refresh tokens ---


async def test_refreshing_rotates_and_keeps_the_signer(world: World, partner: Partner) -> None:
    given = (await partner.redeem(await partner.code())).json()
    world.clock.pass_s(3000)
    again = (await partner.refresh(given["refresh_token"], scope="service")).json()
    assert again["refresh_token"] != given["refresh_token"]
    assert partner.read(again["access_token"]).user_id == "alice"
    assert (await partner.refresh(again["refresh_token"])).status_code == 200


async def test_a_reused_refresh_token_ends_its_family(world: World, partner: Partner) -> None:
    given = (await partner.redeem(await partner.code())).json()
    again = (await partner.refresh(given["refresh_token"])).json()
    other = (await partner.redeem(await partner.code())).json()
    assert error_of(await partner.refresh(given["refresh_token"])) == BAD_REFRESH
    assert error_of(await partner.refresh(again["refresh_token"])) == BAD_REFRESH
    for dead in (given, again):
        assert not await is_alive(world, partner, dead["access_token"])
    assert await is_alive(world, partner, other["access_token"])
    assert "refresh_token.reused" in world.events


async def test_a_refresh_token_is_its_clients_alone(world: World, partner: Partner) -> None:
    given = (await partner.redeem(await partner.code())).json()
    thief = Partner(world, "web-2")
    assert error_of(await thief.refresh(given["refresh_token"])) == BAD_REFRESH
    assert error_of(await thief.revoke(given["refresh_token"]))[:2] == (400, "invalid_request")
    assert (await partner.refresh(given["refresh_token"])).status_code == 200


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({"refresh_token": ""}, (400, "invalid_request", "Missing parameter refresh_token")),
        ({"refresh_token": "rkr_nonsense"}, BAD_REFRESH),
        ({"refresh_token": "nonsense"}, BAD_REFRESH),
        ({"scope": "credential"}, (400, "invalid_scope", "Invalid parameter scope")),
        ({"scope": "service credential"}, (400, "invalid_scope", "Invalid parameter scope")),
    ],
)
async def test_a_bad_refresh_is_refused(partner: Partner, form: dict[str, str], wanted: tuple[int, str, str]) -> None:
    given = (await partner.redeem(await partner.code())).json()
    assert error_of(await partner.refresh(**({"refresh_token": given["refresh_token"]} | form))) == wanted


async def test_consent_ends_after_a_month_whatever_was_refreshed(world: World, partner: Partner) -> None:
    given = (await partner.redeem(await partner.code())).json()
    world.clock.at += timedelta(days=29, hours=23, minutes=30)
    given = (await partner.refresh(given["refresh_token"])).json()
    assert given["expires_in"] <= 1800
    world.clock.at += timedelta(hours=1)
    assert error_of(await partner.refresh(given["refresh_token"])) == (400, "invalid_grant", "Refresh token expired")


async def test_the_live_tokens_of_one_grant_are_few(partner: Partner) -> None:
    given = (await partner.redeem(await partner.code())).json()
    for _ in range(19):
        answer = await partner.refresh(given["refresh_token"])
        given = answer.json()
    refused = await partner.refresh(given["refresh_token"])
    assert error_of(refused)[:2] == (429, "temporarily_unavailable")
    assert refused.headers["retry-after"]


# --- revocation ---


async def test_revoking_a_refresh_token_kills_its_access_tokens(world: World, partner: Partner) -> None:
    given = (await partner.redeem(await partner.code())).json()
    assert (await partner.revoke(given["refresh_token"], token_type_hint="refresh_token")).status_code == 204
    assert not await is_alive(world, partner, given["access_token"])
    assert [one.token_id for one in world.sam.revocations] == [partner.read(given["access_token"]).token_id]
    assert error_of(await partner.refresh(given["refresh_token"])) == BAD_REFRESH


async def test_revoking_an_access_token_leaves_the_refresh_token(world: World, partner: Partner) -> None:
    given = (await partner.redeem(await partner.code())).json()
    assert (await partner.revoke(given["access_token"], token_type_hint="refresh_token")).status_code == 204
    assert not await is_alive(world, partner, given["access_token"])
    assert (await partner.refresh(given["refresh_token"])).status_code == 200


async def test_a_revocation_that_the_sam_has_not_heard_of_has_not_happened(world: World, partner: Partner) -> None:
    given = (await partner.redeem(await partner.code())).json()
    world.sam.down = True
    assert error_of(await partner.revoke(given["refresh_token"]))[0] == 503
    assert await is_alive(world, partner, given["access_token"])
    world.sam.down = False
    assert (await partner.refresh(given["refresh_token"])).status_code == 200


async def test_a_credential_token_can_be_revoked(world: World, partner: Partner) -> None:
    given = (await partner.redeem(await partner.code(**signing()))).json()
    assert (await partner.revoke(given["access_token"])).status_code == 204
    assert len(world.sam.revocations) == 1


# --- v1 ---


async def test_a_v1_client_gets_its_sad_by_name(world: World) -> None:
    old = Partner(world, "old")
    given = (await old.redeem(await old.code(**signing(client_id="old")))).json()
    assert given["token_type"] == "SAD"
    service = (await old.redeem(await old.code(**authorization(client_id="old")))).json()
    assert service["token_type"] == "Bearer"

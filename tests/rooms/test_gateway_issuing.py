"""Credentials come and go at the gateway's door: which CA they come of, who may ask, and what is refused."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.gateway.csc.issuing import METHODS
from services.gateway.settings import Limits
from shared.contracts import issuance, sam
from shared.errors import Code, RakkanError
from tests.rooms.gateway_fakes import HASH, SHA256, World, b64, credential, opened
from tests.support.trust_services import certification_authority, registry_of

QUALIFIED = "0.4.0.194112.1.2"
OWN = tuple(method.name for method in METHODS if method.extension)
PROFILES = {
    "signing": {"label": "Signing", "policies": [QUALIFIED]},
    "once": {"label": "Once", "signature_qualifier": "eu_eidas_qes", "short_term": True},
}
AUTHORITIES = {
    "blue": certification_authority("Blue CA"),
    "red": certification_authority("Red CA", profiles=PROFILES),
    "slow": certification_authority("Slow CA", profiles={"signing": {"label": "Slow", "issuance": "pending"}}),
    "hidden": certification_authority("Rival's CA", tenants=["rival"]),
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    limits = Limits(issuance_wait_s=0.4, requests_per_s=100_000, burst=100_000)
    async with opened(limits) as world:
        world.registries.current = registry_of(certification_authorities=AUTHORITIES)
        yield world


def wanting(*, user: str | None = "hanako", **members: Any) -> dict[str, Any]:
    asked = {"credentialCreationRequest": members}
    return asked if user is None else asked | {"userID": user}


def ordered(world: World) -> issuance.CreateCredential:
    return [request for request in world.rooms.asked if isinstance(request, issuance.CreateCredential)][-1]


def granted(world: World, **changes: str) -> str:
    named: dict[str, Any] = {
        "scope": issuance.CREATION,
        "user_id": "hanako",
        "authority": "blue",
        "certificate_profile": "seal",
    }
    return world.token(**(named | changes))


async def test_a_credential_is_made_at_the_default_ca_for_a_client_that_knows_no_extension(world: World) -> None:
    answer = await world.call("v2/credentials/create", wanting(certificatePolicy=QUALIFIED))
    assert answer.status_code == 201
    assert answer.json() == {
        "credentialID": "c0",
        "issuance": {"certificationAuthority": "red", "certificateProfile": "signing"},
    }
    asked = ordered(world)
    assert (asked.user_id, asked.authority, asked.profile, asked.one_time) == ("hanako", "red", "signing", False)


@pytest.mark.parametrize(
    ("service", "named", "chosen"),
    [
        ("", {"certificationAuthority": "blue"}, ("blue", "signing")),
        ("", {"certificationAuthority": "blue", "certificateProfile": "seal"}, ("blue", "seal")),
        ("", {"certificateProfile": "seal"}, ("blue", "seal")),
        ("shop", {}, ("blue", "seal")),
        ("shop", {"certificateProfile": "signing"}, ("blue", "signing")),
        ("both", {}, ("blue", "signing")),
        ("both", {"certificationAuthority": "red"}, ("red", "signing")),
    ],
)
async def test_the_request_or_the_base_url_names_the_ca(
    world: World, service: str, named: dict[str, str], chosen: tuple[str, str]
) -> None:
    answer = await world.call("v2/credentials/create", wanting(**named), service=service)
    assert answer.status_code == 201, answer.text
    assert (ordered(world).authority, ordered(world).profile) == chosen


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "Missing required parameter credentialCreationRequest"),
        ({"credentialCreationRequest": []}, 400, "Invalid parameter credentialCreationRequest"),
        (wanting(certificationAuthority="nobody"), 400, "Invalid parameter certificationAuthority"),
        (wanting(certificateProfile="nothing"), 400, "Invalid parameter certificateProfile"),
        (wanting(certificateProfile="once"), 400, "Invalid parameter certificateProfile"),
        (wanting(certificatePolicy="2.999.9"), 400, "Invalid parameter certificatePolicy"),
        (wanting(certificatePolicy="not an oid"), 400, "Invalid parameter certificatePolicy"),
        (wanting(signatureQualifier="jp_none"), 400, "Invalid parameter signatureQualifier"),
        (wanting(subjectData="CN=me"), 400, "Invalid parameter subjectData"),
        (wanting() | {"operationMode": "B"}, 400, "Invalid parameter operationMode"),
        (wanting(certificationAuthority="hidden"), 403, "The certification authority is not open to this client"),
    ],
)
async def test_a_wish_that_leads_nowhere_is_refused_before_anything_is_ordered(
    world: World, body: dict[str, Any], status: int, words: str
) -> None:
    answer = await world.call("v2/credentials/create", body)
    assert (answer.status_code, answer.json()["error_description"]) == (status, words)
    assert not world.rooms.ordered


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (Code.USER_ID_REQUIRED, 400, "Missing (or invalid type) string parameter userID"),
        (Code.USER_ID_UNKNOWN, 400, "Invalid parameter userID"),
        (Code.AUTHORITY_UNAVAILABLE, 503, "The certification authority is temporarily unavailable"),
        (Code.FACTOR_UNKNOWN, 400, "The signer has nothing to authorize this credential with"),
        (Code.SIGN_ALGORITHM_REFUSED, 400, "Invalid parameter certificateProfile"),
    ],
)
async def test_what_the_sam_refuses_is_said_in_the_words_of_the_csc(
    world: World, code: Code, status: int, words: str
) -> None:
    world.rooms.refuse[issuance.CreateCredential] = RakkanError(code)
    answer = await world.call("v2/credentials/create", wanting())
    assert (answer.status_code, answer.json()["error_description"]) == (status, words)


async def test_what_a_partner_says_of_the_subject_goes_nowhere_and_is_said_so(world: World) -> None:
    answer = await world.call("v2/credentials/create", wanting(subjectData={"given_name": "Somebody Else"}))
    assert answer.json()["ignored"] == ["subjectData"]
    assert "Somebody" not in repr([request.model_dump() for request in world.rooms.asked])


async def test_a_signers_word_on_one_ca_makes_a_credential_of_that_ca_and_of_no_other(world: World) -> None:
    token = granted(world)
    assert (await world.call("v2/credentials/create", wanting(user=None), token=token)).status_code == 201
    assert (ordered(world).authority, ordered(world).profile, ordered(world).user_id) == ("blue", "seal", None)
    named = wanting(user=None, certificationAuthority="blue", certificateProfile="seal")
    assert (await world.call("v2/credentials/create", named, token=token)).status_code == 201
    world.rooms.refuse[issuance.CreateCredential] = RakkanError(Code.SCOPE_REFUSED)
    other = await world.call("v2/credentials/create", wanting(user=None, certificationAuthority="red"), token=token)
    assert (other.status_code, other.json()["error"]) == (403, "access_denied")


async def test_who_may_have_a_credential_made_is_who_was_granted_that_or_the_tenants_own_client(world: World) -> None:
    logged_in = await world.call("v2/credentials/create", wanting(user=None), token=world.token(user_id="hanako"))
    assert (logged_in.status_code, logged_in.json()["error"]) == (403, "access_denied")
    with_user = await world.call("v2/credentials/create", wanting(), token=granted(world))
    assert with_user.json()["error_description"] == "userID parameter MUST be null"
    signing = await world.call("v2/credentials/create", wanting(), token=world.credential_token())
    assert signing.status_code == 403
    assert not world.rooms.ordered


@pytest.mark.parametrize("path", ["credentials/list", "credentials/info", "signatures/signHash", "credentials/delete"])
async def test_a_word_on_a_new_credential_is_good_for_nothing_else(world: World, path: str) -> None:
    body = {"credentialID": "demo", "SAD": "s", "hashes": [b64(HASH)], "hashAlgorithmOID": SHA256}
    body["signAlgo"] = "1.2.840.10045.4.3.2"
    answer = await world.call(f"v2/{path}", body, token=granted(world))
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


async def test_a_client_that_asks_for_it_gets_a_handle_and_asks_again(world: World) -> None:
    body = wanting(certificationAuthority="slow") | {"operationMode": "A"}
    world.rooms.looks = 1
    answer = await world.call("v2/credentials/create", body)
    assert (answer.status_code, answer.json()) == (202, {"handle": "c0", "credentialID": "c0"})
    waiting = await world.call("v2/credentials/createCheck", {"handle": "c0"})
    assert (waiting.status_code, waiting.json()) == (202, {"handle": "c0", "credentialID": "c0"})
    there = await world.call("v2/credentials/createCheck", {"handle": "c0"})
    assert (there.status_code, there.json()) == (200, {"credentialID": "c0"})
    unknown = await world.call("v2/credentials/createCheck", {"handle": "nothing"})
    assert unknown.json()["error_description"] == "Invalid parameter handle"


async def test_any_other_client_is_held_for_a_while_and_then_told_to_come_again(world: World) -> None:
    world.rooms.looks = 1
    assert (await world.call("v2/credentials/create", wanting(certificationAuthority="slow"))).status_code == 201
    world.rooms.looks = -9
    answer = await world.call("v2/credentials/create", wanting(certificationAuthority="slow"))
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert "Retry-After" in answer.headers


async def test_what_the_ca_refuses_is_said(world: World) -> None:
    world.rooms.refused = "not our customer"
    answer = await world.call("v2/credentials/create", wanting())
    words = "The certification authority did not issue the certificate"
    assert (answer.status_code, answer.json()["error_description"]) == (400, words)


async def test_the_credential_itself_is_described_where_that_is_asked_for(world: World) -> None:
    body = wanting(certificationAuthority="blue") | {"credentialInfo": True, "certificates": "none"}
    shown = (await world.call("v2/credentials/create", body)).json()
    assert shown["key"]["status"] == "enabled"
    assert shown["issuance"]["certificationAuthority"] == "blue"
    assert shown["issuance"]["policy"] == [QUALIFIED]


async def test_each_credential_says_where_its_certificate_is_from(world: World) -> None:
    world.rooms.credentials["demo"] = credential(
        "demo",
        authority="blue",
        certificate_profile="signing",
        status_checked_at=datetime.now(UTC) - timedelta(seconds=5),
        renewing=True,
    )
    shown = (await world.call("v2/credentials/info", {"credentialID": "demo"})).json()
    assert shown["cert"]["status"] == "valid"
    assert shown["issuance"]["renewal"] == "pending"
    assert shown["issuance"]["statusCheckedAt"].endswith("Z")
    assert "issuance" not in (await world.call("v1/credentials/info", {"credentialID": "demo"})).json()


async def test_a_status_that_is_too_old_is_not_said(world: World) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    world.rooms.credentials["demo"] = credential("demo", authority="blue", status_checked_at=long_ago)
    assert "status" not in (await world.call("v2/credentials/info", {"credentialID": "demo"})).json()["cert"]
    world.rooms.credentials["demo"] = credential(
        "demo", authority="blue", status_checked_at=long_ago, certificate_status="revoked"
    )
    shown = (await world.call("v2/credentials/info", {"credentialID": "demo"})).json()
    assert shown["cert"]["status"] == "revoked"


async def test_only_credentials_of_the_cas_that_are_named_are_listed(world: World) -> None:
    await world.call("v2/credentials/list", {"userID": "hanako", "certificationAuthorities": ["blue", "red"]})
    await world.call("v2/credentials/list", {"userID": "hanako", "certificationAuthorities": ["red"]}, service="both")
    asked = [request for request in world.rooms.asked if isinstance(request, sam.ListCredentials)]
    assert [request.authorities for request in asked] == [("blue", "red"), ("red",)]
    hidden = await world.call(
        "v2/credentials/list", {"userID": "hanako", "certificationAuthorities": ["red"]}, service="shop"
    )
    assert hidden.json() == {"credentialIDs": []}
    for wrong in ("blue", [], [1], ["no name!"]):
        answer = await world.call("v2/credentials/list", {"userID": "hanako", "certificationAuthorities": wrong})
        assert answer.json()["error_description"] == "Invalid parameter certificationAuthorities"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"credentialDeletionRequest": {"credentialID": "demo"}}, None),
        ({"credentialDeletionRequest": {"credentialID": "demo", "revoke": True, "revocationReason": 4}}, 4),
        ({"credentialID": "demo", "revoke": False, "revocationReason": 4}, None),
        ({"credentialID": "demo", "revoke": True, "revocationReason": 0}, 0),
    ],
)
async def test_a_credential_is_deleted_and_revoked_if_wanted(
    world: World, body: dict[str, Any], reason: int | None
) -> None:
    answer = await world.call("v2/credentials/delete", body)
    assert (answer.status_code, answer.content) == (204, b"")
    asked = world.rooms.asked[-1]
    assert isinstance(asked, issuance.RemoveCredential)
    assert (asked.credential_id, asked.revoke_as) == ("demo", reason)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"revoke": True}, "Missing (or invalid type) integer parameter revocationReason"),
        ({"revoke": True, "revocationReason": "5"}, "Missing (or invalid type) integer parameter revocationReason"),
        ({"revoke": True, "revocationReason": 7}, "Invalid parameter revocationReason"),
        ({"revoke": True, "revocationReason": 6}, "Invalid parameter revocationReason"),
        ({"revoke": "yes"}, "Invalid parameter revoke"),
        ({"credentialID": "nothing"}, "Invalid parameter credentialID"),
    ],
)
async def test_a_deletion_that_is_not_understood_is_refused(world: World, wrong: dict[str, Any], words: str) -> None:
    answer = await world.call("v2/credentials/delete", {"credentialID": "demo"} | wrong)
    assert (answer.status_code, answer.json()["error_description"]) == (400, words)


@pytest.mark.parametrize(
    ("name", "status", "members", "message"),
    [
        ("csr", 200, {"csr": "cmVxdWVzdA==", "keyOrigin": "c3RhdGVtZW50"}, issuance.ReadRequest),
        ("renew", 202, {"credentialID": "demo"}, issuance.RenewCredential),
        ("rekey", 202, {"credentialID": "demo"}, issuance.RenewCredential),
        ("suspend", 204, None, issuance.StopCredential),
        ("resume", 204, None, issuance.StopCredential),
        ("certificate", 204, None, issuance.InstallCertificate),
    ],
)
async def test_the_methods_of_the_extension_reach_the_sam(
    world: World, name: str, status: int, members: dict[str, str] | None, message: type
) -> None:
    body = {"credentialID": "demo", "certificates": [b64(b"certificate")]}
    answer = await world.call(f"v2/credentials/{name}", body)
    assert (answer.status_code, answer.json() if answer.content else None) == (status, members)
    assert isinstance(world.rooms.asked[-1], message)


@pytest.mark.parametrize("wrong", [None, "x", [], ["###"], [1]])
async def test_a_certificate_that_cannot_be_read_is_refused(world: World, wrong: object) -> None:
    answer = await world.call("v2/credentials/certificate", {"credentialID": "demo", "certificates": wrong})
    assert answer.status_code == 400
    assert "certificates" in answer.json()["error_description"]


@pytest.mark.parametrize("name", OWN)
async def test_without_the_extension_its_methods_are_not_there_and_its_members_are_refused(
    world: World, name: str
) -> None:
    registry = world.registries.current
    world.registries.current = registry.model_copy(update={"extension": False})
    answer = await world.call(f"v2/{name}", {"credentialID": "demo", "handle": "c0"})
    assert (answer.status_code, answer.json()["error_description"]) == (404, "There is no such method")
    info = (await world.client.post("/csc/v2/info")).json()
    assert name not in info["methods"]
    assert "credentials/create" in info["methods"]


async def test_without_the_extension_create_is_what_the_standard_says(world: World) -> None:
    registry = world.registries.current
    world.registries.current = registry.model_copy(update={"extension": False})
    answer = await world.call("v2/credentials/create", wanting(certificatePolicy=QUALIFIED, subjectData={"a": "b"}))
    assert (answer.status_code, answer.json()) == (201, {"credentialID": "c0"})
    world.rooms.credentials["demo"] = credential("demo", authority="blue", certificate_profile="signing")
    assert "issuance" not in (await world.call("v2/credentials/info", {"credentialID": "demo"})).json()
    for wrong in (
        wanting(certificationAuthority="red"),
        wanting(certificateProfile="signing"),
        wanting() | {"operationMode": "A"},
    ):
        assert (await world.call("v2/credentials/create", wrong)).status_code == 400


@pytest.mark.parametrize("name", [method.name for method in METHODS])
async def test_v1_has_none_of_these_methods(world: World, name: str) -> None:
    answer = await world.call(f"v1/{name}", {"credentialID": "demo"})
    assert answer.status_code in (404, 501)
    assert not world.rooms.asked


AUTHORIZE = {
    "signatureQualifier": "eu_eidas_qes",
    "userID": "hanako",
    "numSignatures": 1,
    "hashes": [b64(HASH)],
    "hashAlgorithmOID": SHA256,
    "authData": [{"id": "PIN", "value": "1234"}],
}


async def test_a_qualifier_in_the_place_of_a_credential_gets_a_key_for_this_one_authorization(world: World) -> None:
    answer = await world.call("v2/credentials/authorize", AUTHORIZE)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"SAD", "expiresIn", "credentialID"}
    assert (ordered(world).one_time, ordered(world).authority, ordered(world).profile) == (True, "red", "once")
    assert world.rooms.removed == []


@pytest.mark.parametrize(
    ("fails", "status"),
    [("pin", 400), ("ca", 400), ("slow", 503), ("sam", 503)],
)
async def test_a_one_time_key_whose_authorization_fails_is_taken_back(world: World, fails: str, status: int) -> None:
    body = dict(AUTHORIZE)
    match fails:
        case "pin":
            body["authData"] = [{"id": "PIN", "value": "9999"}]
        case "ca":
            world.rooms.refused = "no"
        case "slow":
            world.rooms.looks = -9
        case _:
            world.rooms.refuse[sam.Authorize] = RakkanError(Code.UNAVAILABLE)
    answer = await world.call("v2/credentials/authorize", body)
    assert answer.status_code == status, answer.text
    assert world.rooms.removed == ["c0"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signatureQualifier": "jp_none"}, "Invalid parameter signatureQualifier"),
        ({"signatureQualifier": None}, "Missing (or invalid type) string parameter credentialID"),
    ],
)
async def test_a_qualifier_that_leads_to_no_profile_makes_no_key(
    world: World, changes: dict[str, Any], words: str
) -> None:
    answer = await world.call("v2/credentials/authorize", AUTHORIZE | changes)
    assert (answer.status_code, answer.json()["error_description"]) == (400, words)
    assert not world.rooms.ordered

"""A signer's word on a new credential, or on the end of one, by authorization_details of CSC 2.2."""

import json
from typing import Any

import pytest

from services.authentication.choosing import Registries
from services.authentication.documents import read_details
from shared.registry import Registry
from tests.support.authentication import World, asked_by_operator
from tests.support.oauth import CALLBACK, Partner, answer_of, authorization, error_of, new_world
from tests.support.trust_services import certification_authority, registry_of

CREATION = "https://cloudsignatureconsortium.org/2025/credential-creation"
DELETION = "https://cloudsignatureconsortium.org/2025/credential-deletion"
POLICY = "0.4.0.194112.1.2"
AUTHORITIES = {
    "blue": certification_authority("Blue CA"),
    "red": certification_authority(
        "Red CA",
        profiles={
            "signing": {"label": "Red signing", "policies": [POLICY]},
            "once": {"label": "For once", "short_term": True, "signature_qualifier": "eu_eidas_qes"},
        },
    ),
    "hidden": certification_authority("Rival's CA", tenants=["rival"]),
}


class Held:
    """A registry as a room holds it."""

    def __init__(self, **changes: Any) -> None:
        self.current: Registry = registry_of(certification_authorities=AUTHORITIES, **changes)


@pytest.fixture
async def world() -> World:
    world = await new_world()
    registries: Registries = Held()
    world.registries = registries
    return world


@pytest.fixture
def partner(world: World) -> Partner:
    return Partner(world)


def asking(detail: dict[str, Any], **changed: str | None) -> dict[str, str]:
    return authorization(**({"scope": None, "authorization_details": json.dumps([detail])} | changed))


def creation(*, type_: str = CREATION, **wanted: Any) -> dict[str, Any]:
    return {"type": type_, "credentialCreationRequest": wanted}


async def granted(world: World, partner: Partner, request_id: str, *, credential_id: str | None = None) -> Any:
    with asked_by_operator():
        request = await world.oauth.requests.open(request_id, session_id="s")
        location = await world.oauth.requests.granted(
            request_id,
            session_id="s",
            tenant_id=request.tenant_id,
            user_id="alice",
            authorization_id=None,
            credential_id=credential_id,
        )
    return await partner.redeem(answer_of(location)["code"])


@pytest.mark.parametrize("spelling", [CREATION, "credential_creation"])
@pytest.mark.parametrize("scope", [None, "credential"])
@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ({"certificatePolicy": POLICY}, ("red", "signing")),
        ({"certificationAuthority": "blue"}, ("blue", "signing")),
        ({"certificationAuthority": "blue", "certificateProfile": "seal"}, ("blue", "seal")),
        ({}, ("red", "signing")),
    ],
)
async def test_a_token_for_a_new_credential_names_the_ca_that_the_signer_was_shown(
    world: World, partner: Partner, spelling: str, scope: str | None, wanted: dict[str, str], chosen: tuple[str, str]
) -> None:
    detail = creation(type_=spelling, **wanted, subjectData={"given_name": "Somebody Else"})
    request_id = await partner.ask(**asking(detail, scope=scope))
    with asked_by_operator():
        request = await world.oauth.requests.open(request_id, session_id="s")
    assert (request.scope, request.authority, request.certificate_profile) == ("credential-creation", *chosen)
    assert request.labels[0] == {"red": "Red CA", "blue": "Blue CA"}[chosen[0]]
    answer = (await granted(world, partner, request_id)).json()
    assert answer["authorization_details"] == [detail]
    assert answer["scope"] == "credential-creation"
    assert not answer.keys() & {"credentialID", "refresh_token"}
    assert answer["expires_in"] <= 300
    token = partner.read(answer["access_token"])
    assert (token.authority, token.certificate_profile) == chosen
    assert (token.user_id, token.credential_id, token.authorization_id) == ("alice", None, None)
    assert "Somebody" not in repr(token)


async def test_what_the_registry_says_later_changes_no_token(world: World, partner: Partner) -> None:
    request_id = await partner.ask(**asking(creation(certificatePolicy=POLICY)))
    world.registries = Held(defaults={"certification_authority": "blue"})
    token = partner.read((await granted(world, partner, request_id)).json()["access_token"])
    assert (token.authority, token.certificate_profile) == ("red", "signing")


@pytest.mark.parametrize("spelling", [DELETION, "credential_deletion", "credential_delete"])
async def test_a_token_for_the_end_of_a_credential_names_that_one(
    world: World, partner: Partner, spelling: str
) -> None:
    detail = {"type": spelling, "credentialID": "c-1"}
    request_id = await partner.ask(**asking(detail))
    answer = (await granted(world, partner, request_id, credential_id="c-1")).json()
    assert answer["authorization_details"] == [detail]
    token = partner.read(answer["access_token"])
    assert (token.scope, token.credential_id, token.authority) == ("credential-deletion", "c-1", None)


@pytest.mark.parametrize(
    "detail",
    [
        {"type": CREATION},
        {"type": CREATION, "credentialCreationRequest": []},
        creation(certificatePolicy="2.999.9"),
        creation(certificatePolicy=7),
        creation(certificationAuthority="nobody"),
        creation(certificateProfile="nothing"),
        creation(certificateProfile="once"),
        creation(certificationAuthority="x" * 300),
        creation(certificationAuthority="bl\u202eue"),
        {"type": DELETION},
        {"type": DELETION, "credentialID": ["c-1"]},
    ],
    ids=str,
)
async def test_what_leads_nowhere_is_refused_before_a_signer_sees_it(partner: Partner, detail: dict[str, Any]) -> None:
    answer = await partner.push(**asking(detail))
    assert error_of(answer)[:2] == (400, "invalid_authorization_details")


async def test_another_tenants_ca_is_refused(partner: Partner) -> None:
    answer = await partner.push(**asking(creation(certificationAuthority="hidden")))
    assert error_of(answer)[1] == "access_denied"


async def test_without_a_registry_or_the_extension_nobody_names_a_ca(world: World, partner: Partner) -> None:
    world.registries = Held(extension=False)
    partner = Partner(world)
    named = await partner.push(**asking(creation(certificationAuthority="blue")))
    assert error_of(named)[1] == "invalid_authorization_details"
    assert (await partner.push(**asking(creation(certificatePolicy=POLICY)))).status_code == 201
    world.registries = None
    partner = Partner(world)
    assert error_of(await partner.push(**asking(creation())))[1] == "invalid_authorization_details"


@pytest.mark.parametrize(
    ("repeated", "status"),
    [
        (creation(certificatePolicy=POLICY), 200),
        (creation(certificatePolicy=POLICY, subjectData={}), 200),
        (creation(certificationAuthority="blue"), 400),
        ({"type": DELETION, "credentialID": "c-1"}, 400),
    ],
)
async def test_details_that_are_repeated_mean_the_same_or_the_code_is_void(
    partner: Partner, repeated: dict[str, Any], status: int
) -> None:
    request_id = await partner.ask(**asking(creation(certificatePolicy=POLICY)))
    told = await partner.grant(request_id)
    answer = await partner.redeem(told["code"], authorization_details=json.dumps([repeated]))
    assert answer.status_code == status


async def test_a_qualifier_that_leads_to_a_key_for_once_needs_no_credential(world: World, partner: Partner) -> None:
    form = {
        "scope": "credential",
        "signatureQualifier": "eu_eidas_qes",
        "hashes": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
        "hashAlgorithmOID": "2.16.840.1.101.3.4.2.1",
        "numSignatures": "1",
    }
    request_id = await partner.ask(**authorization(**form))
    with asked_by_operator():
        request = await world.oauth.requests.open(request_id, session_id="s")
    assert (request.scope, request.authority, request.certificate_profile) == ("credential", "red", "once")
    refused = await partner.http.get("/oauth2/authorize", params=authorization(**form | {"signatureQualifier": "no"}))
    assert refused.headers["location"].startswith(CALLBACK)
    assert "error=invalid_request" in refused.headers["location"]


def test_every_spelling_is_read() -> None:
    for spelling in (CREATION, "credential_creation", DELETION, "credential_deletion", "credential_delete"):
        detail = {"type": spelling, "credentialID": "c-1", "credentialCreationRequest": {}}
        assert read_details(json.dumps([detail]))[1]

"""authorization_details (RFC 9396) in the spellings of CSC API 2.0 and 2.2: understood, refused, repeated."""

import json
from typing import Any

import pytest

from tests.support.authentication import ISSUER, World, asked_by_operator
from tests.support.oauth import (
    DIGEST,
    SECOND_DIGEST,
    Partner,
    answer_of,
    authorization,
    b64,
    b64url,
    detail,
    error_of,
    grant,
    new_world,
)

OLD_SPELLING: dict[str, Any] = {"type": "credential", "numSignatures": None, "locations": ["https://rssp.example"]}


@pytest.fixture
async def world() -> World:
    return await new_world()


@pytest.fixture
def partner(world: World) -> Partner:
    return Partner(world)


def rar(*details: Any, **changed: str | None) -> dict[str, str]:
    return authorization(**({"scope": None, "authorization_details": json.dumps(details)} | changed))


@pytest.mark.parametrize("scope", [None, "credential"])
@pytest.mark.parametrize("spelling", [{}, OLD_SPELLING])
async def test_both_spellings_are_understood_and_repeated_to_the_letter(
    world: World, partner: Partner, spelling: dict[str, Any], scope: str | None
) -> None:
    written = detail(**spelling)
    request_id = await partner.ask(**rar(written, scope=scope))
    with asked_by_operator():
        request = await world.oauth.requests.open(request_id, session_id="s")
    assert [(document.digest, document.label) for document in request.documents] == [(DIGEST, "Contract.pdf")]
    assert (request.scope, request.credential_id, request.signatures) == ("credential", "c-1", 1)
    given = (await partner.redeem((await partner.grant(request_id))["code"])).json()
    assert given["authorization_details"] == [written]
    assert given["authorization_details"][0]["documentDigests"][0]["hashType"] == "DTBSR"
    assert given["scope"] == "credential"


async def test_labels_in_any_language_are_kept(world: World, partner: Partner) -> None:
    labels = ["\u58f2\u8cb7\u5951\u7d04\u66f8.pdf", "\u0639\u0642\u062f \u0628\u064a\u0639.pdf", "<b>&\"'</b>", ""]
    digests = [{"hash": b64(DIGEST), "label": label} for label in labels]
    request_id = await partner.ask(**rar(detail(documentDigests=digests, numSignatures=4)))
    with asked_by_operator():
        request = await world.oauth.requests.open(request_id, session_id="s")
    assert [document.label for document in request.documents] == labels
    assert len({document.digest for document in request.documents}) == 1  # each occurrence is one signature


async def test_the_details_may_be_repeated_in_the_other_alphabet(partner: Partner) -> None:
    """EUDI's Swift library sends base64url to the authorization endpoint and base64 to the token endpoint."""
    first = detail(documentDigests=[{"hash": b64url(SECOND_DIGEST), "label": "x"}])
    again = detail(documentDigests=[{"hash": b64(SECOND_DIGEST), "label": "x"}])
    code = await partner.code(**rar(first))
    answer = await partner.redeem(code, authorization_details=json.dumps([again]))
    assert answer.status_code == 200
    assert answer.json()["authorization_details"] == [first]


@pytest.mark.parametrize(
    "changed",
    [
        {"credentialID": "c-2"},
        {"documentDigests": [{"hash": b64(SECOND_DIGEST), "label": "Contract.pdf"}]},
        {"documentDigests": [{"hash": b64(DIGEST), "label": "Another.pdf"}]},
        {"documentDigests": [{"hash": b64(DIGEST), "label": "Contract.pdf"}] * 2, "numSignatures": 2},
    ],
)
async def test_other_details_at_the_token_endpoint_spend_the_code(partner: Partner, changed: dict[str, Any]) -> None:
    code = await partner.code(**rar(detail()))
    answer = await partner.redeem(code, authorization_details=json.dumps([detail(**changed)]))
    assert error_of(answer)[1] == "invalid_authorization_details"
    assert error_of(await partner.redeem(code))[1] == "invalid_grant"


async def test_details_that_were_not_asked_for_are_refused_at_the_token_endpoint(partner: Partner) -> None:
    answer = await partner.redeem(await partner.code(), authorization_details=json.dumps([detail()]))
    assert error_of(answer)[1] == "invalid_authorization_details"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[]",
        "[null]",
        "[[]]",
        '["credential"]',
        json.dumps(detail()),
        json.dumps([detail(), detail()]),
        str([detail()]),  # what Python prints of it, as the EUDI relying party sends it
        json.dumps([detail()])[:-1],
        json.dumps([detail()]) + "x",
        json.dumps([detail()]).replace('"c-1"', '"c-1", "credentialID": "c-2"'),
        json.dumps([detail()]).replace('"numSignatures": 1', '"numSignatures": NaN'),
        json.dumps([detail()]).replace('"numSignatures": 1', '"numSignatures": 1e0'),
        "[" * 3000 + "]" * 3000,
    ],
)
async def test_what_is_not_one_object_in_json_is_refused(partner: Partner, text: str) -> None:
    answer = await partner.push(**rar(authorization_details=text))
    assert answer.status_code == (201 if text == "" else 400)
    if text:
        assert error_of(answer)[1] == "invalid_authorization_details"


@pytest.mark.parametrize(
    "changed",
    [
        {"type": None},
        {"type": "payment_initiation"},
        {"type": "Credential"},
        {"type": "https://cloudsignatureconsortium.org/2025/credential/"},
        {"type": "https://cloudsignatureconsortium.org/2025/credential-creation"},
        {"type": "credential-deletion"},
        {"type": ["credential"]},
        {"credentialID": 7},
        {"credentialID": ["c-1"]},
        {"credentialID": "c" * 256},
        {"credentialID": "c\x00"},
        {"signatureQualifier": 1},
        {"numSignatures": None},
        {"numSignatures": 0},
        {"numSignatures": 2},
        {"numSignatures": -1},
        {"numSignatures": "1"},
        {"numSignatures": True},
        {"numSignatures": 1.5},
        {"hashAlgorithmOID": None},
        {"hashAlgorithmOID": "1.3.14.3.2.26"},
        {"hashAlgorithmOID": ["2.16.840.1.101.3.4.2.1"]},
        {"hashAlgorithmOID": "2.16.840.1.101.3.4.2.2"},
        {"locations": "https://rssp.example"},
        {"documentDigests": None},
        {"documentDigests": []},
        {"documentDigests": {}},
        {"documentDigests": [None]},
        {"documentDigests": ["x"]},
        {"documentDigests": [{}]},
        {"documentDigests": [{"label": "x"}]},
        {"documentDigests": [{"hash": 1}]},
        {"documentDigests": [{"hash": "!"}]},
        {"documentDigests": [{"hash": b64(DIGEST[:31])}]},
        {"documentDigests": [{"hash": b64(DIGEST) + "\n"}]},
        {"documentDigests": [{"hash": b64(DIGEST), "label": 1}]},
        {"documentDigests": [{"hash": b64(DIGEST), "label": "x" * 10_000}]},
        {"documentDigests": [{"hash": b64(DIGEST), "label": "a\u202eb"}]},
        {"documentDigests": [{"hash": b64(DIGEST), "label": "a\nb"}]},
        {"documentDigests": [{"hash": b64(DIGEST), "label": "a\x1b[2Jb"}]},
        {"documentDigests": [{"hash": b64(DIGEST), "hashType": "md5"}]},
        {"documentDigests": [{"hash": b64(DIGEST), "hashType": 1}]},
        {"documentDigests": [{"hash": b64(DIGEST)}] * 1001, "numSignatures": 1001},
    ],
)
async def test_details_with_a_wrong_member_are_refused(partner: Partner, changed: dict[str, Any]) -> None:
    answer = await partner.push(**rar(detail(**changed)))
    assert error_of(answer)[1] == "invalid_authorization_details"
    assert not partner.world.store.rows.requests


async def test_a_thousand_documents_can_be_asked_for(world: World, partner: Partner) -> None:
    many = [{"hash": b64(DIGEST), "label": f"Page {number}"} for number in range(1000)]
    pushed = await partner.push(**rar(detail(documentDigests=many, numSignatures=1000)))
    assert pushed.status_code == 201
    front = {"client_id": "web", "request_uri": pushed.json()["request_uri"]}
    page = (await partner.http.get("/oauth2/authorize", params=front)).headers["location"]
    assert page.startswith(f"{ISSUER}/approve/")
    assert "code" in answer_of(await grant(world, page.rsplit("/", 1)[1]))


@pytest.mark.parametrize(
    "form",
    [
        {"scope": "service"},
        {"scope": "service credential"},
        {"hashes": b64url(DIGEST), "scope": "credential"},
        {"credentialID": "c-2"},
        {"numSignatures": "7"},
    ],
)
async def test_details_stand_alone(partner: Partner, form: dict[str, str]) -> None:
    answer = await partner.push(**rar(detail(), **form))
    assert error_of(answer)[1] in ("invalid_scope", "invalid_request")


async def test_without_a_credential_there_must_be_a_qualifier_that_holds(partner: Partner) -> None:
    assert error_of(await partner.push(**rar(detail(credentialID=None))))[2] == "Missing parameter credentialID"
    qualified = rar(detail(credentialID=None, signatureQualifier="eu_eidas_qes"))
    assert error_of(await partner.push(**qualified))[2] == "Invalid parameter signatureQualifier"


async def test_the_credential_that_the_signer_chose_is_named(world: World) -> None:
    world.signature_qualifiers = ("eu_eidas_aes",)
    partner = Partner(world)
    written = detail(credentialID=None, signatureQualifier="eu_eidas_aes")
    given = (await partner.redeem(await partner.code(**rar(written)))).json()
    assert given["credentialID"] == "c-1"
    assert given["authorization_details"] == [{**written, "credentialID": "c-1"}]

"""Every refusal of the methods of the CSC, to the letter, in both versions."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway.csc.encoding import encode_base64
from services.gateway.refusals import METHOD_REFUSALS, REFUSALS
from shared.contracts import authentication, sam, tsa_connector
from shared.errors import Code, RakkanError
from tests.rooms.gateway_fakes import ECDSA_SHA256, HASH, PSS, RSA_BARE, SHA1, SHA256, SHA384, World, b64, opened

Body = dict[str, Any]

AUTHORIZE: Body = {"credentialID": "demo", "numSignatures": 1, "PIN": "1234"}
SIGN: dict[str, Body] = {
    "v1": {"SAD": "sad-0", "credentialID": "demo", "hash": [b64(HASH)], "signAlgo": ECDSA_SHA256},
    "v2": {
        "SAD": "sad-0",
        "credentialID": "demo",
        "hashes": [b64(HASH)],
        "hashAlgorithmOID": SHA256,
        "signAlgo": ECDSA_SHA256,
    },
}
STAMP: Body = {"hash": b64(HASH), "hashAlgo": SHA256}
NO_CREDENTIAL = "Missing (or invalid type) string parameter credentialID"
BAD_CREDENTIAL = "Invalid parameter credentialID"
GENERIC = (
    "The request is missing a required parameter, includes an invalid parameter value, includes a parameter more than "
    "once, or is otherwise malformed."
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with opened() as world:
        world.rooms.sads.add("sad-0")
        yield world


def without(body: Body, *names: str) -> Body:
    return {name: value for name, value in body.items() if name not in names}


async def refused(world: World, path: str, body: object, description: str, error: str = "invalid_request") -> None:
    answer = await world.call(path, body)
    said = {"error": error, "error_description": description}
    assert (answer.status_code, answer.json()) == (400, said), (path, body)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("credentials/info", {}),
        ("credentials/authorize", AUTHORIZE),
        ("credentials/extendTransaction", {"SAD": "sad-0"}),
        ("credentials/sendOTP", {}),
        ("signatures/signHash", None),
    ],
)
async def test_credential_id_is_required_everywhere(world: World, version: str, method: str, body: Body | None) -> None:
    body = SIGN[version] if body is None else body
    for wrong in (without(body, "credentialID"), body | {"credentialID": None}, body | {"credentialID": 7}):
        await refused(world, f"{version}/{method}", wrong, NO_CREDENTIAL)
    for foreign in ("unknown", "", "x" * 256, "a\x00b"):
        await refused(world, f"{version}/{method}", body | {"credentialID": foreign}, BAD_CREDENTIAL)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_signing_refuses_wrong_parameters_in_the_mandated_words(world: World, version: str) -> None:
    sign, path = SIGN[version], f"{version}/signatures/signHash"
    hashes, oid = ("hash", "hashAlgo") if version == "v1" else ("hashes", "hashAlgorithmOID")
    digest = b64(HASH)
    rsa = without(sign, oid) | {"signAlgo": RSA_BARE}
    for body, description in [
        (without(sign, "SAD"), "Missing (or invalid type) string parameter SAD"),
        (sign | {"SAD": 5}, "Missing (or invalid type) string parameter SAD"),
        (sign | {"SAD": "other"}, "Invalid parameter SAD"),
        (sign | {"SAD": "x" * 2000}, "Invalid parameter SAD"),
        (without(sign, hashes), "Missing (or invalid type) array parameter hash"),
        (sign | {hashes: digest}, "Missing (or invalid type) array parameter hash"),
        (sign | {hashes: []}, "Empty hash array"),
        (sign | {hashes: ["ä"]}, "Invalid Base64 hash string parameter"),
        (sign | {hashes: [digest + "\n"]}, "Invalid Base64 hash string parameter"),
        (sign | {hashes: [digest, 5]}, "Invalid Base64 hash string parameter"),
        (sign | {hashes: [""]}, "Invalid Base64 hash string parameter"),
        (sign | {hashes: [b64(HASH[:31])]}, "Invalid digest value length"),
        (sign | {hashes: [digest] * 251}, "Too many hashes: at most 250 in one call"),
        (without(sign, "signAlgo"), "Missing (or invalid type) string parameter signAlgo"),
        (sign | {"signAlgo": 1}, "Missing (or invalid type) string parameter signAlgo"),
        (sign | {"signAlgo": "1.2.3"}, "Invalid parameter signAlgo"),
        (sign | {"signAlgo": "1.2.840.113549.1.1.5"}, "Invalid parameter signAlgo"),
        (sign | {"signAlgoParams": 5}, "Missing (or invalid type) string parameter signAlgoParams"),
        (sign | {"signAlgo": PSS}, "Missing (or invalid type) string parameter signAlgoParams"),
        (sign | {"signAlgo": PSS, "signAlgoParams": "****"}, "Invalid parameter signAlgoParams"),
        (sign | {"signAlgo": PSS, "signAlgoParams": b64(b"\x30\x00")}, "Invalid parameter signAlgoParams"),
        (sign | {"signAlgoParams": b64(b"\x30\x00")}, "Invalid parameter signAlgoParams"),
        (rsa, f"Missing (or invalid type) string parameter {oid}"),
        (rsa | {oid: 5}, f"Missing (or invalid type) string parameter {oid}"),
        (rsa | {oid: SHA1}, f"Invalid parameter {oid}"),
        (rsa | {oid: "sha256"}, f"Invalid parameter {oid}"),
        (sign | {oid: SHA384}, f"Invalid parameter {oid}"),
        (sign | {"clientData": 5}, "Invalid parameter clientData"),
    ]:
        await refused(world, path, body, description)
    assert not [asked for asked in world.rooms.asked if isinstance(asked, sam.SignHash) and asked.digests != (HASH,)]


async def test_v2_refuses_what_belongs_to_asynchronous_signing(world: World) -> None:
    wrong: list[tuple[Body, str]] = [
        ({"operationMode": "A"}, "Invalid parameter operationMode"),
        ({"operationMode": 1}, "Invalid parameter operationMode"),
        ({"validity_period": "1"}, "Invalid parameter validity_period"),
        ({"validity_period": 0}, "Out of bounds parameter validity_period"),
        ({"validity_period": 10**12}, "Out of bounds parameter validity_period"),
        ({"response_uri": "http://insecure.example"}, "Invalid parameter response_uri"),
        ({"response_uri": 5}, "Invalid parameter response_uri"),
        ({"response_uri": "https://[broken"}, "Invalid parameter response_uri"),
    ]
    for extra, description in wrong:
        await refused(world, "v2/signatures/signHash", SIGN["v2"] | extra, description)
    kept = SIGN["v2"] | {"operationMode": "S", "validity_period": 1000, "response_uri": "https://a.example/x"}
    assert (await world.call("v2/signatures/signHash", kept)).status_code == 200


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_authorizing_refuses_wrong_parameters_in_the_mandated_words(world: World, version: str) -> None:
    path = f"{version}/credentials/authorize"
    for body, description in [
        (without(AUTHORIZE, "numSignatures"), "Missing (or invalid type) integer parameter numSignatures"),
        (AUTHORIZE | {"numSignatures": "1"}, "Missing (or invalid type) integer parameter numSignatures"),
        (AUTHORIZE | {"numSignatures": True}, "Missing (or invalid type) integer parameter numSignatures"),
        (AUTHORIZE | {"numSignatures": 0}, "Invalid value for parameter numSignatures"),
        (AUTHORIZE | {"hash": [b64(HASH)] * 2}, "Invalid value for parameter numSignatures"),
        (AUTHORIZE | {"numSignatures": 10**12}, "Numbers of signatures is too high"),
        (AUTHORIZE | {"hash": "x"}, "Missing (or invalid type) array parameter hash"),
        (AUTHORIZE | {"hash": []}, "Empty hash array"),
        (AUTHORIZE | {"hash": ["*"]}, "Invalid Base64 hash string parameter"),
        (AUTHORIZE | {"hash": [b64(b"short")]}, "Invalid digest value length"),
        (AUTHORIZE | {"PIN": 1234}, "Missing (or invalid type) string parameter PIN"),
        (AUTHORIZE | {"OTP": 123456}, "Missing (or invalid type) string parameter OTP"),
        (AUTHORIZE | {"description": "x" * 501}, "Invalid parameter description"),
        (AUTHORIZE | {"clientData": {}}, "Invalid parameter clientData"),
    ]:
        await refused(world, path, body, description)


async def test_a_wrong_pin_is_named_in_v1_and_not_in_v2(world: World) -> None:
    wrong = AUTHORIZE | {"PIN": "9999"}
    await refused(world, "v1/credentials/authorize", wrong, "The PIN is invalid", "invalid_pin")
    data = without(AUTHORIZE, "PIN") | {"authData": [{"id": "PIN", "value": "9999"}]}
    expected = ("The authentication data is invalid", "invalid_authentication_data")
    await refused(world, "v2/credentials/authorize", data, *expected)
    await refused(world, "v2/credentials/authorize", wrong, *expected)


async def test_v2_refuses_authentication_data_that_is_not_as_described(world: World) -> None:
    plain = without(AUTHORIZE, "PIN")
    pin = {"id": "PIN", "value": "1234"}
    for given in ([pin, pin], [{"id": "FACE", "value": "x"}], [{"id": "PIN"}], ["PIN"], [{"id": "PIN", "value": 1}]):
        await refused(world, "v2/credentials/authorize", plain | {"authData": given}, "Invalid parameter authData")
    wrong = "Missing (or invalid type) array parameter authData"
    await refused(world, "v2/credentials/authorize", plain | {"authData": "PIN"}, wrong)
    both = "Both PIN and authData parameters passed"
    await refused(world, "v2/credentials/authorize", AUTHORIZE | {"authData": [pin]}, both)


async def test_v2_wants_the_hash_oid_with_its_own_name_for_hashes(world: World) -> None:
    extend: Body = {"credentialID": "demo", "SAD": "sad-0"}
    for method, body in (("authorize", AUTHORIZE), ("extendTransaction", extend)):
        path = f"v2/credentials/{method}"
        missing = "Missing (or invalid type) string parameter hashAlgorithmOID"
        await refused(world, path, body | {"hashes": [b64(HASH)]}, missing)
        bad = body | {"hashes": [b64(HASH)], "hashAlgorithmOID": SHA1}
        await refused(world, path, bad, "Invalid parameter hashAlgorithmOID")
        twice = body | {"hashes": [b64(HASH)], "hash": [b64(HASH)]}
        await refused(world, path, twice, "Both hash and hashes parameters passed")
        assert (await world.call(path, body | {"hash": [b64(HASH)]})).status_code == 200


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_extending_names_a_missing_or_wrong_sad(world: World, version: str) -> None:
    path = f"{version}/credentials/extendTransaction"
    missing = "Missing (or invalid type) string parameter SAD"
    await refused(world, path, {"credentialID": "demo"}, missing)
    await refused(world, path, {"credentialID": "demo", "SAD": "other"}, "Invalid parameter SAD")


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_time_stamping_refuses_wrong_parameters_in_the_mandated_words(world: World, version: str) -> None:
    for body, description in [
        (without(STAMP, "hash"), "Missing (or invalid type) string parameter hash"),
        (STAMP | {"hash": [b64(HASH)]}, "Missing (or invalid type) string parameter hash"),
        (STAMP | {"hash": ""}, "Empty hash parameter"),
        (STAMP | {"hash": "%%"}, "Invalid Base64 hash string parameter"),
        (STAMP | {"hash": b64(HASH[:20])}, "Invalid digest value length"),
        (without(STAMP, "hashAlgo"), "Missing (or invalid type) string parameter hashAlgo"),
        (STAMP | {"hashAlgo": SHA1}, "Invalid parameter hashAlgo"),
        (STAMP | {"nonce": "xyz"}, "Invalid parameter nonce"),
        (STAMP | {"nonce": 5}, "Invalid parameter nonce"),
        (STAMP | {"nonce": ""}, "Invalid parameter nonce"),
        (STAMP | {"nonce": "00" * 33}, "Invalid parameter nonce"),
        (STAMP | {"clientData": 5}, "Invalid parameter clientData"),
    ]:
        await refused(world, f"{version}/signatures/timestamp", body, description)
    assert world.rooms.asked == []


async def test_listing_refuses_wrong_parameters_in_the_mandated_words(world: World) -> None:
    missing = "Missing (or invalid type) string parameter userID"
    for version in ("v1", "v2"):
        path = f"{version}/credentials/list"
        await refused(world, path, {}, missing)
        await refused(world, path, {"userID": "nobody"}, "Invalid parameter userID")
        await refused(world, path, {"userID": 5}, "Invalid parameter userID")
        await refused(world, path, {"userID": "hanako", "maxResults": "x"}, "Invalid parameter maxResults")
        await refused(world, path, {"userID": "hanako", "pageToken": "no"}, "Invalid parameter pageToken")
        await refused(world, path, {"userID": "hanako", "pageToken": 5}, "Invalid parameter pageToken")
    bad = {"userID": "hanako", "certificates": "all"}
    await refused(world, "v2/credentials/list", bad, "Invalid parameter certificates")


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_describing_refuses_an_unknown_kind_of_certificates(world: World, version: str) -> None:
    for wrong in ("all", 5, ["single"], True):
        body = {"credentialID": "demo", "certificates": wrong}
        await refused(world, f"{version}/credentials/info", body, "Invalid parameter certificates")
    body = {"credentialID": "demo", "certInfo": "yes"}
    await refused(world, f"{version}/credentials/info", body, "Invalid parameter certInfo")


async def test_a_challenge_for_an_unknown_factor_is_refused(world: World) -> None:
    path = "v2/credentials/getChallenge"
    missing = "Missing (or invalid type) string parameter authObjectID"
    await refused(world, path, {"credentialID": "demo"}, missing)
    unknown = {"credentialID": "demo", "authObjectID": "FACE"}
    await refused(world, path, unknown, "Invalid parameter authObjectID")


# What the SAM refuses, in both versions: (code, v1, v2), each (error, description).
INVALID = "invalid_request"
DATA = ("invalid_authentication_data", "The authentication data is invalid")
FROM_SAM = [
    (Code.CREDENTIAL_DISABLED, (INVALID, "The credential identified by credentialID is disabled"), None),
    (Code.TOO_MANY_SIGNATURES, (INVALID, "Numbers of signatures is too high"), None),
    (Code.HASHES_REQUIRED, (INVALID, "Missing (or invalid type) array parameter hash"), None),
    (Code.PIN_LOCKED, (INVALID, "PIN locked"), (INVALID, "Credential locked")),
    (Code.OTP_LOCKED, (INVALID, "OTP locked"), (INVALID, "Credential locked")),
    (Code.OTP_INVALID, ("invalid_otp", "The OTP is invalid"), DATA),
    (Code.SAD_INVALID, (INVALID, "Invalid parameter SAD"), None),
    (Code.SAD_EXPIRED, (INVALID, "SAD expired"), None),
    (Code.HASH_NOT_AUTHORIZED, (INVALID, "Hash is not authorized by the SAD"), None),
    (Code.DIGEST_LENGTH, (INVALID, "Invalid digest value length"), None),
    (Code.SIGN_ALGORITHM_REFUSED, (INVALID, "Invalid parameter signAlgo"), None),
    (Code.SIGN_PARAMETERS_REFUSED, (INVALID, "Invalid parameter signAlgoParams"), None),
    (Code.CLIENT_REFUSED, ("unauthorized_client", REFUSALS[Code.CLIENT_REFUSED].v1.description), None),
    (
        Code.CERTIFICATE_EXPIRED,
        (INVALID, "Signing certificate 'CN=Hanako,O=Acme' is expired."),
        (INVALID, "Signing certificate is expired"),
    ),
]


@pytest.mark.parametrize(("code", "v1", "v2"), FROM_SAM)
async def test_what_the_sam_refuses_is_said_in_the_mandated_words(
    world: World, code: Code, v1: tuple[str, str], v2: tuple[str, str] | None
) -> None:
    world.rooms.refuse[sam.Authorize] = RakkanError(code)
    for version, (error, description) in (("v1", v1), ("v2", v2 or v1)):
        await refused(world, f"{version}/credentials/authorize", AUTHORIZE, description, error)


async def test_an_expired_certificate_is_named_as_such_even_when_its_subject_cannot_be_had(world: World) -> None:
    world.rooms.refuse[sam.SignHash] = RakkanError(Code.CERTIFICATE_EXPIRED)
    world.rooms.refuse[sam.DescribeCredential] = RakkanError(Code.UNAVAILABLE)
    await refused(world, "v1/signatures/signHash", SIGN["v1"], "Signing certificate is expired")


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_factor_refused_at_signing_keeps_its_name(world: World, version: str) -> None:
    world.rooms.refuse[sam.SignHash] = RakkanError(Code.OTP_INVALID)
    await refused(world, f"{version}/signatures/signHash", SIGN[version], "The OTP is invalid", "invalid_otp")


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_send_otp_says_when_the_otp_is_locked(world: World, version: str) -> None:
    world.rooms.refuse[sam.CheckFactor] = RakkanError(Code.OTP_LOCKED)
    await refused(world, f"{version}/credentials/sendOTP", {"credentialID": "demo"}, "OTP locked")
    world.rooms.refuse[sam.CheckFactor] = RakkanError(Code.FACTOR_UNKNOWN)
    await refused(world, f"{version}/credentials/sendOTP", {"credentialID": "demo"}, BAD_CREDENTIAL)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        (Code.TSA_UNAVAILABLE, 503, "temporarily_unavailable"),
        (Code.TSA_UNTRUSTED, 500, "server_error"),
        (Code.TSA_REFUSED, 400, "invalid_request"),
    ],
)
async def test_a_tsa_that_fails_is_no_fault_of_the_client(world: World, code: Code, status: int, error: str) -> None:
    world.rooms.refuse[tsa_connector.Timestamp] = RakkanError(code, "secret of the house")
    answer = await world.call("v2/signatures/timestamp", STAMP)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert "secret" not in answer.text


@pytest.mark.parametrize("code", [Code.TOKEN_INVALID, Code.TOKEN_EXPIRED])
async def test_a_token_that_authentication_refuses_gets_no_time_stamp(world: World, code: Code) -> None:
    world.rooms.refuse[authentication.CheckToken] = RakkanError(code)
    answer = await world.call("v1/signatures/timestamp", STAMP)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert [type(asked) for asked in world.rooms.asked] == [authentication.CheckToken]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic YTpi", "Bearer a b", "Bearer a,b"])
async def test_a_header_that_is_not_a_bearer_token_is_answered_400(world: World, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for version, description in (("v1", GENERIC), ("v2", "Malformed authorization header")):
        answer = await world.client.post(f"/csc/{version}/credentials/list", json={}, headers=headers)
        assert answer.status_code == 400
        assert answer.json() == {"error": "invalid_request", "error_description": description}


async def test_two_authorization_headers_are_answered_400(world: World) -> None:
    twice = [("Authorization", f"Bearer {world.token()}")] * 2
    assert (await world.client.post("/csc/v2/credentials/list", json={}, headers=twice)).status_code == 400


async def test_a_token_that_does_not_do_is_answered_401(world: World) -> None:
    expired, foreign = world.token(lifetime_s=0), world.token()[:-6] + "AAAAAA"
    for token, error in ((expired, "expired_token"), (foreign, "invalid_token"), ("x" * 9000, "invalid_token")):
        answer = await world.call("v2/credentials/list", {}, token=token)
        assert (answer.status_code, answer.json()["error"]) == (401, error)
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="rakkan", error="invalid_token"')
    assert world.rooms.asked == []


def test_every_code_has_a_row_in_the_table() -> None:
    assert set(REFUSALS) == set(Code)


def test_no_fault_of_ours_is_explained_and_every_other_refusal_is() -> None:
    for row in (*REFUSALS.values(), *METHOD_REFUSALS.values()):
        for refusal in (row.v1, row.v2):
            assert bool(refusal.description) is (refusal.status != 500)
            assert (refusal.retry_after_s is not None) is (refusal.status == 503)


def test_base64_that_leaves_the_house_is_standard() -> None:
    assert encode_base64(b"\xfb\xff") == "+/8="

"""Tokens at the partners' door: of a client, of a signer, of one authorization, and bound to a key."""

import base64
import hashlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from shared.contracts import sam
from tests.rooms.gateway_fakes import ECDSA_SHA256, HASH, SHA256, World, b64, credential, opened

SIGN_V1 = {"credentialID": "demo", "hash": [b64(HASH)], "signAlgo": ECDSA_SHA256}
SIGN_V2 = {"credentialID": "demo", "hashes": [b64(HASH)], "hashAlgorithmOID": SHA256, "signAlgo": ECDSA_SHA256}
URL = "https://sign.example/csc/v2/signatures/signHash"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with opened() as world:
        world.rooms.credentials["other"] = credential("other")
        world.rooms.credentials["page"] = credential(
            "page", assurance="SCAL2-passkey", scal="2", pin_required=False, otp_required=False
        )
        yield world


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["error"], body["error_description"]


def last(world: World, kind: type[Any]) -> Any:
    assert isinstance(world.rooms.asked[-1], kind)
    return world.rooms.asked[-1]


# --- of one authorization --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sad", [{}, {"SAD": None}])
async def test_a_credential_token_signs_without_a_sad(world: World, sad: dict[str, Any]) -> None:
    answer = await world.call("v2/signatures/signHash", SIGN_V2 | sad, token=world.credential_token())
    assert answer.status_code == 200
    assert len(answer.json()["signatures"]) == 1
    assert world.rooms.opened[-1].sad is None


async def test_a_credential_token_beside_a_sad_is_refused(world: World) -> None:
    world.rooms.sads.add("sad-0")
    token = world.credential_token()
    for sad in ("sad-0", token):
        answer = await world.call("v2/signatures/signHash", SIGN_V2 | {"SAD": sad}, token=token)
        assert refusal(answer) == (400, "invalid_request", "SAD parameter MUST be null")
    assert not world.rooms.asked


async def test_a_token_of_the_service_signs_nothing_without_a_sad(world: World) -> None:
    for token in (world.token(), world.token(user_id="hanako")):
        answer = await world.call("v2/signatures/signHash", SIGN_V2, token=token)
        assert refusal(answer) == (400, "invalid_request", "Missing (or invalid type) string parameter SAD")
    assert not world.rooms.asked


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_credential_token_is_taken_as_the_sad_beside_a_token_of_the_service(world: World, version: str) -> None:
    token = world.credential_token()
    body = (SIGN_V1 if version == "v1" else SIGN_V2) | {"SAD": token}
    answer = await world.call(f"{version}/signatures/signHash", body)
    assert answer.status_code == 200
    sad = world.rooms.opened[-1].sad
    assert sad is not None
    assert sad.get_secret_value() == token


async def test_v1_does_not_sign_with_a_credential_token_alone(world: World) -> None:
    token = world.credential_token()
    answer = await world.call("v1/signatures/signHash", SIGN_V1, token=token)
    assert refusal(answer) == (400, "invalid_request", "Missing (or invalid type) string parameter SAD")
    answer = await world.call("v1/signatures/signHash", SIGN_V1 | {"SAD": token}, token=token)
    assert refusal(answer)[:2] == (403, "access_denied")
    assert not world.rooms.asked


async def test_a_credential_token_reaches_its_credential_and_no_other(world: World) -> None:
    token = world.credential_token()
    assert (await world.call("v2/credentials/info", {"credentialID": "demo"}, token=token)).status_code == 200
    world.rooms.asked.clear()
    for method, body in (
        ("credentials/info", {"credentialID": "other"}),
        ("signatures/signHash", SIGN_V2 | {"credentialID": "other"}),
    ):
        answer = await world.call(f"v2/{method}", body, token=token)
        assert refusal(answer) == (400, "invalid_request", "Invalid parameter credentialID")
    assert not world.rooms.asked


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("credentials/list", {}),
        ("credentials/authorize", {"credentialID": "demo", "numSignatures": 1, "PIN": "1234"}),
        ("credentials/extendTransaction", {"credentialID": "demo", "SAD": "sad-0"}),
        ("credentials/sendOTP", {"credentialID": "demo"}),
        ("credentials/getChallenge", {"credentialID": "demo", "authObjectID": "OTP"}),
        ("signatures/timestamp", {"hash": b64(HASH), "hashAlgo": SHA256}),
    ],
)
async def test_a_credential_token_does_nothing_else(world: World, method: str, body: dict[str, Any]) -> None:
    answer = await world.call(f"v2/{method}", body, token=world.credential_token())
    assert refusal(answer)[:2] == (403, "access_denied")
    assert not world.rooms.asked


async def test_a_token_of_an_unknown_scope_does_nothing(world: World) -> None:
    for scope in ("", "openid", "service:read", "credential service"):
        answer = await world.call("v2/signatures/signHash", SIGN_V2 | {"SAD": "x"}, token=world.token(scope=scope))
        # A token that names both is a client's, and the SAM refuses the SAD.
        assert answer.status_code == (400 if scope == "credential service" else 403)


async def test_what_the_sam_says_of_a_spent_authorization_is_passed_on(world: World) -> None:
    world.rooms.authorizations.clear()
    answer = await world.call("v2/signatures/signHash", SIGN_V2, token=world.credential_token())
    assert refusal(answer) == (400, "invalid_request", "Invalid parameter SAD")


async def test_an_expired_credential_token_is_told_from_a_wrong_one(world: World) -> None:
    answer = await world.call("v2/signatures/signHash", SIGN_V2, token=world.credential_token(lifetime_s=0))
    assert refusal(answer)[:2] == (401, "expired_token")


# --- of a signer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_signers_token_lists_her_own_credentials_and_takes_no_user(world: World, version: str) -> None:
    token = world.token(user_id="hanako")
    for body in ({}, {"userID": None}):
        answer = await world.call(f"{version}/credentials/list", body, token=token)
        assert answer.json()["credentialIDs"] == ["demo", "other", "page"]
        assert last(world, sam.ListCredentials).user_id is None
    world.rooms.asked.clear()
    for user in ("hanako", "taro", ""):
        answer = await world.call(f"{version}/credentials/list", {"userID": user}, token=token)
        assert refusal(answer) == (400, "invalid_request", "userID parameter MUST be null")
    assert not world.rooms.asked


# --- credentials that are approved on the page -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_credential_for_the_page_is_not_authorized_here(world: World, version: str) -> None:
    body = {"credentialID": "page", "numSignatures": 1, "hash": [b64(HASH)], "PIN": "1234"}
    answer = await world.call(f"{version}/credentials/authorize", body)
    words = "The credential identified by credentialID is authorized at oauth2/authorize only"
    assert refusal(answer) == (400, "invalid_request", words)


async def test_a_credential_for_the_page_says_so(world: World) -> None:
    asked = {"credentialID": "page", "authInfo": True}
    v1 = (await world.call("v1/credentials/info", asked)).json()
    assert (v1["authMode"], v1["SCAL"]) == ("oauth2code", "2")
    assert not {"PIN", "OTP", "auth"} & set(v1)
    v2 = (await world.call("v2/credentials/info", asked)).json()
    assert (v2["auth"], v2["SCAL"]) == ({"mode": "oauth2code", "objects": None}, "2")
    bare = (await world.call("v2/credentials/info", {"credentialID": "page"})).json()
    assert bare["auth"] == {"mode": "oauth2code"}
    listed = (await world.call("v2/credentials/list", {"userID": "hanako", "credentialInfo": True})).json()
    modes = {found["credentialID"]: found["auth"]["mode"] for found in listed["credentialInfos"]}
    assert modes == {"demo": "explicit", "other": "explicit", "page": "oauth2code"}


# --- bound to a key --------------------------------------------------------------------------------------------------


class Holder:
    """A client that holds a key, and proves it (RFC 9449)."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256")

    @property
    def thumbprint(self) -> str:
        return self.key.thumbprint()

    def proof(self, token: str, **changes: Any) -> str:
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.as_dict(private=False)}
        hashed = hashlib.sha256(token.encode()).digest()
        claims = {
            "jti": uuid.uuid4().hex,
            "htm": "POST",
            "htu": URL,
            "iat": int(datetime.now(UTC).timestamp()),
            "ath": base64.urlsafe_b64encode(hashed).rstrip(b"=").decode(),
        }
        return jwt.encode(header, claims | changes, self.key)


async def send(world: World, headers: list[tuple[str, str]], body: dict[str, Any] | None = None) -> httpx.Response:
    return await world.client.post(URL.removeprefix("https://sign.example"), json=body or SIGN_V2, headers=headers)


async def test_a_bound_token_signs_with_a_proof_by_its_key(world: World) -> None:
    holder = Holder()
    token = world.credential_token(key_thumbprint=holder.thumbprint)
    answer = await send(world, [("Authorization", f"DPoP {token}"), ("DPoP", holder.proof(token))])
    assert answer.status_code == 200


async def test_a_bound_token_as_plain_bearer_is_refused(world: World) -> None:
    holder = Holder()
    token = world.credential_token(key_thumbprint=holder.thumbprint)
    for extra in ([], [("DPoP", holder.proof(token))]):
        answer = await send(world, [("Authorization", f"Bearer {token}"), *extra])
        assert refusal(answer)[:2] == (401, "invalid_token")
        assert 'DPoP realm="rakkan", algs="ES256' in answer.headers["WWW-Authenticate"]
    assert not world.rooms.asked


async def test_a_token_that_is_not_bound_is_no_dpop_token(world: World) -> None:
    token = world.credential_token()
    answer = await send(world, [("Authorization", f"DPoP {token}"), ("DPoP", Holder().proof(token))])
    assert answer.status_code == 401
    assert 'algs="ES256 Ed25519 EdDSA PS256", error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_a_proof_that_does_not_do_is_refused(world: World) -> None:
    holder, thief = Holder(), Holder()
    token = world.credential_token(key_thumbprint=holder.thumbprint)
    other = world.credential_token(key_thumbprint=holder.thumbprint, token_id="j2")
    long_ago = int((datetime.now(UTC) - timedelta(hours=1)).timestamp())
    good = holder.proof(token)
    tries: dict[str, list[str]] = {
        "none": [],
        "two": [good, holder.proof(token)],
        "of another key": [thief.proof(token)],
        "for another token": [holder.proof(other)],
        "for another method": [holder.proof(token, htm="GET")],
        "for another address": [holder.proof(token, htu=URL.replace("v2", "v1"))],
        "for another host": [holder.proof(token, htu=URL.replace("sign.", "evil."))],
        "old": [holder.proof(token, iat=long_ago)],
        "not a JWT": ["x"],
        "long": ["x" * 10_000],
    }
    for what, proofs in tries.items():
        answer = await send(world, [("Authorization", f"DPoP {token}"), *(("DPoP", proof) for proof in proofs)])
        assert refusal(answer)[:2] == (401, "invalid_token"), what
    assert not world.rooms.asked


async def test_at_a_virtual_service_a_proof_names_the_url_that_is_really_called(world: World) -> None:
    holder = Holder()
    token = world.credential_token(key_thumbprint=holder.thumbprint)
    called = URL.replace("/csc/", "/s/classy/csc/")
    for named, status in ((URL, 401), (called.replace("classy", "both"), 401), (called, 200)):
        headers = [("Authorization", f"DPoP {token}"), ("DPoP", holder.proof(token, htu=named))]
        answer = await world.client.post(called.removeprefix("https://sign.example"), json=SIGN_V2, headers=headers)
        assert answer.status_code == status


async def test_a_proof_is_good_once(world: World) -> None:
    holder = Holder()
    token = world.credential_token(key_thumbprint=holder.thumbprint)
    headers = [("Authorization", f"DPoP {token}"), ("DPoP", holder.proof(token))]
    assert (await send(world, headers)).status_code == 200
    assert (await send(world, headers)).status_code == 401


async def test_a_bound_token_as_sad_keeps_its_binding(world: World) -> None:
    holder, thief = Holder(), Holder()
    stolen = world.credential_token(key_thumbprint=holder.thumbprint)
    for token, proving in ((world.token(), None), (world.token(key_thumbprint=thief.thumbprint), thief)):
        headers = [("Authorization", f"{'DPoP' if proving else 'Bearer'} {token}")]
        headers += [("DPoP", proving.proof(token))] if proving else []
        answer = await send(world, headers, SIGN_V2 | {"SAD": stolen})
        assert refusal(answer) == (400, "invalid_request", "Invalid parameter SAD")
    assert not world.rooms.asked
    own = world.token(key_thumbprint=holder.thumbprint)
    headers = [("Authorization", f"DPoP {own}"), ("DPoP", holder.proof(own))]
    assert (await send(world, headers, SIGN_V2 | {"SAD": stolen})).status_code == 200


async def test_a_refused_token_is_told_both_ways_to_come(world: World) -> None:
    answer = await world.call("v2/credentials/list", {}, token="not-ours")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="rakkan", error="invalid_token"')
    assert challenge.endswith('DPoP realm="rakkan", algs="ES256 Ed25519 EdDSA PS256"')

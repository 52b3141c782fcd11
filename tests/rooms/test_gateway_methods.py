"""What the methods of the CSC answer when all is well, and how the gateway bears clients that differ."""

import base64
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asn1crypto.algos import RSASSAPSSParams
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from shared.algorithms import Hash, KeyAlgorithm, Scheme
from shared.contracts import authentication, sam, tsa_connector
from tests.rooms.gateway_fakes import (
    ECDSA_SHA256,
    HASH,
    PSS,
    RSA_BARE,
    SHA256,
    World,
    b64,
    certificate_of,
    credential,
    opened,
)

V1 = {"SAD": "sad-0", "credentialID": "demo", "hash": [b64(HASH)], "signAlgo": ECDSA_SHA256}
AUTHORIZE = {"credentialID": "demo", "numSignatures": 1, "PIN": "1234"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with opened() as world:
        world.rooms.sads.add("sad-0")
        yield world


def check_p256(signature: str, digest: bytes) -> None:
    key = x509.load_der_x509_certificate(certificate_of(KeyAlgorithm.P256)).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(base64.b64decode(signature, validate=True), digest, ec.ECDSA(Prehashed(hashes.SHA256())))


def asked(world: World, kind: type[Any]) -> Any:
    found = [request for request in world.rooms.asked if isinstance(request, kind)]
    assert len(found) == 1
    return found[0]


async def test_a_signature_comes_from_authorize_and_sign_hash(world: World) -> None:
    for version in ("v1", "v2"):
        authorized = await world.call(f"{version}/credentials/authorize", AUTHORIZE | {"hash": [b64(HASH)]})
        assert authorized.json()["expiresIn"] == 300
        signed = await world.call(f"{version}/signatures/signHash", V1 | {"SAD": authorized.json()["SAD"]})
        assert signed.status_code == 200
        check_p256(signed.json()["signatures"][0], HASH)


async def test_v2_takes_its_own_names(world: World) -> None:
    answer = await world.call(
        "v2/credentials/authorize",
        {
            "credentialID": "demo",
            "numSignatures": 1,
            "hashes": [b64(HASH)],
            "hashAlgorithmOID": SHA256,
            "authData": [{"id": "PIN", "value": "1234"}, {"id": "OTP", "value": "000000"}],
        },
    )
    assert answer.status_code == 200
    assert asked(world, sam.Authorize).hash is Hash.SHA256
    body = {"SAD": answer.json()["SAD"], "credentialID": "demo", "hashes": [b64(HASH)], "hashAlgorithmOID": SHA256}
    signed = await world.call("v2/signatures/signHash", body | {"signAlgo": "1.2.840.10045.2.1"})
    check_p256(signed.json()["signatures"][0], HASH)


async def test_v1_does_not_know_the_names_of_v2(world: World) -> None:
    body = {"SAD": "sad-0", "credentialID": "demo", "hashes": [b64(HASH)], "signAlgo": ECDSA_SHA256}
    answer = await world.call("v1/signatures/signHash", body)
    assert answer.json()["error_description"] == "Missing (or invalid type) array parameter hash"


async def test_v2_refuses_a_name_and_its_alias_together(world: World) -> None:
    for extra in ({"hashes": [b64(HASH)]}, {"hashAlgo": SHA256, "hashAlgorithmOID": SHA256}):
        answer = await world.call("v2/signatures/signHash", V1 | extra)
        assert answer.status_code == 400
        assert answer.json()["error_description"].startswith("Both ")


async def test_hashes_in_either_alphabet_padded_or_not_are_the_same_bytes(world: World) -> None:
    digest = next(d for n in range(999) if b"-" in base64.urlsafe_b64encode(d := hashlib.sha256(bytes([n])).digest()))
    standard, urlsafe = base64.b64encode(digest).decode(), base64.urlsafe_b64encode(digest).decode()
    spellings = [standard, urlsafe, standard.rstrip("="), urlsafe.rstrip("=")]
    for version in ("v1", "v2"):
        answer = await world.call(f"{version}/signatures/signHash", V1 | {"hash": spellings})
        assert answer.status_code == 200
        assert world.rooms.asked[-1].digests == (digest,) * 4  # type: ignore[attr-defined]  # a SignHash


async def test_explicit_null_is_absent(world: World) -> None:
    nulls = {"hashAlgo": None, "signAlgoParams": None, "clientData": None, "operationMode": None, "hashes": None}
    for version in ("v1", "v2"):
        assert (await world.call(f"{version}/signatures/signHash", V1 | nulls)).status_code == 200
        body = AUTHORIZE | {"hash": None, "OTP": None, "description": None, "authData": None}
        assert (await world.call(f"{version}/credentials/authorize", body)).status_code == 200
        body = {"credentialID": "demo", "certificates": None, "certInfo": None, "authInfo": None, "lang": None}
        assert (await world.call(f"{version}/credentials/info", body)).status_code == 200


async def test_unknown_members_are_ignored(world: World) -> None:
    assert (await world.call("v1/signatures/signHash", V1 | {"sign_algo_params": 5, "x": {}})).status_code == 200


async def test_signatures_come_in_the_order_of_the_hashes(world: World) -> None:
    digests = [hashlib.sha256(bytes([n])).digest() for n in range(100)]
    answer = await world.call("v1/signatures/signHash", V1 | {"hash": [b64(digest) for digest in digests]})
    for signature, digest in zip(answer.json()["signatures"], digests, strict=True):
        check_p256(signature, digest)


@pytest.mark.parametrize("salt_bytes", [222, 32, 0])
async def test_a_pss_salt_length_is_honored(world: World, salt_bytes: int) -> None:
    world.rooms.credentials["rsa"] = credential("rsa", KeyAlgorithm.RSA2048)
    hash_ = {"algorithm": "sha256"}
    params = RSASSAPSSParams(
        {
            "hash_algorithm": hash_,
            "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": hash_},
            "salt_length": salt_bytes,
        }
    ).dump()
    body = V1 | {"credentialID": "rsa", "signAlgo": PSS, "signAlgoParams": b64(params), "hashAlgo": SHA256}
    for version in ("v1", "v2"):
        answer = await world.call(f"{version}/signatures/signHash", body)
        assert world.rooms.asked[-1].salt_bytes == salt_bytes  # type: ignore[attr-defined]  # a SignHash
        key = x509.load_der_x509_certificate(certificate_of(KeyAlgorithm.RSA2048)).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        rule = padding.PSS(padding.MGF1(hashes.SHA256()), salt_bytes)
        key.verify(base64.b64decode(answer.json()["signatures"][0]), HASH, rule, Prehashed(hashes.SHA256()))


async def test_rsa_and_ed25519_sign_under_their_oids(world: World) -> None:
    world.rooms.credentials["rsa"] = credential("rsa", KeyAlgorithm.RSA2048)
    world.rooms.credentials["ed"] = credential("ed", KeyAlgorithm.ED25519)
    for name, oid, scheme in [
        ("rsa", "1.2.840.113549.1.1.11", Scheme.RSA_PKCS1),
        ("rsa", RSA_BARE, Scheme.RSA_PKCS1),
        ("ed", "1.3.101.112", Scheme.ED25519),
    ]:
        body = V1 | {"credentialID": name, "signAlgo": oid, "hashAlgo": SHA256}
        assert (await world.call("v1/signatures/signHash", body)).status_code == 200
        assert world.rooms.asked[-1].scheme is scheme  # type: ignore[attr-defined]  # a SignHash


@pytest.mark.parametrize("count", [1, 50])
async def test_a_value_that_does_not_verify_never_leaves(world: World, count: int) -> None:
    world.rooms.lie = True
    answer = await world.call("v1/signatures/signHash", V1 | {"hash": [b64(HASH)] * count})
    assert (answer.status_code, answer.json()) == (500, {"error": "server_error"})


async def test_secrets_are_readable_to_the_sam_alone(world: World) -> None:
    token = world.token()
    await world.call("v1/credentials/authorize", AUTHORIZE | {"OTP": "654321"}, token=token)
    await world.call("v1/signatures/signHash", V1, token=token)
    for request in world.rooms.asked:
        wire = request.model_dump_json() + repr(request)
        assert not any(secret in wire for secret in (token, "1234", "654321", "sad-0"))
    authorize, sign = world.rooms.opened
    assert authorize.pin is not None
    assert authorize.otp is not None
    assert sign.sad is not None
    assert (authorize.pin.get_secret_value(), authorize.otp.get_secret_value()) == ("1234", "654321")
    assert sign.sad.get_secret_value() == "sad-0"


LOGGING = """
import asyncio
from shared import logs
from shared.contracts import sam
from tests.rooms.gateway_fakes import opened

async def main():
    async with opened() as world:
        token = world.token()
        body = {"credentialID": "demo", "numSignatures": 1, "PIN": "733733", "SAD": "733733", "clientData": "733733"}
        for fault in (None, RuntimeError("a fault")):
            if fault:
                world.rooms.refuse = {sam.Authorize: fault, sam.ExtendAuthorization: fault}
            await world.call("v2/credentials/authorize", body, token=token)
            await world.call("v2/credentials/extendTransaction", body, token=token)
        print(token)

logs.configure("debug", room="gateway", instance="i")
asyncio.run(main())
"""


def test_secrets_stay_out_of_the_log() -> None:
    # In a process of its own: the configuration of the log is one for a whole process.
    ran = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    *log, token = ran.stdout.splitlines()
    printed = "".join(log) + ran.stderr
    assert printed.count("request answered") == 4
    assert '"client_id": "acme"' in printed
    assert "RuntimeError" in printed
    assert token not in printed
    assert "733733" not in printed


async def test_a_sad_is_extended(world: World) -> None:
    for version in ("v1", "v2"):
        answer = await world.call(f"{version}/credentials/extendTransaction", {"credentialID": "demo", "SAD": "sad-0"})
        assert answer.status_code == 200
        assert answer.json()["SAD"] not in ("", "sad-0")


async def test_factors_are_asked_for_without_content(world: World) -> None:
    for path in ("v1/credentials/sendOTP", "v2/credentials/sendOTP"):
        answer = await world.call(path, {"credentialID": "demo"})
        assert (answer.status_code, answer.content) == (204, b"")
    answer = await world.call("v2/credentials/getChallenge", {"credentialID": "demo", "authObjectID": "OTP"})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_time_stamp_needs_a_live_token_and_hands_on_the_nonce(world: World) -> None:
    for version in ("v1", "v2"):
        world.rooms.asked.clear()
        body = {"hash": b64(HASH), "hashAlgo": SHA256, "nonce": "abc"}
        answer = await world.call(f"{version}/signatures/timestamp", body)
        assert base64.b64decode(answer.json()["timestamp"]) == b"token of " + HASH
        assert [type(request) for request in world.rooms.asked] == [authentication.CheckToken, tsa_connector.Timestamp]
        assert asked(world, tsa_connector.Timestamp).nonce == b"\x0a\xbc"


async def test_v1_describes_a_credential(world: World) -> None:
    world.rooms.credentials["demo"] = credential("demo", otp_required=True)
    body = {"credentialID": "demo", "certificates": "chain", "certInfo": True, "authInfo": True}
    shown = (await world.call("v1/credentials/info", body)).json()
    assert shown["key"] | {"algo": []} == {"status": "enabled", "algo": [], "len": 256, "curve": "1.2.840.10045.3.1.7"}
    assert {"1.2.840.10045.2.1", ECDSA_SHA256} <= set(shown["key"]["algo"])
    assert shown["cert"] == {
        "status": "valid",
        "certificates": [b64(certificate_of(KeyAlgorithm.P256)), b64(b"issuer")],
        "issuerDN": "CN=Issuing CA",
        "serialNumber": "0ABC",
        "subjectDN": "CN=Hanako,O=Acme",
        "validFrom": "20260102030405Z",
        "validTo": "20990102030405Z",
        "qcStatements": ["0.4.0.1862.1.1"],
        "policy": ["0.4.0.194112.1.2"],
    }
    assert (shown["authMode"], shown["SCAL"], shown["multisign"]) == ("explicit", "1", 100)
    assert (shown["PIN"]["presence"], shown["PIN"]["format"]) == ("true", "A")
    assert (shown["OTP"]["presence"], shown["OTP"]["type"], shown["OTP"]["format"]) == ("true", "offline", "N")
    assert "auth" not in shown


async def test_v2_describes_a_credential(world: World) -> None:
    world.rooms.credentials["demo"] = credential("demo", otp_required=True)
    shown = (await world.call("v2/credentials/info", {"credentialID": "demo", "authInfo": True})).json()
    assert shown["auth"]["mode"] == "explicit"
    assert shown["auth"]["expression"] == "PIN AND OTP"
    objects = [{name: found.get(name) for name in ("type", "id", "generator")} for found in shown["auth"]["objects"]]
    assert objects == [
        {"type": "Password", "id": "PIN", "generator": None},
        {"type": "Password", "id": "OTP", "generator": "totp"},
    ]
    assert "authMode" not in shown
    assert "PIN" not in shown


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_credential_is_shown_by_default_with_its_certificate_alone(world: World, version: str) -> None:
    shown = (await world.call(f"{version}/credentials/info", {"credentialID": "demo"})).json()
    assert shown["cert"] == {"status": "valid", "certificates": [b64(certificate_of(KeyAlgorithm.P256))]}
    assert "PIN" not in shown
    assert "objects" not in shown.get("auth", {})
    body = {"credentialID": "demo", "certificates": "none"}
    assert "certificates" not in (await world.call(f"{version}/credentials/info", body)).json()["cert"]


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_credential_without_factors_needs_none(world: World, version: str) -> None:
    world.rooms.credentials["demo"] = credential("demo", pin_required=False)
    shown = (await world.call(f"{version}/credentials/info", {"credentialID": "demo", "authInfo": True})).json()
    if version == "v1":
        assert shown["authMode"] == "implicit"
    else:
        assert shown["auth"] == {"mode": "explicit", "objects": []}


@pytest.mark.parametrize("status", ["expired", "revoked", "suspended"])
async def test_the_key_of_a_certificate_that_is_not_valid_shows_as_disabled(world: World, status: str) -> None:
    world.rooms.credentials["demo"] = credential("demo", certificate_status=status)
    shown = (await world.call("v1/credentials/info", {"credentialID": "demo"})).json()
    assert (shown["key"]["status"], shown["cert"]["status"]) == ("disabled", status)


async def test_a_credential_without_a_certificate_yet_can_be_shown(world: World) -> None:
    world.rooms.credentials["demo"] = credential("demo", certificates=(), certificate_status=None, enabled=False)
    body = {"credentialID": "demo", "certificates": "chain", "certInfo": True}
    shown = (await world.call("v2/credentials/info", body)).json()
    assert (shown["key"]["status"], shown["cert"]) == ("disabled", {})


async def test_multisign_is_no_more_than_one_call_takes(world: World) -> None:
    world.rooms.credentials["demo"] = credential("demo", signatures_max=1000)
    shown = (await world.call("v1/credentials/info", {"credentialID": "demo"})).json()
    assert shown["multisign"] == 250


async def test_v1_lists_in_pages(world: World) -> None:
    world.rooms.credentials = {f"c{n}": credential(f"c{n}") for n in range(5)}
    first = (await world.call("v1/credentials/list", {"userID": "hanako", "maxResults": 3})).json()
    assert first == {"credentialIDs": ["c0", "c1", "c2"], "nextPageToken": "3"}
    rest = (await world.call("v1/credentials/list", {"userID": "hanako", "pageToken": "3"})).json()
    assert rest == {"credentialIDs": ["c3", "c4"]}


async def test_v2_lists_all_in_one_answer(world: World) -> None:
    world.rooms.page = 2
    world.rooms.credentials = {f"c{n}": credential(f"c{n}") for n in range(5)}
    body = {"userID": "hanako", "credentialInfo": True, "certificates": "none", "onlyValid": True, "authInfo": True}
    shown = (await world.call("v2/credentials/list", body)).json()
    assert shown["credentialIDs"] == [f"c{n}" for n in range(5)]
    assert shown["onlyValid"] is True
    assert [found["credentialID"] for found in shown["credentialInfos"]] == shown["credentialIDs"]
    assert shown["credentialInfos"][0]["auth"]["objects"]
    assert "nextPageToken" not in shown
    paged = (await world.call("v2/credentials/list", {"userID": "hanako", "maxResults": 2})).json()
    assert paged == {"credentialIDs": ["c0", "c1"], "nextPageToken": "2"}


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_empty_list_is_an_empty_list(world: World, version: str) -> None:
    world.rooms.credentials = {}
    answer = await world.call(f"{version}/credentials/list", {"userID": "hanako"})
    assert (answer.status_code, answer.json()) == (200, {"credentialIDs": []})

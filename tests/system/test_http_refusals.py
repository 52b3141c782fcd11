"""What partners may not do, tried at the public door of the whole suite: a clear word, and nothing done."""

import asyncio
import hashlib
import json
import secrets
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.tokens import AccessToken, write_token
from shared.trust import Purpose, SigningKey
from tests.support.partner import Answer, sad_hash
from tests.support.replicas import Replica
from tests.support.world import JIRO, MIDORI, P256, PINS, TARO, World

PIN = PINS[MIDORI]
INVALID_TOKEN = (401, "invalid_token", "The token provided is not a valid OAuth access or refresh token")
EXPIRED_TOKEN = (401, "expired_token", "The access or refresh token is expired or has been revoked")
UNKNOWN_CREDENTIAL = (400, "invalid_request", "Invalid parameter credentialID")
WRONG_SAD = (400, "invalid_request", "Invalid parameter SAD")
NOT_AUTHORIZED = (400, "invalid_request", "Hash is not authorized by the SAD")
WRONG_PIN = (400, "invalid_pin", "The PIN is invalid")
LOCKED = (400, "invalid_request", "PIN locked")
WRONG_OTP = (400, "invalid_otp", "The OTP is invalid")


def digest() -> bytes:
    return secrets.token_bytes(32)


def token(world: World, *, key: SigningKey | None = None, lifetime_s: int = 600) -> str:
    """A token as authentication writes them, unless something is changed."""
    own = SigningKey.load(world.stack.keys.key_file("authentication", Purpose.TOKENS))
    now = datetime.now(UTC)
    facts = AccessToken(
        token_id=secrets.token_hex(8),
        issuer=world.stack.rooms.authentication_url,
        client_id=world.acme.client.client_id,
        tenant_id="acme",
        scope="service",
        issued_at=now + timedelta(seconds=min(0, 2 * lifetime_s)),
        expires_at=now + timedelta(seconds=lifetime_s),
    )
    written = write_token(facts, key or own)
    world.secrets.add(written)
    return written


async def made(world: World, sad: str) -> int:
    """How many operations the SVG has begun under the authorization."""
    rows = await world.fetch(
        "select count(distinct operation_id) from sam.authorizations join svg.spent_occurrences using"
        " (authorization_id) where sad_hash = $1",
        sad_hash(sad),
    )
    return int(rows[0][0])


# Tokens


async def test_without_a_token_nothing_is_done(world: World) -> None:
    answer = await world.acme.call("credentials/info", {"credentialID": P256}, token="")
    assert answer.refusal[:2] == (400, "invalid_request")


async def test_a_token_that_expired_is_told_so(world: World) -> None:
    answer = await world.acme.call("credentials/info", {"credentialID": P256}, token=token(world, lifetime_s=-1))
    assert answer.refusal == EXPIRED_TOKEN


async def test_a_token_of_anybody_elses_key_is_refused(world: World) -> None:
    own = SigningKey.load(world.stack.keys.key_file("authentication", Purpose.TOKENS))
    foreign = token(world, key=SigningKey(own.key_id, Ed25519PrivateKey.generate()))
    answer = await world.acme.call("credentials/info", {"credentialID": P256}, token=foreign)
    assert answer.refusal == INVALID_TOKEN


async def test_a_token_that_was_revoked_is_refused_at_once(world: World) -> None:
    once = await world.acme.logged_in()
    assert (await once.call("credentials/info", {"credentialID": P256})).status == 200
    assert await once.revoke(once.token) == 204
    assert (await once.call("credentials/info", {"credentialID": P256})).refusal == EXPIRED_TOKEN
    assert (await once.timestamp(digest())).refusal == EXPIRED_TOKEN


# Credentials


@pytest.mark.parametrize("method", ["credentials/info", "credentials/authorize", "signatures/signHash"])
async def test_another_tenants_credential_looks_as_if_it_did_not_exist(world: World, method: str) -> None:
    hash_ = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
    wish = {"numSignatures": 1, "PIN": PINS[MIDORI], "hash": [hash_], "SAD": "x", "signAlgo": "1.2.840.10045.4.3.2"}
    foreign, absent = [
        await world.rival.call(method, wish | {"credentialID": credential_id}) for credential_id in (P256, "no-such")
    ]
    assert foreign.refusal == absent.refusal == UNKNOWN_CREDENTIAL
    assert foreign.body == absent.body


# PINs


async def test_after_five_wrong_pins_the_right_one_does_not_help_until_the_operator_unlocks(world: World) -> None:
    wrong = [await world.acme.ask_sad("taro-p256", [digest()], pin=f"00000{n}x") for n in range(6)]
    assert [answer.refusal for answer in wrong] == [WRONG_PIN] * 5 + [LOCKED]
    assert (await world.acme.ask_sad("taro-p256", [digest()], pin=PINS[TARO])).refusal == LOCKED
    await world.operate("unlock", TARO, "--tenant", "acme")
    await world.acme.authorize("taro-p256", digest(), pin=PINS[TARO])


async def test_of_two_hundred_wrong_pins_at_once_exactly_five_are_verified(world: World) -> None:
    signer = (await world.fetch("select signer_id from sam.signers where user_id = $1", TARO))[0][0]
    before = await world.leaves("sam", "factor.pin_refused", actor_id=signer)
    answers = await asyncio.gather(
        *(world.acme.ask_sad("taro-p256", [digest()], pin=f"{n:06d}wrong") for n in range(200))
    )
    told = Counter(answer.refusal for answer in answers)
    assert told[WRONG_PIN] <= 5
    assert {refusal for refusal in told if refusal[0] != 503} <= {WRONG_PIN, LOCKED}
    verified = await world.leaves("sam", "factor.pin_refused", actor_id=signer, reason_code="pin_invalid")
    assert verified - before == 5
    assert (await world.fetch("select pin_tries_left from sam.signers where signer_id = $1", signer))[0][0] == 0
    await world.operate("unlock", TARO, "--tenant", "acme")
    await world.acme.authorize("taro-p256", digest(), pin=PINS[TARO])


async def test_a_one_time_password_counts_once(world: World) -> None:
    otp = pyotp.TOTP(world.totp_secret).now()
    assert (await world.acme.ask_sad("jiro-p256", [digest()], pin=PINS[JIRO])).refusal == WRONG_OTP
    await world.acme.authorize("jiro-p256", digest(), pin=PINS[JIRO], otp=otp)
    assert (await world.acme.ask_sad("jiro-p256", [digest()], pin=PINS[JIRO], otp=otp)).refusal == WRONG_OTP
    await world.operate("unlock", JIRO, "--tenant", "acme")


# SADs


async def test_a_sad_signs_no_other_hashes(world: World) -> None:
    authorized, other = digest(), digest()
    sad = await world.acme.authorize(P256, authorized, pin=PIN)
    for asked in ([other], [authorized, other], [authorized, authorized]):
        assert (await world.acme.sign(P256, sad, *asked)).refusal == NOT_AUTHORIZED
    assert await made(world, sad) == 0
    assert (await world.acme.sign(P256, sad, authorized)).status == 200
    assert (await world.acme.sign(P256, sad, other)).refusal == NOT_AUTHORIZED
    assert await made(world, sad) == 1


async def test_a_sad_serves_neither_another_client_nor_another_credential(world: World) -> None:
    asked = digest()
    sad = await world.acme.authorize(P256, asked, pin=PIN)
    assert (await world.colleague.sign(P256, sad, asked)).refusal == WRONG_SAD
    assert (await world.acme.sign("midori-p384", sad, asked)).refusal == WRONG_SAD
    assert (await world.acme.sign(P256, sad[:-1] + "_", asked)).refusal == WRONG_SAD
    assert (await world.acme.sign(P256, sad, asked)).status == 200


async def test_a_sad_that_expired_signs_nothing(world: World) -> None:
    asked = digest()
    async with Replica.started(world.stack, "sam", {"RAKKAN_AUTHORIZATIONS__LIFETIME_S": "10"}):
        answers = [await world.acme.ask_sad(P256, [asked], pin=PIN) for _ in range(4)]
    short = [answer.body["SAD"] for answer in answers if answer.body["expiresIn"] <= 10]
    assert short, [answer.body["expiresIn"] for answer in answers]
    await asyncio.sleep(10)
    assert (await world.acme.sign(P256, short[0], asked)).refusal == (400, "invalid_request", "SAD expired")
    assert await made(world, short[0]) == 0


# Bodies


async def test_a_body_of_ten_megabytes_is_refused_and_costs_nothing_else(world: World) -> None:
    body = json.dumps({"credentialID": P256, "clientData": "x" * 10_000_000}).encode()
    headers = {"Authorization": f"Bearer {world.acme.token}", "Content-Type": "application/json"}
    url = f"{world.acme.gateway_url}/csc/v1/credentials/info"
    response = await world.http.post(url, content=body, headers=headers)
    assert Answer(response.status_code, response.json()).refusal[:2] == (413, "invalid_request")
    assert (await world.acme.call("credentials/info", {"credentialID": P256})).status == 200
    assert sys.getsizeof(body) > 10_000_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hash": []}, "Empty hash array"),
        ({"hash": ["no base64!"]}, "Invalid Base64 hash string parameter"),
        ({"hash": ["YWJj"]}, "Invalid digest value length"),
        ({"signAlgo": "1.2.840.113549.1.1.5"}, "Invalid parameter signAlgo"),  # SHA-1 with RSA
        ({"signAlgo": "1.2.3.4"}, "Invalid parameter signAlgo"),
        ({"hashAlgo": "2.16.840.1.101.3.4.2.2"}, "Invalid parameter hashAlgo"),  # contradicts signAlgo
        ({"signAlgo": "1.2.840.113549.1.1.11"}, "Invalid parameter signAlgo"),  # RSA, with a P-256 key
    ],
)
async def test_what_cannot_be_signed_is_refused_and_spends_nothing(
    world: World, changes: dict[str, object], words: str
) -> None:
    asked = hashlib.sha256(b"x").digest()
    sad = await world.acme.authorize(P256, asked, pin=PIN)
    hash_ = "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="
    request: dict[str, object] = {"credentialID": P256, "SAD": sad, "hash": [hash_], "signAlgo": "1.2.840.10045.4.3.2"}
    refused = await world.acme.call("signatures/signHash", request | changes)
    assert refused.refusal[:2] == (400, "invalid_request")
    assert words in refused.refusal[2]
    assert await made(world, sad) == 0
    assert (await world.acme.sign(P256, sad, asked)).status == 200

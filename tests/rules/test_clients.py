"""What a client's proof must be, and every way it is refused."""

import base64
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from services.authentication.clients import (
    Client,
    check_assertion,
    check_jwks,
    check_secret,
    claimed_client_id,
    hash_secret,
    new_secret,
)
from services.authentication.throttle import Throttle
from shared.errors import Code, RakkanError

ISSUER = "https://as.example"
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
KEYS: dict[str, RSAKey | ECKey | OKPKey] = {
    "RS256": RSAKey.generate_key(2048),
    "PS256": RSAKey.generate_key(2048),
    "ES256": ECKey.generate_key("P-256"),
    "ES384": ECKey.generate_key("P-384"),
    "Ed25519": OKPKey.generate_key("Ed25519"),
}


def jwks(*keys: RSAKey | ECKey | OKPKey) -> str:
    return json.dumps(KeySet(list(keys)).as_dict(private=False))


def client(*keys: RSAKey | ECKey | OKPKey) -> Client:
    return Client(
        client_id="partner-1",
        tenant_id="acme",
        method="private_key_jwt",
        secret_hash=None,
        jwks=jwks(*(keys or KEYS.values())),
        suspended=False,
    )


def claims(**changed: Any) -> dict[str, Any]:
    at = int(NOW.timestamp())
    given = {"iss": "partner-1", "sub": "partner-1", "aud": ISSUER, "exp": at + 60, "iat": at, "jti": "one"} | changed
    return {name: value for name, value in given.items() if value is not None}


def assertion(algorithm: str = "ES256", header: dict[str, Any] | None = None, **changed: Any) -> str:
    return jwt.encode({"alg": algorithm} | (header or {}), claims(**changed), KEYS[algorithm], algorithms=[algorithm])


def unsigned(header: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims()).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def refused(text: str, *, by: Client | None = None) -> str:
    with pytest.raises(RakkanError) as refusal:
        check_assertion(by or client(), text, issuer=ISSUER, now=NOW)
    assert refusal.value.code is Code.CLIENT_REFUSED
    return refusal.value.detail


@pytest.mark.parametrize("algorithm", KEYS)
def test_an_assertion_by_a_registered_key_holds(algorithm: str) -> None:
    held = check_assertion(client(), assertion(algorithm), issuer=ISSUER, now=NOW)
    assert held.expires_at == NOW + timedelta(seconds=60)
    assert claimed_client_id(assertion(algorithm)) == "partner-1"


def test_ed25519_may_be_called_by_its_old_name() -> None:
    with pytest.warns(match="EdDSA"):
        text = jwt.encode({"alg": "EdDSA"}, claims(), KEYS["Ed25519"], algorithms=["EdDSA"])
    check_assertion(client(), text, issuer=ISSUER, now=NOW)


def test_the_digest_of_an_assertion_hangs_on_client_and_jti() -> None:
    one = check_assertion(client(), assertion(), issuer=ISSUER, now=NOW)
    again = check_assertion(client(), assertion(exp=int(NOW.timestamp()) + 70), issuer=ISSUER, now=NOW)
    other = check_assertion(client(), assertion(jti="two"), issuer=ISSUER, now=NOW)
    assert one.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"aud": "https://other.example"}, "audience"),
        ({"aud": f"{ISSUER}/oauth2/token"}, "audience"),
        ({"aud": [ISSUER]}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "partner-2"}, "another client"),
        ({"sub": "partner-2"}, "another client"),
        ({"iss": "partner-2", "sub": "partner-2"}, "another client"),
        ({"exp": int(NOW.timestamp())}, "expired"),
        ({"exp": None}, "expired"),
        ({"exp": int(NOW.timestamp()) + 400}, "five minutes"),
        ({"exp": True}, "no number"),
        ({"exp": "soon"}, "no number"),
        ({"exp": 1e300}, "no moment"),
        ({"iat": int(NOW.timestamp()) + 61}, "future"),
        ({"nbf": int(NOW.timestamp()) + 61}, "future"),
        ({"jti": None}, "jti"),
        ({"jti": 7}, "jti"),
        ({"jti": "x" * 256}, "jti"),
    ],
)
def test_an_assertion_with_a_wrong_claim_is_refused(changed: dict[str, Any], why: str) -> None:
    assert why in refused(assertion(**changed))


def test_clocks_may_differ_by_some_seconds() -> None:
    check_assertion(client(), assertion(iat=int(NOW.timestamp()) + 9), issuer=ISSUER, now=NOW)


@pytest.mark.parametrize("name", ["none", "None", "HS256", "HS512", "RS1", "ES256K", ""])
def test_an_algorithm_that_is_not_ours_is_refused(name: str) -> None:
    assert "not allowed" in refused(unsigned({"alg": name}))


def test_a_public_key_used_as_an_hmac_secret_is_refused() -> None:
    public = KEYS["RS256"].as_pem(private=False)
    head, body, _ = unsigned({"alg": "HS256"}).split(".")
    mac = hmac.digest(public, f"{head}.{body}".encode(), "sha256")
    assert "not allowed" in refused(unsigned({"alg": "HS256"}, mac))


def test_a_key_is_not_used_with_an_algorithm_it_was_not_registered_for() -> None:
    key = RSAKey.import_key(KEYS["RS256"].as_dict(private=True), {"alg": "PS256"})
    assert "none of the client's keys" in refused(assertion("RS256"), by=client(key))


def test_an_assertion_by_a_foreign_key_is_refused() -> None:
    assert "none of the client's keys" in refused(assertion(), by=client(ECKey.generate_key("P-256")))
    assert "none of the client's keys" in refused(assertion("ES256"), by=client(KEYS["RS256"]))


def test_a_named_key_is_the_one_that_is_used() -> None:
    named = ECKey.import_key(KEYS["ES256"].as_dict(private=True), {"kid": "right"})
    check_assertion(client(named), assertion(header={"kid": "right"}), issuer=ISSUER, now=NOW)
    assert "none of the client's keys" in refused(assertion(header={"kid": "wrong"}), by=client(named))


def test_a_changed_byte_is_noticed() -> None:
    head, body, signature = assertion().split(".")
    forged = base64.urlsafe_b64encode(json.dumps(claims(jti="other")).encode()).rstrip(b"=").decode()
    refused(f"{head}.{forged}.{signature}")
    assert body != forged


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "....", "é.é.é", "x" * 9000, unsigned({"alg": 7}), unsigned({})])
def test_what_is_no_assertion_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("text", ["", "a.b.c", "é.é.é"])
def test_what_is_no_assertion_claims_nobody(text: str) -> None:
    with pytest.raises(RakkanError):
        claimed_client_id(text)


def test_a_header_that_demands_what_we_do_not_know_is_refused() -> None:
    refused(unsigned({"alg": "ES256", "crit": ["b64"], "b64": False}))
    refused(assertion(header={"typ": "at+jwt"}))


def test_a_secret_fits_its_client_and_no_other() -> None:
    secret = new_secret()
    kept = replace(client(), method="client_secret", jwks=None, secret_hash=hash_secret("partner-1", secret))
    check_secret(kept, secret)
    for wrong in ("", secret[:-1], new_secret(), "é"):
        with pytest.raises(RakkanError):
            check_secret(kept, wrong)
    with pytest.raises(RakkanError):
        check_secret(replace(kept, client_id="partner-2"), secret)


def test_a_client_without_a_secret_has_none_that_fits() -> None:
    with pytest.raises(RakkanError):
        check_secret(client(), new_secret())


def test_secrets_are_long_and_never_the_same() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == 47 and secret.startswith("rks_") for secret in made)


def test_public_keys_of_the_allowed_kinds_may_be_registered() -> None:
    check_jwks(jwks(*KEYS.values()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
        '{"keys": ["x"]}',
        json.dumps(KeySet([KEYS["ES256"]]).as_dict(private=True)),
        jwks(*[ECKey.generate_key("P-256") for _ in range(9)]),
        jwks(ECKey.generate_key("secp256k1")),
        jwks(OKPKey.generate_key("X25519")),
        jwks(OKPKey.generate_key("Ed448")),
    ],
)
def test_other_keys_may_not(text: str) -> None:
    with pytest.raises(RakkanError) as refusal:
        check_jwks(text)
    assert refusal.value.code is Code.MALFORMED


def test_failures_are_forgiven_one_by_one() -> None:
    throttle = Throttle(attempts_max=2, attempt_again_s=6.0)
    for _ in range(2):
        assert throttle.wait_s("c", "a", now=NOW) == 0
        throttle.failed("c", "a", now=NOW)
    assert throttle.wait_s("c", "a", now=NOW) == 6
    assert throttle.wait_s("c", "b", now=NOW) == 0
    assert throttle.wait_s("c", "a", now=NOW + timedelta(seconds=6)) == 0
    throttle.failed("c", "a", now=NOW + timedelta(seconds=6))
    assert throttle.wait_s("c", "a", now=NOW + timedelta(seconds=6)) == 6
    assert throttle.wait_s("c", "a", now=NOW + timedelta(hours=1)) == 0


def test_the_counters_have_a_limit() -> None:
    throttle = Throttle(attempts_max=1, attempt_again_s=6.0)
    for number in range(10_050):
        throttle.failed("c", str(number), now=NOW)
    assert len(throttle._buckets) == 10_000

"""DPoP proofs where a bound token is used: for this token, by its key, once."""

import hashlib
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from shared.dpop import ReplayMemory, check_proof
from shared.errors import Code, RakkanError

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
URL = "https://rssp.example/csc/v2/signatures/signHash"
TOKEN = "header.claims.mark"
KEY = ECKey.generate_key("P-256")


def ath(token: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def proof(*, key: ECKey = KEY, **changed: Any) -> str:
    claims = {"htm": "POST", "htu": URL, "iat": int(NOW.timestamp()), "jti": "one", "ath": ath(TOKEN)} | changed
    head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
    return jwt.encode(head, {n: v for n, v in claims.items() if v is not None}, key, algorithms=["ES256"])


def check(text: str, seen: ReplayMemory, *, now: datetime = NOW) -> None:
    check_proof(text, method="POST", url=URL, access_token=TOKEN, key_thumbprint=KEY.thumbprint(), now=now, seen=seen)


def test_a_proof_is_good_once() -> None:
    seen = ReplayMemory()
    check(proof(), seen)
    with pytest.raises(RakkanError, match="used before"):
        check(proof(), seen)
    check(proof(jti="two"), seen)


@pytest.mark.parametrize(
    "changed", [{"ath": None}, {"ath": ath("another")}, {"ath": ""}, {"ath": 1}, {"htm": "GET"}, {"htu": URL + "/"}]
)
def test_a_proof_for_something_else_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(RakkanError) as refusal:
        check(proof(**changed), ReplayMemory())
    assert refusal.value.code is Code.TOKEN_INVALID


def test_a_proof_by_another_key_is_refused() -> None:
    with pytest.raises(RakkanError, match="another key"):
        check(proof(key=ECKey.generate_key("P-256")), ReplayMemory())


def test_what_is_forgotten_is_too_old_to_be_good() -> None:
    """No moment exists at which a proof is good and its first use is forgotten."""
    for skew_s in (-60, -30, 0, 10):
        seen = ReplayMemory()
        text = proof(iat=int((NOW + timedelta(seconds=skew_s)).timestamp()))
        check(text, seen)
        for later_s in range(0, 120, 3):
            later = NOW + timedelta(seconds=later_s)
            check_another = proof(jti=f"at {later_s}", iat=int(later.timestamp()))
            check(check_another, seen, now=later)
            with pytest.raises(RakkanError):
                check(text, seen, now=later)


def test_a_full_memory_refuses_rather_than_forgets() -> None:
    seen = ReplayMemory(proofs_max=2)
    check(proof(jti="1"), seen)
    check(proof(jti="2"), seen)
    with pytest.raises(RakkanError) as refusal:
        check(proof(jti="3"), seen)
    assert refusal.value.code is Code.OVERLOADED
    later = NOW + timedelta(seconds=81)
    check(proof(jti="3", iat=int(later.timestamp())), seen, now=later)

"""Reading access tokens: what is remembered of a token never answers for its times or its bytes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import KeySet, OKPKey

from shared.errors import Code, RakkanError
from shared.tokens import AccessToken, TokenReader, write_token
from shared.trust import SigningKey, key_id_of

NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
TOKEN = AccessToken("token-1", "https://issuer", "client", "tenant", "service", NOW, NOW + timedelta(hours=1))


@pytest.fixture
def key() -> SigningKey:
    private = Ed25519PrivateKey.generate()
    return SigningKey(key_id_of(private.public_key()), private)


def reader_of(key: SigningKey, *, remembered_max: int = 2) -> TokenReader:
    keys = KeySet([OKPKey.import_key(key.key.public_key(), {"kid": key.key_id, "use": "sig"})])
    return TokenReader(keys, remembered_max=remembered_max)


def test_a_token_says_the_same_each_time(key: SigningKey) -> None:
    reader, text = reader_of(key), write_token(TOKEN, key)
    assert [reader.read(text, now=NOW) for _ in range(2)] == [TOKEN, TOKEN]


def test_a_token_that_was_good_is_refused_once_it_has_expired(key: SigningKey) -> None:
    reader, text = reader_of(key), write_token(TOKEN, key)
    reader.read(text, now=NOW)
    with pytest.raises(RakkanError) as refusal:
        reader.read(text, now=TOKEN.expires_at)
    assert refusal.value.code is Code.TOKEN_EXPIRED


def test_a_token_with_another_signature_is_refused_after_the_good_one(key: SigningKey) -> None:
    reader, text = reader_of(key), write_token(TOKEN, key)
    reader.read(text, now=NOW)
    head, _, signature = text.rpartition(".")
    for changed in (f"{head}.{'A' * len(signature)}", f"{head}.", head, text + "A", text.swapcase()):
        with pytest.raises(RakkanError) as refusal:
            reader.read(changed, now=NOW)
        assert refusal.value.code is Code.TOKEN_INVALID


def test_a_token_of_another_key_is_refused_each_time(key: SigningKey) -> None:
    other = Ed25519PrivateKey.generate()
    text = write_token(TOKEN, SigningKey(key.key_id, other))
    reader = reader_of(key)
    for _ in range(2):
        with pytest.raises(RakkanError) as refusal:
            reader.read(text, now=NOW)
        assert refusal.value.code is Code.TOKEN_INVALID


def test_no_more_tokens_are_remembered_than_allowed(key: SigningKey) -> None:
    reader = reader_of(key, remembered_max=2)
    texts = [write_token(replace(TOKEN, token_id=f"token-{number}"), key) for number in range(5)]
    assert [reader.read(text, now=NOW).token_id for text in [*texts, *texts]] == [f"token-{n}" for n in range(5)] * 2
    assert len(reader._verified) == 2

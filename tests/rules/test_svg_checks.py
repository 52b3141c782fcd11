"""What the SVG verifies by itself: each refusal has a test that tries it."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.svg.checks import (
    Key,
    check_attributes,
    check_generating,
    check_key,
    check_same,
    check_signing,
    check_use,
    content_hash_of,
)
from services.svg.wrapping import KeyAttributes
from shared.activation import Use
from shared.algorithms import Hash, KeyAlgorithm, Profile, Scheme
from shared.errors import Code, RakkanError
from tests.support.activations import NOW, SAM

PUBLIC_KEY = b"a public key"
KEY = Key(
    attributes=KeyAttributes(
        key_id="key-1",
        owner="tenant/signer",
        kind="signature",
        key_algorithm=KeyAlgorithm.P256,
        profile=Profile.EU,
        signatures_max=10,
        public_key_hash=hashlib.sha256(PUBLIC_KEY).digest(),
        kek="kek-1",
    ),
    public_key=PUBLIC_KEY,
    wrapped=b"wrapped",
    content_hash=bytes(32),
)
sam = SAM()


def refusal_of(changes: dict[str, Any], *messages: bytes) -> Code:
    with pytest.raises(RakkanError) as refusal:
        check_signing(sam.to_sign(PUBLIC_KEY, *(messages or (b"a", b"b")), **changes), now=NOW)
    return refusal.value.code


def test_an_honest_activation_passes() -> None:
    check_signing(sam.to_sign(PUBLIC_KEY, b"a", b"b"), now=NOW)


@pytest.mark.parametrize("use", [Use.GENERATE, Use.DESTROY])
def test_an_activation_for_another_use_signs_nothing(use: Use) -> None:
    assert refusal_of({"use": use}) is Code.ACTIVATION_REFUSED


@pytest.mark.parametrize("use", [Use.SIGN, Use.CSR, Use.GENERATE])
def test_an_activation_for_another_use_destroys_nothing(use: Use) -> None:
    with pytest.raises(RakkanError) as refusal:
        check_use(sam.activation(use=use), Use.DESTROY)
    assert refusal.value.code is Code.ACTIVATION_REFUSED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"public_key_hash": None}, Code.ACTIVATION_REFUSED),
        ({"digests": (), "occurrences": ()}, Code.ACTIVATION_REFUSED),
        ({"authorization_id": None}, Code.ACTIVATION_REFUSED),
        ({"occurrences": ()}, Code.ACTIVATION_REFUSED),
        ({"occurrences": (0,)}, Code.ACTIVATION_REFUSED),
        ({"occurrences": (0, 0)}, Code.ACTIVATION_REFUSED),
        ({"signatures_max": 1}, Code.TOO_MANY_SIGNATURES),
        ({"scheme": None}, Code.ACTIVATION_REFUSED),
        ({"hash": None}, Code.ACTIVATION_REFUSED),
        ({"digests": (bytes(32), bytes(31))}, Code.DIGEST_LENGTH),
        ({"hash": Hash.SHA512}, Code.DIGEST_LENGTH),
        ({"scheme": Scheme.RSA_PKCS1}, Code.SIGN_ALGORITHM_REFUSED),
        ({"scheme": Scheme.ED25519}, Code.SIGN_ALGORITHM_REFUSED),
        ({"salt_bytes": 32}, Code.SIGN_PARAMETERS_REFUSED),
        ({"key_algorithm": KeyAlgorithm.RSA3072, "salt_bytes": None}, Code.SIGN_PARAMETERS_REFUSED),
        ({"key_algorithm": KeyAlgorithm.RSA3072, "salt_bytes": 351}, Code.SIGN_PARAMETERS_REFUSED),
        ({"key_algorithm": KeyAlgorithm.RSA2048}, Code.SIGN_ALGORITHM_REFUSED),  # the profile `eu` ended it
    ],
)
def test_an_activation_that_may_not_be_obeyed_is_refused(changes: dict[str, Any], code: Code) -> None:
    assert refusal_of(changes) is code


def test_an_algorithm_signs_until_its_last_day_and_not_after() -> None:
    activation = sam.to_sign(PUBLIC_KEY, b"a", key_algorithm=KeyAlgorithm.RSA2048, profile=Profile.JP)
    end = datetime(2031, 1, 1, tzinfo=UTC)
    check_signing(activation, now=end - timedelta(seconds=1))
    with pytest.raises(RakkanError) as refusal:
        check_signing(activation, now=end)
    assert refusal.value.code is Code.SIGN_ALGORITHM_REFUSED


@pytest.mark.parametrize(
    "changes",
    [{}, {"authorization_id": None}, {"occurrences": ()}, {"authorization_id": None, "occurrences": (), "digests": ()}],
)
def test_a_certificate_request_spends_nothing_and_is_one_digest(changes: dict[str, Any]) -> None:
    assert refusal_of({"use": Use.CSR, **changes}) is Code.ACTIVATION_REFUSED


def test_an_honest_certificate_request_passes() -> None:
    check_signing(sam.to_sign(PUBLIC_KEY, b"a", use=Use.CSR, authorization_id=None, occurrences=()), now=NOW)


def ed25519(use: Use, message: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {"key_algorithm": KeyAlgorithm.ED25519, "hash": Hash.SHA512, "digests": (message,)}
    return facts | ({"authorization_id": None, "occurrences": ()} if use is Use.CSR else {}) | {"use": use}


@pytest.mark.parametrize("length", [65, 4096])
def test_ed25519_gets_a_certificate_request_as_it_is(length: int) -> None:
    check_signing(sam.to_sign(PUBLIC_KEY, b"a", **ed25519(Use.CSR, bytes(length))), now=NOW)


@pytest.mark.parametrize(("use", "length"), [(Use.CSR, 32), (Use.CSR, 64), (Use.CSR, 4097), (Use.SIGN, 200)])
def test_neither_a_digest_passes_for_a_request_nor_a_request_for_a_digest(use: Use, length: int) -> None:
    assert refusal_of(ed25519(use, bytes(length)), b"a") is Code.DIGEST_LENGTH


@pytest.mark.parametrize(
    "changes", [{"use": Use.SIGN}, {"public_key_hash": bytes(32)}, {"digests": (bytes(32),)}, {"occurrences": (0,)}]
)
def test_a_generation_that_names_more_than_a_key_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RakkanError) as refusal:
        check_generating(sam.activation(**changes), now=NOW)
    assert refusal.value.code is Code.ACTIVATION_REFUSED


def test_a_key_of_an_ended_algorithm_is_not_made() -> None:
    with pytest.raises(RakkanError) as refusal:
        check_generating(sam.activation(key_algorithm=KeyAlgorithm.RSA2048), now=NOW)
    assert refusal.value.code is Code.SIGN_ALGORITHM_REFUSED


def test_the_key_that_is_meant_is_used() -> None:
    assert check_key(sam.to_sign(PUBLIC_KEY, b"a"), KEY) is KEY


@pytest.mark.parametrize("key", [None, replace(KEY, wrapped=None)])
def test_a_key_that_is_not_there_or_destroyed_is_unknown(key: Key | None) -> None:
    with pytest.raises(RakkanError) as refusal:
        check_key(sam.to_sign(PUBLIC_KEY, b"a"), key)
    assert refusal.value.code is Code.KEY_UNKNOWN


@pytest.mark.parametrize(
    "changes",
    [
        {"key_id": "key-2"},
        {"owner": "tenant/other"},
        {"kind": "seal"},
        {"key_algorithm": KeyAlgorithm.P384},
        {"profile": Profile.JP},
        {"signatures_max": 9},
        {"public_key_hash": bytes(32)},
    ],
)
def test_every_attribute_of_the_key_is_the_one_activated(changes: dict[str, Any]) -> None:
    with pytest.raises(RakkanError) as refusal:
        check_attributes(sam.to_sign(PUBLIC_KEY, b"a", **changes), KEY)
    assert refusal.value.code is Code.ACTIVATION_REFUSED
    assert next(iter(changes)) in refusal.value.detail


def test_a_public_key_exchanged_in_the_database_is_refused() -> None:
    with pytest.raises(RakkanError) as refusal:
        check_attributes(sam.to_sign(PUBLIC_KEY, b"a"), replace(KEY, public_key=b"another"))
    assert refusal.value.code is Code.ACTIVATION_REFUSED


def test_the_same_order_is_the_same_at_another_time() -> None:
    activation = sam.to_sign(PUBLIC_KEY, b"a")
    later = activation.model_copy(update={"issued_at": NOW + timedelta(hours=1), "expires_at": NOW + timedelta(days=1)})
    check_same(later, content_hash_of(activation))


@pytest.mark.parametrize(
    "changes", [{"digests": (bytes(32),)}, {"occurrences": (5,)}, {"authorization_id": "other"}, {"owner": "x/y"}]
)
def test_the_same_operation_with_other_content_is_spent(changes: dict[str, Any]) -> None:
    activation = sam.to_sign(PUBLIC_KEY, b"a")
    with pytest.raises(RakkanError) as refusal:
        check_same(activation.model_copy(update=changes), content_hash_of(activation))
    assert refusal.value.code is Code.ACTIVATION_SPENT

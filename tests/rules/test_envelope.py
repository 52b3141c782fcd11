"""What a sealed message refuses when anything in it is altered, forged, misdirected or late."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import Code, RakkanError
from shared.messaging.envelope import Envelope, check_answer, check_route, open_envelope, seal_envelope
from shared.messaging.topology import MESSAGE_BYTES_MAX, route_of
from shared.trust import Purpose, SigningKey, Trust, key_id_of

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def new_key() -> SigningKey:
    key = Ed25519PrivateKey.generate()
    return SigningKey(key_id_of(key.public_key()), key)


GATEWAY, OLD_GATEWAY, SVG = new_key(), new_key(), new_key()
TRUST = Trust(
    epoch=3,
    verifying={
        ("gateway", Purpose.MESSAGES): {key.key_id: key.key.public_key() for key in (GATEWAY, OLD_GATEWAY)},
        ("svg", Purpose.MESSAGES): {SVG.key_id: SVG.key.public_key()},
    },
    sealing={},
)
ENVELOPE = Envelope(
    type="sam.sign_hash.v1",
    sender="gateway",
    recipient="sam",
    message_id="a1",
    answers="",
    operation_id="op",
    issued_at=NOW,
    expires_at=NOW + timedelta(seconds=10),
    epoch=3,
    body=b'{"x":1}',
)


def opened(sealed: bytes, *, now: datetime = NOW) -> Envelope:
    return open_envelope(sealed, recipient="sam", trust=TRUST, now=now)


def refusal(sealed: bytes, *, now: datetime = NOW) -> Code:
    with pytest.raises(RakkanError) as refused:
        opened(sealed, now=now)
    return refused.value.code


def test_what_was_sealed_is_opened() -> None:
    assert opened(seal_envelope(ENVELOPE, GATEWAY)) == ENVELOPE


def test_both_keys_of_a_rotation_are_accepted() -> None:
    assert opened(seal_envelope(ENVELOPE, OLD_GATEWAY)) == ENVELOPE


@pytest.mark.parametrize(
    "change",
    [
        {"type": "sam.authorize.v1"},
        {"sender": "svg"},
        {"recipient": "svg"},
        {"message_id": "a2"},
        {"answers": "b1"},
        {"operation_id": "other"},
        {"issued_at": NOW - timedelta(seconds=1)},
        {"expires_at": NOW + timedelta(days=1)},
        {"epoch": 4},
        {"body": b'{"x":2}'},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_altered_field_breaks_the_signature(change: dict[str, object]) -> None:
    signature = seal_envelope(ENVELOPE, GATEWAY)[-64:]
    altered = seal_envelope(replace(ENVELOPE, **change), GATEWAY)[:-64] + signature
    assert refusal(altered) is Code.FORBIDDEN


def test_every_flipped_byte_is_refused() -> None:
    sealed = seal_envelope(ENVELOPE, GATEWAY)
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= 1
        assert refusal(bytes(flipped)) in {Code.FORBIDDEN, Code.MALFORMED}


def test_every_truncation_is_refused() -> None:
    sealed = seal_envelope(ENVELOPE, GATEWAY)
    for length in range(len(sealed)):
        assert refusal(sealed[:length]) in {Code.FORBIDDEN, Code.MALFORMED}


def test_a_message_signed_by_another_room_is_refused() -> None:
    assert refusal(seal_envelope(ENVELOPE, SVG)) is Code.FORBIDDEN


def test_a_sender_outside_the_trust_bundle_is_refused() -> None:
    assert refusal(seal_envelope(replace(ENVELOPE, sender="mallory"), new_key())) is Code.FORBIDDEN


def test_a_message_for_another_room_is_refused() -> None:
    assert refusal(seal_envelope(replace(ENVELOPE, recipient="svg"), GATEWAY)) is Code.FORBIDDEN


def test_a_message_from_before_a_restore_is_refused() -> None:
    assert refusal(seal_envelope(replace(ENVELOPE, epoch=2), GATEWAY)) is Code.FORBIDDEN


def test_an_expired_message_and_one_from_the_future_are_refused() -> None:
    sealed = seal_envelope(ENVELOPE, GATEWAY)
    assert refusal(sealed, now=NOW + timedelta(seconds=10)) is Code.EXPIRED
    assert refusal(sealed, now=NOW - timedelta(minutes=1)) is Code.EXPIRED


def test_a_message_too_large_is_neither_sent_nor_read() -> None:
    with pytest.raises(RakkanError) as refused:
        seal_envelope(replace(ENVELOPE, body=b"x" * MESSAGE_BYTES_MAX), GATEWAY)
    assert refused.value.code is Code.TOO_LARGE
    assert refusal(b"rakkan-message/1\0" + b"x" * MESSAGE_BYTES_MAX) is Code.TOO_LARGE


@pytest.mark.parametrize(
    ("change", "queue"),
    [
        ({"type": "svg.sign_digests.v1"}, "sam.requests"),
        ({"type": "sam.prepare_credential.v1"}, "sam.requests"),
        ({"type": "sam.add_signer.v1"}, "sam.requests"),
        ({"type": "sam.no_such_thing.v1"}, "sam.requests"),
        ({}, "sam.jobs"),
        ({"sender": "svg"}, "sam.requests"),
    ],
    ids=["of another listener", "a job asked", "not for this caller", "unknown", "wrong queue", "wrong sender"],
)
def test_a_route_is_refused(change: dict[str, str], queue: str) -> None:
    with pytest.raises(RakkanError) as refused:
        check_route(replace(ENVELOPE, **change), queue=queue)
    assert refused.value.code is Code.FORBIDDEN


@pytest.mark.parametrize(
    "change", [{"sender": "gateway"}, {"type": "sam.authorize.v1.reply"}, {"type": "sam.sign_hash.v1"}]
)
def test_only_the_listener_that_was_asked_can_answer(change: dict[str, str]) -> None:
    answer = replace(ENVELOPE, sender="sam", recipient="gateway", type="sam.sign_hash.v1.reply", answers="a1")
    check_answer(answer, route_of("sam.sign_hash.v1"))
    with pytest.raises(RakkanError):
        check_answer(replace(answer, **change), route_of("sam.sign_hash.v1"))

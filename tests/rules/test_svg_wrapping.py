"""The outer envelope of a wrapped key: it opens for what it was closed for, and for nothing else."""

import base64
import secrets
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.svg.wrapping import (
    KeyAttributes,
    associated_data,
    close_envelope,
    open_envelope,
    outer_secret_input,
    share_of,
)
from shared.algorithms import KeyAlgorithm, Profile
from shared.errors import Code, RakkanError
from shared.sealing import Secrets

SECRET, SHARE = bytes(range(32)), bytes(range(32, 64))
INNER = b"W" + bytes(80)
ATTRIBUTES = KeyAttributes(
    key_id="key-1",
    owner="tenant/signer",
    kind="signature",
    key_algorithm=KeyAlgorithm.P256,
    profile=Profile.EU,
    signatures_max=5,
    public_key_hash=bytes(32),
    kek="kek-1",
)


def refused(wrapped: bytes, attributes: KeyAttributes, secret: bytes = SECRET, share: bytes = SHARE) -> Code:
    with pytest.raises(RakkanError) as refusal:
        open_envelope(wrapped, attributes, secret=secret, share=share)
    return refusal.value.code


def test_what_was_closed_opens() -> None:
    wrapped = close_envelope(INNER, ATTRIBUTES, secret=SECRET, share=SHARE)
    assert open_envelope(wrapped, ATTRIBUTES, secret=SECRET, share=SHARE) == INNER


def test_two_envelopes_of_one_key_differ() -> None:
    assert close_envelope(INNER, ATTRIBUTES, secret=SECRET, share=SHARE) != close_envelope(
        INNER, ATTRIBUTES, secret=SECRET, share=SHARE
    )


@pytest.mark.parametrize(
    "edit",
    [
        {"key_id": "key-2"},
        {"owner": "tenant/other"},
        {"kind": "seal"},
        {"key_algorithm": KeyAlgorithm.P384},
        {"profile": Profile.JP},
        {"signatures_max": 1000},
        {"public_key_hash": bytes(31) + b"\1"},
        {"kek": "kek-2"},
        {"envelope_version": 2},
    ],
)
def test_an_edited_attribute_damages_the_key(edit: dict[str, Any]) -> None:
    wrapped = close_envelope(INNER, ATTRIBUTES, secret=SECRET, share=SHARE)
    assert refused(wrapped, replace(ATTRIBUTES, **edit)) is Code.KEY_DAMAGED


def test_another_share_opens_nothing() -> None:
    wrapped = close_envelope(INNER, ATTRIBUTES, secret=SECRET, share=SHARE)
    assert refused(wrapped, ATTRIBUTES, share=secrets.token_bytes(32)) is Code.KEY_DAMAGED


def test_another_hsm_opens_nothing() -> None:
    wrapped = close_envelope(INNER, ATTRIBUTES, secret=SECRET, share=SHARE)
    assert refused(wrapped, ATTRIBUTES, secret=secrets.token_bytes(32)) is Code.KEY_DAMAGED


@given(place=st.integers(0, 12 + 81 + 16 - 1), bit=st.integers(0, 7))
def test_every_bit_of_the_envelope_counts(place: int, bit: int) -> None:
    wrapped = bytearray(close_envelope(INNER, ATTRIBUTES, secret=SECRET, share=SHARE))
    wrapped[place] ^= 1 << bit
    assert refused(bytes(wrapped), ATTRIBUTES) is Code.KEY_DAMAGED


@given(length=st.integers(0, 27))
def test_a_stump_is_a_damaged_key(length: int) -> None:
    wrapped = close_envelope(INNER, ATTRIBUTES, secret=SECRET, share=SHARE)
    assert refused(wrapped[:length], ATTRIBUTES) is Code.KEY_DAMAGED


def test_an_envelope_put_under_another_key_opens_nothing() -> None:
    other = replace(ATTRIBUTES, key_id="key-2")
    wrapped = close_envelope(INNER, other, secret=SECRET, share=SHARE)
    assert refused(wrapped, ATTRIBUTES) is Code.KEY_DAMAGED


@given(first=st.tuples(st.text(), st.text()), second=st.tuples(st.text(), st.text()))
def test_two_sets_of_attributes_never_have_the_same_bytes(first: tuple[str, str], second: tuple[str, str]) -> None:
    one = associated_data(replace(ATTRIBUTES, key_id=first[0], owner=first[1]))
    two = associated_data(replace(ATTRIBUTES, key_id=second[0], owner=second[1]))
    assert (one == two) == (first == second)


def test_each_key_has_an_hsm_secret_of_its_own() -> None:
    assert outer_secret_input("key-1") != outer_secret_input("key-2")


@pytest.mark.parametrize("text", [None, "", "no base64!", base64.b64encode(bytes(31)).decode()])
def test_what_is_no_share_is_malformed(text: str | None) -> None:
    with pytest.raises(RakkanError) as refusal:
        share_of(Secrets.of(share=text))
    assert refusal.value.code is Code.MALFORMED


def test_a_share_is_its_32_bytes() -> None:
    assert share_of(Secrets.of(share=base64.b64encode(SHARE).decode())) == SHARE

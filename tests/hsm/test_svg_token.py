"""The SVG's token work against a real SoftHSM: both layers of the wrapping, and the ceremony."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from services.svg.ceremony import Ceremony, Settings, perform
from services.svg.checks import Key
from services.svg.token import SVGToken
from services.svg.wrapping import KeyAttributes
from shared.algorithms import Hash, KeyAlgorithm, Profile, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.hsm import Token
from shared.verification import verify_all
from tests.support.softhsm import SO_PIN, make_token, seen

ECDSA = SignatureAlgorithm(Scheme.ECDSA, Hash.SHA256)
DIGESTS = tuple(hashlib.sha256(bytes([n])).digest() for n in range(5))
SHARE = bytes(range(32))


@pytest.fixture(scope="module")
async def token(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SVGToken]:
    folder = tmp_path_factory.mktemp("svg")
    settings = make_token(folder)
    (folder / "so_pin").write_text(SO_PIN)
    with seen(folder):
        ceremony = Settings(hsm=settings, ceremony=Ceremony(so_pin_file=folder / "so_pin"))
        await perform(ceremony)
        await perform(ceremony)
        async with Token.open(settings) as opened:
            yield SVGToken(opened, kek="kek-1")


async def made(token: SVGToken, key_id: str) -> Key:
    new = await token.generate(KeyAlgorithm.P256)
    attributes = KeyAttributes(
        key_id=key_id,
        owner="tenant/signer",
        kind="signature",
        key_algorithm=KeyAlgorithm.P256,
        profile=Profile.EU,
        signatures_max=5,
        public_key_hash=hashlib.sha256(new.public_key).digest(),
        kek="kek-1",
    )
    wrapped = await token.assign(new, attributes, SHARE)
    return Key(attributes, new.public_key, wrapped.wrapped, bytes(32), wrapped.resident)


async def refusal_of(token: SVGToken, key: Key, share: bytes = SHARE) -> Code:
    with pytest.raises(RakkanError) as refusal:
        await token.sign(key, share, ECDSA, DIGESTS)
    return refusal.value.code


async def test_a_key_signs_with_its_share(token: SVGToken) -> None:
    key = await made(token, "one")
    verify_all(key.public_key, ECDSA, DIGESTS, await token.sign(key, SHARE, ECDSA, DIGESTS))


async def test_without_its_share_the_hsm_opens_no_key(token: SVGToken) -> None:
    assert await refusal_of(token, await made(token, "two"), secrets.token_bytes(32)) is Code.KEY_DAMAGED


@pytest.mark.parametrize("edit", [{"owner": "tenant/thief"}, {"signatures_max": 1000}, {"kek": "kek-0"}])
async def test_edited_attributes_open_no_key(token: SVGToken, edit: dict[str, Any]) -> None:
    key = await made(token, "three")
    assert await refusal_of(token, replace(key, attributes=replace(key.attributes, **edit))) is Code.KEY_DAMAGED


async def test_a_swapped_key_opens_nothing(token: SVGToken) -> None:
    key, other = await made(token, "four"), await made(token, "five")
    assert await refusal_of(token, replace(key, wrapped=other.wrapped)) is Code.KEY_DAMAGED


async def test_a_public_key_of_another_stops_the_value(token: SVGToken) -> None:
    key, other = await made(token, "six"), await made(token, "seven")
    assert await refusal_of(token, replace(key, public_key=other.public_key)) is Code.KEY_DAMAGED


async def test_a_room_that_names_another_kek_is_not_ready(token: SVGToken) -> None:
    await token.probe()
    with pytest.raises(RakkanError) as refusal:
        await SVGToken(token._token, kek="kek-9").probe()
    assert refusal.value.code is Code.KEY_UNKNOWN

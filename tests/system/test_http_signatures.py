"""Signatures through the partners' door, every kind of key: real facts in the answer, the database and the audit."""

import asyncio
import hashlib
import secrets

import pytest

from tests.support.partner import sad_hash
from tests.support.signatures import (
    ECDSA_BARE_SHA512,
    ECDSA_SHA256,
    ECDSA_SHA384,
    ED25519_SHA512,
    RSA_BARE_SHA512,
    RSA_SHA256,
    Way,
    pss,
    verify,
)
from tests.support.world import MIDORI, P256, PINS, World

PIN = PINS[MIDORI]


def digests(count: int, hash_: str = "sha256") -> list[bytes]:
    return [hashlib.new(hash_, secrets.token_bytes(16)).digest() for _ in range(count)]


@pytest.mark.parametrize(
    ("key", "way"),
    [
        ("p256", ECDSA_SHA256),
        ("p256", ECDSA_BARE_SHA512),
        ("p384", ECDSA_SHA384),
        ("p521", ECDSA_BARE_SHA512),
        ("rsa3072", RSA_SHA256),
        ("rsa3072", pss("sha384", 48)),
        ("rsa4096", RSA_BARE_SHA512),
        ("rsa4096", pss("sha512", 64)),
        ("ed25519", ED25519_SHA512),
        ("rsa2048", RSA_SHA256),
        ("rsa2048", pss("sha256", 32)),
        ("rsa2048", pss("sha256", 222)),  # the longest salt that fits: RFC 8017 9.1.1
        ("rsa2048", pss("sha256", 0)),
    ],
)
async def test_each_kind_of_key_makes_values_its_certificate_verifies(world: World, key: str, way: Way) -> None:
    credential, asked = f"midori-{key}", digests(3, way.hash)
    sad = await world.acme.authorize(credential, *asked, pin=PIN)
    answer = await world.acme.sign(credential, sad, *asked, way=way)
    verify(await world.acme.certificate(credential), way, asked, answer.values)


async def test_a_salt_longer_than_the_key_allows_is_refused(world: World) -> None:
    asked = digests(1)
    sad = await world.acme.authorize("midori-rsa2048", *asked, pin=PIN)
    answer = await world.acme.sign("midori-rsa2048", sad, *asked, way=pss("sha256", 223))
    assert answer.refusal == (400, "invalid_request", "Invalid parameter signAlgoParams")
    assert (await world.acme.sign("midori-rsa2048", sad, *asked, way=pss("sha256", 222))).status == 200


async def test_the_same_request_again_has_the_same_values(world: World) -> None:
    asked = digests(4)
    sad = await world.acme.authorize(P256, *asked, pin=PIN)
    answers = [await world.acme.sign(P256, sad, *asked) for _ in range(3)]
    assert len({answer.values for answer in answers}) == 1
    assert await operations_of(world, sad) == [answers[0].values]


async def test_a_hundred_uses_of_one_sad_at_once_are_one_signature(world: World) -> None:
    asked = digests(2)
    sad = await world.acme.authorize(P256, *asked, pin=PIN)
    answers = await asyncio.gather(*(world.acme.sign(P256, sad, *asked) for _ in range(100)))
    made = {answer.values for answer in answers if answer.status == 200}
    assert {answer.refusal[:2] for answer in answers if answer.status != 200} <= {(503, "temporarily_unavailable")}
    assert len(made) == 1
    verify(await world.acme.certificate(P256), ECDSA_SHA256, asked, next(iter(made)))
    assert await operations_of(world, sad) == [next(iter(made))]
    assert await world.leaves("sam", "key.activated", sad_hash=sad_hash(sad).hex()) == 1


async def test_one_sad_in_parts_spends_each_hash_once(world: World) -> None:
    asked = digests(6)
    sad = await world.acme.authorize(P256, *asked, pin=PIN)
    answers = await asyncio.gather(*(world.acme.sign(P256, sad, digest) for digest in asked * 3))
    values = {answer.values for answer in answers}
    assert len(values) == 6
    assert set(await operations_of(world, sad)) == values


async def operations_of(world: World, sad: str) -> list[tuple[bytes, ...]]:
    """The values the SVG has recorded under this authorization, one entry for each operation."""
    rows = await world.fetch(
        """
        select distinct o.operation_id, o.state, o.signature_values
        from sam.authorizations a
        join svg.spent_occurrences s using (authorization_id)
        join svg.operations o on o.operation_id = s.operation_id
        where a.sad_hash = $1
        """,
        sad_hash(sad),
    )
    assert {row["state"] for row in rows} <= {"done"}
    return [tuple(row["signature_values"]) for row in rows]

"""An administrator of the database who edits rows: no key signs for another, and the suite says that it was noticed."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.partner import sad_hash
from tests.support.world import MIDORI, P256, PINS, TARO, World

ERROR = (500, "server_error", "")
PIN = PINS[MIDORI]
KEY = f"(select key_id from sam.credentials where credential_id = '{P256}')"
TARO_ID = "(select signer_id from sam.signers where user_id = 'taro')"
TARO_PIN = "(select pin_salt, pin_verifier from sam.signers where user_id = 'taro')"
TARO_KEY = "(select key_id from sam.credentials where credential_id = 'taro-p256')"


@asynccontextmanager
async def edited(world: World, edit: str, table: str, where: str) -> AsyncIterator[None]:
    """The row as it was comes back afterwards."""
    kept = f"kept_{secrets.token_hex(4)}"
    await world.edit(f"create table public.{kept} as select * from {table} where {where}", edit)
    try:
        changed = f"select * from {table} where {where} except select * from public.{kept}"
        assert await world.fetch(changed)
        yield
    finally:
        await world.edit(
            f"delete from {table} where {where}",
            f"insert into {table} select * from public.{kept}",
            f"drop table public.{kept}",
        )


async def signs(world: World, credential_id: str, user: str) -> None:
    digest = secrets.token_bytes(32)
    sad = await world.acme.authorize(credential_id, digest, pin=PINS[user])
    assert (await world.acme.sign(credential_id, sad, digest)).status == 200


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (f"wrapped = (select wrapped from svg.keys where key_id = {TARO_KEY})", "key_damaged"),
        ("wrapped = set_byte(wrapped, 40, get_byte(wrapped, 40) # 1)", "key_damaged"),
        ("wrapped = substr(wrapped, 1, 60)", "key_damaged"),
        ("kek = 'svg-outer'", "key_damaged"),
        ("owner = 'acme/another'", "activation_refused"),
        ("kind = 'seal'", "activation_refused"),
        ("profile = 'jp'", "activation_refused"),
        ("signatures_max = 1000", "activation_refused"),
        ("key_algorithm = 'p384'", "activation_refused"),
        (
            "(public_key, public_key_hash) = (public_key || '\\x00', sha256(public_key || '\\x00'))",
            "activation_refused",
        ),
    ],
)
async def test_an_edited_key_signs_nothing_and_is_audited(world: World, edit: str, reason: str) -> None:
    digest = secrets.token_bytes(32)
    sad = await world.acme.authorize(P256, digest, pin=PIN)
    before = await world.leaves("svg", "key.use_refused", reason_code=reason)
    row = f"key_id = {KEY}"
    async with edited(world, f"update svg.keys set {edit} where {row}", "svg.keys", row):
        assert (await world.acme.sign(P256, sad, digest)).refusal == ERROR
        assert await world.leaves("svg", "key.use_refused", reason_code=reason) == before + 1
    assert (await world.acme.sign(P256, sad, digest)).status == 200


async def test_two_keys_exchanged_sign_for_neither(world: World) -> None:
    digest = secrets.token_bytes(32)
    sads = {
        P256: await world.acme.authorize(P256, digest, pin=PIN),
        "taro-p256": await world.acme.authorize("taro-p256", digest, pin=PINS[TARO]),
    }
    exchange = (
        f"update svg.keys set wrapped = (select wrapped from svg.keys other where other.key_id in ({KEY}, {TARO_KEY})"
        f" and other.key_id <> keys.key_id) where key_id in ({KEY}, {TARO_KEY})"
    )
    async with edited(world, exchange, "svg.keys", f"key_id in ({KEY}, {TARO_KEY})"):
        for credential_id, sad in sads.items():
            assert (await world.acme.sign(credential_id, sad, digest)).refusal == ERROR
    for credential_id, sad in sads.items():
        assert (await world.acme.sign(credential_id, sad, digest)).status == 200


@pytest.mark.parametrize(
    ("table", "edit", "where"),
    [
        ("sam.credentials", "signatures_max = 1000", f"credential_id = '{P256}'"),
        ("sam.credentials", "otp_required = not otp_required", f"credential_id = '{P256}'"),
        ("sam.credentials", "key_id = key_id || 'x'", f"credential_id = '{P256}'"),
        ("sam.credentials", f"signer_id = {TARO_ID}", f"credential_id = '{P256}'"),
        ("sam.signers", "tenant_id = 'rival'", f"user_id = '{MIDORI}'"),
        ("sam.signers", "pin_tries_left = 10", f"user_id = '{MIDORI}'"),
        ("sam.signers", f"(pin_salt, pin_verifier) = {TARO_PIN}", f"user_id = '{MIDORI}'"),
    ],
)
async def test_an_edited_row_of_the_sam_is_not_used(world: World, table: str, edit: str, where: str) -> None:
    async with edited(world, f"update {table} set {edit} where {where}", table, where):
        answer = await world.acme.ask_sad(P256, [secrets.token_bytes(32)], pin=PIN)
        assert answer.refusal == ERROR
    await signs(world, P256, MIDORI)


@pytest.mark.parametrize(
    "edit",
    [
        "update sam.authorizations set client_id = 'acme-other' where {row}",
        "update sam.authorizations set expires_at = expires_at + interval '1 day' where {row}",
        "update sam.authorizations set signatures = 100, bound = false where {row}",
        "update sam.authorized_hashes set digest = '\\x{other}' where {row}",
    ],
)
async def test_an_edited_authorization_signs_nothing(world: World, edit: str) -> None:
    authorized, other = secrets.token_bytes(32), secrets.token_bytes(32)
    sad = await world.acme.authorize(P256, authorized, pin=PIN)
    its_hash = f"'\\x{sad_hash(sad).hex()}'"
    row = f"authorization_id = (select authorization_id from sam.authorizations where sad_hash = {its_hash})"
    await world.edit(edit.format(row=row, other=other.hex()))
    before = (await world.fetch("select count(*) from svg.operations"))[0][0]
    for digest in (authorized, other):
        assert (await world.acme.sign(P256, sad, digest)).refusal == ERROR
    assert (await world.fetch("select count(*) from svg.operations"))[0][0] == before

"""Every secret that these tests ever used, looked for in logs, tables and messages: none stands there in clear."""

import base64
import json
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO

import pyotp

from shared.activation import read_activation
from shared.contracts.svg import SignDigests
from shared.messaging.envelope import open_envelope
from shared.sealing import unseal
from shared.trust import Purpose, Trust, load_sealing_key
from tests.support.spy import Heard, Spy
from tests.support.world import CANARY, JIRO, MIDORI, P256, PINS, World


async def test_no_secret_stands_in_clear_in_any_log_table_or_message(world: World) -> None:
    async with Spy.on(world.stack) as spy:
        await go_the_whole_way(world)
        await spy.until_heard(f"{SignDigests.TYPE}.reply", 2)
        messages = b"\n".join(layers(spy.heard))
    shares = [share_in(world, heard) for heard in spy.of_type(SignDigests.TYPE)]
    logs = b"\n".join(log.read_bytes() for log in (world.stack.folder / "logs").glob("*.log"))
    tables = await everything_in_the_database(world)
    for place, content in {"log": logs, "table": tables, "message": messages}.items():
        assert P256.encode() in content or place == "log"
        for number, secret in enumerate([*(text.encode() for text in sorted(world.secrets)), *shares]):
            assert not found(secret, content), f"secret {number} of {len(secret)} bytes in a {place}"
    assert b"key.activated" in tables
    assert b"sam.sign_hash.v1" in logs
    assert b"sam.sign_hash.v1" in messages
    assert len(world.secrets) > 10
    assert {len(share) for share in shares} == {32}


def test_a_secret_would_be_found_however_it_is_written() -> None:
    secret = secrets.token_bytes(12)
    for text in (secret, secret.hex().encode(), *(base64.b64encode(bytes(n) + secret + b"x") for n in range(3))):
        assert found(secret, b"before" + text + b"after")


async def go_the_whole_way(world: World) -> None:
    """Every method that takes a secret, and refusals of them."""
    once = await world.acme.logged_in()
    digest, other = secrets.token_bytes(32), secrets.token_bytes(32)
    await once.ask_sad(P256, [digest], pin="a-wrong-PIN-that-nobody-has")
    await world.operate("unlock", JIRO, "--tenant", "acme", pin=PINS[JIRO])
    sad = await once.authorize(P256, digest, other, pin=PINS[MIDORI])
    assert (await once.sign(P256, sad, digest)).status == 200
    extended = await once.call("credentials/extendTransaction", {"credentialID": P256, "SAD": sad})
    world.secrets.add(extended.body["SAD"])
    assert (await once.sign(P256, extended.body["SAD"], other)).status == 200
    await once.ask_sad("jiro-p256", [digest], pin=PINS[JIRO], otp=pyotp.TOTP(world.totp_secret).now())
    assert (await once.timestamp(digest)).status == 200
    await world.signer(CANARY, "--totp", "--show-secret")
    await world.client("acme-canary", "acme")
    assert await once.revoke(once.token) == 204


def share_in(world: World, heard: Heard) -> bytes:
    """The share of a key, opened with the SVG's own key."""
    keys = world.stack.keys
    trust = Trust.load(keys.bundle_file)
    envelope = open_envelope(heard.body, recipient="svg", trust=trust, now=datetime.now(UTC))
    asked = SignDigests.model_validate_json(envelope.body)
    activation = read_activation(asked.activation, trust, now=datetime.now(UTC))
    key = load_sealing_key(keys.key_file("svg", Purpose.SEALING))
    opened = unseal(asked.share, key=key, message=SignDigests.TYPE, subject=activation.operation_id)
    assert opened.share is not None
    return base64.b64decode(opened.share.get_secret_value())


def layers(messages: list[Heard]) -> Iterator[bytes]:
    """Each message as it travels, and what is in its fields below base64."""
    for heard in messages:
        yield heard.body
        start = heard.body.find(b"{")
        try:
            fields = json.loads(heard.body[start:-64])
        except ValueError:
            continue
        for value in fields.values():
            if isinstance(value, str):
                try:
                    yield base64.b64decode(value, validate=True)
                except ValueError:
                    continue


async def everything_in_the_database(world: World) -> bytes:
    connection = await world.stack.postgres.connect()
    output = BytesIO()
    try:
        tables = await connection.fetch(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        )
        assert len(tables) > 20
        for schema, table in tables:
            await connection.copy_from_table(table, schema_name=schema, output=output)
    finally:
        await connection.close()
    text = output.getvalue()
    # PostgreSQL writes bytes as hexadecimal: what is inside is looked at as well.
    runs = (bytes.fromhex(run[: len(run) // 2 * 2].decode()) for run in re.findall(rb"x([0-9a-f]{16,})", text))
    return b"\n".join([text, *runs])


def found(secret: bytes, content: bytes) -> bool:
    """As it is, in hexadecimal, or somewhere inside base64 of either alphabet."""
    return any(spelling in content for spelling in spellings(secret))


def spellings(secret: bytes) -> Iterator[bytes]:
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for offset in range(3):
        # The first and last characters depend on the neighbors.
        encoded = base64.b64encode(bytes(offset) + secret)
        kept = encoded[(0, 2, 3)[offset] : len(encoded.rstrip(b"=")) - (1 if (offset + len(secret)) % 3 else 0)]
        yield kept
        yield kept.translate(bytes.maketrans(b"+/", b"-_"))

"""The HSM adapter against a real SoftHSM: keys that stay in the token, and a token that goes."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from shared.algorithms import Hash, KeyAlgorithm, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.hsm import Token
from shared.hsm.templates import Mapper
from shared.settings import HSM
from tests.support.softhsm import make_token, seen

ECDSA = SignatureAlgorithm(Scheme.ECDSA, Hash.SHA256)
DIGEST = hashlib.sha256(b"document").digest()


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[HSM]:
    made = make_token(tmp_path)
    with seen(tmp_path):
        yield made


@pytest.fixture
async def token(settings: HSM) -> AsyncIterator[Token]:
    async with Token.open(settings) as opened:
        yield opened


async def test_a_mac_is_the_same_for_the_same_data_and_key_only(token: Token) -> None:
    await token.create_mac_key("one")
    await token.create_mac_key("two")
    assert await token.mac("one", b"data") == await token.mac("one", b"data")
    assert await token.mac("one", b"data") != await token.mac("two", b"data")
    assert len(await token.mac("one", b"data")) == 32


async def test_a_mac_key_cannot_be_read_or_taken_out(token: Token) -> None:
    await token.create_mac_key("one")
    attributes = await token.run(
        lambda session: {
            name: session._find(pkcs11.ObjectClass.SECRET_KEY, "one")[name]
            for name in (pkcs11.Attribute.SENSITIVE, pkcs11.Attribute.EXTRACTABLE, pkcs11.Attribute.NEVER_EXTRACTABLE)
        }
    )
    assert list(attributes.values()) == [True, False, True]
    with pytest.raises(RakkanError):
        await token.run(lambda session: session._find(pkcs11.ObjectClass.SECRET_KEY, "one")[pkcs11.Attribute.VALUE])


async def test_a_second_ceremony_keeps_the_first_keys(token: Token) -> None:
    assert await token.create_mac_key("one")
    assert await token.create_signing_key("ca", KeyAlgorithm.P256)
    mac, public_key = await token.mac("one", b"data"), await token.public_key("ca")
    assert not await token.create_mac_key("one")
    assert not await token.create_signing_key("ca", KeyAlgorithm.P256)
    assert (mac, public_key) == (await token.mac("one", b"data"), await token.public_key("ca"))


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P256, KeyAlgorithm.P384, KeyAlgorithm.P521])
@pytest.mark.parametrize("hash_", [Hash.SHA256, Hash.SHA512, Hash.SHA3_384])
async def test_a_ca_key_signs_ecdsa_as_der(token: Token, algorithm: KeyAlgorithm, hash_: Hash) -> None:
    await token.create_signing_key("ca", algorithm)
    digest = hashlib.new(hash_, b"tbs").digest()
    value = await token.sign("ca", SignatureAlgorithm(Scheme.ECDSA, hash_), digest)
    key = load_der_public_key(await token.public_key("ca"))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    prehashed = {Hash.SHA256: hashes.SHA256(), Hash.SHA512: hashes.SHA512(), Hash.SHA3_384: hashes.SHA3_384()}[hash_]
    key.verify(value, digest, ec.ECDSA(utils.Prehashed(prehashed)))


async def test_a_digest_of_the_wrong_length_is_refused(token: Token) -> None:
    await token.create_signing_key("ca", KeyAlgorithm.P256)
    with pytest.raises(RakkanError) as refusal:
        await token.sign("ca", ECDSA, DIGEST[:20])
    assert refusal.value.code is Code.DIGEST_LENGTH


async def test_a_scheme_of_another_family_is_refused(token: Token) -> None:
    await token.create_signing_key("ca", KeyAlgorithm.P256)
    with pytest.raises(RakkanError) as refusal:
        await token.sign("ca", SignatureAlgorithm(Scheme.RSA_PKCS1, Hash.SHA256), DIGEST)
    assert refusal.value.code is Code.SIGN_ALGORITHM_REFUSED


async def test_an_unknown_label_is_an_unknown_key(token: Token) -> None:
    await token.create_mac_key("one")
    with pytest.raises(RakkanError) as refusal:
        await token.mac("two", b"data")
    assert refusal.value.code is Code.KEY_UNKNOWN


async def test_an_empty_token_is_no_token(token: Token) -> None:
    with pytest.raises(RakkanError) as refusal:
        await token.mac("one", b"data")
    assert refusal.value.code is Code.HSM_UNAVAILABLE


@pytest.mark.parametrize("wrong", ["label", "pin", "module"])
async def test_a_token_that_cannot_be_opened_is_unavailable(settings: HSM, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "wrong").write_text("not the PIN")
    changes = {"label": {"token_label": "other"}, "pin": {"pin_file": tmp_path / "wrong"}, "module": {}}[wrong]
    if wrong == "module":
        changes = {"module": tmp_path / "none.so"}
    with pytest.raises(RakkanError) as refusal:
        async with Token.open(settings.model_copy(update=changes)):
            pass
    assert refusal.value.code is Code.HSM_UNAVAILABLE


@pytest.mark.usefixtures("token")
async def test_a_process_opens_one_token_only(settings: HSM) -> None:
    with pytest.raises(RuntimeError, match="one thread"):
        async with Token.open(settings):
            pass


async def test_many_callers_at_once_share_the_one_thread(token: Token) -> None:
    await token.create_mac_key("one")
    await token.create_signing_key("ca", KeyAlgorithm.P256)
    macs = [token.mac("one", bytes([n])) for n in range(50)]
    values = [token.sign("ca", ECDSA, DIGEST) for _ in range(50)]
    results = await asyncio.gather(*macs, *values)
    assert len(set(results[:50])) == 50


async def test_a_token_that_went_is_noticed_and_used_again_when_it_is_back(token: Token, tmp_path: Path) -> None:
    await token.create_mac_key("one")
    before = await token.mac("one", b"data")
    (tmp_path / "tokens").rename(tmp_path / "gone")
    with pytest.raises(RakkanError) as refusal:
        await token.probe()
    assert refusal.value.code is Code.HSM_UNAVAILABLE
    with pytest.raises(RakkanError) as refusal:
        await token.mac("one", b"data")
    assert refusal.value.code is Code.HSM_UNAVAILABLE
    (tmp_path / "gone").rename(tmp_path / "tokens")
    async with asyncio.timeout(5):
        while True:
            with suppress(RakkanError):
                assert await token.mac("one", b"data") == before
                break
            await asyncio.sleep(0.1)
    await token.probe()


async def test_a_bug_in_a_job_does_not_look_like_a_refusal(token: Token) -> None:
    with pytest.raises(ZeroDivisionError):
        await token.run(lambda _: 1 // 0)


def test_a_template_that_would_crash_the_library_is_refused_first() -> None:
    mapper = Mapper()
    for template in (
        {pkcs11.Attribute.VALUE_LEN: "32"},
        {pkcs11.Attribute.LABEL: 5},
        {pkcs11.Attribute.ALLOWED_MECHANISMS: ("AES",)},
        {pkcs11.Attribute.WRAP_TEMPLATE: {}},
    ):
        with pytest.raises((TypeError, ValueError)):
            mapper.checked(template)


HANG = """
import asyncio, sys, time
from pathlib import Path
from shared.hsm import Token
from shared.settings import HSM

async def main():
    async with Token.open(HSM.model_validate_json(sys.argv[1]), hang_s=0.5) as token:
        await token.run(lambda _: time.sleep(30))

asyncio.run(main())
"""


async def test_a_module_that_hangs_ends_the_process_with_a_word(settings: HSM) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANG, settings.model_dump_json(), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == os.EX_TEMPFAIL
    assert b"hangs" in told

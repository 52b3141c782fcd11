"""Keys that live outside the HSM, against a real SoftHSM: what the HSM itself enforces."""

import hashlib
from collections.abc import AsyncIterator

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from shared.algorithms import Family, Hash, KeyAlgorithm, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.hsm import Session, Token, templates
from shared.verification import verify_all
from tests.support.softhsm import SO_PIN, make_token, seen

DIGESTS = tuple(hashlib.sha256(bytes([n])).digest() for n in range(3))
ECDSA = SignatureAlgorithm(Scheme.ECDSA, Hash.SHA256)


@pytest.fixture(scope="module")
async def token(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Token]:
    folder = tmp_path_factory.mktemp("wrapped")
    settings = make_token(folder)
    with seen(folder):
        async with Token.open(settings) as opened:
            assert await opened.ceremony_kek(SO_PIN)
            yield opened


@pytest.fixture(scope="module")
async def rsa(token: Token) -> tuple[bytes, bytes]:
    return await token.generate_wrapped(KeyAlgorithm.RSA2048)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


async def test_a_second_ceremony_keeps_the_kek(token: Token) -> None:
    public_key, wrapped = await token.generate_wrapped(KeyAlgorithm.P256)
    assert not await token.ceremony_kek(SO_PIN)
    values = await token.sign_wrapped(wrapped, KeyAlgorithm.P256, ECDSA, DIGESTS)
    verify_all(public_key, ECDSA, DIGESTS, values)


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
async def test_a_key_of_every_kind_is_wrapped_and_signs_what_verifies(token: Token, algorithm: KeyAlgorithm) -> None:
    scheme = {Family.EC: Scheme.ECDSA, Family.RSA: Scheme.RSA_PSS, Family.ED25519: Scheme.ED25519}[algorithm.family]
    signature = SignatureAlgorithm(scheme, Hash.SHA256, 32 if scheme is Scheme.RSA_PSS else None)
    public_key, wrapped = await token.generate_wrapped(algorithm)
    values = await token.sign_wrapped(wrapped, algorithm, signature, DIGESTS)
    verify_all(public_key, signature, DIGESTS, values)
    with pytest.raises(RakkanError):
        verify_all(public_key, signature, DIGESTS[::-1], values)


@pytest.mark.parametrize("hash_", list(Hash))
async def test_pkcs1_knows_every_hash(token: Token, rsa: tuple[bytes, bytes], hash_: Hash) -> None:
    algorithm = SignatureAlgorithm(Scheme.RSA_PKCS1, hash_)
    digests = (hashlib.new(hash_, b"document").digest(),)
    verify_all(rsa[0], algorithm, digests, await token.sign_wrapped(rsa[1], KeyAlgorithm.RSA2048, algorithm, digests))


@pytest.mark.parametrize("hash_", [Hash.SHA256, Hash.SHA384, Hash.SHA512])
@pytest.mark.parametrize("salt_bytes", [0, 20, 32, 64])
async def test_a_pss_salt_length_is_honored_exactly(
    token: Token, rsa: tuple[bytes, bytes], hash_: Hash, salt_bytes: int
) -> None:
    algorithm = SignatureAlgorithm(Scheme.RSA_PSS, hash_, salt_bytes)
    digests = (hashlib.new(hash_, b"document").digest(),)
    values = await token.sign_wrapped(rsa[1], KeyAlgorithm.RSA2048, algorithm, digests)
    verify_all(rsa[0], algorithm, digests, values)
    with pytest.raises(RakkanError):
        verify_all(rsa[0], SignatureAlgorithm(Scheme.RSA_PSS, hash_, salt_bytes + 1), digests, values)


async def test_pss_parameters_the_module_lacks_are_refused_and_not_replaced(
    token: Token, rsa: tuple[bytes, bytes]
) -> None:
    algorithm = SignatureAlgorithm(Scheme.RSA_PSS, Hash.SHA3_256, 32)
    with pytest.raises(RakkanError) as refusal:
        await token.sign_wrapped(rsa[1], KeyAlgorithm.RSA2048, algorithm, DIGESTS)
    assert refusal.value.code is Code.SIGN_PARAMETERS_REFUSED
    # The session is whole: the next one signs.
    algorithm = SignatureAlgorithm(Scheme.RSA_PSS, Hash.SHA256, 32)
    assert await token.sign_wrapped(rsa[1], KeyAlgorithm.RSA2048, algorithm, DIGESTS)


@pytest.mark.parametrize("place", [0, 1, 8, 40, -1])
async def test_a_flipped_bit_is_a_damaged_key(token: Token, place: int) -> None:
    _, wrapped = await token.generate_wrapped(KeyAlgorithm.P256)
    with pytest.raises(RakkanError) as refusal:
        await token.sign_wrapped(flipped(wrapped, place % len(wrapped)), KeyAlgorithm.P256, ECDSA, DIGESTS)
    assert refusal.value.code is Code.KEY_DAMAGED


@pytest.mark.parametrize("wrapped", [b"", b"W", b"W1234567", b"R", b"Rshort", b"X" + bytes(80)])
async def test_what_is_no_wrapped_key_is_a_damaged_key(token: Token, wrapped: bytes) -> None:
    with pytest.raises(RakkanError) as refusal:
        await token.sign_wrapped(wrapped, KeyAlgorithm.P256, ECDSA, DIGESTS)
    assert refusal.value.code is Code.KEY_DAMAGED


async def test_a_key_of_another_kind_is_a_damaged_key(token: Token, rsa: tuple[bytes, bytes]) -> None:
    with pytest.raises(RakkanError) as refusal:
        await token.sign_wrapped(rsa[1], KeyAlgorithm.P256, ECDSA, DIGESTS)
    assert refusal.value.code is Code.KEY_DAMAGED


async def test_a_swapped_key_makes_values_that_do_not_verify(token: Token) -> None:
    public_key, _ = await token.generate_wrapped(KeyAlgorithm.P256)
    _, other = await token.generate_wrapped(KeyAlgorithm.P256)
    values = await token.sign_wrapped(other, KeyAlgorithm.P256, ECDSA, DIGESTS)
    with pytest.raises(RakkanError) as refusal:
        verify_all(public_key, ECDSA, DIGESTS, values)
    assert refusal.value.code is Code.KEY_DAMAGED


@pytest.mark.parametrize(
    "change",
    [
        {Attribute.EXTRACTABLE: True},
        {Attribute.SENSITIVE: False},
        {Attribute.DECRYPT: True},
        {Attribute.DERIVE: True},
        {Attribute.UNWRAP: True},
        {Attribute.SIGN: False},
    ],
)
async def test_the_hsm_unwraps_only_to_sensitive_unextractable_sign_only_keys(
    token: Token, change: dict[Attribute, bool]
) -> None:
    _, wrapped = await token.generate_wrapped(KeyAlgorithm.P256)
    with pytest.raises(pkcs11.TemplateInconsistent):
        await attempt(token, lambda session: session._unwrap("kek-1", wrapped, KeyAlgorithm.P256, change))


async def test_a_kek_without_trust_cannot_take_a_key_out(token: Token) -> None:
    def steal(session: Session) -> bytes:
        mine = session._session.generate_key(
            KeyType.AES,
            256,
            capabilities=MechanismFlag.WRAP | MechanismFlag.DECRYPT,
            template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
        )
        public, private = session._generate(session._session, KeyAlgorithm.P256, templates.TO_BE_WRAPPED)
        try:
            return bytes(mine.wrap_key(private, mechanism=Mechanism.AES_KEY_WRAP_PAD))
        finally:
            private.destroy()
            public.destroy()

    with pytest.raises(pkcs11.KeyNotWrappable):
        await attempt(token, steal)


async def test_the_user_cannot_make_a_trusted_kek(token: Token) -> None:
    def forge(session: Session) -> None:
        with session._writable() as writable:
            writable.generate_key(
                KeyType.AES,
                256,
                label="kek-9",
                store=True,
                capabilities=MechanismFlag.WRAP,
                template={Attribute.TRUSTED: True},
            )

    with pytest.raises(pkcs11.AttributeReadOnly):
        await attempt(token, forge)


async def test_the_kek_wraps_and_unwraps_and_does_nothing_else(token: Token) -> None:
    def attributes(session: Session) -> dict[Attribute, object]:
        kek = session._find(ObjectClass.SECRET_KEY, "kek-1")
        names = (
            "TRUSTED",
            "PRIVATE",
            "SENSITIVE",
            "WRAP",
            "UNWRAP",
            "EXTRACTABLE",
            "ENCRYPT",
            "DECRYPT",
            "SIGN",
            "DERIVE",
            "MODIFIABLE",
        )
        return {Attribute[name]: kek[Attribute[name]] for name in names}

    found = await token.run(attributes)
    assert [name.name for name, value in found.items() if value] == [
        "TRUSTED",
        "PRIVATE",
        "SENSITIVE",
        "WRAP",
        "UNWRAP",
    ]


async def test_the_draft_of_the_officer_is_gone(token: Token) -> None:
    assert not await token.run(lambda session: session._exists(ObjectClass.SECRET_KEY, "kek-1-draft"))


async def test_nothing_of_a_key_stays_in_the_token_after_use(token: Token) -> None:
    def count(session: Session) -> int:
        return len(list(session._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})))

    before = await token.run(count)
    _, wrapped = await token.generate_wrapped(KeyAlgorithm.P384)
    await token.sign_wrapped(wrapped, KeyAlgorithm.P384, ECDSA, DIGESTS)
    with pytest.raises(RakkanError):
        await token.sign_wrapped(wrapped, KeyAlgorithm.P384, ECDSA, (DIGESTS[0], b"short"))
    assert await token.run(count) == before


async def test_a_destroyed_key_that_stayed_in_the_token_signs_no_more(token: Token) -> None:
    algorithm = SignatureAlgorithm(Scheme.ED25519, Hash.SHA256)
    _, wrapped = await token.generate_wrapped(KeyAlgorithm.ED25519)
    await token.sign_wrapped(wrapped, KeyAlgorithm.ED25519, algorithm, DIGESTS)
    await token.run(lambda session: session.destroy_wrapped(wrapped))
    await token.run(lambda session: session.destroy_wrapped(wrapped))
    with pytest.raises(RakkanError) as refusal:
        await token.sign_wrapped(wrapped, KeyAlgorithm.ED25519, algorithm, DIGESTS)
    assert refusal.value.code is Code.KEY_UNKNOWN


async def test_another_kek_cannot_open_the_wrapped_key(token: Token) -> None:
    _, wrapped = await token.generate_wrapped(KeyAlgorithm.P256)
    await token.run(lambda session: session.create_kek("kek-2", SO_PIN))
    with pytest.raises(RakkanError) as refusal:
        await token.sign_wrapped(wrapped, KeyAlgorithm.P256, ECDSA, DIGESTS, kek="kek-2")
    assert refusal.value.code is Code.KEY_DAMAGED


class _Said(Exception):
    """Carries what the module said out of the adapter, which would translate it."""


async def attempt(token: Token, job: object) -> None:
    def carried(session: Session) -> None:
        try:
            job(session)  # type: ignore[operator]  # a job
        except pkcs11.PKCS11Error as error:
            raise _Said from error

    try:
        await token.run(carried)
    except _Said as said:
        raise said.__cause__ from None  # type: ignore[misc]  # it has one

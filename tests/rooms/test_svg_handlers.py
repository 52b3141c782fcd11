"""The SVG's handlers with a fake database and a fake HSM: what is signed, what is refused, what is repeated."""

import secrets
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.svg.handlers import Handlers
from services.svg.pool import KeyPool
from shared.activation import Use, sign_activation
from shared.algorithms import Hash, KeyAlgorithm, Scheme, SignatureAlgorithm
from shared.contracts.svg import KeyGenerated, SignatureValues, SignDigests
from shared.errors import Code, RakkanError
from shared.trust import Trust
from shared.verification import verify_all
from tests.support.activations import NOW, SAM
from tests.support.svg_fakes import FakeStore, FakeToken

ECDSA = SignatureAlgorithm(Scheme.ECDSA, Hash.SHA256)


@dataclass
class Room:
    sam: SAM
    store: FakeStore
    token: FakeToken
    now: datetime = NOW

    @property
    def handlers(self) -> Handlers:
        return Handlers(
            store=self.store,
            token=self.token,
            trust=Trust(epoch=1, verifying=self.sam.trust.verifying, sealing={}),
            sealing_key=self.sam.svg_sealing_key,
            kek="kek-1",
            now=lambda: self.now,
        )

    async def key(self, **changes: object) -> bytes:
        return (await self.handlers.generate_key(self.sam.generate(self.sam.activation(**changes)))).public_key


@pytest.fixture
def room() -> Room:
    return Room(SAM(), FakeStore(), FakeToken())


async def refusal_of(asked: Awaitable[object]) -> Code:
    with pytest.raises(RakkanError) as refusal:
        await asked
    return refusal.value.code


async def test_an_activated_key_signs_what_verifies(room: Room) -> None:
    public_key = await room.key()
    activation = room.sam.to_sign(public_key, b"a", b"b")
    signed = await room.handlers.sign_digests(room.sam.sign(activation))
    verify_all(public_key, ECDSA, activation.digests, signed.values)
    assert room.store.leaves == ["key.generated", "key.used"]


async def test_the_same_activation_again_gives_the_same_values_without_the_hsm(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a")
    first = await room.handlers.sign_digests(room.sam.sign(activation))
    again = await room.handlers.sign_digests(room.sam.sign(activation))
    assert first == again
    assert room.token.uses == 1


async def test_the_same_operation_with_other_digests_is_spent(room: Room) -> None:
    public_key = await room.key()
    activation = room.sam.to_sign(public_key, b"a")
    await room.handlers.sign_digests(room.sam.sign(activation))
    other = room.sam.to_sign(public_key, b"evil", operation_id=activation.operation_id)
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(other))) is Code.ACTIVATION_SPENT
    assert room.store.refusals == [("key.use_refused", Code.ACTIVATION_SPENT, True)]


async def test_an_occurrence_is_spent_by_one_operation_only(room: Room) -> None:
    public_key = await room.key()
    activation = room.sam.to_sign(public_key, b"a")
    await room.handlers.sign_digests(room.sam.sign(activation))
    other = activation.model_copy(update={"operation_id": "another"})
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(other))) is Code.ACTIVATION_SPENT


async def test_an_intent_without_a_value_is_tried_again_and_told(room: Room) -> None:
    public_key = await room.key()
    activation = room.sam.to_sign(public_key, b"a")
    room.token.gone = True
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.HSM_UNAVAILABLE
    assert room.store.operations[activation.operation_id].state == "intent"
    room.token.gone = False
    signed = await room.handlers.sign_digests(room.sam.sign(activation))
    verify_all(public_key, ECDSA, activation.digests, signed.values)
    assert room.store.leaves[1:] == ["key.use_repeated", "key.used"]


async def test_a_value_that_does_not_verify_never_leaves(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a", b"b")
    room.token.wrong = True
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.KEY_DAMAGED
    assert room.store.operations[activation.operation_id].values == ()


async def test_a_share_of_another_key_opens_nothing(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a")
    request = room.sam.sign(activation, share=secrets.token_bytes(32))
    assert await refusal_of(room.handlers.sign_digests(request)) is Code.KEY_DAMAGED
    assert room.token.uses == 0


async def test_a_share_sealed_for_another_operation_is_refused(room: Room) -> None:
    public_key = await room.key()
    first, second = room.sam.to_sign(public_key, b"a"), room.sam.to_sign(public_key, b"b")
    request = room.sam.sign(first).model_copy(update={"share": room.sam.sign(second).share})
    assert await refusal_of(room.handlers.sign_digests(request)) is Code.MALFORMED


async def test_a_share_sealed_for_another_message_is_refused(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a")
    request = room.sam.sign(activation).model_copy(update={"share": room.sam.generate(activation).share})
    assert await refusal_of(room.handlers.sign_digests(request)) is Code.MALFORMED


async def test_an_activation_of_a_stranger_is_refused_and_told(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a")
    stranger = SAM(svg_sealing_key=room.sam.svg_sealing_key)
    assert await refusal_of(room.handlers.sign_digests(stranger.sign(activation))) is Code.ACTIVATION_REFUSED
    assert room.store.refusals == [("key.use_refused", Code.ACTIVATION_REFUSED, False)]
    assert room.token.uses == 0


async def test_a_digest_exchanged_in_the_activation_is_refused(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a")
    evil = room.sam.to_sign(b"", b"evil").model_copy(update=activation.model_dump(exclude={"digests"}))
    token = sign_activation(activation, room.sam.key)[:80] + sign_activation(evil, room.sam.key)[80:]
    request = SignDigests(activation=token, share=room.sam.sealed(SignDigests.TYPE, activation))
    assert await refusal_of(room.handlers.sign_digests(request)) is Code.ACTIVATION_REFUSED


@pytest.mark.parametrize("later_s", [-60, 60, 3600])
async def test_an_activation_out_of_its_time_is_refused(room: Room, later_s: int) -> None:
    activation = room.sam.to_sign(await room.key(), b"a")
    room.now = NOW + timedelta(seconds=later_s)
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.ACTIVATION_REFUSED


async def test_an_activation_from_before_a_restore_is_refused(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a", epoch=0)
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.ACTIVATION_REFUSED


async def test_an_activation_for_another_audience_is_refused(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a", audience="svg-2")
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.ACTIVATION_REFUSED


@pytest.mark.parametrize("use", [Use.GENERATE, Use.DESTROY])
async def test_an_activation_for_another_use_is_refused(room: Room, use: Use) -> None:
    activation = room.sam.to_sign(await room.key(), b"a", use=use)
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.ACTIVATION_REFUSED


async def test_a_key_of_another_owner_is_refused(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a", owner="tenant/thief")
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.ACTIVATION_REFUSED
    assert not room.store.operations


async def test_an_unknown_key_is_refused(room: Room) -> None:
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(room.sam.to_sign(b"", b"a")))) is Code.KEY_UNKNOWN


async def test_attributes_edited_in_the_database_open_nothing(room: Room) -> None:
    public_key = await room.key()
    key = room.store.keys["key-1"]
    room.store.keys["key-1"] = replace(key, attributes=replace(key.attributes, signatures_max=1000))
    activation = room.sam.to_sign(public_key, b"a", signatures_max=1000)
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.KEY_DAMAGED


async def test_a_key_exchanged_in_the_database_opens_nothing(room: Room) -> None:
    public_key = await room.key()
    await room.key(key_id="key-2")
    room.store.keys["key-1"] = replace(room.store.keys["key-1"], wrapped=room.store.keys["key-2"].wrapped)
    activation = room.sam.to_sign(public_key, b"a")
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.KEY_DAMAGED


async def test_without_the_database_nothing_is_signed_or_decided(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a")
    room.store.down = True
    assert await refusal_of(room.handlers.sign_digests(room.sam.sign(activation))) is Code.UNAVAILABLE
    assert room.token.uses == 0
    assert room.store.refusals == []


async def test_a_certificate_request_is_signed(room: Room) -> None:
    public_key = await room.key()
    activation = room.sam.to_sign(public_key, b"csr", use=Use.CSR, authorization_id=None, occurrences=())
    signed = await room.handlers.sign_digests(room.sam.sign(activation))
    assert isinstance(signed, SignatureValues)
    verify_all(public_key, ECDSA, activation.digests, signed.values)


async def test_the_same_order_of_a_key_names_the_same_key(room: Room) -> None:
    activation = room.sam.activation()
    first = await room.handlers.generate_key(room.sam.generate(activation))
    again = await room.handlers.generate_key(room.sam.generate(activation))
    assert isinstance(first, KeyGenerated)
    assert first == again


@pytest.mark.parametrize("changes", [{"owner": "tenant/other"}, {"operation_id": "another"}])
async def test_a_key_id_is_never_given_twice(room: Room, changes: dict[str, str]) -> None:
    await room.key()
    other = room.sam.activation(**changes)
    code = await refusal_of(room.handlers.generate_key(room.sam.generate(other)))
    assert code in {Code.ACTIVATION_SPENT, Code.ACTIVATION_REFUSED}


async def test_an_activation_to_sign_makes_no_key(room: Room) -> None:
    activation = room.sam.activation(use=Use.SIGN)
    assert await refusal_of(room.handlers.generate_key(room.sam.generate(activation))) is Code.ACTIVATION_REFUSED


async def test_a_destroyed_key_signs_no_more_and_stays_destroyed(room: Room) -> None:
    public_key = await room.key()
    signed = room.sam.to_sign(public_key, b"a")
    values = await room.handlers.sign_digests(room.sam.sign(signed))
    destroy = room.sam.destroy(room.sam.activation(use=Use.DESTROY))
    await room.handlers.destroy_key(destroy)
    await room.handlers.destroy_key(destroy)
    assert room.store.keys["key-1"].wrapped is None
    assert room.store.leaves.count("key.destroyed") == 1
    assert (
        await refusal_of(room.handlers.sign_digests(room.sam.sign(room.sam.to_sign(public_key, b"b"))))
        is Code.KEY_UNKNOWN
    )
    assert await refusal_of(room.handlers.generate_key(room.sam.generate(room.sam.activation()))) is Code.KEY_UNKNOWN
    assert await room.handlers.sign_digests(room.sam.sign(signed)) == values


async def test_a_key_that_stayed_in_the_token_is_destroyed_there(room: Room) -> None:
    room.token.resident = True
    await room.key()
    await room.handlers.destroy_key(room.sam.destroy(room.sam.activation(use=Use.DESTROY)))
    assert room.token.destroyed == [b"R1"]


@pytest.mark.parametrize("changes", [{"use": Use.SIGN}, {"owner": "tenant/other"}, {"public_key_hash": bytes(32)}])
async def test_a_key_is_destroyed_only_as_activated(room: Room, changes: dict[str, object]) -> None:
    await room.key()
    activation = room.sam.activation(**{"use": Use.DESTROY, **changes})
    assert await refusal_of(room.handlers.destroy_key(room.sam.destroy(activation))) is Code.ACTIVATION_REFUSED
    assert room.store.keys["key-1"].wrapped is not None


async def test_an_unknown_key_cannot_be_destroyed(room: Room) -> None:
    activation = room.sam.activation(use=Use.DESTROY)
    assert await refusal_of(room.handlers.destroy_key(room.sam.destroy(activation))) is Code.KEY_UNKNOWN


async def test_another_room_cannot_read_the_share(room: Room) -> None:
    activation = room.sam.to_sign(await room.key(), b"a")
    request = room.sam.sign(activation)
    room.sam.svg_sealing_key = X25519PrivateKey.generate()
    assert await refusal_of(room.handlers.sign_digests(request)) is Code.MALFORMED


async def test_a_pooled_key_is_taken_once_and_bound_to_its_owner(room: Room) -> None:
    pool = KeyPool(store=room.store, token=room.token, kek="kek-1", targets={KeyAlgorithm.P256: 1}, idle_s=1.0)
    assert await pool.fill_one() is KeyAlgorithm.P256
    assert await pool.fill_one() is None
    pooled = room.store.pooled[0][1].public_key
    assert await room.key() == pooled
    assert room.store.pooled == []
    assert await room.key(key_id="key-2") != pooled

"""CMP against Bouncy Castle: every way to ask and to protect, and every answer that must not be believed.

That CA lies when the profile it is asked for says so: the lies are another implementer's messages, not our own.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import Authority
from services.ca_connector.orders import Issued, Order, Pending, Refused, State
from shared.errors import Code, RakkanError
from shared.settings import SettingsError
from tests.support.ordering import (
    after,
    check_issued,
    leaf,
    new_key,
    now,
    open_entry,
    order_for,
    read_entry,
    same_subject,
    settle,
)
from tests.support.peers import Missing, leave_out
from tests.support.peers.bouncy_castle import LIES, BouncyCastle
from tests.support.peers.running import changed


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BouncyCastle]:
    peer = BouncyCastle()
    try:
        peer.start(tmp_path_factory.mktemp("bouncy-castle"))
    except Missing as missing:
        leave_out(missing)
    yield peer
    peer.stop()


@pytest.fixture(params=["signature", "pbm", "pbmac1"])
def entry(request: pytest.FixtureRequest, peer: BouncyCastle) -> dict[str, Any]:
    return peer.entry() if request.param == "signature" else peer.by_mac(request.param)


@asynccontextmanager
async def opened(entry: dict[str, Any], peer: BouncyCastle) -> AsyncIterator[Authority]:
    authority = open_entry(entry, peer.secrets)
    try:
        yield authority
    finally:
        await authority.close()


async def refusal_of(entry: dict[str, Any], peer: BouncyCastle, order: Order) -> RakkanError:
    async with opened(entry, peer) as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order)
    return refusal.value


@pytest.mark.parametrize("kind", ["p10cr", "ir", "cr"])
async def test_every_kind_of_request_under_every_protection_is_answered(
    entry: dict[str, Any], peer: BouncyCastle, kind: str
) -> None:
    key = new_key()
    async with opened(changed(entry, request=kind), peer) as authority:
        order, outcome, polls = await settle(authority, order_for(key), peer.attend)
    assert isinstance(outcome, Issued)
    assert polls == 2
    check_issued(order, read_entry(entry), key)
    assert peer.confirmed(leaf(order)) == "accepted"


async def test_an_rsa_key_is_certified(peer: BouncyCastle) -> None:
    key = rsa.generate_private_key(65537, 3072)
    async with opened(changed(peer.entry(), request="ir"), peer) as authority:
        order, _, _ = await settle(authority, order_for(key), peer.attend)
    check_issued(order, read_entry(peer.entry()), key)


async def test_an_update_names_the_certificate_it_takes_over_from(peer: BouncyCastle) -> None:
    first_key, other = new_key(), new_key()
    async with opened(changed(peer.entry(), renewal="kur"), peer) as authority:
        assert authority.capabilities.renews
        first, _, _ = await settle(authority, order_for(first_key), peer.attend)
        rekey = order_for(other, previous=first, csr=same_subject(first, other))
        order, outcome, _ = await settle(authority, rekey, peer.attend)
    assert isinstance(outcome, Issued)
    assert leaf(order).public_key() == other.public_key()


async def test_what_the_authority_lets_wait_is_asked_for_when_it_says(peer: BouncyCastle) -> None:
    async with opened(peer.entry(), peer) as authority:
        order = order_for(new_key(), profile="patient")
        first = await authority.submit(order)
        assert isinstance(first, Pending)
        second = await authority.poll(after(order, first))
    assert isinstance(second, Pending)
    assert second.not_before is not None
    assert timedelta(0) <= second.not_before - now() <= timedelta(seconds=2)
    assert first.handle != second.handle


async def test_a_handle_outlives_the_process_that_got_it(peer: BouncyCastle) -> None:
    key = new_key()
    async with opened(peer.entry(), peer) as authority:
        order = order_for(key)
        order = after(order, await authority.submit(order))
    async with opened(peer.entry(), peer) as another:
        while order.state is State.PENDING:
            order = after(order, await another.poll(order))
    assert peer.confirmed(leaf(order)) == "nothing"
    async with opened(
        peer.entry(), peer
    ) as third:  # killed after the certificate was stored and before it was confirmed
        await third.confirm(order, accepted=True)
    assert peer.confirmed(leaf(order)) == "accepted"
    assert leaf(order).public_key() == key.public_key()


async def test_an_answer_to_a_poll_that_was_lost_makes_the_order_unknown(peer: BouncyCastle) -> None:
    async with opened(peer.entry(), peer) as authority:
        order = order_for(new_key(), profile="patient")
        order = after(order, await authority.submit(order))
        await authority.poll(order)
        with pytest.raises(RakkanError) as refusal:
            await authority.poll(order)
    assert refusal.value.code is Code.INDETERMINATE


async def test_a_lost_handle_makes_the_order_unknown(peer: BouncyCastle) -> None:
    async with opened(peer.entry(), peer) as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.poll(replace(order_for(new_key()), state=State.PENDING))
    assert refusal.value.code is Code.INDETERMINATE


async def test_a_certificate_for_another_key_is_handed_on_and_rejected_at_the_authority(peer: BouncyCastle) -> None:
    async with opened(peer.entry(), peer) as authority:
        order = order_for(new_key(), profile="other-key")
        outcome = await authority.submit(order)
        assert isinstance(outcome, Issued)
        order = after(order, outcome)
        await authority.confirm(order, accepted=False)
    assert peer.confirmed(leaf(order)) == "rejected"
    assert peer.is_revoked(leaf(order))


async def test_nothing_is_confirmed_where_the_authority_spares_us_that(peer: BouncyCastle) -> None:
    async with opened(changed(peer.entry(), implicit_confirm=True), peer) as authority:
        order, _, _ = await settle(authority, order_for(new_key()), peer.attend)
    assert peer.confirmed(leaf(order)) == "nothing"


async def test_the_authority_tells_its_certificates(entry: dict[str, Any], peer: BouncyCastle) -> None:
    async with opened(entry, peer) as authority:
        health = await authority.check()
    assert health.chain == (x509.load_pem_x509_certificate(peer.ca.encode()),)


async def test_a_rejection_comes_with_its_reason(entry: dict[str, Any], peer: BouncyCastle) -> None:
    async with opened(entry, peer) as authority:
        outcome = await authority.submit(order_for(new_key(), profile="refused"))
    assert outcome == Refused("we do not certify such people; badCertTemplate")


async def test_an_error_that_is_protected_ends_the_order(entry: dict[str, Any], peer: BouncyCastle) -> None:
    async with opened(entry, peer) as authority:
        outcome = await authority.submit(order_for(new_key(), profile="error"))
    assert outcome == Refused("the machine is tired; systemFailure")


@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_that_is_not_surely_the_answer_is_not_believed(
    entry: dict[str, Any], peer: BouncyCastle, lie: str
) -> None:
    async with opened(entry, peer) as authority:
        await authority.submit(order_for(new_key()))  # what is replayed is an answer that was good once
    refusal = await refusal_of(entry, peer, order_for(new_key(), profile=lie))
    assert refusal.code is Code.AUTHORITY_UNTRUSTED, refusal.detail


async def test_an_answer_that_a_stranger_signed_is_not_believed(peer: BouncyCastle) -> None:
    refusal = await refusal_of(peer.entry(), peer, order_for(new_key(), profile="stranger"))
    assert refusal.code is Code.AUTHORITY_UNTRUSTED
    assert "stranger" in refusal.detail


async def test_an_answer_under_a_mac_is_not_believed_where_signatures_were_agreed_on(peer: BouncyCastle) -> None:
    refusal = await refusal_of(changed(peer.by_mac(), secret="wrong"), peer, order_for(new_key()))
    assert refusal.code is Code.AUTHORITY_UNTRUSTED


async def test_we_are_told_when_the_authority_does_not_know_us(peer: BouncyCastle) -> None:
    refusal = await refusal_of(peer.estranged(), peer, order_for(new_key()))
    assert refusal.code is Code.AUTHORITY_REFUSED
    assert "who are you?" in refusal.detail


async def test_a_responder_that_is_named_itself_is_believed_and_another_is_not(peer: BouncyCastle) -> None:
    async with opened(changed(peer.entry(), responders=[peer.responder]), peer) as authority:
        await authority.check()
    stranger = changed(peer.entry(), responders=[peer.other])
    assert (await refusal_of(stranger, peer, order_for(new_key()))).code is Code.AUTHORITY_UNTRUSTED


async def test_a_certificate_is_revoked_once_however_often_that_is_said(
    entry: dict[str, Any], peer: BouncyCastle
) -> None:
    async with opened(entry, peer) as authority:
        order, _, _ = await settle(authority, order_for(new_key()), peer.attend)
        await asyncio.gather(*(authority.revoke(order, reason=1, at=now()) for _ in range(3)))
    assert peer.is_revoked(leaf(order))


async def test_a_revocation_that_the_authority_refuses_is_said_to_be_so(peer: BouncyCastle) -> None:
    stranger = x509.load_pem_x509_certificate(peer.other.encode())
    async with opened(peer.entry(), peer) as authority:
        order, _, _ = await settle(authority, order_for(new_key()), peer.attend)
        foreign = replace(order, chain=(stranger.public_bytes(Encoding.DER),))
        with pytest.raises(RakkanError) as refusal:
            await authority.revoke(foreign, reason=1, at=now())
    assert refusal.value.code is Code.AUTHORITY_REFUSED


async def test_what_was_confirmed_before_is_confirmed(peer: BouncyCastle) -> None:
    async with opened(peer.entry(), peer) as authority:
        order, _, _ = await settle(authority, order_for(new_key()), peer.attend)
        await authority.confirm(order, accepted=True)


@pytest.mark.parametrize(
    "connection",
    [
        {"key": None},
        {"secret": "mac"},
        {"responders": []},
        {"reference": "rakkan", "secret": "mac"},
        {"recipient": "not a name"},
        {"request": "kur"},
    ],
    ids=str,
)
def test_a_connection_that_is_protected_in_no_way_or_in_two_is_refused(
    peer: BouncyCastle, connection: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError):
        open_entry(changed(peer.entry(), **connection), peer.secrets)

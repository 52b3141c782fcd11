"""One body for all certification authorities that others wrote: what an order, a renewal and a revocation must be.

A peer that cannot be had on this machine is skipped, and says which line to type.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.ca_connector.authorities import Authority
from services.ca_connector.orders import Order, Refused, State
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from tests.support.linting import lint_certificate
from tests.support.ordering import (
    Key,
    check_issued,
    leaf,
    new_key,
    new_rsa_key,
    now,
    open_entry,
    order_for,
    read_entry,
    same_subject,
    settle,
)
from tests.support.peers import AuthorityPeer, Lack, Missing, leave_out
from tests.support.peers.bouncy_castle import BouncyCastle, BouncyCastleByMAC
from tests.support.peers.cfssl import CFSSL
from tests.support.peers.django_ca import DjangoCA
from tests.support.peers.est import EST
from tests.support.peers.openbao import OpenBao

PEERS: tuple[type[AuthorityPeer], ...] = (OpenBao, DjangoCA, CFSSL, BouncyCastle, BouncyCastleByMAC, EST)
KEY_COMPROMISE = 1


@pytest.fixture(scope="module", params=PEERS, ids=lambda peer: peer.name)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorityPeer]:
    peer: AuthorityPeer = request.param()
    try:
        peer.start(tmp_path_factory.mktemp(peer.name))
    except Missing as missing:
        leave_out(missing)
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture
def ca(peer: AuthorityPeer) -> CertificationAuthority:
    return read_entry(peer.entry())


@pytest.fixture
async def authority(peer: AuthorityPeer) -> AsyncIterator[Authority]:
    authority = open_entry(peer.entry(), peer.secrets)
    yield authority
    await authority.close()


def needs(peer: AuthorityPeer, lack: Lack) -> None:
    if lack in peer.lacks:
        pytest.skip(f"{peer.name}: {lack}")


async def issued(authority: Authority, peer: AuthorityPeer, order: Order) -> Order:
    order, outcome, _ = await settle(authority, order, peer.attend)
    assert order.state is State.CONFIRMED, outcome
    return order


@pytest.mark.parametrize("make_key", [new_key, new_rsa_key])
async def test_a_signer_is_enrolled(
    authority: Authority, peer: AuthorityPeer, ca: CertificationAuthority, make_key: Callable[[], Key]
) -> None:
    key = make_key()
    order, outcome, polls = await settle(authority, order_for(key), peer.attend)
    assert order.state is State.CONFIRMED, outcome
    assert bool(polls) is authority.capabilities.polls
    check_issued(order, ca, key, with_subject=Lack.SUBJECT not in peer.lacks)


async def test_a_linter_finds_no_error_in_what_is_issued(
    authority: Authority, peer: AuthorityPeer, tmp_path: Path
) -> None:
    needs(peer, Lack.RULES)
    order = await issued(authority, peer, order_for(new_key()))
    assert lint_certificate(leaf(order), tmp_path) == []


async def test_many_orders_at_once_each_get_their_own_certificate(authority: Authority, peer: AuthorityPeer) -> None:
    keys = [new_key() for _ in range(4)]
    orders = await asyncio.gather(*(issued(authority, peer, order_for(key)) for key in keys))
    assert [leaf(order).public_key() for order in orders] == [key.public_key() for key in keys]
    assert len({leaf(order).serial_number for order in orders}) == len(keys)


async def test_the_self_test_finds_the_chain_that_the_registry_believes(
    authority: Authority, ca: CertificationAuthority
) -> None:
    health = await authority.check()
    for one in health.chain[-1:]:
        anchors = ca.anchor_certificates
        assert one in anchors or any(one.issuer == anchor.subject for anchor in anchors)
        assert one.not_valid_after_utc > now()


async def test_a_certificate_is_renewed_with_the_same_key_and_with_another(
    authority: Authority, peer: AuthorityPeer, ca: CertificationAuthority
) -> None:
    key, other = new_key(), new_key()
    first = await issued(authority, peer, order_for(key))
    renewed = await issued(authority, peer, order_for(key, previous=first, csr=first.csr))
    rekeyed = await issued(authority, peer, order_for(other, previous=renewed, csr=same_subject(first, other)))
    check_issued(renewed, ca, key, with_subject=Lack.SUBJECT not in peer.lacks)
    check_issued(rekeyed, ca, other, with_subject=Lack.SUBJECT not in peer.lacks)
    assert len({leaf(one).serial_number for one in (first, renewed, rekeyed)}) == len((first, renewed, rekeyed))


async def test_a_certificate_is_revoked_twice_and_everybody_sees_it(authority: Authority, peer: AuthorityPeer) -> None:
    needs(peer, Lack.REVOCATION)
    assert authority.capabilities.revokes
    order, bystander = [await issued(authority, peer, order_for(new_key())) for _ in range(2)]
    for _ in range(2):
        await authority.revoke(order, reason=KEY_COMPROMISE, at=now())
    if Lack.STATUS not in peer.lacks:
        assert await asyncio.to_thread(peer.is_revoked, leaf(order))
        assert not await asyncio.to_thread(peer.is_revoked, leaf(bystander))


async def test_an_order_that_the_authority_will_not_have_ends_with_its_reason(
    authority: Authority, peer: AuthorityPeer
) -> None:
    needs(peer, Lack.REFUSAL)
    order, outcome, _ = await settle(authority, order_for(new_key(), profile="refused"), peer.attend)
    assert isinstance(outcome, Refused)
    assert order.state is State.REJECTED
    assert order.reason not in {"", "no reason given"}


async def test_an_authority_that_does_not_know_us_is_told_from_one_that_is_away(peer: AuthorityPeer) -> None:
    needs(peer, Lack.CREDENTIALS)
    await refused(Code.AUTHORITY_REFUSED, peer, peer.estranged())


async def test_an_authority_that_is_down_is_unavailable(peer: AuthorityPeer) -> None:
    needs(peer, Lack.DOWN)
    await refused(Code.AUTHORITY_UNAVAILABLE, peer, peer.away())


async def refused(code: Code, peer: AuthorityPeer, entry: dict[str, object]) -> None:
    authority = open_entry(entry, peer.secrets, timeout_s=5.0)
    try:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order_for(new_key()))
    finally:
        await authority.close()
    assert refusal.value.code is code, refusal.value.detail

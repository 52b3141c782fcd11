"""ACME against Pebble, which refuses good nonces, and against acme2certifier, which puts a CA of openssl behind it."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import Authority
from services.ca_connector.authorities.acme import ACME
from services.ca_connector.orders import Issued, Order, Pending, Refused, State
from shared.errors import Code, RakkanError
from shared.settings import SettingsError
from tests.support.ordering import (
    Key,
    after,
    check_issued,
    leaf,
    new_key,
    now,
    open_entry,
    order_for,
    read_entry,
    settle,
)
from tests.support.peers import Missing, leave_out
from tests.support.peers.acme2certifier import Acme2Certifier
from tests.support.peers.pebble import Pebble
from tests.support.peers.running import changed

KEY_COMPROMISE = 1
PRIVILEGE_WITHDRAWN = 9


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    peer = Pebble()
    try:
        peer.start(tmp_path_factory.mktemp("pebble"))
    except Missing as missing:
        leave_out(missing)
    yield peer
    peer.stop()


@asynccontextmanager
async def opened(entry: dict[str, Any], peer: Pebble | Acme2Certifier) -> AsyncIterator[Authority]:
    authority = open_entry(entry, peer.secrets)
    try:
        yield authority
    finally:
        await authority.close()


def order_naming(key: Key, *domains: str, previous: Order | None = None) -> Order:
    """An order whose request names domains, as ACME wants it."""
    names = [x509.DNSName(one) for one in domains or (f"s-{secrets.token_hex(4)}.signers.example",)]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Yamada Taro")]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return order_for(key, csr=request.public_bytes(Encoding.DER), previous=previous)


def nothing() -> None:
    """It goes on by itself."""


async def test_domains_are_certified_however_often_nonces_are_refused(peer: Pebble) -> None:
    async with opened(peer.entry(), peer) as authority:
        for _ in range(3):
            key = new_key()
            order, outcome, _ = await settle(authority, order_naming(key), nothing)
            assert isinstance(outcome, Issued), outcome
            assert leaf(order).public_key() == key.public_key()
    chain = [x509.load_der_x509_certificate(one) for one in order.chain]
    chain[-1].verify_directly_issued_by(x509.load_pem_x509_certificate(peer.pem("roots/0").encode()))


async def test_a_person_cannot_be_named(peer: Pebble) -> None:
    order = order_naming(new_key())
    async with opened(peer.entry(), peer) as authority:
        order, _, _ = await settle(authority, order, nothing)
    assert "Yamada Taro" not in leaf(order).subject.rfc4514_string()


async def test_a_request_that_names_nothing_is_ordered_for_the_domain_of_the_registry_or_not_at_all(
    peer: Pebble,
) -> None:
    order = order_for(new_key())
    async with opened(peer.entry(), peer) as authority:
        assert isinstance(await authority.submit(order), Refused)
    async with opened(changed(peer.entry(), identifier="signers.example"), peer) as authority:
        outcome = await authority.submit(order)
        assert isinstance(outcome, Pending)
        refused = await authority.poll(after(order, outcome))
    assert isinstance(refused, Refused)  # Pebble wants in the request what was ordered; the SAM's names persons alone


async def test_an_order_outlives_the_process_that_placed_it_and_is_finalized_once(peer: Pebble) -> None:
    order = order_naming(new_key())
    async with opened(peer.entry(), peer) as authority:
        order = after(order, await authority.submit(order))
    outcomes = []
    for _ in range(2):  # the second as after a kill between the answer and its record
        async with opened(peer.entry(), peer) as another:
            outcomes.append(await another.poll(order))
    assert isinstance(outcomes[0], Issued)
    assert outcomes[0] == outcomes[1]


async def test_of_several_chains_the_one_to_our_anchor_is_taken(peer: Pebble) -> None:
    anchor = x509.load_pem_x509_certificate(peer.pem("roots/1").encode())
    async with opened(peer.entry(root=1), peer) as authority:
        order, _, _ = await settle(authority, order_naming(new_key()), nothing)
    x509.load_der_x509_certificate(order.chain[-1]).verify_directly_issued_by(anchor)


async def test_a_certificate_is_revoked_however_often_that_is_said(peer: Pebble) -> None:
    async with opened(peer.entry(), peer) as authority:
        order, _, _ = await settle(authority, order_naming(new_key()), nothing)
        assert not peer.is_revoked(leaf(order))
        for _ in range(2):
            await authority.revoke(order, reason=KEY_COMPROMISE, at=now())
    assert peer.is_revoked(leaf(order))


async def test_an_order_that_becomes_invalid_says_why(tmp_path_factory: pytest.TempPathFactory) -> None:
    strict = Pebble(believes_every_challenge=False)
    try:
        strict.start(tmp_path_factory.mktemp("strict"))
        async with opened(strict.entry(), strict) as authority:
            order, outcome, _ = await settle(authority, order_naming(new_key(), "nowhere.example"), nothing)
        assert isinstance(outcome, Refused)
        assert order.state is State.REJECTED
        assert "nowhere.example" in outcome.reason or "(dns)" in outcome.reason or "(connection)" in outcome.reason
    except Missing as missing:
        leave_out(missing)
    finally:
        if hasattr(strict, "http"):
            strict.stop()


async def test_an_order_that_the_ca_will_not_have_is_refused_with_its_reason(peer: Pebble) -> None:
    async with opened(peer.entry(), peer) as authority:
        outcome = await authority.submit(order_naming(new_key(), "not_a_domain..example"))
    assert isinstance(outcome, Refused)
    assert outcome.reason not in {"", "no reason given"}


async def test_an_account_that_is_bound_to_nothing_is_refused(peer: Pebble) -> None:
    for entry in (
        changed(peer.entry(), account_key="another", binding_key="wrong"),
        changed(peer.entry(), account_key="another", binding_key=None, binding_key_id=None),
    ):
        async with opened(entry, peer) as authority:
            with pytest.raises(RakkanError) as refusal:
                await authority.check()
        assert refusal.value.code is Code.AUTHORITY_REFUSED, refusal.value.detail


async def test_an_account_that_was_deactivated_is_refused(peer: Pebble) -> None:
    entry = changed(peer.entry(), account_key="another")
    async with opened(entry, peer) as authority:
        assert isinstance(authority, ACME)
        await authority.check()
        assert authority.account._url is not None
        await authority.account.ask(authority.account._url, {"status": "deactivated"})
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order_naming(new_key()))
    assert refusal.value.code is Code.AUTHORITY_REFUSED


async def test_an_order_of_somebody_else_is_not_ours_to_ask_about(peer: Pebble) -> None:
    pending = replace(order_naming(new_key()), state=State.PENDING)
    async with opened(peer.entry(), peer) as authority:
        base = peer.directory.removesuffix("/dir")
        for handle in (f"{base}/my-order/nobodys".encode(), None):
            with pytest.raises(RakkanError) as refusal:
                await authority.poll(replace(pending, handle=handle))
            assert refusal.value.code is Code.INDETERMINATE
        with pytest.raises(RakkanError) as refusal:
            await authority.poll(replace(pending, handle=b"https://elsewhere.example/order/1"))
    assert refusal.value.code is Code.AUTHORITY_UNTRUSTED


async def test_a_ca_that_is_away_is_unavailable(peer: Pebble) -> None:
    async with opened(changed(peer.entry(), directory="https://127.0.0.1:1/dir"), peer) as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order_naming(new_key()))
    assert refusal.value.code is Code.AUTHORITY_UNAVAILABLE


@pytest.mark.parametrize(
    "connection",
    [{"binding_key": None}, {"account_key": "binding"}, {"binding_key": "account"}, {"identifier": "Not A Domain"}],
    ids=str,
)
def test_a_connection_that_cannot_work_is_refused(peer: Pebble, connection: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        open_entry(changed(peer.entry(), **connection), peer.secrets)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme2Certifier]:
    other = Acme2Certifier()
    try:
        other.start(tmp_path_factory.mktemp("acme2certifier"))
    except Missing as missing:
        leave_out(missing)
    yield other
    other.stop()


async def test_a_server_that_is_set_up_so_leaves_the_signers_name(other: Acme2Certifier) -> None:
    key = new_key()
    async with opened(other.entry(), other) as authority:
        order, outcome, _ = await settle(authority, order_naming(key), nothing)
        assert isinstance(outcome, Issued), outcome
        check_issued(order, read_entry(other.entry()), key)
        assert leaf(order).subject.rfc4514_string() == "CN=Yamada Taro"
        for _ in range(2):
            await authority.revoke(order, reason=KEY_COMPROMISE, at=now())
    assert other.is_revoked(leaf(order))


async def test_a_reason_that_the_server_does_not_take_keeps_no_certificate_alive(other: Acme2Certifier) -> None:
    async with opened(other.entry(), other) as authority:
        order, _, _ = await settle(authority, order_naming(new_key()), nothing)
        await authority.revoke(order, reason=PRIVILEGE_WITHDRAWN, at=now())
    assert other.is_revoked(leaf(order))


async def test_a_request_that_the_server_finds_bad_ends_the_order_with_its_reason(other: Acme2Certifier) -> None:
    async with opened(changed(other.entry(), identifier="signers.example"), other) as authority:
        _, outcome, _ = await settle(authority, order_for(new_key()), nothing)
    assert outcome == Refused("CSR validation failed (badCSR)")

"""EST: strongSwan's client judges our stand-in for a server, which then serves our adapter, honestly and otherwise."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import Authority
from services.ca_connector.orders import Issued, Pending, Refused, State
from shared.errors import Code, RakkanError
from shared.settings import SettingsError
from tests.support.est_server import PASSWORD, USER
from tests.support.ordering import after, check_issued, leaf, new_key, now, open_entry, order_for, read_entry, settle
from tests.support.peers import Missing, leave_out
from tests.support.peers.environments import program as path_of
from tests.support.peers.est import EST
from tests.support.peers.running import changed


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EST]:
    peer = EST()
    peer.start(tmp_path_factory.mktemp("est"))
    yield peer
    peer.stop()


@asynccontextmanager
async def opened(entry: dict[str, Any], peer: EST) -> AsyncIterator[Authority]:
    authority = open_entry(entry, peer.secrets)
    try:
        yield authority
    finally:
        await authority.close()


class StrongSwan:
    def __init__(self, folder: Path, peer: EST) -> None:
        self.folder, self.url = folder, peer.server.url
        (folder / "root.pem").write_text(peer.server.root_pem)
        issuing = peer.server.issuing.certificate
        (folder / "issuing.pem").write_bytes(issuing.public_bytes(Encoding.PEM))

    def __call__(self, *arguments: str) -> bytes:
        command = [path_of("pki", package="strongswan-pki"), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, check=False, timeout=60)  # noqa: S603 - our own
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return done.stdout


@pytest.fixture
def strongswan(tmp_path: Path, peer: EST) -> StrongSwan:
    try:
        path_of("pki", package="strongswan-pki libstrongswan-standard-plugins libstrongswan-extra-plugins")
    except Missing as missing:
        leave_out(missing)
    return StrongSwan(tmp_path, peer)


def test_strongswan_gets_the_certificates_of_the_authority(strongswan: StrongSwan) -> None:
    strongswan("--estca", "--url", strongswan.url, "--cacert", "root.pem", "--caout", "ca", "--outform", "pem")
    got = [x509.load_pem_x509_certificate(file.read_bytes()) for file in strongswan.folder.glob("ca*")]
    assert {one.subject.rfc4514_string() for one in got} == {"CN=Example EST issuing", "CN=Example EST root"}


def test_strongswan_enrolls_and_waits_when_it_is_told_to(strongswan: StrongSwan) -> None:
    key = new_key()
    (strongswan.folder / "request.der").write_bytes(order_for(key).csr)
    issued = strongswan("--est", "--url", strongswan.url, "--in", "request.der", "--cacert", "root.pem",
                        "--cacert", "issuing.pem", "--userpass", f"{USER}:{PASSWORD}", "--interval", "1",
                        "--outform", "pem")  # fmt: skip
    assert x509.load_pem_x509_certificate(issued).public_key() == key.public_key()


async def test_a_client_certificate_is_as_good_as_a_password(peer: EST) -> None:
    key = new_key()
    async with opened(peer.by_certificate(), peer) as authority:
        order, outcome, _ = await settle(authority, order_for(key), peer.attend)
    assert isinstance(outcome, Issued)
    check_issued(order, read_entry(peer.entry()), key)


async def test_whoever_waits_asks_again_with_the_very_same_request(peer: EST) -> None:
    async with opened(peer.behaving("forever"), peer) as authority:
        order, polls = order_for(new_key(), profile="forever"), 5
        outcome = await authority.submit(order)
        for _ in range(polls):
            assert isinstance(outcome, Pending)
            order = after(order, outcome)
            outcome = await authority.poll(order)
    assert isinstance(outcome, Pending)
    assert outcome.not_before is not None
    assert timedelta(seconds=5) <= outcome.not_before - now() <= timedelta(seconds=8)
    said = [one for one in peer.server.asked if "/forever/" in one[0]]
    assert len(said) == polls + 1
    assert len(set(said)) == 1


async def test_a_server_that_does_not_say_when_is_asked_at_our_own_pace(peer: EST) -> None:
    async with opened(peer.behaving("speechless"), peer) as authority:
        outcome = await authority.submit(order_for(new_key(), profile="speechless"))
    assert isinstance(outcome, Pending)
    assert outcome.not_before is None


async def test_a_handle_outlives_the_process_that_got_it(peer: EST) -> None:
    key = new_key()
    async with opened(peer.entry(), peer) as authority:
        order = order_for(key)
        order = after(order, await authority.submit(order))
    async with opened(peer.entry(), peer) as another:
        order = after(order, await another.poll(order))
    assert order.state is State.ISSUED
    assert leaf(order).public_key() == key.public_key()


async def test_a_renewal_goes_where_the_registry_says(peer: EST) -> None:
    entry = changed(peer.behaving("immediate"), renewal="simplereenroll")
    async with opened(entry, peer) as authority:
        assert authority.capabilities.renews
        key = new_key()
        first, _, _ = await settle(authority, order_for(key, profile="immediate"), peer.attend)
        again = order_for(key, profile="immediate", previous=first, csr=first.csr)
        order, _, _ = await settle(authority, again, peer.attend)
    assert leaf(order).serial_number != leaf(first).serial_number
    assert peer.server.asked[-1][0] == "/.well-known/est/immediate/simplereenroll"


async def test_a_refusal_comes_with_its_reason_in_one_line(peer: EST) -> None:
    async with opened(peer.entry(), peer) as authority:
        assert await authority.submit(order_for(new_key(), profile="refused")) == Refused("we do not know this person")


async def test_what_another_issued_is_handed_on_without_a_chain_that_it_has_not(peer: EST) -> None:
    async with opened(peer.behaving("wrong-chain"), peer) as authority:
        outcome = await authority.submit(order_for(new_key(), profile="wrong-chain"))
    assert isinstance(outcome, Issued)
    assert len(outcome.chain) == 1  # an issuer of the same name is not the issuer; the SAM finds no anchor above it


async def test_a_certificate_for_another_key_is_handed_on_as_it_came(peer: EST) -> None:
    async with opened(peer.behaving("other-key"), peer) as authority:
        outcome = await authority.submit(order_for(new_key(), profile="other-key"))
    assert isinstance(outcome, Issued)
    assert outcome.chain[0] == peer.server.issuing.certificate.public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("garbage", Code.AUTHORITY_UNTRUSTED),
        ("cut-off", Code.AUTHORITY_UNTRUSTED),
        ("empty", Code.AUTHORITY_UNTRUSTED),
        ("portal", Code.AUTHORITY_UNTRUSTED),
        ("busy", Code.AUTHORITY_UNAVAILABLE),
        ("broken", Code.INDETERMINATE),
    ],
)
async def test_what_goes_wrong_is_told_apart(peer: EST, label: str, code: Code) -> None:
    async with opened(peer.behaving(label), peer) as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order_for(new_key(), profile=label))
    assert refusal.value.code is code, refusal.value.detail


async def test_a_fault_of_a_server_that_repeats_itself_is_tried_again(peer: EST) -> None:
    async with opened(changed(peer.behaving("broken"), repeatable=True), peer) as authority:
        assert authority.capabilities.repeatable
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order_for(new_key(), profile="broken"))
    assert refusal.value.code is Code.AUTHORITY_UNAVAILABLE


async def test_a_lost_handle_makes_the_order_unknown(peer: EST) -> None:
    async with opened(peer.entry(), peer) as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.poll(replace(order_for(new_key()), state=State.PENDING, handle=b"elsewhere"))
    assert refusal.value.code is Code.INDETERMINATE


async def test_a_server_with_another_certificate_hears_nothing(peer: EST) -> None:
    other = peer.server.stranger.chain[-1].public_bytes(Encoding.PEM).decode()
    heard = len(peer.server.asked)
    async with opened(changed(peer.entry(), tls_anchors=[other]), peer) as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order_for(new_key()))
    assert refusal.value.code is Code.AUTHORITY_UNTRUSTED
    assert len(peer.server.asked) == heard


async def test_what_is_to_be_revoked_is_revoked_elsewhere(peer: EST) -> None:
    async with opened(peer.entry(), peer) as authority:
        assert not authority.capabilities.revokes
        with pytest.raises(RakkanError) as refusal:
            await authority.revoke(order_for(new_key()), reason=1, at=now())
    assert refusal.value.code is Code.AUTHORITY_REFUSED


@pytest.mark.parametrize(
    "connection",
    [
        {"url": "http://127.0.0.1:1"},
        {"tls_anchors": []},
        {"username": None},
        {"username": None, "password": None},
        {"label": "../admin"},
    ],
    ids=str,
)
def test_a_connection_without_tls_or_without_a_login_is_refused(peer: EST, connection: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        open_entry(changed(peer.entry(), **connection), peer.secrets)

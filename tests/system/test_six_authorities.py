"""One running service with credentials from six CA programs that others wrote, each reached by another protocol."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from cryptography import x509

from deploy.local.stack import Stack
from shared.errors import Code, RakkanError
from tests.support.peers import Lack
from tests.support.peers.acme2certifier import Acme2Certifier
from tests.support.peers.bouncy_castle import BouncyCastle
from tests.support.peers.by_files import GnuTLSByFiles, OpenSSLByFiles
from tests.support.peers.cfssl import CFSSL
from tests.support.peers.django_ca import DjangoCA
from tests.support.peers.openbao import OpenBao
from tests.support.signatures import ECDSA_SHA256, verify
from tests.support.six import NAME, PIN, TENANT, USER, Peer, Six, connected
from tests.support.waiting import until

PROTOCOLS = {
    CFSSL.name: "cfssl",
    OpenBao.name: "vault",
    DjangoCA.name: "rest",
    BouncyCastle.name: "cmp",
    Acme2Certifier.name: "acme",
    OpenSSLByFiles.name: "manual",
    GnuTLSByFiles.name: "manual",
}
_STATUS_S = 40.0


@pytest.fixture(scope="module")
async def six(suite: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Six]:
    peers = (CFSSL(), OpenBao(), DjangoCA(), BouncyCastle(), Acme2Certifier(), OpenSSLByFiles(), GnuTLSByFiles())
    async with connected(suite, peers, tmp_path_factory.mktemp("six")) as six:
        yield six


@pytest.mark.parametrize("name", PROTOCOLS)
async def test_a_signer_enrolls_and_signs_with_a_key_that_this_ca_alone_certified(six: Six, name: str) -> None:
    door, enrolled = await six.at(name)
    for credential_id in (enrolled.kept, enrolled.ended):
        digest = secrets.token_bytes(32)
        sad = await door.authorize(credential_id, digest, pin=PIN)
        signed = await door.sign(credential_id, sad, digest)
        chain = await six.chain(credential_id)
        verify(chain[0], ECDSA_SHA256, [digest], signed.values)
        common_names = chain[0].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        assert [one.value for one in common_names] == [NAME]
        leads = {other: await asyncio.to_thread(six.leads_to, other, chain) for other in six.peers}
        assert leads == {other: other == name for other in six.peers}


@pytest.mark.parametrize("name", PROTOCOLS)
async def test_a_credential_of_one_ca_is_unknown_at_the_service_of_every_other(six: Six, name: str) -> None:
    _, enrolled = await six.at(name)
    unknown = (400, "invalid_request", "Invalid parameter credentialID")
    for other in six.peers:
        if other == name:
            continue
        door = six.door(other)
        listed = await door.call("credentials/list", {"userID": USER})
        assert enrolled.kept not in listed.body["credentialIDs"]
        assert (await door.call("credentials/info", {"credentialID": enrolled.kept})).refusal == unknown
        assert (await door.ask_sad(enrolled.kept, [bytes(32)], pin=PIN)).refusal == unknown


@pytest.mark.parametrize("name", PROTOCOLS)
async def test_a_revoked_certificate_signs_no_more_and_its_ca_says_so(six: Six, name: str) -> None:
    door, enrolled = await six.at(name)
    digest = secrets.token_bytes(32)
    ended, kept = [(await six.chain(one))[0] for one in (enrolled.ended, enrolled.kept)]
    sad = await door.authorize(enrolled.ended, digest, pin=PIN)
    await six.world.operate("delete", "credential", enrolled.ended)
    assert (await door.sign(enrolled.ended, sad, digest)).status == 400
    assert (await door.ask_sad(enrolled.ended, [digest], pin=PIN)).status == 400
    peer = six.peers[name]
    if Lack.REVOCATION in peer.lacks:
        await until(lambda: waits_for_people(six, name), within_s=_STATUS_S)
        await six.world.operate("ca", "revoked", enrolled.ended)
        assert not await waits_for_people(six, name)
    else:
        await until(lambda: asyncio.to_thread(published, peer, ended), within_s=_STATUS_S)
        assert not await asyncio.to_thread(peer.is_revoked, kept)
    sad = await door.authorize(enrolled.kept, digest, pin=PIN)
    assert (await door.sign(enrolled.kept, sad, digest)).status == 200


def published(peer: Peer, certificate: x509.Certificate) -> bool:
    """Whether all that the CA publishes says that it is revoked; its CRL and OCSP do so a moment apart."""
    try:
        return peer.is_revoked(certificate)
    except AssertionError:
        return False


async def waits_for_people(six: Six, name: str) -> bool:
    """Whether the operator is told to have a certificate revoked by hand."""
    told = await six.world.operate("ca", "orders", "--authority", name)
    return any(row["not revoked"] for row in told["orders"])


async def test_a_ca_that_certifies_machines_finds_a_dns_name_which_the_next_key_has_too(six: Six) -> None:
    door, enrolled = await six.at(Acme2Certifier.name)
    (before, *_) = await six.chain(enrolled.kept)
    assert (await door.call("credentials/rekey", {"credentialID": enrolled.kept}, version="v2")).status == 202

    async def rekeyed() -> bool:
        return (await six.chain(enrolled.kept))[0].serial_number != before.serial_number

    await until(rekeyed, within_s=_STATUS_S)
    (after, *_) = await six.chain(enrolled.kept)
    assert after.public_key() != before.public_key()
    for certificate in (before, after):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.DNSName(f"{enrolled.kept}.signers.example.com")]


async def test_an_id_that_cannot_be_in_a_dns_name_is_refused_before_its_key_is_made(six: Six) -> None:
    await six.at(Acme2Certifier.name)
    words = ("--tenant", TENANT, "--user", USER, "--authority", Acme2Certifier.name)
    with pytest.raises(RakkanError) as refusal:
        await six.world.operate("add-credential", "contracts_2", *words)
    assert refusal.value.code is Code.PROFILE_UNKNOWN
    assert "contracts_2.signers.example.com" in refusal.value.detail


async def test_one_service_holds_them_all(six: Six) -> None:
    """Through the door that is no virtual service, by each CA's own protocol."""
    kept = {name: (await six.at(name))[1].kept for name in six.peers}
    listed = await six.partner.call("credentials/list", {"userID": USER})
    assert set(kept.values()) <= set(listed.body["credentialIDs"])
    stands = await six.authorities()
    shown = {name: (stands[name]["protocol"], stands[name]["reachable"]) for name in six.peers}
    assert {name: protocol for name, (protocol, _) in shown.items()} == {name: PROTOCOLS[name] for name in six.peers}
    assert False not in {reachable for _, reachable in shown.values()}

"""Whose certificate a client shows: issued to the name that was registered, or the very one that was."""

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc.jwk import ECKey

from services.authentication.certificates import (
    check_issued,
    check_own,
    check_registered_certificates,
    check_registered_name,
)
from services.authentication.registration import check_registration
from shared.contracts.authentication import AddClient
from shared.errors import Code, RakkanError
from shared.mtls import ClientCertificate, check_bound
from tests.support.authentication import START
from tests.support.client_certificates import SUBJECT, Held, authority, hold
from tests.support.oauth import CALLBACK, jwks_of

CA = authority()
BELOW = authority("CN=Partners Issuing CA,C=JP", CA)
STRANGER = authority("CN=Strange CA,C=JP")
LEAF = hold(CA)


def refused(shown: ClientCertificate, name: str, *anchors: Held) -> Code | None:
    try:
        check_issued(shown, name, [one.certificate for one in anchors], now=START)
    except RakkanError as refusal:
        return refusal.code
    return None


@pytest.mark.parametrize(
    "name",
    [
        f"dn:{SUBJECT}",
        "dns:bank.example",
        "dns:BANK.example",
        "uri:https://bank.example/client",
        "ip:192.0.2.9",
        "email:ops@bank.example",
    ],
)
def test_a_certificate_of_a_known_authority_with_the_registered_name_proves_the_client(name: str) -> None:
    check_registered_name(name)
    assert refused(LEAF.shown(), name, CA) is None
    assert refused(hold(BELOW).shown(BELOW), name, STRANGER, CA) is None


@pytest.mark.parametrize(
    "name",
    [
        "dn:CN=bank.example,O=Bank",
        "dn:C=JP,O=Bank,CN=bank.example",
        "dn:CN=bank.example,O=Other,C=JP",
        "dns:bank.example.evil.example",
        "dns:ank.example",
        "uri:https://bank.example/client/",
        "ip:192.0.2.10",
        "email:OPS@bank.example",
    ],
)
def test_another_name_is_another_client(name: str) -> None:
    assert refused(LEAF.shown(), name, CA) is Code.CLIENT_REFUSED


@pytest.mark.parametrize(
    "shown",
    [
        hold(STRANGER).shown(),
        hold(STRANGER).shown(STRANGER),
        hold(BELOW).shown(),
        hold().shown(),
        hold(LEAF).shown(LEAF),
        hold(CA, days=(-9, -1)).shown(),
        hold(CA, days=(1, 9)).shown(),
        hold(CA, usage=ExtendedKeyUsageOID.SERVER_AUTH).shown(),
        authority("CN=bank.example,O=Bank,C=JP", CA).shown(),
        hold(authority("CN=Expired,C=JP", CA, days=(-9, -1))).shown(),
        Held(LEAF.certificate, CA.key).shown(CA, BELOW),
    ],
    ids=["stranger", "chain", "gap", "own", "leaf", "expired", "early", "server", "ca", "expired-ca", "good-with-more"],
)
def test_what_no_known_authority_issued_for_clients_proves_nobody(
    shown: ClientCertificate, request: pytest.FixtureRequest
) -> None:
    good = request.node.callspec.id == "good-with-more"
    assert refused(shown, f"dn:{SUBJECT}", CA) is (None if good else Code.CLIENT_REFUSED)


def test_without_authorities_nobody_comes_in_by_one() -> None:
    assert refused(LEAF.shown(), f"dn:{SUBJECT}") is Code.CLIENT_REFUSED


def test_a_certificate_without_names_is_known_by_its_subject_alone() -> None:
    bare = hold(CA, names=())
    assert refused(bare.shown(), f"dn:{SUBJECT}", CA) is None
    assert refused(bare.shown(), "dns:bank.example", CA) is Code.CLIENT_REFUSED


def test_ones_own_certificate_is_known_again_byte_by_byte_and_in_its_time() -> None:
    own, other, late = hold(), hold(), hold(days=(-9, -1))
    check_own(own.shown(), own.jwks, now=START)
    for shown, jwks in ((other.shown(), own.jwks), (late.shown(), late.jwks), (own.shown(), '{"keys": []}')):
        with pytest.raises(RakkanError) as refusal:
            check_own(shown, jwks, now=START)
        assert refusal.value.code is Code.CLIENT_REFUSED


@pytest.mark.parametrize("name", ["", "bank.example", "dns:", "dn:", "dn:bank", "dn:CN=a, O=b", "ip:b", "cn:x", ":x"])
def test_a_name_that_no_certificate_can_be_asked_for_is_not_registered(name: str) -> None:
    with pytest.raises(RakkanError) as refusal:
        check_registered_name(name)
    assert refusal.value.code is Code.MALFORMED


def test_certificates_are_registered_with_their_keys() -> None:
    own, other = hold(), hold()
    check_registered_certificates(own.jwks)
    jwk = json.loads(own.jwks)["keys"][0]
    private = ECKey.import_key(own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())).as_dict(
        private=True
    ) | {"x5c": jwk["x5c"]}
    bad = [
        {"keys": []},
        {"keys": [jwk | {"x5c": []}]},
        {"keys": [jwk | {"x5c": "AAAA"}]},
        {"keys": [jwk | {"x5c": ["AAAA"]}]},
        {"keys": [jwk | {"x5c": ["not base64!"]}]},
        {"keys": [jwk | {"x5c": json.loads(other.jwks)["keys"][0]["x5c"]}]},
        {"keys": [{name: value for name, value in jwk.items() if name != "x5c"}]},
        {"keys": [private]},
        {"keys": [jwk] * 9},
        [],
    ]
    for text in [*(json.dumps(one) for one in bad), "", "{"]:
        with pytest.raises(RakkanError) as refusal:
            check_registered_certificates(text)
        assert refusal.value.code is Code.MALFORMED, text


def test_what_belongs_to_certificates_goes_together() -> None:
    jwks = hold().jwks
    given = {"tenant_id": "acme", "client_id": "c", "name": "C", "redirect_uris": (CALLBACK,)}
    for good in (
        {"method": "tls_client_auth", "certificate_name": "dns:bank.example"},
        {"method": "tls_client_auth", "certificate_name": "dns:bank.example", "profile": "hardened"},
        {"method": "self_signed_tls_client_auth", "jwks": jwks, "profile": "hardened"},
    ):
        check_registration(AddClient.model_validate(given | good))
    for bad in (
        {"method": "tls_client_auth"},
        {"method": "tls_client_auth", "certificate_name": "bank.example"},
        {"method": "tls_client_auth", "certificate_name": "dns:bank.example", "jwks": jwks},
        {"method": "self_signed_tls_client_auth"},
        {"method": "self_signed_tls_client_auth", "jwks": jwks_of(ECKey.generate_key("P-256"))},
        {"method": "self_signed_tls_client_auth", "jwks": jwks, "certificate_name": "dns:bank.example"},
        {"method": "private_key_jwt", "jwks": jwks, "certificate_name": "dns:bank.example"},
        {"certificate_name": "dns:bank.example"},
        {"method": "tls_client_auth", "certificate_name": "dns:x", "flags": ("account-tokens",)},
        {"method": "tls_client_auth", "certificate_name": "dns:x", "flags": ("pkce-optional",), "profile": "hardened"},
    ):
        with pytest.raises(RakkanError) as refusal:
            check_registration(AddClient.model_validate(given | bad))
        assert refusal.value.code is Code.MALFORMED, bad


def test_a_bound_token_comes_with_its_certificate() -> None:
    own, late = hold(), hold(days=(-9, -1))
    check_bound(own.shown(), thumbprint=own.thumbprint, now=START)
    for shown, thumbprint in (
        (None, own.thumbprint),
        (hold().shown(), own.thumbprint),
        (late.shown(), late.thumbprint),
    ):
        with pytest.raises(RakkanError) as refusal:
            check_bound(shown, thumbprint=thumbprint, now=START)
        assert refusal.value.code is Code.TOKEN_INVALID


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"x" * 20_000, LEAF.der + b"\0", LEAF.der[:-1]])
def test_what_is_no_certificate_is_malformed(der: bytes) -> None:
    with pytest.raises(RakkanError) as refusal:
        ClientCertificate.of(der)
    assert refusal.value.code is Code.MALFORMED
    with pytest.raises(RakkanError):
        ClientCertificate.of(LEAF.der, [LEAF.der] * 9)

"""CMP messages as bytes: what ours say, and that no bytes of theirs do anything but be read or be refused."""

import base64
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc4211, rfc9810

from services.ca_connector.authorities import cmp_messages as cmp
from shared.errors import Code, RakkanError
from tests.support.certificates import NOW, authority, issue, name
from tests.support.ordering import new_key, request_for

# What Bouncy Castle answered once, under a MAC.
REPLIES = {
    "ip": (
        "MIIESjCB1wIBAqQiMCAxHjAcBgNVBAMMFUV4YW1wbGUgQ01QIHJlc3BvbmRlcqQTMBExDzANBgNVBAMMBnJha2thbqARGA8yMDI2MTEyNTE3"
        "MjMwNlqhQDA+BgkqhkiG9n0HQg0wMQQUBmWcqx0MFXbta/8e7bRxeGoviHAwBwYFKw4DAhoCAgPoMAwGCCsGAQUFCAECBQCiCAQGcmFra2Fu"
        "pBIEENRuaBOTivxEfIrUu1fkRc2lEgQQFuen5ZZoHgFrcVJxTO0W46YSBBBp9fMhw9aCfBJxpMfBOdsGoYIDUzCCA0+hggFtMIIBaTCCAWUw"
        "ggEMoAMCAQICFASohegr99i4C/kHeTR8halVTcVhMAoGCCqGSM49BAMCMBkxFzAVBgNVBAMMDkV4YW1wbGUgQ01QIGNhMB4XDTI2MTEyNTE2"
        "MjI1OFoXDTI4MTAyNTE3MjI1OFowGTEXMBUGA1UEAwwORXhhbXBsZSBDTVAgY2EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASZCetsJwLY"
        "LB1D63RGEGccNhTZF7oOlkJLjxX0LigERY+9mq6+Ds+rpsEuKWnHXFb7T92it/Xp6oreCeGH6Q52ozIwMDAPBgNVHRMBAf8EBTADAQH/MB0G"
        "A1UdDgQWBBSJifcDKE84E0I8HgaTjyQ+M0DY3jAKBggqhkjOPQQDAgNHADBEAiAuMpMn+vJYyBb3o/+j5nAT+Y4+dcjoomJLMLlrA9POVgIg"
        "Hno0okxuPjqJ/rFKFnrqvTFgqhqenop9NxOqaSTqJV0wggHaMIIB1gIBADADAgEAMIIByqCCAcYwggHCMIIBZ6ADAgECAg9/q4SfJrNL9LVy"
        "3uZURIUwCgYIKoZIzj0EAwIwGTEXMBUGA1UEAwwORXhhbXBsZSBDTVAgY2EwHhcNMjYxMTI1MTcyMjA1WhcNMjcwOTIxMTcyMzA1WjBKMQsw"
        "CQYDVQQGEwJKUDEQMA4GA1UECgwHRXhhbXBsZTEUMBIGA1UEAwwLWWFtYWRhIFRhcm8xEzARBgNVBAUTClMtZTY3ZDkwY2EwWTATBgcqhkjO"
        "PQIBBggqhkjOPQMBBwNCAATBLsiMuso9kJjDXancLEt8HaG6KGjbBFHdyij+f3949/1vaZRuGhr8XUwZiT7COEh8gyM+MHuEKAc8OfOKn5uD"
        "o2EwXzAOBgNVHQ8BAf8EBAMCBkAwEwYDVR0lBAwwCgYIKwYBBQUHAyQwFwYDVR0gBBAwDjAMBgorBgEEAYH9WQEFMB8GA1UdIwQYMBaAFImJ"
        "9wMoTzgTQjweBpOPJD4zQNjeMAoGCCqGSM49BAMCA0kAMEYCIQC6g68sEJGsRuJa58fx+sF2P2Xjalpe3bZJPFJ3KCi72wIhAPS1o39ATFf/"
        "KLZhC+dVVBq6upgfntECY8rbmGW8w9RyoBcDFQDer/L1y8fqNZtUFKWnpFaDmxQlNw=="
    ),
    "error": (
        "MIIBGzCB1wIBAqQiMCAxHjAcBgNVBAMMFUV4YW1wbGUgQ01QIHJlc3BvbmRlcqQTMBExDzANBgNVBAMMBnJha2thbqARGA8yMDI2MTEyNTE3"
        "MjMwNlqhQDA+BgkqhkiG9n0HQg0wMQQUGRGwPL88Na8uv1CfqDZrtJZnMuQwBwYFKw4DAhoCAgPoMAwGCCsGAQUFCAECBQCiCAQGcmFra2Fu"
        "pBIEEGpTF8hRGwbsEBbRqPc/ytylEgQQLr0Wzn+Qri94EOq0vqJz4aYSBBAIIfjzK0noZW3xzXC32iOGtyYwJDAiAgECMBYMFHRoZSBtYWNo"
        "aW5lIGlzIHRpcmVkAwUGAAAAQKAXAxUAIX8Kb1kiklVaez4Hx34XxgEmkEU="
    ),
    "rp": (
        "MIH+MIHXAgECpCIwIDEeMBwGA1UEAwwVRXhhbXBsZSBDTVAgcmVzcG9uZGVypBMwETEPMA0GA1UEAwwGcmFra2FuoBEYDzIwMjYxMTI1MTcy"
        "MzA2WqFAMD4GCSqGSIb2fQdCDTAxBBSyAVzi8h4e8IrHsaBDkrvEkA4sUTAHBgUrDgMCGgICA+gwDAYIKwYBBQUIAQIFAKIIBAZyYWtrYW6k"
        "EgQQyo8DEm5rRYyAdcg7e5pFCqUSBBA0GYYz3h+3tSul22xDBV7IphIEEFFS8RDSftHTRttoBnz+wP6sCTAHMAUwAwIBAKAXAxUA8aup3FwR"
        "2hawpaZF+ZKZ14bAWXc="
    ),
    "genp": (
        "MIICdjCB1wIBAqQiMCAxHjAcBgNVBAMMFUV4YW1wbGUgQ01QIHJlc3BvbmRlcqQTMBExDzANBgNVBAMMBnJha2thbqARGA8yMDI2MTEyNTE3"
        "MjMwNlqhQDA+BgkqhkiG9n0HQg0wMQQU3SySJi5dWzQMU6K+Soyq+t6bOQQwBwYFKw4DAhoCAgPoMAwGCCsGAQUFCAECBQCiCAQGcmFra2Fu"
        "pBIEEK38ZWa5c8oLl7tqkqaJN6ulEgQQ6iR8Z9GxMemUxNDyPVX1IqYSBBCm/nK6+RtuTYnWZ/W2Pe91toIBfzCCAXswggF3BggrBgEFBQcE"
        "ETCCAWkwggFlMIIBDKADAgECAhQEqIXoK/fYuAv5B3k0fIWpVU3FYTAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5FeGFtcGxlIENNUCBjYTAe"
        "Fw0yNjExMjUxNjIyNThaFw0yODEwMjUxNzIyNThaMBkxFzAVBgNVBAMMDkV4YW1wbGUgQ01QIGNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD"
        "QgAEmQnrbCcC2CwdQ+t0RhBnHDYU2Re6DpZCS48V9C4oBEWPvZquvg7Pq6bBLilpx1xW+0/dorf16eqK3gnhh+kOdqMyMDAwDwYDVR0TAQH/"
        "BAUwAwEB/zAdBgNVHQ4EFgQUiYn3AyhPOBNCPB4Gk48kPjNA2N4wCgYIKoZIzj0EAwIDRwAwRAIgLjKTJ/ryWMgW96P/o+ZwE/mOPnXI6KJi"
        "SzC5awPTzlYCIB56NKJMbj46if6xShZ66r0xYKoanp6KfTcTqmkk6iVdoBcDFQCQpgtdXGLiiNPLrRaK+MzjUQwkPw=="
    ),
    "pollRep": (
        "MIH/MIHXAgECpCIwIDEeMBwGA1UEAwwVRXhhbXBsZSBDTVAgcmVzcG9uZGVypBMwETEPMA0GA1UEAwwGcmFra2FuoBEYDzIwMjYxMTI1MTcy"
        "MzA1WqFAMD4GCSqGSIb2fQdCDTAxBBT4V8/nQOBjlT5tGBOc0xhLj2V0tjAHBgUrDgMCGgICA+gwDAYIKwYBBQUIAQIFAKIIBAZyYWtrYW6k"
        "EgQQ1G5oE5OK/ER8itS7V+RFzaUSBBBEstXIMDIrjTfiVjYiyM9+phIEEA6UdMxorVEXN+GKOQdsPLm6CjAIMAYCAQACAQGgFwMVALoq4Sld"
        "2959BkcLQK3QFC/0tdO5"
    ),
}


def reply(kind: str) -> bytes:
    return base64.b64decode(REPLIES[kind])


def header(**more: object) -> bytes:
    fields = {
        "sender": name("RA").public_bytes(),
        "recipient": name("CA").public_bytes(),
        "time": datetime(2026, 11, 25, 12, 30, 1, tzinfo=UTC),
        "algorithm": cmp.tlv(cmp.SEQUENCE, cmp.identifier("1.2.840.10045.4.3.2")),
        "transaction": b"t" * 16,
        "nonce": b"n" * 16,
        **more,
    }
    return cmp.Header(**fields).encode()  # type: ignore[arg-type]  # the fields' own types


def test_what_we_say_is_read_as_it_was_meant_and_encoded_in_der() -> None:
    info = cmp.general_info(profile="docsign", implicit_confirm=True)
    body = cmp.explicit(cmp.POLL_REQ, cmp.poll_request(-1))
    ours = cmp.message(header(key_id=b"me", answers=b"a" * 16, general_info=info), body, b"sealed", ())
    decoded, rest = decoder.decode(ours, asn1Spec=rfc9810.PKIMessage())
    assert rest == b""
    assert encoder.encode(decoded) == ours
    read = cmp.read(ours)
    assert (read.transaction, read.nonce, read.answers, read.key_id) == (b"t" * 16, b"n" * 16, b"a" * 16, b"me")
    assert read.time == datetime(2026, 11, 25, 12, 30, 1, tzinfo=UTC)
    assert (read.kind, read.protection, read.implicitly_confirmed) == ("pollReq", b"sealed", True)
    assert read.part == cmp.tlv(cmp.SEQUENCE, cmp._children(ours)[0], body)


def test_a_request_says_key_subject_and_that_we_verified_the_possession() -> None:
    key, old = new_key(), authority("CA")
    csr = x509.load_der_x509_csr(request_for(key))
    decoded, rest = decoder.decode(
        cmp.certificate_request(csr, replaces=old.certificate), asn1Spec=rfc9810.CertReqMessages()
    )
    assert rest == b""
    request = decoded[0]["certReq"]
    assert decoded[0]["popo"].getName() == "raVerified"
    assert encoder.encode(request["certTemplate"]["subject"].getComponent()) == csr.subject.public_bytes()
    control = request["controls"][0]
    assert control["type"] == rfc4211.id_regCtrl_oldCertID
    old_id, _ = decoder.decode(bytes(control["value"]), asn1Spec=rfc4211.OldCertId())
    assert int(old_id["serialNumber"]) == old.certificate.serial_number


@pytest.mark.parametrize("accepted", [True, False])
def test_a_confirmation_names_the_certificate_by_the_hash_of_its_signature(*, accepted: bool) -> None:
    certificate = issue(authority("CA"), name("Yamada Taro"), ec.generate_private_key(ec.SECP256R1()))
    content, version = cmp.certificate_confirmation(certificate, 0, accepted=accepted)
    (status,), _ = decoder.decode(content, asn1Spec=rfc9810.CertConfirmContent())
    assert bytes(status["certHash"]) == certificate.fingerprint(hashes.SHA256())
    assert not status["hashAlg"].isValue
    assert status["statusInfo"].isValue is not accepted
    assert version == cmp.CMP2000


def test_a_confirmation_names_the_hash_where_the_signature_has_none() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    certificate = (
        x509.CertificateBuilder(subject_name=name("X"), issuer_name=name("X"), public_key=key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW.replace(year=2030))
        .sign(key, None)
    )
    content, version = cmp.certificate_confirmation(certificate, 0, accepted=True)
    (status,), _ = decoder.decode(content, asn1Spec=rfc9810.CertConfirmContent())
    assert bytes(status["certHash"]) == certificate.fingerprint(hashes.SHA512())
    assert str(status["hashAlg"]["algorithm"]) == "2.16.840.1.101.3.4.2.3"
    assert version == cmp.CMP2021


def test_a_reply_is_read() -> None:
    granted = cmp.certificate_response(cmp.read(reply("ip")))
    assert (granted.request_id, granted.status.status) == (0, 0)
    certificate = x509.load_der_x509_certificate(granted.certificate)
    assert certificate.public_bytes(Encoding.DER) == granted.certificate
    assert certificate.issuer == x509.load_der_x509_certificate(granted.above[0]).subject
    assert str(cmp.error_status(cmp.read(reply("error")))) == "the machine is tired; systemFailure"
    assert cmp.revocation_status(cmp.read(reply("rp"))).status == 0
    assert len(cmp.ca_certificates(cmp.read(reply("genp")))) == 1
    assert cmp.check_after_s(cmp.read(reply("pollRep"))) == 1


def use(content: bytes) -> None:
    read = cmp.read(content)
    ways = {
        "ip": cmp.certificate_response,
        "error": cmp.error_status,
        "rp": cmp.revocation_status,
        "genp": cmp.ca_certificates,
        "pollRep": cmp.check_after_s,
    }
    if read.kind in ways:
        ways[read.kind](read)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(REPLIES)),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4),
    kept=st.floats(0.05, 1.0),
)
def test_bytes_that_were_changed_or_cut_off_are_refused_or_read(
    kind: str, changes: list[tuple[int, int]], kept: float
) -> None:
    content = bytearray(reply(kind))
    for place, value in changes:
        content[place % len(content)] = value
    try:
        use(bytes(content[: int(len(content) * kept)]))
    except RakkanError as refusal:
        assert refusal.code is Code.AUTHORITY_UNTRUSTED  # noqa: PT017 - it may as well be read


@pytest.mark.parametrize("content", [b"", b"0", b"<html>", b"\x30\x80" * 30_000, reply("ip") + b"\x05\x00"], ids=len)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(RakkanError) as refusal:
        cmp.read(content)
    assert refusal.value.code is Code.AUTHORITY_UNTRUSTED

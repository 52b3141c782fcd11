"""The request the SAM makes for a key, and every certificate it does not take for it."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from services.sam import certificates
from services.sam.authorities import check_may_order
from services.sam.rows import Signer
from shared.algorithms import KeyAlgorithm, Profile
from shared.errors import Code, RakkanError
from shared.registry import CertificateProfile, CertificationAuthority, Registry
from tests.support.certificates import CA, NOW, authority, issue, name, pem, spki

PREHASHED = Prehashed(hashes.SHA256())
SIGNER = Signer("s1", "acme", "hanako", "花子", "Acme", "JP", b"", b"", 5, None, 5, 0, 1)
KEY = ec.generate_private_key(ec.SECP256R1())
POLICY, OTHER_POLICY = "2.999.3647.1", "2.999.3647.2"
DOCUMENT_SIGNING = "1.3.6.1.5.5.7.3.36"
PLAIN = CertificateProfile(label="Plain", validity_days_max=366)


def signed(request: certificates.CertificationRequest, key: Any) -> bytes:
    match key:
        case ed25519.Ed25519PrivateKey():
            value = key.sign(request.to_be_signed)
        case rsa.RSAPrivateKey():
            value = key.sign(request.to_be_signed, padding.PKCS1v15(), PREHASHED)
        case _:
            value = key.sign(request.to_be_signed, ec.ECDSA(PREHASHED))
    return request.signed(value)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P256, KeyAlgorithm.RSA2048, KeyAlgorithm.ED25519])
def test_a_request_signed_by_its_key_holds(algorithm: KeyAlgorithm) -> None:
    makers = {
        KeyAlgorithm.RSA2048: lambda: rsa.generate_private_key(65537, 2048),
        KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate,
    }
    key: Any = makers.get(algorithm, lambda: KEY)()
    der = signed(certificates.request_for(SIGNER, spki(key), algorithm, PLAIN), key)
    certificates.check_request(der, public_key=spki(key), subject=SUBJECT)
    assert x509.load_der_x509_csr(der).subject == SUBJECT


def test_the_request_for_a_key_is_the_same_every_time() -> None:
    requests = {certificates.request_for(SIGNER, spki(KEY), KeyAlgorithm.P256, PLAIN).information for _ in range(3)}
    assert len(requests) == 1


def test_a_request_that_its_key_did_not_sign_or_that_is_for_another_is_refused() -> None:
    request = certificates.request_for(SIGNER, spki(KEY), KeyAlgorithm.P256, PLAIN)
    good, forged = signed(request, KEY), signed(request, OTHER_KEY)
    for der, key, subject, words in (
        (forged, KEY, SUBJECT, "not signed by its key"),
        (good, OTHER_KEY, SUBJECT, "another key or subject"),
        (good, KEY, name("somebody else"), "another key or subject"),
        (b"junk", KEY, SUBJECT, "cannot be read"),
    ):
        with pytest.raises(RakkanError, match=words):
            certificates.check_request(der, public_key=spki(key), subject=subject)


NAMING = CertificateProfile(label="By ACME", validity_days_max=366, dns_name="{credential_id}.Signers.example")
DNS_NAME = "contracts-2.signers.example"


def test_a_profile_for_acme_adds_the_credentials_dns_name_to_the_request() -> None:
    assert certificates.dns_name_of("Contracts-2", NAMING) == DNS_NAME
    assert certificates.dns_name_of("Contracts-2", PLAIN) is None
    request = certificates.request_for(SIGNER, spki(KEY), KeyAlgorithm.P256, NAMING, dns_name=DNS_NAME)
    der = signed(request, KEY)
    certificates.check_request(der, public_key=spki(KEY), subject=SUBJECT, dns_name=DNS_NAME)
    read = x509.load_der_x509_csr(der)
    assert read.subject == SUBJECT
    (asked,) = read.extensions
    assert asked.value == x509.SubjectAlternativeName([x509.DNSName(DNS_NAME)])
    assert not asked.critical
    plain = signed(certificates.request_for(SIGNER, spki(KEY), KeyAlgorithm.P256, PLAIN), KEY)
    for other, expected in ((der, None), (der, "contracts-3.signers.example"), (plain, DNS_NAME)):
        with pytest.raises(RakkanError, match="another DNS name"):
            certificates.check_request(other, public_key=spki(KEY), subject=SUBJECT, dns_name=expected)


@pytest.mark.parametrize("credential_id", ["with_underscore", "hanako@home", "a..b", "ends-", "x" * 64])
def test_a_credential_whose_id_cannot_be_in_a_dns_name_is_refused_where_one_is_wanted(credential_id: str) -> None:
    with pytest.raises(RakkanError, match="no DNS name") as refused:
        certificates.dns_name_of(credential_id, NAMING)
    assert refused.value.code is Code.PROFILE_UNKNOWN


@pytest.mark.parametrize(
    ("changes", "template", "subject"),
    [
        ({}, {}, "2.5.4.5=s1,CN=花子,O=Acme,C=JP"),
        ({"organization": None}, {}, "2.5.4.5=s1,CN=花子,C=JP"),
        ({}, {"subject": ("common_name", "country")}, "C=JP,CN=花子"),
        (
            {"subject_type": "legal", "organization_identifier": "NTRJP-0100-01-123456"},
            {"subject_type": "legal", "subject": ("country", "organization", "organization_identifier", "common_name")},
            "CN=花子,2.5.4.97=NTRJP-0100-01-123456,O=Acme,C=JP",
        ),
    ],
)
def test_the_subject_is_the_profiles_template_over_what_was_verified(
    changes: dict[str, Any], template: dict[str, Any], subject: str
) -> None:
    made = certificates.subject_of(replace(SIGNER, **changes), PLAIN.model_copy(update=template))
    assert made.rfc4514_string() == subject


@pytest.mark.parametrize("kind", ["legal", "seal"])
def test_a_profile_for_another_kind_of_subject_is_refused(kind: str) -> None:
    with pytest.raises(RakkanError) as refused:
        certificates.subject_of(SIGNER, PLAIN.model_copy(update={"subject_type": kind}))
    assert refused.value.code is Code.PROFILE_UNKNOWN


ROOT = authority("root")
INTERMEDIATE = authority("intermediate", ROOT)
SUBJECT = certificates.subject_of(SIGNER, PLAIN)
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def ca_of(*anchors: x509.Certificate, **changes: Any) -> CertificationAuthority:
    members: dict[str, Any] = {
        "label": "A CA",
        "protocol": "local",
        "anchors": [pem(anchor) for anchor in anchors],
        "profiles": {"signing": PLAIN},
        "default_profile": "signing",
    }
    return CertificationAuthority.model_validate(members | changes)


def check(
    chain: Iterable[x509.Certificate],
    *,
    ca: CertificationAuthority | None = None,
    profile: CertificateProfile = PLAIN,
    dns_name: str | None = None,
) -> datetime:
    der = tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in chain)
    ca = ca or ca_of(ROOT.certificate)
    return certificates.check_certificate(
        der, public_key=spki(KEY), subject=SUBJECT, ca=ca, profile=profile, now=NOW, dns_name=dns_name
    )


def test_a_certificate_of_its_authority_is_taken_whatever_of_its_chain_comes_with_it() -> None:
    leaf, above = issue(INTERMEDIATE, SUBJECT, KEY), INTERMEDIATE.certificate
    registered = ca_of(ROOT.certificate, intermediates=[pem(above)])
    end = NOW + timedelta(days=365)
    assert check([leaf, above]) == end
    assert check([leaf, above, ROOT.certificate]) == end
    assert check([leaf, ROOT.certificate, above]) == end
    assert check([leaf], ca=registered) == end


IMPOSTOR = CA(OTHER_KEY, issue(None, name("root"), OTHER_KEY, ca=True))
NO_CA = authority("no ca", ROOT, ca=False)
EXPIRED = CA(OTHER_KEY, issue(ROOT, name("expired"), OTHER_KEY, ca=True, days=(-10, -1)))


def test_an_anchor_of_the_same_name_does_not_hide_the_right_one() -> None:
    """A CA that changed its key has two anchors of one name."""
    assert check([issue(ROOT, SUBJECT, KEY)], ca=ca_of(IMPOSTOR.certificate, ROOT.certificate))


def made(issuer: CA = ROOT, *, hash_: hashes.SHA224 | None = None, **more: Any) -> x509.Certificate:
    """A certificate with the extensions asked for, all of them good unless changed."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(SUBJECT)
        .issuer_name(issuer.certificate.subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(minutes=5))
        .not_valid_after(NOW + timedelta(days=more.get("days", 365)))
    )
    usage = x509.KeyUsage(False, more.get("commits", True), False, False, False, False, False, False, False)  # noqa: FBT003 - its own order
    purposes = [x509.ObjectIdentifier(one) for one in more.get("purposes", (DOCUMENT_SIGNING,))]
    policies = [x509.PolicyInformation(x509.ObjectIdentifier(one), None) for one in more.get("policies", (POLICY,))]
    if more.get("with_usage", True):
        builder = builder.add_extension(usage, critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if policies:
        builder = builder.add_extension(x509.CertificatePolicies(policies), critical=False)
    if more.get("ca"):
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if "names" in more:
        names = [x509.DNSName(one) for one in more["names"]]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if more.get("strange"):
        strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.1"), b"\x05\x00")
        builder = builder.add_extension(strange, critical=True)
    return builder.sign(issuer.key, hash_ or hashes.SHA256())


FULL = PLAIN.model_copy(
    update={"policies": (POLICY, OTHER_POLICY), "extended_key_usages": (DOCUMENT_SIGNING,), "validity_days_max": 365}
)


def test_a_certificate_that_is_all_its_profile_wants_is_taken() -> None:
    assert check([made()], profile=FULL)
    assert check([made(policies=(OTHER_POLICY, "2.999.7"))], profile=FULL)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policies": ()}, "policy is none of"),
        ({"policies": ("2.999.3647.9",)}, "policy is none of"),
        ({"purposes": ()}, "extended key usage lacks"),
        ({"purposes": ("1.3.6.1.5.5.7.3.4",)}, "extended key usage lacks"),
        ({"with_usage": False}, "key usage lacks"),
        ({"commits": False}, "key usage lacks"),
        ({"days": 366}, "more than 365"),
        ({"ca": True}, "a CA's certificate"),
        ({"strange": True}, "critical extension 2.999.1"),
        ({"hash_": hashes.SHA224()}, "sha224, which is weak"),
    ],
    ids=[
        "policy dropped",
        "other policy",
        "purpose dropped",
        "other purpose",
        "key usage dropped",
        "other key usage",
        "valid for longer",
        "a CA",
        "critical and unknown",
        "weak hash",
    ],
)
def test_a_certificate_that_is_not_what_was_ordered_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RakkanError, match=words) as refused:
        check([made(**changes)], profile=FULL)
    assert refused.value.code is Code.CERTIFICATE_REFUSED


def test_the_dns_name_that_was_asked_for_stands_in_the_certificate_and_no_other() -> None:
    assert check([made(names=[DNS_NAME])], dns_name=DNS_NAME)
    for certificate in (
        made(),
        made(names=["contracts-3.signers.example"]),
        made(names=[DNS_NAME, "elsewhere.example"]),
    ):
        with pytest.raises(RakkanError, match="DNS name is not") as refused:
            check([certificate], dns_name=DNS_NAME)
        assert refused.value.code is Code.CERTIFICATE_REFUSED


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([issue(ROOT, SUBJECT, OTHER_KEY)], "another key"),
        ([issue(ROOT, name("somebody else"), KEY)], "another subject"),
        ([issue(ROOT, SUBJECT, KEY, signs=False)], "key usage"),
        ([issue(ROOT, SUBJECT, KEY, days=(-10, -1))], "not valid today"),
        ([issue(ROOT, SUBJECT, KEY, days=(1, 10))], "not valid today"),
        ([issue(EXPIRED, SUBJECT, KEY), EXPIRED.certificate], "not valid today"),
        ([issue(IMPOSTOR, SUBJECT, KEY)], "does not lead"),
        ([issue(IMPOSTOR, SUBJECT, KEY), IMPOSTOR.certificate], "does not lead"),
        ([issue(INTERMEDIATE, SUBJECT, KEY)], "does not lead"),
        ([issue(INTERMEDIATE, SUBJECT, KEY), ROOT.certificate], "does not lead"),
        ([issue(NO_CA, SUBJECT, KEY), NO_CA.certificate], "no CA"),
        ([issue(None, SUBJECT, KEY)], "does not lead"),
    ],
    ids=[
        "other key",
        "other subject",
        "other usage",
        "expired",
        "not yet valid",
        "expired intermediate",
        "impostor of the root",
        "impostor with itself",
        "intermediate missing",
        "wrong link",
        "issued by no CA",
        "self-signed",
    ],
)
def test_any_other_certificate_is_refused(chain: list[x509.Certificate], words: str) -> None:
    with pytest.raises(RakkanError, match=words) as refused:
        check(chain)
    assert refused.value.code is Code.CERTIFICATE_REFUSED


def test_a_chain_over_a_small_key_is_refused() -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is to be refused
    weak = CA(small, issue(ROOT, name("weak"), small, ca=True))  # type: ignore[arg-type]  # signs all the same
    with pytest.raises(RakkanError, match="weak key"):
        check([issue(weak, SUBJECT, KEY), weak.certificate])


def test_a_chain_that_is_longer_than_its_ca_allows_is_refused() -> None:
    short = authority("short")
    limited = CA(
        short.key,
        x509.CertificateBuilder()
        .subject_name(name("short"))
        .issuer_name(name("short"))
        .public_key(short.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(short.key, hashes.SHA256()),
    )
    below = authority("below", limited)
    with pytest.raises(RakkanError, match="longer than a CA"):
        check([issue(below, SUBJECT, KEY), below.certificate], ca=ca_of(limited.certificate))


def test_another_cas_certificate_is_refused_even_of_the_same_name() -> None:
    """Two CAs of one registry with one distinguished name: what one of them signs is not the other's."""
    with pytest.raises(RakkanError, match="does not lead"):
        check([issue(IMPOSTOR, SUBJECT, KEY), IMPOSTOR.certificate], ca=ca_of(ROOT.certificate))
    assert check([issue(IMPOSTOR, SUBJECT, KEY)], ca=ca_of(IMPOSTOR.certificate))


def test_an_authority_without_anchors_gets_nothing_linked() -> None:
    with pytest.raises(RakkanError, match="does not lead"):
        check([issue(ROOT, SUBJECT, KEY), ROOT.certificate], ca=ca_of())


def test_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(RakkanError) as refused:
        certificates.check_certificate((b"junk",), public_key=b"", subject=SUBJECT, ca=ca_of(), profile=PLAIN, now=NOW)
    assert refused.value.code is Code.CERTIFICATE_REFUSED


@pytest.mark.parametrize(
    ("asked", "ca", "code"),
    [
        ({"authority": "nobody"}, {}, Code.AUTHORITY_UNKNOWN),
        ({"profile": "seal"}, {}, Code.PROFILE_UNKNOWN),
        ({}, {"tenants": ["rival"]}, Code.AUTHORITY_FORBIDDEN),
        ({}, {"status": "maintenance"}, Code.AUTHORITY_UNAVAILABLE),
        ({"key_algorithm": KeyAlgorithm.P384}, {}, Code.SIGN_ALGORITHM_REFUSED),
        ({"signer": replace(SIGNER, subject_type="seal")}, {}, Code.PROFILE_UNKNOWN),
    ],
    ids=["unknown CA", "unknown profile", "another tenant's", "in maintenance", "key not certified", "other subject"],
)
def test_what_may_not_be_ordered_is_refused_before_a_key_is_made(
    asked: dict[str, Any], ca: dict[str, Any], code: Code
) -> None:
    registry = Registry(version=1, certification_authorities={"blue": ca_of(ROOT.certificate, **ca)})
    wanted: dict[str, Any] = {
        "authority": "blue",
        "profile": "signing",
        "signer": SIGNER,
        "key_algorithm": KeyAlgorithm.P256,
        "algorithms": Profile.EU,
    }
    with pytest.raises(RakkanError) as refused:
        check_may_order(registry, **(wanted | asked), now=NOW)
    assert refused.value.code is code

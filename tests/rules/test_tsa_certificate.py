"""Every check on the certificate behind a time-stamp token, by a TSA with the one fault the check is there for."""

from dataclasses import replace
from typing import Any

import pytest
from asn1crypto import cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.judging import HONEST, SECOND, UNKNOWN, judge, refuses, told
from tests.support.lying_tsa import CA, NOW, Holder, Lies, LyingTSA, Profile, certify

# The signer's certificate


def test_the_signed_reference_to_the_certificate_is_needed() -> None:
    refuses("no signed reference", Lies(ess=()))


def test_the_sha1_reference_is_taken_only_where_allowed() -> None:
    refuses("no signed reference", Lies(ess=("v1",)))
    assert judge(Lies(ess=("v1",)), allow_ess_v1=True)
    assert judge(Lies(ess=("v1", "v2")))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_signed_reference_to_another_certificate_is_refused(version: str) -> None:
    # The same key in a second certificate: signature and name fit both, only the reference tells which was meant.
    twin = certify(Profile(), issuer=HONEST.root, key=HONEST.signer.key)
    refuses("reference means", Lies(ess=(version,), ess_of=twin), allow_ess_v1=True)


def test_with_two_certificates_of_the_signers_key_the_meant_one_counts() -> None:
    twin = certify(Profile(extended=(ExtendedKeyUsageOID.CODE_SIGNING,)), issuer=HONEST.root, key=HONEST.signer.key)
    assert judge(Lies(certificates=(twin, HONEST.signer)))


def test_a_wrong_issuer_or_serial_in_the_reference_is_refused() -> None:
    serial = HONEST.signer.certificate.serial_number
    assert judge(Lies(ess_issuer_serial=(HONEST.root, serial)))
    refuses("reference means", Lies(ess_issuer_serial=(HONEST.root, serial + 1)))
    refuses("reference means", Lies(ess_issuer_serial=(HONEST.signer, serial)))


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224"])
def test_a_reference_by_a_hash_that_is_not_allowed_is_refused(algorithm: str) -> None:
    refuses("", Lies(ess_hash=algorithm))


def test_a_token_without_its_certificate_is_refused() -> None:
    refuses("reference means", Lies(certificates=()))
    refuses("reference means", Lies(certificates=(HONEST.root,)))


def test_a_signer_may_be_named_by_its_key_identifier() -> None:
    def rename(identifier: bytes) -> Lies:
        def change(signer: cms.SignerInfo) -> None:
            signer["sid"] = cms.SignerIdentifier("subject_key_identifier", core.OctetString(identifier))

        return Lies(signer=change)

    key_id = x509.SubjectKeyIdentifier.from_public_key(HONEST.signer.key.public_key()).digest
    assert judge(rename(key_id))
    refuses("reference means", rename(b"\0" * 20))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"extended": ()}, "no extended key usage"),
        ({"extended_critical": False}, "critically"),
        ({"extended": (ExtendedKeyUsageOID.CODE_SIGNING,)}, "critically"),
        ({"extended": (ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING)}, "critically"),
        ({"usage": ("key_encipherment",)}, "may not sign"),
        ({"ca": True}, "is a CA"),
        ({"not_before": NOW + SECOND}, "not valid"),
        ({"not_after": NOW - SECOND}, "not valid"),
        ({"more": ((UNKNOWN, True),)}, "critical extension"),
        ({"more": ((x509.PrivateKeyUsagePeriod(None, NOW - SECOND), False),)}, "in use"),
        ({"more": ((x509.PrivateKeyUsagePeriod(NOW + SECOND, None), False),)}, "in use"),
    ],
)
def test_a_certificate_that_is_not_for_time_stamps_now_is_refused(change: dict[str, Any], why: str) -> None:
    refuses(why, tsa=HONEST.with_signer(replace(Profile(), **change)))


def test_what_a_certificate_may_have_besides_is_accepted() -> None:
    period = x509.PrivateKeyUsagePeriod(NOW - SECOND, NOW + SECOND)
    assert judge(tsa=HONEST.with_signer(Profile(usage=(), ca=None, more=((period, False), (UNKNOWN, False)))))
    assert judge(tsa=HONEST.with_signer(Profile(usage=("content_commitment",))))


def test_a_weak_key_is_refused() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - the lie of this test
    refuses("weak", Lies(signature_algorithm={"algorithm": "sha256_rsa"}), tsa=HONEST.with_signer(Profile(), key=key))


# The chain


def test_a_stranger_with_the_same_names_is_refused() -> None:
    refuses("does not chain", anchors=(LyingTSA.honest().root.certificate,))
    refuses("does not chain", anchors=())


def intermediate(**change: Any) -> tuple[LyingTSA, Lies]:
    middle = certify(replace(CA, name="intermediate", **change), issuer=HONEST.root)
    tsa = HONEST.with_signer(Profile(), issuer=middle)
    return tsa, Lies(certificates=(middle, tsa.signer))


def test_a_chain_through_an_intermediate_is_followed() -> None:
    tsa, lies = intermediate()
    assert judge(lies, tsa=tsa)
    refuses("does not chain", tsa=tsa)


@pytest.mark.parametrize(
    "change",
    [
        {"ca": False},
        {"ca": None},
        {"usage": ("digital_signature",)},
        {"not_after": NOW - SECOND},
        {"not_before": NOW + SECOND},
        {"more": ((UNKNOWN, True),)},
        {"more": ((x509.NameConstraints([x509.DNSName("example.org")], None), True),)},
    ],
)
def test_an_intermediate_that_may_not_issue_ends_the_chain(change: dict[str, Any]) -> None:
    tsa, lies = intermediate(**change)
    refuses("does not chain", lies, tsa=tsa)


def test_the_length_of_a_chain_is_limited_by_its_cas() -> None:
    root = certify(replace(CA, name="root", path_length=0))
    middle = certify(replace(CA, name="intermediate"), issuer=root)
    tsa = LyingTSA(root, certify(Profile(), issuer=middle))
    refuses("does not chain", Lies(certificates=(tsa.signer, middle)), tsa=tsa)


def test_an_anchor_has_its_time_too() -> None:
    root = certify(replace(CA, name="root", not_after=NOW - SECOND))
    refuses("does not chain", tsa=LyingTSA(root, certify(Profile(), issuer=root)))


def test_an_anchor_that_is_no_ca_issues_nothing() -> None:
    root = certify(replace(CA, name="root", ca=False))
    refuses("does not chain", tsa=LyingTSA(root, certify(Profile(), issuer=root)))


def test_certificates_that_issue_each_other_end() -> None:
    first_key, second_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    first = certify(replace(CA, name="first"), key=first_key)
    second = certify(replace(CA, name="second"), issuer=first, key=second_key)
    again = certify(replace(CA, name="first"), issuer=second, key=first_key)
    tsa = LyingTSA(HONEST.root, certify(Profile(), issuer=second))
    refuses("does not chain", Lies(certificates=(tsa.signer, second, again, first)), tsa=tsa)


def test_a_certificate_over_a_hash_that_is_not_allowed_is_refused() -> None:
    refuses("sha224", tsa=HONEST.with_signer(Profile(hash=hashes.SHA224())))


# The TSA's name


def names(certificate: Holder) -> asn1_x509.GeneralName:
    return asn1_x509.GeneralName("directory_name", asn1_x509.Name.load(certificate.certificate.subject.public_bytes()))


def test_the_name_a_tsa_gives_itself_must_be_its_certificates() -> None:
    assert judge(told("tsa", names(HONEST.signer)))
    refuses("names itself", told("tsa", names(HONEST.root)))
    refuses("names itself", told("tsa", asn1_x509.GeneralName("dns_name", "tsa.example")))


def test_an_alternative_name_will_do() -> None:
    san = x509.SubjectAlternativeName([x509.DNSName("tsa.example")])
    tsa = HONEST.with_signer(Profile(more=((san, False),)))
    assert judge(told("tsa", asn1_x509.GeneralName("dns_name", "tsa.example")), tsa=tsa)

"""The status of a TSA's certificate, by a list or an answer with the one fault the check is there for."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from services.tsa_connector.revocation import judge_crl, judge_ocsp, ocsp_request, sources_of
from shared.errors import Code, RakkanError
from tests.support.lying_tsa import CA, NOW, Holder, LyingTSA, Profile, certify
from tests.support.tsa_statuses import crl, ocsp_answer

TSA = LyingTSA.honest()
ROOT, SIGNER = TSA.root, TSA.signer
STRANGER = certify(CA)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def by_list(der: bytes, holder: Holder = SIGNER, issuer: Holder = ROOT) -> bool:
    return judge_crl(der, holder.certificate, issuer.certificate, now=NOW).is_revoked


def by_answer(der: bytes) -> bool:
    return judge_ocsp(der, SIGNER.certificate, ROOT.certificate, now=NOW).is_revoked


def refused(judge: Callable[[bytes], bool], der: bytes) -> str:
    with pytest.raises(RakkanError) as refusal:
        judge(der)
    assert refusal.value.code is Code.TSA_UNTRUSTED
    return refusal.value.detail


@pytest.mark.parametrize(
    ("reason", "is_revoked"),
    [
        (None, True),
        (x509.ReasonFlags.key_compromise, True),
        (x509.ReasonFlags.superseded, True),
        (x509.ReasonFlags.certificate_hold, True),
    ],
)
def test_who_is_listed_is_revoked_and_who_is_not_is_not(reason: x509.ReasonFlags | None, *, is_revoked: bool) -> None:
    assert not by_list(crl(ROOT))
    assert by_list(crl(ROOT, SIGNER, reason=reason)) is is_revoked
    assert not by_list(crl(ROOT, STRANGER))


def test_a_list_that_is_not_the_issuers_says_nothing() -> None:
    assert refused(by_list, crl(STRANGER))
    twin = Holder(STRANGER.key, ROOT.certificate)
    assert refused(by_list, crl(twin))
    assert refused(by_list, b"\x30\x00")


def test_a_list_of_yesterday_or_tomorrow_says_nothing() -> None:
    assert refused(by_list, crl(ROOT, at=NOW - 8 * DAY, lifetime=7 * DAY))
    assert refused(by_list, crl(ROOT, at=NOW + HOUR))
    assert not by_list(crl(ROOT, at=NOW - 6 * DAY, lifetime=7 * DAY))


def test_a_delta_or_a_list_of_others_says_nothing() -> None:
    assert "delta" in refused(by_list, crl(ROOT, more=[(x509.DeltaCRLIndicator(1), True)]))
    of_cas = x509.IssuingDistributionPoint(
        full_name=None,
        relative_name=None,
        only_contains_user_certs=False,
        only_contains_ca_certs=True,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    assert refused(by_list, crl(ROOT, more=[(of_cas, True)]))
    below = certify(CA, issuer=ROOT)
    assert not by_list(crl(ROOT, more=[(of_cas, True)]), below)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.8"), b"\x05\x00")
    assert refused(by_list, crl(ROOT, more=[(unknown, True)]))


def test_a_list_may_be_relied_on_until_the_next_one() -> None:
    found = judge_crl(crl(ROOT, lifetime=3 * DAY), SIGNER.certificate, ROOT.certificate, now=NOW)
    assert found.until == NOW + 3 * DAY


@pytest.mark.parametrize(
    ("status", "is_revoked"), [(ocsp.OCSPCertStatus.GOOD, False), (ocsp.OCSPCertStatus.REVOKED, True)]
)
def test_the_issuer_or_its_delegate_answers(status: ocsp.OCSPCertStatus, *, is_revoked: bool) -> None:
    assert by_answer(ocsp_answer(SIGNER, ROOT, status=status)) is is_revoked
    delegate = certify(Profile(name="responder", extended=(ExtendedKeyUsageOID.OCSP_SIGNING,)), issuer=ROOT)
    assert by_answer(ocsp_answer(SIGNER, ROOT, status=status, responder=delegate)) is is_revoked


def test_an_answer_of_somebody_else_or_about_somebody_else_says_nothing() -> None:
    not_for_this = certify(Profile(name="responder"), issuer=ROOT)
    assert refused(by_answer, ocsp_answer(SIGNER, ROOT, responder=not_for_this))
    assert refused(by_answer, ocsp_answer(SIGNER, ROOT, responder=STRANGER))
    other = certify(Profile(name="another"), issuer=ROOT)
    assert refused(by_answer, ocsp_answer(other, ROOT))
    assert refused(by_answer, ocsp_answer(SIGNER, ROOT, status=ocsp.OCSPCertStatus.UNKNOWN))
    assert refused(by_answer, ocsp_answer(SIGNER, ROOT, at=NOW - 8 * DAY))
    assert refused(by_answer, b"")
    later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    assert "try_later" in refused(by_answer, later.public_bytes(Encoding.DER))


def test_a_question_names_the_certificate_and_its_issuer() -> None:
    asked = ocsp.load_der_ocsp_request(ocsp_request(SIGNER.certificate, ROOT.certificate))
    assert asked.serial_number == SIGNER.certificate.serial_number


def test_a_certificate_says_where_its_status_is_told_and_only_the_web_counts() -> None:
    def uri(text: str) -> x509.UniformResourceIdentifier:
        return x509.UniformResourceIdentifier(text)

    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, uri("http://ocsp.example/")),
            x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, uri("http://ca.example/")),
        ]
    )
    points = x509.CRLDistributionPoints(
        [x509.DistributionPoint([uri("ldap://ca.example/"), uri("http://ca.example/crl")], None, None, None)]
    )
    holder = certify(Profile(more=[(access, False), (points, False)]), issuer=ROOT)
    assert sources_of(holder.certificate) == (("http://ocsp.example/",), ("http://ca.example/crl",))
    assert sources_of(SIGNER.certificate) == ((), ())

"""What a list or an OCSP answer must be to be believed, and what it then says."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from shared.certificate_status import (
    CertificateStatus,
    RevocationList,
    check_delta_fits,
    check_leads_to,
    issuer_of,
    read_answer,
    read_list,
)
from shared.errors import Code, RakkanError
from tests.support.certificates import CA, NOW, authority
from tests.support.published import COMPROMISE, DAY, HOLD, REMOVED, URL, answer, crl, end_entity, responder, twin_of

ROOT = authority("Root")
ISSUING = authority("Issuing", ROOT)
OTHER = authority("Other")
CERTIFICATE = end_entity(ISSUING)
SERIAL = CERTIFICATE.serial_number


def listed(der: bytes, ca: CA = ISSUING, *, age_max: timedelta = DAY) -> RevocationList:
    return read_list(der, ca.certificate, now=NOW, age_max=age_max, certificate=CERTIFICATE)


def refused(read: Callable[[], object], why: str) -> None:
    with pytest.raises(RakkanError, match=why) as refusal:
        read()
    assert refusal.value.code is Code.CERTIFICATE_REFUSED


@pytest.mark.parametrize(
    ("reason", "state"),
    [(COMPROMISE, "revoked"), (x509.ReasonFlags.unspecified, "revoked"), (HOLD, "suspended"), (REMOVED, "valid")],
)
def test_a_list_says_which_are_revoked_which_suspended_and_nothing_of_others(
    reason: x509.ReasonFlags, state: str
) -> None:
    read = listed(crl(ISSUING, {SERIAL: reason, 5: COMPROMISE}))
    found = read.entries({SERIAL, 6})
    assert {serial: status.state for serial, status in found.items()} == {SERIAL: state}
    assert (read.number, read.base_number) == (7, None)


def test_a_list_of_another_authority_is_refused() -> None:
    refused(lambda: listed(crl(OTHER)), "of another authority")


def test_a_list_of_another_authority_of_the_same_name_is_refused() -> None:
    refused(lambda: listed(crl(twin_of(ISSUING))), "not signed by the issuer")


def test_a_list_signed_by_the_authority_above_is_not_the_issuers() -> None:
    refused(lambda: listed(crl(ROOT, issuer=ISSUING.certificate.subject)), "not signed by the issuer")


@pytest.mark.parametrize(
    ("at", "until"),
    [(NOW - 3 * DAY, NOW - DAY), (NOW + DAY, NOW + 2 * DAY), (NOW - 2 * DAY, NOW + DAY)],
    ids=["ran out", "of tomorrow", "older than the registry allows"],
)
def test_a_stale_list_is_refused(at: object, until: object) -> None:
    refused(lambda: listed(crl(ISSUING, at=at, until=until)), "not of now")  # type: ignore[arg-type]  # times


@pytest.mark.parametrize("der", [b"", b"<html>", crl(ISSUING)[:-9], crl(ISSUING) + b"\0"])
def test_what_is_no_list_is_refused(der: bytes) -> None:
    refused(lambda: listed(der), "cannot be read|not signed")


def scope(**limits: object) -> x509.IssuingDistributionPoint:
    nothing = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**nothing, **limits})  # type: ignore[arg-type]  # its own names


@pytest.mark.parametrize(
    "limits",
    [
        {"only_contains_ca_certs": True},
        {"only_contains_attribute_certs": True},
        {"indirect_crl": True},
        {"only_some_reasons": frozenset({COMPROMISE})},
        {"full_name": [x509.UniformResourceIdentifier("http://ca.example/other-part.crl")]},
    ],
    ids=str,
)
def test_a_list_that_does_not_cover_the_certificate_is_refused(limits: dict[str, object]) -> None:
    refused(lambda: listed(crl(ISSUING, more=[(scope(**limits), True)])), "cover")


def test_a_list_for_the_part_of_the_certificate_is_believed() -> None:
    part = scope(full_name=[x509.UniformResourceIdentifier(URL)], only_contains_user_certs=False)
    assert listed(crl(ISSUING, more=[(part, True)])).number == 7
    users = scope(only_contains_user_certs=True)
    assert listed(crl(ISSUING, more=[(users, True)])).number == 7


def test_a_list_with_a_critical_extension_that_nobody_knows_is_refused() -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.1"), b"\x05\x00")
    refused(lambda: listed(crl(ISSUING, more=[(strange, True)])), "critical")


@pytest.mark.parametrize(("number", "base", "fits"), [(9, 7, True), (9, 5, True), (9, 8, False), (6, 5, False)])
def test_a_delta_adds_only_to_a_list_that_it_knows(number: int, base: int, *, fits: bool) -> None:
    complete, delta = listed(crl(ISSUING)), listed(crl(ISSUING, number=number, base=base))
    if fits:
        check_delta_fits(complete, delta)
    else:
        refused(lambda: check_delta_fits(complete, delta), "adds to list")


def test_a_complete_list_is_no_delta() -> None:
    complete = listed(crl(ISSUING))
    refused(lambda: check_delta_fits(complete, complete), "no complete list")


def test_the_issuer_is_found_by_key_and_must_lead_to_the_anchors_of_the_authority() -> None:
    twin = twin_of(ISSUING)
    candidates = (twin.certificate, ISSUING.certificate)
    assert issuer_of(CERTIFICATE, candidates, (ROOT.certificate,), now=NOW) == ISSUING.certificate
    refused(lambda: issuer_of(CERTIFICATE, candidates, (OTHER.certificate,), now=NOW), "anchors")
    refused(lambda: issuer_of(CERTIFICATE, (), (ROOT.certificate,), now=NOW), "anchors")
    refused(lambda: issuer_of(CERTIFICATE, candidates, (ROOT.certificate,), now=NOW + 900 * DAY), "anchors")
    check_leads_to(ISSUING.certificate, (), (ROOT.certificate,), now=NOW)
    refused(lambda: check_leads_to(ISSUING.certificate, (), (OTHER.certificate,), now=NOW), "lead")


def told(der: bytes, named: x509.Certificate | None = None) -> CertificateStatus:
    return read_answer(der, CERTIFICATE, ISSUING.certificate, now=NOW, age_max=DAY, responder=named)


@pytest.mark.parametrize(("reason", "state"), [(None, "valid"), (COMPROMISE, "revoked"), (HOLD, "suspended")])
def test_the_issuer_itself_or_its_delegate_answers(reason: x509.ReasonFlags | None, state: str) -> None:
    for who in (None, responder(ISSUING)):
        status = told(answer(ISSUING, CERTIFICATE, reason=reason, responder=who))
        assert (status.state, status.said_at) == (state, NOW)


def test_a_responder_that_officers_named_answers_too_and_nobody_else() -> None:
    der = answer(ISSUING, CERTIFICATE, responder=OTHER)
    assert told(der, OTHER.certificate).state == "valid"
    refused(lambda: told(der), "not signed by the issuer")
    refused(lambda: told(der, ROOT.certificate), "not signed by the issuer")


@pytest.mark.parametrize(
    "wrong",
    [responder(OTHER), responder(ISSUING, usage=False), responder(ISSUING, days=-1), responder(ROOT), twin_of(ISSUING)],
    ids=["of another CA", "without the usage", "expired", "of the CA above", "of the same name"],
)
def test_an_answer_signed_by_the_wrong_responder_is_refused(wrong: CA) -> None:
    refused(lambda: told(answer(ISSUING, CERTIFICATE, responder=wrong)), "not signed by the issuer")


WRONG_ANSWERS = [
    (answer(ISSUING, end_entity(ISSUING)), "another certificate"),
    (answer(ISSUING, CERTIFICATE, about=OTHER), "another issuer"),
    (answer(ISSUING, CERTIFICATE, at=NOW - 3 * DAY), "not of now"),
    (answer(ISSUING, CERTIFICATE, status=ocsp.OCSPCertStatus.UNKNOWN), "does not know"),
    (ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER), "says"),
    (b"<html>", "cannot be read"),
    (answer(ISSUING, CERTIFICATE)[:-30], "cannot be read"),
]


@pytest.mark.parametrize(("der", "why"), WRONG_ANSWERS)
def test_an_answer_that_is_not_about_this_certificate_now_is_refused(der: bytes, why: str) -> None:
    refused(lambda: told(der), why)

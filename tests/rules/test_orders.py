"""The state machine of orders, move by move, and the requests the local CA will not certify."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.ca_connector.orders import (
    BROUGHT,
    BY_AUTHORITY,
    BY_OPERATOR,
    BY_SAM,
    Issued,
    Order,
    Outcome,
    Pending,
    Refused,
    State,
    advance,
    check_reason,
    check_same,
    decide,
    expect_confirmation,
    fill,
    is_given_up,
    lose,
    resolve,
    schedule,
    surely_not_placed,
)
from services.ca_connector.profile import DOCUMENT_SIGNING, Profile, RevokedCertificate, crl, end_entity, root
from services.ca_connector.profile import read_request as read
from shared.errors import Code, RakkanError
from shared.registry.model import Polling

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ORDER = Order(order_id="o-1", authority="local", csr=b"csr", operation_id="op", created_at=NOW)
CHAIN = (b"certificate", b"root")
PENDING = Pending(handle=b"handle", not_before=NOW)


def at(state: State) -> Order:
    chain = CHAIN if state in {State.ISSUED, State.CONFIRMED, State.REJECTED} else ()
    return replace(ORDER, state=state, chain=chain)


def test_an_order_is_issued_at_once_or_after_any_number_of_polls() -> None:
    assert advance(ORDER, Issued(CHAIN)).state is State.ISSUED
    pending = advance(advance(ORDER, PENDING), Pending(handle=b"next", not_before=NOW + timedelta(hours=1)))
    assert (pending.state, pending.handle) == (State.PENDING, b"next")
    issued = advance(pending, Issued(CHAIN))
    assert (issued.state, issued.chain) == (State.ISSUED, CHAIN)


def test_an_authority_may_refuse_before_it_issues() -> None:
    for order in (ORDER, advance(ORDER, PENDING)):
        refused = advance(order, Refused("no such person"))
        assert (refused.state, refused.reason, refused.chain) == (State.REJECTED, "no such person", ())


def test_a_refusal_always_has_a_reason_and_never_an_endless_one() -> None:
    assert advance(ORDER, Refused("  ")).reason == "no reason given"
    assert len(advance(ORDER, Refused("x" * 10_000)).reason or "") == 255


def test_only_the_sam_decides_on_what_was_issued() -> None:
    issued = at(State.ISSUED)
    assert decide(issued, accepted=True, reason=None).state is State.CONFIRMED
    rejected = decide(issued, accepted=False, reason="another key")
    assert (rejected.state, rejected.reason, rejected.chain) == (State.REJECTED, "another key", CHAIN)
    for outcome in (Issued(CHAIN), PENDING, Refused("late")):
        with pytest.raises(RakkanError) as refusal:
            advance(issued, outcome)
        assert refusal.value.code is Code.CONFLICT


@pytest.mark.parametrize(("state", "to"), list(itertools.product(State, State)))
def test_every_move_that_is_not_in_the_table_is_refused(state: State, to: State) -> None:
    order = at(state)
    authority: dict[State, Outcome] = {
        State.PENDING: PENDING,
        State.ISSUED: Issued(CHAIN),
        State.REJECTED: Refused("no"),
    }
    if to in authority:
        expect(lambda: advance(order, authority[to]), to, allowed=to in BY_AUTHORITY.get(state, ()))
    if to in {State.CONFIRMED, State.REJECTED}:
        accepted = to is State.CONFIRMED
        allowed = to in BY_SAM.get(state, ()) or state is to
        expect(lambda: decide(order, accepted=accepted, reason="no"), to, allowed=allowed)
    if to is State.CONFIRMED:
        expect(lambda: fill(order, CHAIN), to, allowed=to in BROUGHT.get(state, ()) or state is to)
    if to is State.UNKNOWN:
        expect(lambda: lose(order, "why"), to, allowed=to in BY_AUTHORITY.get(state, ()))
    assert not any(State.SUBMITTED in moves for moves in (*BY_AUTHORITY.values(), *BY_SAM.values()))


def expect(move: Callable[[], Order], to: State, *, allowed: bool) -> None:
    if allowed:
        assert move().state is to
        return
    with pytest.raises(RakkanError) as refusal:
        move()
    assert refusal.value.code is Code.CONFLICT


def test_the_same_word_again_changes_nothing() -> None:
    for state in (State.CONFIRMED, State.REJECTED):
        order = at(state)
        assert decide(order, accepted=state is State.CONFIRMED, reason="again") is order


def test_what_was_brought_fills_an_order_once_and_no_other_certificate_takes_its_place() -> None:
    filled = fill(advance(ORDER, PENDING), CHAIN)
    assert (filled.state, filled.chain, filled.handle) == (State.CONFIRMED, CHAIN, b"handle")
    assert fill(filled, CHAIN) is filled
    assert fill(filled, CHAIN[:1]) is filled  # without the root it is the same certificate
    for order in (filled, at(State.ISSUED), at(State.REJECTED)):
        with pytest.raises(RakkanError) as refusal:
            fill(order, (b"another",))
        assert refusal.value.code is Code.CONFLICT


def test_what_was_never_issued_cannot_be_rejected_by_the_sam_again() -> None:
    with pytest.raises(RakkanError):
        decide(advance(ORDER, Refused("no")), accepted=False, reason="no")


def test_issued_without_a_certificate_is_not_issued() -> None:
    with pytest.raises(RakkanError) as refusal:
        advance(ORDER, Issued(()))
    assert refusal.value.code is Code.CERTIFICATE_REFUSED


@pytest.mark.parametrize("change", [{"authority": "other"}, {"csr": b"another"}, {"profile": "seal"}])
def test_an_order_id_with_another_content_is_a_conflict(change: dict[str, Any]) -> None:
    check_same(ORDER, ORDER)
    with pytest.raises(RakkanError) as refusal:
        check_same(ORDER, replace(ORDER, **change))
    assert refusal.value.code is Code.CONFLICT


def test_an_order_that_is_lost_is_asked_for_no_more_but_a_late_word_counts() -> None:
    lost = lose(ORDER, "no answer")
    assert (lost.state, lost.reason) == (State.UNKNOWN, "no answer")
    assert advance(lost, Issued(CHAIN)).state is State.ISSUED
    with pytest.raises(RakkanError):
        decide(lost, accepted=True, reason=None)


def test_an_operator_says_what_became_of_a_lost_order() -> None:
    lost = replace(lose(ORDER, "no answer"), asked_before=True, failures=3)
    again = resolve(lost, None)
    assert (again.state, again.asked_before, again.failures, again.reason) == (State.SUBMITTED, False, 0, None)
    assert resolve(lost, Issued(CHAIN)).chain == CHAIN
    assert resolve(lost, Refused("never came there")).reason == "never came there"
    assert resolve(lost, PENDING).handle == b"handle"


@pytest.mark.parametrize("state", [state for state in State if state not in BY_OPERATOR])
def test_an_operator_decides_nothing_that_is_not_in_doubt(state: State) -> None:
    for outcome in (None, Issued(CHAIN), Refused("no")):
        with pytest.raises(RakkanError) as refusal:
            resolve(at(state), outcome)
        assert refusal.value.code is Code.CONFLICT


def test_an_operator_may_not_have_placed_again_what_is_pending() -> None:
    with pytest.raises(RakkanError):
        resolve(at(State.PENDING), None)


@pytest.mark.parametrize(
    ("trouble", "surely"),
    [
        (RakkanError(Code.AUTHORITY_UNAVAILABLE), True),
        (RakkanError(Code.AUTHORITY_REFUSED), True),
        (RakkanError(Code.HSM_UNAVAILABLE), True),
        (RakkanError(Code.INDETERMINATE), False),
        (RakkanError(Code.AUTHORITY_UNTRUSTED), False),
        (RakkanError(Code.INTERNAL), False),
        (TimeoutError(), False),
    ],
    ids=str,
)
def test_only_what_surely_was_not_taken_up_is_placed_again(
    trouble: RakkanError | TimeoutError, *, surely: bool
) -> None:
    assert surely_not_placed(trouble) is surely


def test_the_authoritys_own_time_comes_first_and_is_never_now() -> None:
    polling = Polling(first_s=5, longest_s=60)

    def after(pending: Pending, polls: int = 0) -> timedelta:
        scheduled = schedule(replace(ORDER, polls=polls), pending, polling=polling, now=NOW)
        assert scheduled.not_before is not None
        return scheduled.not_before - NOW

    assert after(Pending(b"h", NOW + timedelta(days=2))) == timedelta(days=2)
    assert after(Pending(b"h", NOW - timedelta(days=2))) == timedelta(seconds=1)
    assert [after(Pending(b"h"), polls).seconds for polls in (0, 1, 2, 3, 4, 5000)] == [5, 10, 20, 40, 60, 60]


def test_an_order_is_given_up_after_its_days() -> None:
    polling = Polling(give_up_days=2)
    assert not is_given_up(ORDER, polling=polling, now=NOW + timedelta(hours=47))
    assert is_given_up(ORDER, polling=polling, now=NOW + timedelta(hours=48))


def test_the_authority_is_told_only_when_it_waits_for_it() -> None:
    assert not decide(at(State.ISSUED), accepted=True, reason=None).confirm_due
    assert expect_confirmation(decide(at(State.ISSUED), accepted=True, reason=None)).confirm_due


@pytest.mark.parametrize("reason", [6, 7, 8])
def test_a_reason_that_does_not_end_a_certificate_is_refused(reason: int) -> None:
    with pytest.raises(RakkanError) as refusal:
        check_reason(reason)
    assert refusal.value.code is Code.MALFORMED


@pytest.mark.parametrize("reason", [0, 1, 2, 3, 4, 5, 9, 10])
def test_a_reason_that_ends_a_certificate_is_taken(reason: int) -> None:
    check_reason(reason)


# What the local CA certifies

KEY = ec.generate_private_key(ec.SECP256R1())
CA_KEY = ec.generate_private_key(ec.SECP384R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "JP"), x509.NameAttribute(NameOID.COMMON_NAME, "Hanako")])
ROOT = root(
    name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]),
    key=CA_KEY.public_key(),
    serial_number=1,
    validity=timedelta(days=30),
    now=NOW,
).sign(CA_KEY, hashes.SHA384())


def request(key: object = KEY, name: x509.Name = NAME, **padding_: object) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    # What a request asks for is no reason to grant it.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    hash_ = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, hash_, **padding_)  # type: ignore[arg-type]  # also keys that are refused


def refuses(der: bytes, why: str) -> None:
    with pytest.raises(RakkanError, match=why) as refusal:
        read(der)
    assert refusal.value.code is Code.CERTIFICATE_REFUSED


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_keys_of_credentials_are_certified(key: object) -> None:
    assert read(request(key).public_bytes(Encoding.DER)).subject == NAME


def test_a_request_signed_with_pss_is_certified() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert read(request(key, rsa_padding=pss).public_bytes(Encoding.DER))


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    der = request().public_bytes(Encoding.DER)
    refuses(der.replace(b"Hanako", b"Hanakx"), "not signed")


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"no request"])
def test_what_is_no_request_is_refused(der: bytes) -> None:
    refuses(der, "cannot be read")


def test_weak_and_strange_keys_are_refused() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - refused is what it must be
    for key in (weak, ec.generate_private_key(ec.SECP256K1()), dsa.generate_private_key(2048)):
        refuses(request(key).public_bytes(Encoding.DER), "kind or size")


def test_a_subject_without_a_common_name_or_with_strange_names_is_refused() -> None:
    refuses(request(name=x509.Name([])).public_bytes(Encoding.DER), "common name")
    strange = x509.Name([*NAME, x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example")])
    refuses(request(name=strange).public_bytes(Encoding.DER), "attribute")


def certificate(profile: Profile, now: datetime = NOW) -> x509.Certificate:
    builder = end_entity(request(), issuer=ROOT, profile=profile, serial_number=7, now=now)
    return builder.sign(CA_KEY, hashes.SHA384())


def test_a_certificate_is_for_documents_and_for_nothing_that_was_asked_for() -> None:
    profile = Profile(timedelta(days=10), ("2.999.5",), "http://ca.example/crl", "http://ca.example/ca")
    issued = certificate(profile).extensions
    usage = issued.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.digital_signature, usage.value.content_commitment, usage.value.key_cert_sign) == (1, 1, 0)
    assert issued.get_extension_for_class(x509.BasicConstraints).value.ca is False
    extended = issued.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [DOCUMENT_SIGNING]
    assert ExtendedKeyUsageOID.TIME_STAMPING not in extended
    policies = issued.get_extension_for_class(x509.CertificatePolicies).value
    assert [policy.policy_identifier.dotted_string for policy in policies] == ["2.999.5"]
    assert issued.get_extension_for_class(x509.CRLDistributionPoints)
    assert issued.get_extension_for_class(x509.AuthorityInformationAccess)
    above = ROOT.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert issued.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == above


def test_no_certificate_outlives_its_ca() -> None:
    assert certificate(Profile(timedelta(days=10))).not_valid_after_utc == NOW + timedelta(days=10)
    assert certificate(Profile(timedelta(days=365))).not_valid_after_utc == ROOT.not_valid_after_utc
    with pytest.raises(RakkanError, match="expired"):
        certificate(Profile(timedelta(days=1)), now=NOW + timedelta(days=30))


def test_a_crl_says_which_when_and_why() -> None:
    revoked = [
        RevokedCertificate(7, 1, NOW - timedelta(hours=1)),
        RevokedCertificate(8, 0, NOW),
        RevokedCertificate(9, 5, NOW + timedelta(hours=1)),
    ]
    made = crl(revoked, issuer=ROOT, number=3, lifetime=timedelta(hours=24), now=NOW).sign(CA_KEY, hashes.SHA384())
    assert [entry.serial_number for entry in made] == [7, 8, 9]
    assert [entry.revocation_date_utc for entry in made] == [NOW - timedelta(hours=1), NOW, NOW]
    assert made[0].extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert len(made[1].extensions) == 0
    assert made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3
    assert made.next_update_utc == NOW + timedelta(hours=24)

"""Every check on a time-stamp token, by a TSA that tells the one lie the check is there for."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asn1crypto import algos, cms, core, tsp
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from services.tsa_connector.answer import QUALIFIED, read_answer, without_certificates
from services.tsa_connector.request import TimestampRequest, make_request
from services.tsa_connector.token import TrustedTSA, check_answer
from shared.algorithms import Hash
from shared.errors import Code, RakkanError
from tests.support.judging import HONEST, OTHER_OID, REQUEST, SECOND, judge, refuses, told
from tests.support.lying_tsa import NOW, POLICY, Lies, Profile, certify


def test_an_honest_token_is_believed() -> None:
    assert judge()
    assert judge(Lies(status="granted_with_mods"))


# Status


@pytest.mark.parametrize("status", ["rejection", "waiting", "revocation_warning", "revocation_notification"])
def test_only_granted_is_granted(status: str) -> None:
    refuses(status, Lies(status=status), code=Code.TSA_REFUSED)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("bad_alg", Code.HASH_ALGORITHM_REFUSED),
        ("unaccepted_policy", Code.TSA_POLICY_REFUSED),
        ("bad_request", Code.TSA_REFUSED),
        ("bad_data_format", Code.TSA_REFUSED),
        ("unaccepted_extensions", Code.TSA_REFUSED),
        ("add_info_not_available", Code.TSA_REFUSED),
        ("time_not_available", Code.TSA_UNAVAILABLE),
        ("system_failure", Code.TSA_UNAVAILABLE),
    ],
)
def test_each_failure_that_a_tsa_can_tell_is_told_to_who_can_mend_it(failure: str, code: Code) -> None:
    refuses(failure, Lies(status="rejection", failures=frozenset({failure}), with_token=False), code=code)


def test_granted_without_a_token_is_a_lie() -> None:
    refuses("without a token", Lies(with_token=False))


# Form


@pytest.mark.parametrize(
    "body", [b"", b"\x30", b"\x30\x00", b"hello", b"\x30\x80\x00\x00", b"\x30\x84\xff\xff\xff\xff"]
)
def test_what_is_no_answer_is_untrusted(body: bytes) -> None:
    with pytest.raises(RakkanError) as refusal:
        read_answer(body)
    assert refusal.value.code is Code.TSA_UNTRUSTED


def test_bytes_after_the_answer_are_refused() -> None:
    with pytest.raises(RakkanError, match="no TimeStampResp"):
        read_answer(HONEST.answer(REQUEST, Lies()) + b"\x00")


def test_no_damaged_byte_of_an_answer_is_believed_or_breaks_anything() -> None:
    honest = HONEST.answer(REQUEST, Lies())
    trusted = TrustedTSA(anchors=(HONEST.root.certificate,), skew=30 * SECOND)
    for index in range(len(honest)):
        damaged = honest[:index] + bytes([honest[index] ^ 0x15]) + honest[index + 1 :]
        try:
            token = check_answer(read_answer(damaged), REQUEST, trusted, asked_at=NOW, now=NOW).token
        except RakkanError:
            continue
        # What the signature does not cover may change: SignedData's own version, the list of digest algorithms.
        assert (token.info.imprint, token.info.time, token.info.nonce) == (REQUEST.digest, NOW, REQUEST.nonce)


def test_every_shortened_answer_is_refused() -> None:
    honest = HONEST.answer(REQUEST, Lies())
    for length in range(len(honest)):
        with pytest.raises(RakkanError):
            read_answer(honest[:length])


def test_a_token_of_another_kind_is_refused() -> None:
    def other(signed: cms.SignedData) -> None:
        signed["encap_content_info"]["content_type"] = "data"

    refuses("no TSTInfo", Lies(content=other))


@pytest.mark.parametrize("count", [0, 2])
def test_a_token_has_exactly_one_signer(count: int) -> None:
    def multiply(signed: cms.SignedData) -> None:
        signed["signer_infos"] = cms.SignerInfos([signed["signer_infos"][0].copy() for _ in range(count)])

    refuses("one signer", Lies(content=multiply))


def test_more_certificates_than_a_chain_needs_are_refused() -> None:
    many = tuple(certify(Profile(name=str(number)), key=HONEST.signer.key) for number in range(21))
    refuses("too many", Lies(certificates=many))


# The TSTInfo


def test_a_token_of_another_version_is_refused() -> None:
    refuses("version", told("version", 2))


def test_a_token_over_another_digest_is_refused() -> None:
    def change(info: tsp.TSTInfo) -> None:
        info["message_imprint"]["hashed_message"] = b"\x12" * 32

    refuses("another digest", Lies(info=change))


def test_a_token_over_a_digest_of_another_algorithm_is_refused() -> None:
    def change(info: tsp.TSTInfo) -> None:
        info["message_imprint"]["hash_algorithm"]["algorithm"] = "sha3_256"

    refuses("another algorithm", Lies(info=change))


@pytest.mark.parametrize("nonce", [None, 0, -REQUEST.nonce, REQUEST.nonce + 1, REQUEST.nonce + (1 << 64), 1 << 9000])
def test_another_nonce_or_none_is_refused(nonce: int | None) -> None:
    refuses("nonce", told("nonce", nonce))


def test_an_endless_nonce_costs_nothing() -> None:
    refuses("nonce", told("nonce", 1 << 200_000))


def test_a_policy_that_was_not_asked_for_is_refused() -> None:
    refuses("asked was", told("policy", OTHER_OID), request=replace(REQUEST, policy=POLICY))


def test_a_policy_outside_the_list_is_refused() -> None:
    assert judge(policies=frozenset({POLICY, OTHER_OID}))
    refuses("not one of", policies=frozenset({OTHER_OID}))


@pytest.mark.parametrize("number", [-1, 1 << 160])
def test_an_impossible_serial_number_is_refused(number: int) -> None:
    assert judge(told("serial_number", (1 << 160) - 1))
    refuses("serial number", told("serial_number", number))


def test_an_unknown_critical_extension_is_refused_and_an_uncritical_one_is_not() -> None:
    def extension(*, critical: bool) -> tsp.Extensions:
        return tsp.Extensions([{"extn_id": OTHER_OID, "critical": critical, "extn_value": core.OctetString(b"")}])

    assert judge(told("extensions", extension(critical=False)))
    refuses("critical extension", told("extensions", extension(critical=True)))


def _statements(*oids: str, critical: bool = False) -> tsp.Extensions:
    value = core.SequenceOf([core.SequenceOf([core.ObjectIdentifier(oid)], spec=core.ObjectIdentifier) for oid in oids],
                            spec=core.SequenceOf)  # fmt: skip
    extension = {"extn_id": "1.3.6.1.5.5.7.1.3", "critical": critical, "extn_value": core.OctetString(value.dump())}
    return tsp.Extensions([extension])


def test_the_statement_of_a_qualified_time_stamp_is_demanded_where_the_entry_says_so() -> None:
    assert judge(told("extensions", _statements(QUALIFIED)), qualified_statement=True)
    assert judge(told("extensions", _statements(OTHER_OID, QUALIFIED)), qualified_statement=True)
    assert judge(told("extensions", _statements(QUALIFIED, critical=True)), qualified_statement=True)
    refuses("qualified", qualified_statement=True)
    refuses("qualified", told("extensions", _statements(OTHER_OID)), qualified_statement=True)


@pytest.mark.parametrize("value", [b"", b"\x05\x00", b"\x30\x02\x30\x00", b"\x30\x03\x06\x01\x2a\x00"])
def test_statements_that_cannot_be_read_are_refused(value: bytes) -> None:
    extension = {"extn_id": "1.3.6.1.5.5.7.1.3", "critical": False, "extn_value": core.OctetString(value)}
    refuses("", told("extensions", tsp.Extensions([extension])))


def test_a_token_without_its_certificates_still_verifies_against_them() -> None:
    token = judge()
    content, whole = (cms.ContentInfo.load(der)["content"] for der in (without_certificates(token), token))
    assert content["certificates"].native is None
    assert content["signer_infos"].dump() == whole["signer_infos"].dump()
    assert content["encap_content_info"].dump() == whole["encap_content_info"].dump()


def test_ordering_decides_nothing() -> None:
    yes = core.Boolean(True)  # noqa: FBT003 - asn1crypto has no other way
    assert judge(told("ordering", yes))


# Time


@pytest.mark.parametrize("off_s", [-31, 32, -3600, 3600])
def test_a_clock_that_is_too_far_off_is_refused(off_s: int) -> None:
    assert judge(at=NOW - 30 * SECOND)
    assert judge(at=NOW + 31 * SECOND)
    refuses("from our clock", at=NOW + off_s * SECOND)


@pytest.mark.parametrize("off_s", [-3600, 3600])
def test_a_genuine_token_of_a_false_time_is_told_from_a_false_token(off_s: int) -> None:
    trusted = TrustedTSA(anchors=(HONEST.root.certificate,), skew=30 * SECOND)
    answer = read_answer(HONEST.answer(REQUEST, Lies(), at=NOW + off_s * SECOND))
    judged = check_answer(answer, REQUEST, trusted, asked_at=NOW, now=NOW)
    assert judged.time_fault == f"genTime is {off_s:+d} s from our clock"
    with pytest.raises(RakkanError, match="from our clock"):
        judged.timely()


def test_a_token_does_not_choose_its_own_tolerance() -> None:
    refuses("from our clock", told("accuracy", {"seconds": 3600}), at=NOW + timedelta(minutes=10))


@pytest.mark.parametrize(
    "text", [b"20261125120000", b"20261125120000+0900", b"20261125120000.Z", b"20261125120000.50Z", b"202611251200Z",
             b"20261325120000Z", b"20261125120060Z", b"0261125120000Z", b"\xff" * 15, b""],
)  # fmt: skip
def test_a_time_that_is_not_written_as_it_must_be_is_refused(text: bytes) -> None:
    refuses("", Lies(gen_time=text))


def test_a_fraction_finer_than_ours_is_read() -> None:
    assert judge(Lies(gen_time=b"20261125120000.123456789Z"))


def test_accuracy_is_demanded_where_the_settings_demand_it() -> None:
    assert judge(told("accuracy", None))
    assert judge(accuracy_max=SECOND)
    refuses("accuracy", told("accuracy", None), accuracy_max=SECOND)
    refuses("accuracy", told("accuracy", {"seconds": 1, "micros": 1}), accuracy_max=SECOND)
    refuses("ranges", told("accuracy", {"seconds": -5}), accuracy_max=SECOND)
    refuses("ranges", told("accuracy", {"millis": 1000}))


# What was signed


def test_signed_attributes_are_needed() -> None:
    def strip(signer: cms.SignerInfo) -> None:
        signer["signed_attrs"] = None

    refuses("no signed attributes", Lies(signer=strip))


def test_unsigned_attributes_are_no_signed_ones() -> None:
    def move(signer: cms.SignerInfo) -> None:
        signer["unsigned_attrs"] = cms.CMSAttributes(list(signer["signed_attrs"]))
        signer["signed_attrs"] = None

    refuses("no signed attributes", Lies(signer=move))


def test_unsigned_attributes_beside_the_signed_ones_change_nothing() -> None:
    def add(signer: cms.SignerInfo) -> None:
        signer["unsigned_attrs"] = cms.CMSAttributes([signer["signed_attrs"][1]])

    assert judge(Lies(signer=add))


@pytest.mark.parametrize("missing", ["content_type", "message_digest"])
def test_a_missing_signed_attribute_is_refused(missing: str) -> None:
    refuses("missing", Lies(attributes=lambda those: [one for one in those if one["type"] != missing]))


def test_a_signed_attribute_that_stands_twice_is_refused() -> None:
    refuses("twice", Lies(attributes=lambda those: [*those, those[1]]))


def test_a_signed_attribute_with_two_values_is_refused() -> None:
    def double(those: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [those[0], {**those[1], "values": those[1]["values"] * 2}, *those[2:]]

    refuses("exactly one value", Lies(attributes=double))


def test_a_signature_over_another_content_type_is_refused() -> None:
    lies = Lies(attributes=lambda those: [{"type": "content_type", "values": ["data"]}, *those[1:]])
    refuses("signed is no TSTInfo", lies)


def test_a_signature_over_another_content_is_refused() -> None:
    lies = Lies(attributes=lambda those: [those[0], {"type": "message_digest", "values": [b"\0" * 32]}, *those[2:]])
    refuses("another TSTInfo", lies)


def test_a_signature_that_does_not_verify_is_refused() -> None:
    refuses("does not verify", Lies(signed_bytes=lambda signed: signed + b"\0"))


def test_a_signature_over_the_attributes_as_they_stand_in_the_message_is_refused() -> None:
    # RFC 5652 5.4: the tag is that of a SET OF, not the [0] that the bytes begin with on the way.
    refuses("does not verify", Lies(signed_bytes=lambda signed: b"\xa0" + signed[1:]))


@pytest.mark.parametrize("algorithm", ["sha1", "md5"])
def test_a_signature_over_a_weak_hash_is_refused(algorithm: str) -> None:
    def weaken(signer: cms.SignerInfo) -> None:
        signer["digest_algorithm"] = {"algorithm": algorithm}

    refuses("over the hash", Lies(signer=weaken))


@pytest.mark.parametrize(
    ("algorithm", "why"),
    [("sha384_ecdsa", "another hash"), ("sha1_ecdsa", "does not verify"), ("sha256_rsa", "does not fit")],
)
def test_a_signature_algorithm_that_does_not_fit_is_refused(algorithm: str, why: str) -> None:
    refuses(why, Lies(signature_algorithm={"algorithm": algorithm}))


_PSS = {"algorithm": "rsassa_pss", "parameters": {
    "hash_algorithm": {"algorithm": "sha256"}, "salt_length": 32,
    "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": "sha256"}}}}  # fmt: skip


def test_every_usual_signature_algorithm_is_verified() -> None:
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    tsa = HONEST.with_signer(Profile(), key=rsa_key)
    for algorithm in ({"algorithm": "sha256_rsa"}, {"algorithm": "rsassa_pkcs1v15"}, _PSS):
        assert judge(Lies(signature_algorithm=algorithm), tsa=tsa)
    refuses("another hash", Lies(signature_algorithm={"algorithm": "sha512_rsa"}), tsa=tsa)
    p384 = HONEST.with_signer(Profile(), key=ec.generate_private_key(ec.SECP384R1()))
    assert judge(Lies(hash=Hash.SHA384, signature_algorithm={"algorithm": "sha384_ecdsa"}), tsa=p384)
    edwards = HONEST.with_signer(Profile(), key=ed25519.Ed25519PrivateKey.generate())
    assert judge(Lies(hash=Hash.SHA512, signature_algorithm={"algorithm": "ed25519"}), tsa=edwards)


def test_pss_with_another_mask_is_refused() -> None:
    tsa = HONEST.with_signer(Profile(), key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
    mask = {"algorithm": "mgf1", "parameters": {"algorithm": "sha1"}}
    algorithm = {**_PSS, "parameters": {**_PSS["parameters"], "mask_gen_algorithm": mask}}  # type: ignore[dict-item]  # the inner one is a dict
    refuses("", Lies(signature_algorithm=algorithm), tsa=tsa)


# The question


def test_a_question_is_refused_before_it_is_asked() -> None:
    with pytest.raises(RakkanError) as length:
        make_request(b"\0" * 20, Hash.SHA256, allowed=(Hash.SHA256,))
    assert length.value.code is Code.DIGEST_LENGTH
    with pytest.raises(RakkanError) as hash_:
        make_request(b"\0" * 64, Hash.SHA512, allowed=(Hash.SHA256,))
    assert hash_.value.code is Code.HASH_ALGORITHM_REFUSED


@pytest.mark.parametrize(
    "nonce", [0, 1, 127, 128, 255, 256, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 255, (1 << 256) - 1]
)
@pytest.mark.parametrize("policy", [None, "2.999.3161.1", "1.3.6.1.4.1.311.99999999.12"])
@pytest.mark.parametrize("hash_", Hash)
def test_a_question_is_the_der_that_asn1crypto_makes_of_it(nonce: int, policy: str | None, hash_: Hash) -> None:
    digest = bytes(range(hash_.digest_bytes))
    ours = TimestampRequest(digest=digest, hash=hash_, nonce=nonce, policy=policy).der()
    algorithm = algos.DigestAlgorithm({"algorithm": hash_.oid, "parameters": core.Null()})
    imprint = {"hash_algorithm": algorithm, "hashed_message": digest}
    theirs = tsp.TimeStampReq(
        {"version": "v1", "message_imprint": imprint, "req_policy": policy, "nonce": nonce, "cert_req": True}
    )
    assert ours == theirs.dump()


def test_each_question_has_its_own_nonce_of_64_bits() -> None:
    asked = [make_request(b"\0" * 32, Hash.SHA256, allowed=(Hash.SHA256,)) for _ in range(64)]
    assert len({one.nonce for one in asked}) == 64
    assert max(one.nonce for one in asked).bit_length() > 56


def test_the_callers_nonce_is_unsigned_and_big_endian() -> None:
    request = make_request(b"\0" * 32, Hash.SHA256, allowed=(Hash.SHA256,), nonce=b"\xff\x00")
    asked = tsp.TimeStampReq.load(request.der())
    assert asked["nonce"].native == 0xFF00
    assert asked["cert_req"].native is True
    assert asked["message_imprint"]["hashed_message"].native == b"\0" * 32

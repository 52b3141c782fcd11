"""From OIDs and DER to one algorithm, and the other rules of the CSC's words."""

from contextlib import suppress
from datetime import timedelta

import pytest
from asn1crypto.algos import RSASSAPSSParams
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.csc.algorithms import pss_parameters, read_algorithm, read_hash
from services.gateway.csc.encoding import decode_base64, decode_hex, encode_base64, encode_serial
from services.gateway.csc.parameters import read_body
from services.gateway.limits import Buckets
from services.gateway.refusals import CSCError
from shared.algorithms import (
    COMBINED_OIDS,
    EC_BARE_OID,
    ED25519_OID,
    HASH_OIDS,
    PSS_OID,
    RSA_BARE_OID,
    Hash,
    Scheme,
    SignatureAlgorithm,
)
from shared.errors import Code, RakkanError

SHA1 = "1.3.14.3.2.26"


def pss(hash_: str = "sha256", mask: str | None = None, salt: int = 32, trailer: int = 1) -> bytes:
    return bytes(
        RSASSAPSSParams(
            {
                "hash_algorithm": {"algorithm": hash_},
                "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": mask or hash_}},
                "salt_length": salt,
                "trailer_field": trailer,
            }
        ).dump()
    )


def refused(sign_oid: str, hash_oid: str | None = None, parameters: bytes | None = None) -> Code:
    with pytest.raises(RakkanError) as refusal:
        read_algorithm(sign_oid, hash_oid, parameters)
    return refusal.value.code


@pytest.mark.parametrize("hash_", Hash)
def test_every_hash_is_read_from_its_oid(hash_: Hash) -> None:
    assert read_hash(HASH_OIDS[hash_]) is hash_


@pytest.mark.parametrize(("oid", "means"), COMBINED_OIDS.items())
def test_an_oid_that_names_its_hash_needs_no_other_and_bears_the_same(oid: str, means: tuple[Scheme, Hash]) -> None:
    expected = SignatureAlgorithm(*means)
    assert read_algorithm(oid, None, None) == expected
    assert read_algorithm(oid, HASH_OIDS[means[1]], None) == expected


@pytest.mark.parametrize("oid", COMBINED_OIDS)
def test_a_hash_that_contradicts_the_signature_algorithm_is_refused(oid: str) -> None:
    for hash_ in set(Hash) - {COMBINED_OIDS[oid][1]}:
        assert refused(oid, HASH_OIDS[hash_]) is Code.HASH_ALGORITHM_REFUSED


@pytest.mark.parametrize(
    ("oid", "scheme"),
    [(RSA_BARE_OID, Scheme.RSA_PKCS1), (EC_BARE_OID, Scheme.ECDSA), (ED25519_OID, Scheme.ED25519)],
)
def test_a_bare_oid_needs_a_hash(oid: str, scheme: Scheme) -> None:
    assert refused(oid) is Code.HASH_ALGORITHM_REQUIRED
    assert read_algorithm(oid, HASH_OIDS[Hash.SHA384], None) == SignatureAlgorithm(scheme, Hash.SHA384)


@pytest.mark.parametrize("hash_oid", [SHA1, "1.2.840.113549.2.5", "2.16.840.1.101.3.4.2.4", "sha256", "", "1..2"])
def test_weak_and_unknown_hashes_are_refused(hash_oid: str) -> None:
    for oid in (RSA_BARE_OID, EC_BARE_OID, "1.2.840.113549.1.1.11", PSS_OID):
        assert refused(oid, hash_oid, pss() if oid == PSS_OID else None) is Code.HASH_ALGORITHM_REFUSED


@pytest.mark.parametrize("oid", ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1", "1.3.101.113", "0.4.0.127.0.7.1.1.4.1.3"])
def test_weak_and_unknown_signature_algorithms_are_refused(oid: str) -> None:
    assert refused(oid, HASH_OIDS[Hash.SHA256]) is Code.SIGN_ALGORITHM_REFUSED


@pytest.mark.parametrize("salt", [0, 20, 32, 222, 512])
@pytest.mark.parametrize("hash_", Hash)
def test_pss_parameters_are_taken_as_they_are(hash_: Hash, salt: int) -> None:
    expected = SignatureAlgorithm(Scheme.RSA_PSS, hash_, salt)
    assert read_algorithm(PSS_OID, None, pss(hash_.value, salt=salt)) == expected
    assert read_algorithm(PSS_OID, HASH_OIDS[hash_], pss(hash_.value, salt=salt)) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        b"",
        b"\x30\x00",  # the defaults, which are SHA-1
        b"\x05\x00",
        b"not DER",
        pss("sha1"),
        pss("sha256", mask="sha1"),
        pss("sha256", mask="sha512"),
        pss(salt=-1),
        pss(salt=513),
        pss(salt=2**70),
        pss(trailer=1) + b"\x00",
        pss()[:-1],
    ],
)
def test_pss_parameters_that_cannot_be_honored_are_refused(parameters: bytes | None) -> None:
    assert refused(PSS_OID, None, parameters) is Code.SIGN_PARAMETERS_REFUSED


def test_a_pss_trailer_other_than_one_is_refused() -> None:
    # RFC 4055 3.1 knows no other. The library cannot write one, so it is written by hand.
    good = pss(salt=20)
    body = good[2:] + bytes.fromhex("a303020102")
    assert refused(PSS_OID, None, bytes([0x30, len(body)]) + body) is Code.SIGN_PARAMETERS_REFUSED


def test_a_hash_that_contradicts_the_pss_parameters_is_refused() -> None:
    assert refused(PSS_OID, HASH_OIDS[Hash.SHA384], pss("sha256")) is Code.HASH_ALGORITHM_REFUSED


def test_parameters_where_none_belong_are_refused() -> None:
    assert refused("1.2.840.10045.4.3.2", None, pss()) is Code.SIGN_PARAMETERS_REFUSED
    assert refused("1.2.840.113549.1.1.11", None, pss()) is Code.SIGN_PARAMETERS_REFUSED
    # RFC 4055 5: the parameters of PKCS #1 v1.5 are NULL.
    assert read_algorithm("1.2.840.113549.1.1.11", None, b"\x05\x00").scheme is Scheme.RSA_PKCS1


def test_the_parameters_in_info_are_read_back() -> None:
    assert read_algorithm(PSS_OID, None, pss_parameters(Hash.SHA256)) == SignatureAlgorithm(
        Scheme.RSA_PSS, Hash.SHA256, 32
    )


@given(st.binary(max_size=200))
def test_whatever_bytes_come_as_parameters_are_honored_or_refused(parameters: bytes) -> None:
    # The right prefix lets the bytes reach further than random ones would.
    for text in (parameters, pss()[: len(parameters)] + parameters):
        with suppress(RakkanError):
            assert read_algorithm(PSS_OID, None, text).salt_bytes is not None


@given(st.binary(min_size=1, max_size=80))
def test_base64_of_either_alphabet_padded_or_not_gives_the_same_bytes(raw: bytes) -> None:
    standard = encode_base64(raw)
    urlsafe = standard.translate(str.maketrans("+/", "-_"))
    for text in (standard, urlsafe, standard.rstrip("="), urlsafe.rstrip("=")):
        assert decode_base64(text) == raw


@pytest.mark.parametrize(
    "text", ["", "=", "A", "AAAAA", "AA=", "AA===", "AAAA=", "A A=", "AAA\n", "+_AA", "AAB=", "Ä" * 4, "AA==AA=="]
)
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64(text)


def test_hexadecimal_numbers_are_read_and_written_in_whole_bytes() -> None:
    assert decode_hex("abc") == b"\x0a\xbc"
    assert encode_serial(0xABC) == "0ABC"
    for wrong in ("", "0x1", "g", "-1", " 1", "\u0661"):
        with pytest.raises(ValueError, match="hexadecimal"):
            decode_hex(wrong)


@given(st.binary(max_size=300))
def test_whatever_bytes_come_as_a_body_are_read_or_refused(body: bytes) -> None:
    with suppress(CSCError):
        assert not read_body(body).has("credentialID")


def test_a_caller_comes_as_often_as_its_bucket_allows() -> None:
    buckets = Buckets(per_s=2.0, burst=3, callers_max=10)
    for _ in range(3):
        buckets.take("a", now_s=0.0)
    with pytest.raises(CSCError) as refusal:
        buckets.take("a", now_s=0.0)
    assert refusal.value.refusal.retry_after_s == 1
    buckets.take("b", now_s=0.0)
    buckets.take("a", now_s=0.5)
    with pytest.raises(CSCError):
        buckets.take("a", now_s=0.5)
    for _ in range(3):
        buckets.take("a", now_s=timedelta(days=1).total_seconds())


def test_only_so_many_callers_are_remembered() -> None:
    buckets = Buckets(per_s=0.001, burst=1, callers_max=2)
    for caller in "abc":
        buckets.take(caller, now_s=0.0)
    assert len(buckets._buckets) == 2
    buckets.take("a", now_s=0.0)

"""What the plain RFC 3161 endpoint reads of a query, and in which words it says no."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import algos, tsp

from services.gateway import tsp as door
from shared.algorithms import Hash
from shared.errors import Code
from tests.support.openssl import openssl

DIGEST = hashlib.sha256(b"document").digest()
SHA1 = "1.3.14.3.2.26"


def query(**changes: Any) -> bytes:
    return bytes(tsp.TimeStampReq(members(**changes)).dump())


def members(oid: str = Hash.SHA256.oid, digest: bytes = DIGEST, **more: Any) -> dict[str, Any]:
    algorithm = algos.DigestAlgorithm({"algorithm": oid})
    return {"version": "v1", "message_imprint": {"hash_algorithm": algorithm, "hashed_message": digest}} | more


def test_a_bare_query_asks_for_a_token_without_certificates() -> None:
    asked = door.read_query(query())
    assert (asked.digest, asked.hash, asked.nonce, asked.policy) == (DIGEST, Hash.SHA256, None, None)
    assert asked.certificate_requested is False


@pytest.mark.parametrize(
    ("number", "raw"),
    [(0, b"\0"), (255, b"\xff"), (256, b"\1\0"), (2**256 - 1, b"\xff" * 32)],
)
def test_a_nonce_is_read_as_a_number(number: int, raw: bytes) -> None:
    assert door.read_query(query(nonce=number)).nonce == raw


def test_policy_and_certificate_are_asked_for() -> None:
    asked = door.read_query(query(req_policy="2.999.3161.1", cert_req=True))
    assert (asked.policy, asked.certificate_requested) == ("2.999.3161.1", True)


def test_what_openssl_asks_is_understood(tmp_path: Path) -> None:
    (tmp_path / "document").write_bytes(b"document")
    openssl("ts", "-query", "-data", "document", "-sha512", "-cert", "-out", "query", folder=tmp_path)
    asked = door.read_query((tmp_path / "query").read_bytes())
    assert asked.digest == hashlib.sha512(b"document").digest()
    assert (asked.hash, asked.certificate_requested) == (Hash.SHA512, True)
    assert len(asked.nonce or b"") in range(6, 9)


def extension() -> dict[str, Any]:
    return {"extn_id": "1.2.3.4", "critical": False, "extn_value": b"\5\0"}


WRONG = {
    "nothing": (b"", door.BAD_DATA_FORMAT),
    "no ASN.1": (b"<html>", door.BAD_DATA_FORMAT),
    "something else": (b"\x30\x03\x02\x01\x01", door.BAD_DATA_FORMAT),
    "cut off": (query()[:-1], door.BAD_DATA_FORMAT),
    "bytes behind it": (query() + b"\0", door.BAD_DATA_FORMAT),
    "a million open brackets": (b"\x30\x80" * 8000, door.BAD_DATA_FORMAT),
    "another version": (query(version="v2"), door.BAD_REQUEST),
    "SHA-1": (query(oid=SHA1, digest=bytes(20)), door.BAD_ALG),
    "an unknown hash": (query(oid="1.2.3.4.5"), door.BAD_ALG),
    "a hash with parameters": (query().replace(b"\x05\0", b"\x04\0"), door.BAD_DATA_FORMAT),
    "a digest too short": (query(digest=DIGEST[:-1]), door.BAD_DATA_FORMAT),
    "a digest too long": (query(digest=DIGEST + b"\0"), door.BAD_DATA_FORMAT),
    "no digest": (query(digest=b""), door.BAD_DATA_FORMAT),
    "a nonce of 33 bytes": (query(nonce=2**256), door.BAD_REQUEST),
    "a nonce of 10 kB": (query(nonce=2**80_000), door.BAD_REQUEST),
    "a negative nonce": (query(nonce=-1), door.BAD_REQUEST),
    "a policy without end": (query(req_policy="2.999" + ".1" * 3000), door.UNACCEPTED_POLICY),
    "an extension": (query(extensions=[extension()]), door.UNACCEPTED_EXTENSION),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_query_is_rejected_with_the_bit_for_it(wrong: str) -> None:
    body, failure = WRONG[wrong]
    with pytest.raises(door.RejectionError) as rejection:
        door.read_query(body)
    assert rejection.value.failure == failure


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (door.BAD_ALG, "unrecognized or unsupported algorithm identifier"),
        (door.BAD_REQUEST, "transaction not permitted or supported"),
        (door.BAD_DATA_FORMAT, "the data submitted has the wrong format"),
        (door.TIME_NOT_AVAILABLE, "the TSA's time source is not available"),
        (door.UNACCEPTED_POLICY, "the requested TSA policy is not supported by the TSA"),
        (door.UNACCEPTED_EXTENSION, "the requested extension is not supported by the TSA"),
        (door.SYSTEM_FAILURE, "the request cannot be handled due to system failure"),
    ],
)
def test_openssl_reads_our_rejections(tmp_path: Path, failure: int, words: str) -> None:
    (tmp_path / "reply").write_bytes(door.rejected(failure, "because"))
    told = openssl("ts", "-reply", "-in", "reply", "-text", folder=tmp_path)
    assert "Status: Rejected." in told
    assert "because" in told
    assert f"Failure info: {words}" in told


def test_every_refusal_of_a_room_becomes_a_bit() -> None:
    expected = {
        Code.TSA_UNAVAILABLE: door.TIME_NOT_AVAILABLE,
        Code.TSA_QUOTA: door.TIME_NOT_AVAILABLE,
        Code.TSA_POLICY_REFUSED: door.UNACCEPTED_POLICY,
        Code.HASH_ALGORITHM_REFUSED: door.BAD_ALG,
        Code.DIGEST_LENGTH: door.BAD_DATA_FORMAT,
        Code.TSA_REFUSED: door.BAD_REQUEST,
        Code.UNAVAILABLE: door.SYSTEM_FAILURE,
        Code.TSA_UNTRUSTED: door.SYSTEM_FAILURE,
        Code.INTERNAL: door.SYSTEM_FAILURE,
    }
    assert {code: door.failure_of(code)[0] for code in expected} == expected

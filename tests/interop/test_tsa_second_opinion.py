"""rfc3161-client, written by others in another language, on the same tokens: what it believes and refuses, so do we.

It does not look at the reference to the signer's certificate (ESSCertID): there we are alone.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import tsp
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

from deploy.local.tsa import make
from services.tsa_connector.answer import read_answer
from services.tsa_connector.request import TimestampRequest
from services.tsa_connector.token import TrustedTSA, check_answer
from shared.algorithms import Hash
from shared.errors import RakkanError
from tests.support.judging import HONEST, REQUEST, SECOND, told
from tests.support.lying_tsa import NOW, POLICY, Lies, LyingTSA, Profile, certify

TIME_STAMPING, CODE_SIGNING = ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING


def theirs(answer: bytes, request: TimestampRequest, root: x509.Certificate) -> bool:
    builder = VerifierBuilder(roots=[root], nonce=request.nonce)
    if request.policy is not None:
        builder = builder.policy_id(x509.ObjectIdentifier(request.policy))
    try:
        return builder.build().verify(decode_timestamp_response(answer), request.digest)
    except (VerificationError, ValueError):
        return False


def ours(answer: bytes, request: TimestampRequest, root: x509.Certificate) -> bool:
    trusted = TrustedTSA(anchors=(root,), skew=30 * SECOND)
    try:
        return bool(check_answer(read_answer(answer), request, trusted, asked_at=NOW, now=NOW).timely())
    except RakkanError:
        return False


def another_digest(info: tsp.TSTInfo) -> None:
    info["message_imprint"]["hashed_message"] = b"\x12" * 32


def with_usages(*usages: x509.ObjectIdentifier, critical: bool = True) -> LyingTSA:
    return HONEST.with_signer(Profile(extended=usages, extended_critical=critical))


def test_both_believe_an_honest_token() -> None:
    answer = HONEST.answer(REQUEST, Lies())
    assert theirs(answer, REQUEST, HONEST.root.certificate)
    assert ours(answer, REQUEST, HONEST.root.certificate)


@pytest.mark.parametrize(
    ("lies", "tsa", "request_"),
    [
        (told("nonce", 1), HONEST, REQUEST),
        (told("nonce", None), HONEST, REQUEST),
        (Lies(info=another_digest), HONEST, REQUEST),
        (told("policy", "2.999.8"), HONEST, replace(REQUEST, policy=POLICY)),
        (Lies(signed_bytes=lambda signed: signed + b"\0"), HONEST, REQUEST),
        (Lies(status="rejection"), HONEST, REQUEST),
        (Lies(with_token=False), HONEST, REQUEST),
        (Lies(), with_usages(TIME_STAMPING, critical=False), REQUEST),
        (Lies(), with_usages(CODE_SIGNING), REQUEST),
        (Lies(), with_usages(), REQUEST),
        (Lies(), HONEST.with_signer(Profile(not_after=NOW - SECOND)), REQUEST),
        (Lies(), replace(HONEST, signer=LyingTSA.honest().signer), REQUEST),
    ],
    ids=[
        "nonce",
        "no nonce",
        "imprint",
        "policy",
        "signature",
        "status",
        "no token",
        "usage not critical",
        "another usage",
        "no usage",
        "expired",
        "another root",
    ],
)
def test_both_refuse_a_lie(lies: Lies, tsa: LyingTSA, request_: TimestampRequest) -> None:
    answer = tsa.answer(request_, lies)
    assert not theirs(answer, request_, tsa.root.certificate)
    assert not ours(answer, request_, tsa.root.certificate)


def test_the_reference_to_another_certificate_is_seen_by_us_alone() -> None:
    twin = certify(Profile(), issuer=HONEST.root, key=HONEST.signer.key)
    answer = HONEST.answer(REQUEST, Lies(ess_of=twin))
    assert theirs(answer, REQUEST, HONEST.root.certificate)
    assert not ours(answer, REQUEST, HONEST.root.certificate)


def test_both_read_what_openssl_makes(tmp_path: Path) -> None:
    authority = make(tmp_path / "tsa")
    request = TimestampRequest(digest=b"\x11" * 32, hash=Hash.SHA256, nonce=REQUEST.nonce)
    response: Any = decode_timestamp_response(authority.answer(request.der()))
    root = x509.load_pem_x509_certificate(authority.anchors_file.read_bytes())
    assert VerifierBuilder(roots=[root], nonce=request.nonce).build().verify(response, request.digest)
    trusted = TrustedTSA(anchors=(root,), skew=30 * SECOND)
    at = response.tst_info.gen_time
    ours_ = check_answer(read_answer(response.as_bytes()), request, trusted, asked_at=at, now=at).timely()
    assert ours_.info.time.replace(microsecond=0) == at  # theirs knows whole seconds only

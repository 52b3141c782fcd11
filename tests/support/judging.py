"""A TSA's answer before the judge: what is believed, and what is refused with which words."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from asn1crypto import tsp
from cryptography import x509

from services.tsa_connector.answer import read_answer
from services.tsa_connector.request import TimestampRequest
from services.tsa_connector.token import TrustedTSA, check_answer
from shared.algorithms import Hash
from shared.errors import Code, RakkanError
from tests.support.lying_tsa import NOW, Lies, LyingTSA

HONEST = LyingTSA.honest()
REQUEST = TimestampRequest(digest=b"\x11" * 32, hash=Hash.SHA256, nonce=0x1122334455667788)
SECOND = timedelta(seconds=1)
OTHER_OID = "2.999.8"
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier(OTHER_OID), b"\x05\x00")


def judge(
    lies: Lies | None = None,
    *,
    tsa: LyingTSA = HONEST,
    request: TimestampRequest = REQUEST,
    at: datetime = NOW,
    **trust: Any,
) -> bytes:
    trusted = TrustedTSA(**{"anchors": (tsa.root.certificate,), "skew": 30 * SECOND, **trust})
    answer = read_answer(tsa.answer(request, lies or Lies(), at=at))
    return check_answer(answer, request, trusted, asked_at=NOW, now=NOW + SECOND).timely().der


def refuses(why: str, lies: Lies | None = None, *, code: Code = Code.TSA_UNTRUSTED, **more: Any) -> None:
    with pytest.raises(RakkanError) as refusal:
        judge(lies, **more)
    assert refusal.value.code is code, refusal.value
    assert why in refusal.value.detail, refusal.value.detail


def told(field: str, value: Any) -> Lies:
    def change(info: tsp.TSTInfo) -> None:
        info[field] = value

    return Lies(info=change)

"""What the TSA connector does with a message; the TSA is built here, at the other end of a function."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from asn1crypto import tsp

from services.tsa_connector.handlers import Handlers
from services.tsa_connector.request import TimestampRequest
from services.tsa_connector.token import TrustedTSA
from shared.algorithms import Hash
from shared.errors import Code, RakkanError
from tests.support.lying_tsa import NOW, Lies, LyingTSA
from tests.support.timestamps import asking

HONEST = LyingTSA.honest()
DIGEST = b"\x22" * 32


@dataclass
class FakeEndpoint:
    lies: Lies = field(default_factory=Lies)
    asked: list[TimestampRequest] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)

    async def ask(self, query: bytes) -> bytes:
        question = tsp.TimeStampReq.load(query)
        digest = question["message_imprint"]["hashed_message"].native
        policy = question["req_policy"].native
        request = TimestampRequest(digest=digest, hash=Hash.SHA256, nonce=question["nonce"].native, policy=policy)
        self.asked.append(request)
        self.answers.append(HONEST.answer(request, self.lies))
        return self.answers[-1]


def room(endpoint: FakeEndpoint, policy: str | None = None) -> Handlers:
    tsa = TrustedTSA(anchors=(HONEST.root.certificate,), skew=timedelta(seconds=30))
    return Handlers(endpoint=endpoint, tsa=tsa, hashes=(Hash.SHA256,), policy=policy, now=lambda: NOW)


async def test_a_token_is_the_tsas_own_bytes_and_time() -> None:
    endpoint = FakeEndpoint()
    (stamped,) = (await room(endpoint).timestamp(asking(DIGEST))).tokens
    assert stamped.time == NOW
    assert stamped.token in endpoint.answers[0]
    assert endpoint.asked[0].digest == DIGEST


async def test_each_question_has_a_nonce_even_when_the_caller_has_none() -> None:
    endpoint = FakeEndpoint()
    for _ in range(2):
        await room(endpoint).timestamp(asking(DIGEST))
    first, second = (request.nonce for request in endpoint.asked)
    assert first != second


async def test_the_callers_nonce_is_asked_with() -> None:
    endpoint = FakeEndpoint()
    await room(endpoint).timestamp(asking(DIGEST, nonce=b"\x01\x00"))
    assert endpoint.asked[0].nonce == 256


async def test_the_policy_of_the_settings_is_asked_for() -> None:
    endpoint = FakeEndpoint()
    await room(endpoint, policy="2.999.5").timestamp(asking(DIGEST))
    assert endpoint.asked[0].policy == "2.999.5"


@pytest.mark.parametrize(
    ("digest", "hash_", "code"),
    [(b"\0" * 20, Hash.SHA256, Code.DIGEST_LENGTH), (b"\0" * 64, Hash.SHA512, Code.TSA_REFUSED)],
)
async def test_what_cannot_be_stamped_is_not_asked_for(digest: bytes, hash_: Hash, code: Code) -> None:
    endpoint = FakeEndpoint()
    with pytest.raises(RakkanError) as refusal:
        await room(endpoint).timestamp(asking(digest, hash_))
    assert (refusal.value.code, endpoint.asked) == (code, [])


async def test_a_token_that_does_not_hold_reaches_nobody() -> None:
    def forget(info: tsp.TSTInfo) -> None:
        info["nonce"] = None

    with pytest.raises(RakkanError) as refusal:
        await room(FakeEndpoint(Lies(info=forget))).timestamp(asking(DIGEST))
    assert refusal.value.code is Code.TSA_UNTRUSTED

"""How the TSA connector comes by the status of a TSA's certificate, keeps it, and what it does without one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asn1crypto import tsp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from services.tsa_connector.request import TimestampRequest
from shared.algorithms import Hash
from shared.errors import Code, RakkanError
from shared.messaging import operation
from tests.support.lying_tsa import Lies, LyingTSA, Profile
from tests.support.timestamps import asking
from tests.support.tsa_rooms import TSARoom, entry, registry_of, tsa_room
from tests.support.tsa_statuses import DAY, crl, ocsp_answer

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
LIST, OWN_LIST, RESPONDER = "http://crl.example/tsa.crl", "http://ca.example/ca.crl", "http://ocsp.example/"
PLAIN = LyingTSA.honest()


def _uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


NAMING = PLAIN.with_signer(
    Profile(
        more=[
            (
                x509.AuthorityInformationAccess(
                    [x509.AccessDescription(AuthorityInformationAccessOID.OCSP, _uri(RESPONDER))]
                ),
                False,
            ),
            (x509.CRLDistributionPoints([x509.DistributionPoint([_uri(OWN_LIST)], None, None, None)]), False),
        ]
    )
)
AWAY = RakkanError(Code.TSA_UNAVAILABLE, "cannot be reached")


@dataclass
class Web:
    """Lists and responders; what is not there cannot be reached."""

    told: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def crl(self, url: str) -> bytes:
        return self._answer(url)

    async def ocsp(self, url: str, query: bytes) -> bytes:
        assert ocsp.load_der_ocsp_request(query)
        return self._answer(url)

    def _answer(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.told:
            raise AWAY
        return self.told[url]


@dataclass
class Here:
    room: TSARoom
    web: Web
    now: datetime = START

    async def stamp(self) -> None:
        await self.room.handlers.timestamp(asking())

    async def refused(self) -> RakkanError:
        with pytest.raises(RakkanError) as refusal:
            await self.stamp()
        return refusal.value

    def forgive(self) -> None:
        self.room.memories.forget("clock")


@dataclass
class Endpoint:
    tsa: LyingTSA
    at: datetime = START

    async def ask(self, query: bytes, *, timeout_s: float) -> bytes:
        question = tsp.TimeStampReq.load(query)
        digest = question["message_imprint"]["hashed_message"].native
        request = TimestampRequest(digest=digest, hash=Hash.SHA256, nonce=question["nonce"].native, policy=None)
        assert timeout_s > 0
        return self.tsa.answer(request, Lies(), at=self.at)


@asynccontextmanager
async def place(tsa: LyingTSA, **more: Any) -> AsyncIterator[Here]:
    anchor = tsa.root.certificate.public_bytes(Encoding.PEM).decode()
    known = {"clock": entry(anchor=anchor, check_revocation=True, clock_tolerance_s=3600, **more)}
    web, endpoint = Web(), Endpoint(tsa)

    def now() -> datetime:
        endpoint.at = here.now
        return here.now

    async with tsa_room(registry_of(known), client=lambda _: endpoint, sources=web, now=now) as room:
        here = Here(room, web)
        with operation.carry(operation.Operation("op", START + 400 * DAY, "gateway")):
            yield here


async def test_a_status_is_asked_for_once_and_kept() -> None:
    async with place(PLAIN, crls=[LIST]) as here:
        here.web.told[LIST] = crl(PLAIN.root)
        for _ in range(5):
            await here.stamp()
        assert here.web.asked == [LIST]


async def test_a_revoked_tsa_is_not_believed() -> None:
    async with place(PLAIN, crls=[LIST]) as here:
        here.web.told[LIST] = crl(PLAIN.root, PLAIN.signer)
        refusal = await here.refused()
        assert (refusal.code, "revoked" in refusal.detail) == (Code.TSA_UNTRUSTED, True)


async def test_a_revocation_is_noticed_within_the_hour_although_the_list_lives_on() -> None:
    async with place(PLAIN, crls=[LIST]) as here:
        here.web.told[LIST] = crl(PLAIN.root, lifetime=30 * DAY)
        await here.stamp()
        here.now += timedelta(minutes=61)
        here.web.told[LIST] = crl(PLAIN.root, PLAIN.signer, at=here.now)
        await here.stamp()  # the one whose question fetches the new list
        await asyncio.sleep(0.05)
        assert (await here.refused()).code is Code.TSA_UNTRUSTED


async def test_a_tsa_whose_status_cannot_be_had_is_not_believed_and_its_ca_is_not_hammered() -> None:
    async with place(PLAIN, crls=[LIST]) as here:
        for _ in range(3):
            refusal = await here.refused()
            here.forgive()
        assert (refusal.code, LIST in refusal.detail) == (Code.TSA_UNAVAILABLE, True)
        assert here.web.asked == [LIST]
        here.now += timedelta(seconds=11)
        here.web.told[LIST] = crl(PLAIN.root)
        await here.stamp()


async def test_a_certificate_that_names_no_place_needs_one_in_the_registry() -> None:
    async with place(PLAIN) as here:
        assert "no place" in (await here.refused()).detail


async def test_what_is_known_holds_until_its_end_while_the_ca_is_away() -> None:
    async with place(PLAIN, crls=[LIST]) as here:
        here.web.told[LIST] = crl(PLAIN.root, lifetime=DAY)
        await here.stamp()
        del here.web.told[LIST]
        here.now += timedelta(hours=23)
        await here.stamp()
        here.now += timedelta(hours=2)
        assert (await here.refused()).code is Code.TSA_UNAVAILABLE


async def test_officers_lists_come_first_then_the_responder_then_the_certificates_own_list() -> None:
    async with place(NAMING, crls=[LIST]) as here:
        here.web.told[OWN_LIST] = crl(PLAIN.root)
        await here.stamp()
        assert here.web.asked == [LIST, RESPONDER, OWN_LIST]


@pytest.mark.parametrize(
    ("status", "code"), [(ocsp.OCSPCertStatus.GOOD, None), (ocsp.OCSPCertStatus.REVOKED, Code.TSA_UNTRUSTED)]
)
async def test_a_responders_word_counts(status: ocsp.OCSPCertStatus, code: Code | None) -> None:
    async with place(NAMING) as here:
        here.web.told[RESPONDER] = ocsp_answer(NAMING.signer, NAMING.root, status=status)
        if code is None:
            await here.stamp()
        else:
            assert (await here.refused()).code is code
        assert here.web.asked == [RESPONDER]


async def test_an_answer_that_says_nothing_is_passed_over() -> None:
    async with place(NAMING) as here:
        here.web.told[RESPONDER] = b"<html>"
        here.web.told[OWN_LIST] = crl(LyingTSA.honest().root)
        assert (await here.refused()).code is Code.TSA_UNAVAILABLE


async def test_a_dozen_at_once_ask_once() -> None:
    async with place(PLAIN, crls=[LIST]) as here:
        here.web.told[LIST] = crl(PLAIN.root)
        await asyncio.gather(*(here.stamp() for _ in range(12)))
        assert here.web.asked == [LIST]

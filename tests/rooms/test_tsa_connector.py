"""What the TSA connector does with a message; the TSAs are built here, at the other end of a function."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asn1crypto import cms, tsp
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from services.tsa_connector.http import BrokenError, LateError, NotSentError
from services.tsa_connector.request import TimestampRequest
from shared.algorithms import Hash
from shared.contracts.tsa_connector import ExplainTimestamp, ReadAuthorities, Timestamp, Timestamps
from shared.errors import Code, RakkanError
from shared.messaging import operation
from tests.support.lying_tsa import Lies, LyingTSA
from tests.support.timestamps import asking
from tests.support.tsa_rooms import CLASS, TSARoom, entry, registry_of, tsa_room

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
DIGEST = b"\x22" * 32
TSAS = {name: LyingTSA.honest() for name in ("a", "b", "c")}
AWAY = NotSentError(Code.TSA_UNAVAILABLE, "cannot be reached")
LATE = LateError(Code.TSA_UNAVAILABLE, "no answer")
BROKEN = BrokenError(Code.TSA_UNAVAILABLE, "the connection broke")
REJECTED = frozenset({"unaccepted_policy"})


@dataclass
class FakeTSA:
    """One TSA as the room's client sees it."""

    tsa: LyingTSA
    clock: "Clock"
    lies: Lies = field(default_factory=Lies)
    faults: list[RakkanError | None] = field(default_factory=list)
    """One for each question to come; nothing, and after the last: an answer."""
    fault: RakkanError | None = None
    """For each question."""
    off: timedelta = timedelta()
    held: asyncio.Event | None = None
    """It answers no sooner than this is set."""
    asked: list[TimestampRequest] = field(default_factory=list)
    connections: int = 0
    given_s: float = 0.0

    async def ask(self, query: bytes, *, timeout_s: float) -> bytes:
        self.given_s = timeout_s
        question = tsp.TimeStampReq.load(query)
        imprint = question["message_imprint"]
        request = TimestampRequest(
            digest=imprint["hashed_message"].native,
            hash=Hash(imprint["hash_algorithm"]["algorithm"].native),
            nonce=question["nonce"].native,
            policy=question["req_policy"].native,
        )
        self.asked.append(request)
        fault = self.faults.pop(0) if self.faults else self.fault
        if fault is not None:
            raise fault
        if self.held is not None:
            await self.held.wait()
        return self.tsa.answer(request, self.lies, at=self.clock.now + self.off)

    async def connect(self) -> None:
        self.connections += 1
        if self.fault is not None:
            raise self.fault


@dataclass
class Clock:
    now: datetime = START

    def pass_by(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass
class Place:
    room: TSARoom
    tsas: dict[str, FakeTSA]
    clock: Clock

    async def stamp(self, **more: Any) -> Timestamps:
        return await self.room.handlers.timestamp(asking(DIGEST, **more))

    async def authority(self, **more: Any) -> str:
        (token,) = (await self.stamp(**more)).tokens
        return token.authority

    async def refused(self, **more: Any) -> RakkanError:
        with pytest.raises(RakkanError) as refusal:
            await self.stamp(**more)
        return refusal.value

    def asked(self) -> dict[str, int]:
        return {name: len(tsa.asked) for name, tsa in self.tsas.items()}


def entries(**changes: dict[str, Any]) -> dict[str, Any]:
    """a, b and c of the class `standard`, each dearer than the one before."""
    return {
        name: entry(anchor=_pem(tsa), cost=cost) | changes.get(name, {})
        for cost, (name, tsa) in enumerate(TSAS.items(), start=1)
    }


def _pem(tsa: LyingTSA) -> str:
    return tsa.root.certificate.public_bytes(Encoding.PEM).decode()


@asynccontextmanager
async def place(tsas: dict[str, Any] | None = None, **registry: Any) -> AsyncIterator[Place]:
    clock = Clock()
    known = entries() if tsas is None else tsas
    fakes = {name: FakeTSA(TSAS[name], clock) for name in known}
    client: Callable[[str], FakeTSA] = fakes.__getitem__
    async with tsa_room(registry_of(known, **registry), client=client, now=lambda: clock.now) as room:
        room.watch._clients = _Clients(fakes)
        with operation.carry(operation.Operation("op", START + timedelta(days=400), "gateway")):
            yield Place(room, fakes, clock)


@dataclass
class _Clients:
    fakes: dict[str, FakeTSA]

    def of(self, name: str) -> FakeTSA:
        return self.fakes[name]

    def use(self, _: object) -> None:
        """The same as before."""


# One TSA


async def test_a_token_is_the_tsas_own_bytes_and_time() -> None:
    async with place() as here:
        (stamped,) = (await here.stamp()).tokens
        assert (stamped.time, stamped.authority, stamped.serial_number) == (START, "a", "1")
        request = here.tsas["a"].asked[0]
        assert request.digest == DIGEST
        assert (
            cms.ContentInfo.load(stamped.token)["content"]["encap_content_info"]["content"].parsed["nonce"].native
            == request.nonce
        )


async def test_each_question_has_a_nonce_even_when_the_caller_has_none() -> None:
    async with place() as here:
        await here.stamp()
        await here.stamp()
        first, second = (request.nonce for request in here.tsas["a"].asked)
        assert first != second


async def test_the_callers_nonce_is_asked_with() -> None:
    async with place() as here:
        await here.stamp(nonce=b"\x01\x00")
        assert here.tsas["a"].asked[0].nonce == 256


async def test_who_asks_for_no_certificate_gets_none_and_the_token_still_holds() -> None:
    async with place() as here:
        (with_it,) = (await here.stamp()).tokens
        (without,) = (await here.stamp(certificate_requested=False)).tokens
        certificates = [cms.ContentInfo.load(one.token)["content"]["certificates"].native for one in (with_it, without)]
        assert [bool(one) for one in certificates] == [True, False]


async def test_the_policy_of_the_entry_is_asked_for_unless_the_caller_names_one() -> None:
    policies = {"policies": ["2.999.5", "2.999.6"], "default_policy": "2.999.5"}
    async with place(entries(a=policies)) as here:
        await here.stamp()
        (stamped,) = (await here.stamp(policy="2.999.6")).tokens
        assert [request.policy for request in here.tsas["a"].asked] == ["2.999.5", "2.999.6"]
        assert stamped.policy == "2.999.6"


async def test_a_tsa_that_ignores_policies_is_not_asked_for_its_default() -> None:
    policies = {"policies": ["2.999.1"], "default_policy": "2.999.1", "ignores_policy": True}
    async with place(entries(a=policies)) as here:
        await here.stamp()
        assert here.tsas["a"].asked[0].policy is None
        assert await here.authority(policy="2.999.9") == "b"


@pytest.mark.parametrize(
    ("digest", "hash_", "code"),
    [
        (b"\0" * 20, Hash.SHA256, Code.DIGEST_LENGTH),
        (b"\0" * 64, Hash.SHA3_512, Code.HASH_ALGORITHM_REFUSED),
    ],
)
async def test_what_cannot_be_stamped_is_not_asked_for(digest: bytes, hash_: Hash, code: Code) -> None:
    async with place() as here:
        with pytest.raises(RakkanError) as refusal:
            await here.room.handlers.timestamp(asking(digest, hash_))
        assert (refusal.value.code, here.asked()) == (code, {"a": 0, "b": 0, "c": 0})


# Failover


@pytest.mark.parametrize(
    "trouble",
    [
        {"fault": AWAY},
        {"fault": LATE},
        {"fault": RakkanError(Code.TSA_REFUSED, "HTTP status 401")},
        {"fault": RakkanError(Code.TSA_UNTRUSTED, "an answer of more than 65536 bytes")},
        {"lies": Lies(signed_bytes=lambda signed: signed + b"x")},
        {"lies": Lies(with_token=False, status="rejection", failures=frozenset({"system_failure"}))},
        {"lies": Lies(with_token=False, status="rejection", failures=frozenset({"bad_request"}))},
        {"off": timedelta(hours=1)},
    ],
    ids=["away", "late", "login", "too long", "signature", "failure", "rejection", "clock"],
)
async def test_who_fails_is_not_felt_while_another_of_the_class_works(trouble: dict[str, Any]) -> None:
    async with place() as here:
        vars(here.tsas["a"]).update(trouble)
        assert await here.authority() == "b"
        first, second = here.tsas["a"].asked[0], here.tsas["b"].asked[0]
        assert first.nonce != second.nonce


async def test_a_broken_connection_is_tried_once_more_with_a_new_nonce() -> None:
    async with place() as here:
        here.tsas["a"].faults = [BROKEN]
        assert await here.authority() == "a"
        first, second = here.tsas["a"].asked
        assert first.nonce != second.nonce


async def test_a_named_tsa_fails_honestly_and_nobody_else_is_asked() -> None:
    async with place() as here:
        here.tsas["a"].fault = AWAY
        refusal = await here.refused(authority="a")
        assert (refusal.code, here.asked()) == (Code.TSA_UNAVAILABLE, {"a": 1, "b": 0, "c": 0})
        assert "authority a" in refusal.detail


@pytest.mark.parametrize(
    ("lies", "code"),
    [
        (Lies(with_token=False, status="rejection", failures=REJECTED), Code.TSA_POLICY_REFUSED),
        (Lies(with_token=False, status="rejection", failures=frozenset({"bad_alg"})), Code.HASH_ALGORITHM_REFUSED),
        (Lies(with_token=False, status="rejection"), Code.TSA_REFUSED),
        (Lies(with_token=False), Code.TSA_UNTRUSTED),
    ],
)
async def test_the_reason_of_a_named_tsa_is_told_as_it_is(lies: Lies, code: Code) -> None:
    async with place() as here:
        here.tsas["a"].lies = lies
        assert (await here.refused(authority="a")).code is code


async def test_when_all_of_a_class_are_down_it_is_named_and_nothing_lower_is_tried() -> None:
    gold = {"classes": [{"name": "gold", "since": "2020-01-01"}]}
    async with place(entries(a=gold, b=gold)) as here:
        here.tsas["a"].fault = here.tsas["b"].fault = AWAY
        refusal = await here.refused(assurance_class="gold")
        assert refusal.code is Code.TSA_UNAVAILABLE
        assert "the class gold" in refusal.detail
        assert here.asked() == {"a": 1, "b": 1, "c": 0}
        for _ in range(5):
            assert (await here.refused(assurance_class="gold")).code is Code.TSA_UNAVAILABLE
        assert here.tsas["c"].asked == []


async def test_a_pool_that_refuses_for_one_reason_tells_that_reason() -> None:
    async with place() as here:
        for tsa in here.tsas.values():
            tsa.lies = Lies(with_token=False, status="rejection", failures=REJECTED)
        assert (await here.refused(policy="2.999.7")).code is Code.TSA_POLICY_REFUSED
        assert here.asked() == {"a": 1, "b": 1, "c": 1}


async def test_the_callers_deadline_ends_the_search() -> None:
    async with place() as here:
        here.tsas["a"].fault = AWAY
        with operation.carry(operation.Operation("op", START + timedelta(milliseconds=100), "gateway")):
            refusal = await here.refused()
        assert (refusal.code, here.asked()) == (Code.TSA_UNAVAILABLE, {"a": 0, "b": 0, "c": 0})
        assert here.room.memories.of("a").transport.failures == 0


# Several tokens, the archive


async def test_double_time_stamping_gives_tokens_of_distinct_authorities() -> None:
    async with place() as here:
        here.tsas["a"].fault = AWAY
        assert {token.authority for token in (await here.stamp(distinct=2)).tokens} == {"b", "c"}
        assert (await here.refused(distinct=3)).code is Code.TSA_UNAVAILABLE


async def test_half_of_what_was_wished_for_is_nothing_and_noted() -> None:
    async with place(entries(c={"status": "maintenance"})) as here:
        here.tsas["b"].fault = AWAY
        assert (await here.refused(distinct=2)).code is Code.TSA_UNAVAILABLE
        assert [event for event, _ in here.room.store.events] == ["timestamp.surplus", "timestamp.refused"]


async def test_archives_are_stamped_by_their_own_authority() -> None:
    defaults = {"timestamps": {"assurance_class": CLASS, "archive_authority": "c"}}
    async with place(defaults=defaults) as here:
        assert await here.authority() == "a"
        assert await here.authority(for_archive=True) == "c"
        here.tsas["c"].fault = AWAY
        assert (await here.refused(for_archive=True)).code is Code.TSA_UNAVAILABLE


# Memory


async def test_who_was_down_three_times_is_asked_no_more_until_it_lets_us_connect() -> None:
    async with place() as here:
        here.tsas["a"].fault = AWAY
        for _ in range(10):
            assert await here.authority() == "b"
        assert len(here.tsas["a"].asked) == 3
        here.clock.pass_by(seconds=3)
        await here.room.watch.look()
        assert await here.authority() == "b"
        assert (len(here.tsas["a"].asked), here.tsas["a"].connections) == (3, 1)


async def test_who_recovers_is_found_out_by_one_request_and_used_again() -> None:
    async with place() as here:
        here.tsas["a"].fault = AWAY
        for _ in range(3):
            await here.authority()
        here.tsas["a"].fault = None
        here.clock.pass_by(seconds=3)
        await here.room.watch.look()
        assert [await here.authority() for _ in range(3)] == ["a", "a", "a"]


async def test_one_untrue_token_sets_a_tsa_aside_and_a_change_of_its_entry_brings_it_back() -> None:
    async with place() as here:
        here.tsas["a"].lies = Lies(signed_bytes=lambda signed: signed + b"x")
        for _ in range(5):
            assert await here.authority() == "b"
        assert len(here.tsas["a"].asked) == 1
        assert (await here.refused(authority="a")).code is Code.TSA_UNAVAILABLE
        here.tsas["a"].lies = Lies()
        await here.room.take_up(registry_of(entries(a={"label": "mended"}), version=2))
        assert await here.authority() == "a"


async def test_a_slow_tsa_is_asked_after_the_others_although_it_is_cheaper() -> None:
    async with place() as here:
        for name, seconds in (("a", 1.5), ("b", 0.02), ("c", 0.02)):
            used_to(here, name, seconds=seconds, times=3)
        assert await here.authority() == "b"
        here.tsas["b"].fault = here.tsas["c"].fault = AWAY
        assert await here.authority() == "a"


async def test_a_trial_that_takes_long_is_not_felt_and_its_token_is_noted() -> None:
    async with place(entries(c={"status": "maintenance"})) as here:
        here.tsas["a"].fault = AWAY
        for _ in range(3):
            await here.authority()
        here.tsas["a"].fault, here.tsas["a"].held = None, asyncio.Event()
        here.clock.pass_by(seconds=3)
        await here.room.watch.look()
        assert await here.authority() == "b"
        assert here.room.store.events[-1][0] == "timestamp.obtained"
        here.tsas["a"].held.set()
        await here.room.obtaining.close()
        assert ("timestamp.surplus", "a") in [(event, about["authority"]) for event, about in here.room.store.events]


async def test_nobody_is_asked_as_a_second_unless_officers_allow_it() -> None:
    async with place(entries(c={"status": "maintenance"})) as here:
        used_to(here, "a", seconds=0.01)
        here.tsas["a"].held = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, here.tsas["a"].held.set)
        assert await here.authority() == "a"
        assert len(here.tsas["b"].asked) == 0


async def test_a_second_is_asked_beside_who_is_later_than_usual_within_its_budget() -> None:
    async with place(entries(b={"hedge_percent_max": 20}, c={"status": "maintenance"})) as here:
        used_to(here, "a", seconds=0.01)
        for _ in range(10):
            await here.authority()
        here.tsas["a"].held = asyncio.Event()
        assert [await here.authority() for _ in range(2)] == ["b", "b"]
        asyncio.get_running_loop().call_later(0.3, here.tsas["a"].held.set)
        assert [await here.authority() for _ in range(2)] == ["a", "a"]
        await here.room.obtaining.close()
        assert [event for event, _ in here.room.store.events].count("timestamp.surplus") == 2


def used_to(here: Place, name: str, *, seconds: float, times: int = 20) -> None:
    """It has always taken so long."""
    now = here.clock.now
    for _ in range(times):
        here.room.memories.change(name, lambda memory: memory.answered(seconds, now=now))


# Quotas


async def test_an_exhausted_tsa_is_passed_over_and_not_asked() -> None:
    async with place(entries(a={"quotas": [{"requests": 2, "seconds": 1200}]})) as here:
        assert [await here.authority() for _ in range(4)] == ["a", "a", "b", "b"]
        assert len(here.tsas["a"].asked) == 2
        assert (await here.refused(authority="a")).code is Code.TSA_QUOTA


async def test_what_surely_never_reached_the_tsa_is_given_back() -> None:
    async with place(entries(a={"quotas": [{"requests": 20, "seconds": 1200}]})) as here:
        here.tsas["a"].faults = [AWAY, LATE]
        assert [await here.authority() for _ in range(3)] == ["b", "b", "a"]
        assert here.room.store.spent["a"] == 2


# Our own clock


async def test_when_most_tsas_disagree_with_us_it_is_us() -> None:
    async with place() as here:
        for tsa in here.tsas.values():
            tsa.off = timedelta(hours=1)
        refusal = await here.refused()
        assert (refusal.code, "our own clock" in refusal.detail) == (Code.TSA_UNAVAILABLE, True)
        with pytest.raises(RakkanError, match="our own clock"):
            await here.room.watch.check_clock()
        # Nobody is taken for a liar, and nobody's quota is wasted while it is so.
        assert not any(here.room.memories.of(name).verification.is_open(here.clock.now) for name in here.tsas)
        asked = here.asked()
        await here.refused()
        await here.refused()
        assert sum(here.asked().values()) - sum(asked.values()) <= 3
        for tsa in here.tsas.values():
            tsa.off = timedelta()
        here.clock.pass_by(seconds=31)
        assert await here.authority()
        await here.room.watch.check_clock()


# What is left behind, what is told


async def test_each_token_and_each_refusal_leaves_a_leaf() -> None:
    async with place() as here:
        here.tsas["a"].fault = AWAY
        await here.stamp()
        await here.refused(authority="z")
        (obtained, about), (refused, why) = here.room.store.events
        assert (obtained, refused) == ("timestamp.obtained", "timestamp.refused")
        assert about["attempts"] == "a:tsa_unavailable b:token"
        assert {"authority", "serial_number", "gen_time", "policy", "latency_ms", "offset_ms"} <= about.keys()
        assert "z" in why["why"]


async def test_a_token_that_cannot_be_recorded_reaches_nobody() -> None:
    async with place() as here:
        here.room.store.is_away = True
        assert (await here.refused()).code is Code.UNAVAILABLE


async def test_an_explanation_asks_nobody() -> None:
    async with place(entries(a={"quotas": [{"requests": 2, "seconds": 60}]}, c={"status": "maintenance"})) as here:
        told = await here.room.handlers.explain_timestamp(
            ExplainTimestamp(digest=DIGEST, hash=Hash.SHA256, tenant_id="acme")
        )
        assert [(one.authority, one.standing) for one in told.reasons] == [
            ("a", "asked"),
            ("b", "if needed"),
            ("c", "left out"),
        ]
        assert (told.choice, told.refused) == (f"the class {CLASS}, the default", None)
        assert here.asked() == {"a": 0, "b": 0, "c": 0}
        states = await here.room.handlers.read_authorities(ReadAuthorities())
        assert [(one.authority, one.state) for one in states.authorities] == [
            ("a", "working"),
            ("b", "working"),
            ("c", "maintenance"),
        ]
        assert states.authorities[0].quotas[0].left == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "ff" * 10_000},
        {"nonce": ""},
        {"hash": "sha1"},
        {"hash": "md5"},
        {"hash": "1.2.3.4"},
        {"digest": ""},
        {"digest": base64.b64encode(bytes(10_000)).decode()},
        {"policy": "2.999.1; drop table spending"},
        {"authority": "../../etc/passwd"},
        {"distinct": 4},
        {"distinct": 0},
        {"unknown": 1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_message_with_something_else_in_it_is_none(wrong: dict[str, Any]) -> None:
    right = json.loads(asking(DIGEST).model_dump_json())
    assert Timestamp.model_validate_json(json.dumps(right))
    with pytest.raises(ValidationError):
        Timestamp.model_validate_json(json.dumps(right | wrong))

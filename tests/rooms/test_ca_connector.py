"""What the CA connector does with jobs, and each CA's queue with what is due; authorities and database are fakes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import Capabilities
from services.ca_connector.breaker import BreakerState
from services.ca_connector.orders import Issued, Order, Outcome, Pending, Refused, State
from shared.contracts.ca_connector import ConfirmOrder, NoteCertificate, OrderCertificate, RevokeCertificate
from shared.errors import Code, RakkanError
from shared.settings import SettingsError
from tests.support.ca_connector import ConnectorRoom, FakeAuthority, registry_of
from tests.support.certificates import authority
from tests.support.waiting import until

CHAIN = (authority("A certificate").certificate.public_bytes(Encoding.DER),)
ANOTHER = (authority("Another").certificate.public_bytes(Encoding.DER),)
ORDER = OrderCertificate(order_id="o-1", authority="blue", csr=b"csr")
ISSUED = Issued(CHAIN)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@dataclass
class Blue(FakeAuthority):
    """The one authority of most tests, with its room around it."""

    room: ConnectorRoom = field(init=False)

    @property
    def order(self) -> Order:
        return self.room.store.orders["o-1"]

    def is_(self, state: State) -> bool:
        return self.order.state is state

    async def place(self, *outcomes: Outcome | RakkanError) -> Order:
        self.outcomes = list(outcomes)
        await self.room.handlers.order_certificate(ORDER)
        await self.room.work()
        return self.order


@pytest.fixture
async def blue() -> AsyncIterator[Blue]:
    authority_ = Blue()
    authority_.room = ConnectorRoom({"blue": authority_})
    async with authority_.room.open():
        yield authority_


async def test_an_order_is_placed_and_its_certificate_sent(blue: Blue) -> None:
    order = await blue.place(ISSUED)
    assert (order.state, order.chain) == (State.ISSUED, CHAIN)
    assert blue.room.store.accepted == ["o-1"]


async def test_the_job_is_done_when_the_order_is_durable_and_nothing_waits_for_the_authority(blue: Blue) -> None:
    async def hang(order: Order) -> Outcome:
        await asyncio.sleep(60)
        return Issued((order.csr,))

    blue.submit = hang  # type: ignore[method-assign]  # an authority that hangs
    async with asyncio.timeout(1):
        await blue.room.handlers.order_certificate(ORDER)
    assert blue.is_(State.SUBMITTED)


async def test_the_same_order_again_is_not_placed_again(blue: Blue) -> None:
    await blue.place(ISSUED, Issued(ANOTHER))
    for _ in range(2):
        await blue.room.handlers.order_certificate(ORDER)
        await blue.room.work(later=HOUR)
    assert len(blue.asked) == 1
    assert blue.order.chain == CHAIN


@pytest.mark.parametrize("change", [{"csr": b"another"}, {"profile": "seal"}, {"authority": "red"}])
async def test_the_same_order_id_with_another_content_is_a_conflict(blue: Blue, change: dict[str, Any]) -> None:
    await blue.place(ISSUED)
    with pytest.raises(RakkanError) as refusal:
        await blue.room.handlers.order_certificate(ORDER.model_copy(update=change))
    assert refusal.value.code is Code.CONFLICT


async def test_a_second_order_for_the_same_key_is_a_conflict_unless_it_renews(blue: Blue) -> None:
    await blue.place(ISSUED)
    with pytest.raises(RakkanError) as refusal:
        await blue.room.handlers.order_certificate(ORDER.model_copy(update={"order_id": "o-2"}))
    assert refusal.value.code is Code.CONFLICT
    blue.outcomes = [Issued(ANOTHER)]
    await blue.room.handlers.order_certificate(ORDER.model_copy(update={"order_id": "o-3", "renews": "o-1"}))
    await blue.room.work()
    assert blue.room.store.orders["o-3"].chain == ANOTHER


async def test_an_order_that_renews_brings_the_one_it_takes_over_from(blue: Blue) -> None:
    await blue.place(ISSUED)
    blue.outcomes = [Issued(ANOTHER)]
    renewal = OrderCertificate(order_id="o-2", authority="blue", csr=b"new key", renews="o-1", origin=b"statement")
    await blue.room.handlers.order_certificate(renewal)
    await blue.room.work()
    placed = blue.orders[-1]
    assert placed.previous is not None
    assert (placed.previous.chain, placed.origin) == (CHAIN, b"statement")


async def test_what_the_authority_refuses_the_sam_is_told_with_the_reason(blue: Blue) -> None:
    order = await blue.place(Refused("no such person"))
    assert (order.state, order.reason) == (State.REJECTED, "no such person")
    assert (blue.room.store.refused, blue.room.store.accepted) == (["o-1"], [])


async def test_a_profile_the_authority_has_not_is_refused(blue: Blue) -> None:
    await blue.room.handlers.order_certificate(ORDER.model_copy(update={"profile": "nothing"}))
    await blue.room.work()
    assert (blue.room.store.refused, blue.asked) == (["o-1"], [])


async def test_an_authority_that_is_not_in_the_registry_refuses_but_not_at_once(blue: Blue) -> None:
    await blue.room.handlers.order_certificate(ORDER.model_copy(update={"authority": "nowhere"}))
    await blue.room.work(later=timedelta(seconds=30))
    assert blue.is_(State.SUBMITTED)
    await blue.room.work(later=MINUTE)
    assert blue.room.store.refused == ["o-1"]
    assert "nowhere" in (blue.order.reason or "")


# What fails


async def test_an_order_outlives_an_authority_that_is_away(blue: Blue) -> None:
    assert (await blue.place()).state is State.SUBMITTED
    await blue.room.work(later=MINUTE)
    assert blue.is_(State.SUBMITTED)
    blue.outcomes = [ISSUED]
    await blue.room.work(later=HOUR)
    assert blue.room.store.accepted == ["o-1"]


UNCERTAIN = [
    RakkanError(Code.INDETERMINATE, "no answer in 15 s"),
    RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer of the type 'text/html'"),
    RakkanError(Code.INTERNAL, "?"),
    Issued((b"garbage",)),
    Issued(()),
]


@pytest.mark.parametrize("outcome", UNCERTAIN, ids=str)
async def test_what_may_have_been_issued_is_never_placed_again(blue: Blue, outcome: Outcome | RakkanError) -> None:
    order = await blue.place(outcome, ISSUED)
    assert (order.state, bool(order.reason)) == (State.UNKNOWN, True)
    await blue.room.handlers.order_certificate(ORDER)
    await blue.room.work(later=timedelta(days=9))
    assert (len(blue.asked), blue.order.state) == (1, State.UNKNOWN)


async def test_where_asking_twice_gives_the_same_certificate_it_is_asked_again(blue: Blue) -> None:
    blue.capabilities = Capabilities(polls=True, revokes=True, renews=False, repeatable=True)
    assert (await blue.place(RakkanError(Code.INDETERMINATE))).state is State.SUBMITTED
    blue.outcomes = [ISSUED]
    await blue.room.work(later=HOUR)
    assert blue.is_(State.ISSUED)


async def test_an_order_that_was_being_placed_when_the_process_died_becomes_unknown(blue: Blue) -> None:
    blue.outcomes = [ISSUED]
    await blue.room.handlers.order_certificate(ORDER)
    blue.room.store.orders["o-1"] = replace(blue.order, asked_before=True)
    await blue.room.work()
    assert (blue.order.state, blue.asked) == (State.UNKNOWN, [])


async def test_refused_credentials_cost_no_order_and_close_the_desk_at_once(blue: Blue) -> None:
    order = await blue.place(RakkanError(Code.AUTHORITY_REFUSED, "HTTP status 401"))
    assert order.state is State.SUBMITTED
    desk = blue.room.queues.desks["blue"]
    assert (desk.breaker.state, "401" in desk.breaker.why) == (BreakerState.OPEN, True)
    blue.outcomes = [ISSUED]
    await blue.room.work(later=HOUR)
    assert blue.is_(State.ISSUED)


async def test_an_authority_that_does_not_answer_is_waited_for_no_longer_than_a_lease() -> None:
    class Silent(FakeAuthority):
        async def submit(self, order: Order) -> Outcome:
            await asyncio.sleep(60)
            return Issued((order.csr,))

    room = ConnectorRoom({"blue": Silent()}, timeout_s=0.05)
    async with room.open(), asyncio.timeout(5):
        await room.handlers.order_certificate(ORDER)
        await room.work()
        assert room.store.orders["o-1"].state is State.UNKNOWN


async def test_a_certificate_outlives_a_database_that_is_away(blue: Blue) -> None:
    blue.room.store.away = 1
    assert (await blue.place(ISSUED)).chain == CHAIN


async def test_a_certificate_that_comes_late_for_an_unknown_order_is_still_taken(blue: Blue) -> None:
    async def slow(order: Order) -> Outcome:
        blue.room.store.orders["o-1"] = replace(order, state=State.UNKNOWN, reason="the lease ended")
        return ISSUED

    blue.submit = slow  # type: ignore[method-assign]  # overtaken by another replica
    await blue.room.handlers.order_certificate(ORDER)
    await blue.room.work()
    assert (blue.order.state, blue.order.chain) == (State.ISSUED, CHAIN)


async def test_a_certificate_that_comes_for_an_ended_order_is_revoked(blue: Blue) -> None:
    async def slow(order: Order) -> Outcome:
        blue.room.store.orders["o-1"] = replace(order, state=State.REJECTED, reason="the operator said so")
        return ISSUED

    blue.poll = slow  # type: ignore[method-assign]  # overtaken by an operator
    await blue.place(Pending(b"handle", blue.room.time))
    await blue.room.work(later=HOUR)
    await blue.room.work()
    assert (blue.order.chain, blue.revoked, blue.room.store.accepted) == (CHAIN, [("o-1", 5)], [])


async def test_a_second_certificate_for_a_filled_order_is_revoked_at_once(blue: Blue) -> None:
    async def twice(order: Order) -> Outcome:
        blue.room.store.orders["o-1"] = replace(order, state=State.ISSUED, chain=CHAIN)
        return Issued(ANOTHER)

    blue.submit = twice  # type: ignore[method-assign]  # placed by two replicas
    await blue.room.handlers.order_certificate(ORDER)
    await blue.room.work()
    assert (blue.order.chain, blue.revoked) == (CHAIN, [("o-1", 5)])


# What is pending


async def test_a_pending_order_is_polled_with_its_handle_and_not_before_its_time(blue: Blue) -> None:
    start = blue.room.time
    order = await blue.place(Pending(b"first", start + HOUR), Pending(b"second", start + 2 * HOUR), ISSUED)
    await blue.room.work()
    assert (order.handle, len(blue.asked)) == (b"first", 1)
    await blue.room.work(later=HOUR)
    assert blue.order.handle == b"second"
    await blue.room.work(later=HOUR)
    assert blue.asked == [("o-1", State.SUBMITTED), ("o-1", State.PENDING), ("o-1", State.PENDING)]
    assert blue.room.store.accepted == ["o-1"]


async def test_an_authority_that_names_no_time_is_asked_ever_more_seldom(blue: Blue) -> None:
    await blue.place(*(Pending(b"handle") for _ in range(20)))
    waits = []
    for _ in range(19):
        assert blue.order.not_before is not None
        waits.append((blue.order.not_before - blue.room.time).total_seconds())
        await blue.room.work(later=blue.order.not_before - blue.room.time)
    assert waits[:5] == [5, 5, 10, 20, 40]
    assert waits[-1] == 3600


async def test_an_order_that_is_pending_for_a_day_is_issued_in_the_end(blue: Blue) -> None:
    day = timedelta(days=1)
    await blue.place(Pending(b"handle", blue.room.time + day), ISSUED)
    await blue.room.work(later=timedelta(hours=23))
    assert blue.is_(State.PENDING)
    await blue.room.work(later=HOUR)
    assert blue.is_(State.ISSUED)


async def test_an_order_that_stays_pending_too_long_is_given_to_the_operator(blue: Blue) -> None:
    await blue.place(*(Pending(b"handle") for _ in range(9)))
    await blue.room.work(later=timedelta(days=30))
    assert (blue.order.state, blue.order.handle) == (State.UNKNOWN, b"handle")
    assert "30 days" in (blue.order.reason or "")


async def test_an_order_that_waits_for_people_here_is_never_given_up(blue: Blue) -> None:
    blue.capabilities = replace(blue.capabilities, waits_for_people=True)
    await blue.place(*(Pending(b"handle") for _ in range(9)))
    await blue.room.work(later=timedelta(days=400))
    assert blue.is_(State.PENDING)


async def test_a_poll_handle_the_authority_does_not_know_any_more_is_for_the_operator(blue: Blue) -> None:
    await blue.place(Pending(b"handle"), RakkanError(Code.INDETERMINATE, "no such order at the CA"), ISSUED)
    await blue.room.work(later=HOUR)
    assert (blue.order.state, blue.order.reason) == (State.UNKNOWN, "indeterminate: no such order at the CA")


@pytest.mark.parametrize("code", [Code.AUTHORITY_UNAVAILABLE, Code.AUTHORITY_UNTRUSTED, Code.AUTHORITY_REFUSED])
async def test_a_poll_that_fails_is_repeated(blue: Blue, code: Code) -> None:
    await blue.place(Pending(b"handle"), RakkanError(code), ISSUED)
    await blue.room.work(later=HOUR)
    assert blue.is_(State.PENDING)
    await blue.room.work(later=HOUR)
    assert blue.is_(State.ISSUED)


# The SAM's word


async def test_a_sam_that_has_not_answered_is_told_again(blue: Blue) -> None:
    await blue.place(ISSUED)
    await blue.room.work(later=HOUR)
    assert blue.room.store.accepted == ["o-1", "o-1"]
    await blue.room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True))
    await blue.room.work(later=HOUR)
    assert blue.room.store.accepted == ["o-1", "o-1"]


async def test_the_sams_word_ends_an_order_and_may_come_twice(blue: Blue) -> None:
    await blue.place(ISSUED)
    for _ in range(2):
        await blue.room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True))
    await blue.room.work()
    assert (blue.order.state, blue.revoked, blue.confirmed) == (State.CONFIRMED, [], [])
    with pytest.raises(RakkanError) as refusal:
        await blue.room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=False, reason="on second thought"))
    assert refusal.value.code is Code.CONFLICT


async def test_a_certificate_the_sam_does_not_want_is_revoked_once(blue: Blue) -> None:
    await blue.place(ISSUED)
    for _ in range(2):
        await blue.room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=False, reason="another key"))
        await blue.room.work()
    assert (blue.order.state, blue.order.reason) == (State.REJECTED, "another key")
    assert (blue.revoked, blue.room.store.noted) == ([("o-1", 5)], [])


@pytest.mark.parametrize("accepted", [True, False])
async def test_an_authority_that_waits_for_the_sams_word_hears_it_though_it_was_away(
    blue: Blue, *, accepted: bool
) -> None:
    blue.capabilities = Capabilities(polls=True, revokes=True, renews=True, confirms=True)
    await blue.place(ISSUED)
    blue.away = True
    await blue.room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=accepted, reason="no"))
    await blue.room.work()
    assert blue.confirmed == []
    blue.away = False
    for _ in range(3):
        await blue.room.work(later=HOUR)
    assert blue.confirmed == [("o-1", accepted)]


async def test_nothing_can_be_said_of_an_order_that_is_not_known(blue: Blue) -> None:
    for work in (
        blue.room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True)),
        blue.room.handlers.note_certificate(NoteCertificate(order_id="o-1", chain=CHAIN)),
        blue.room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=1)),
    ):
        with pytest.raises(RakkanError) as refusal:
            await work
        assert refusal.value.code is Code.NOT_FOUND


async def test_the_sam_does_not_confirm_what_was_not_issued(blue: Blue) -> None:
    await blue.place(Pending(b"handle"))
    with pytest.raises(RakkanError) as refusal:
        await blue.room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True))
    assert refusal.value.code is Code.CONFLICT


# A certificate that was brought past the connector

PLACED: dict[State, tuple[Outcome | RakkanError, ...]] = {
    State.SUBMITTED: (RakkanError(Code.AUTHORITY_UNAVAILABLE),),
    State.PENDING: (Pending(b"handle"),),
    State.UNKNOWN: (RakkanError(Code.INDETERMINATE),),
    State.ISSUED: (ISSUED,),
}


@pytest.mark.parametrize("state", PLACED)
async def test_a_certificate_that_was_brought_fills_its_order_once_and_can_be_revoked(blue: Blue, state: State) -> None:
    assert (await blue.place(*PLACED[state])).state is state
    for _ in range(2):
        await blue.room.handlers.note_certificate(NoteCertificate(order_id="o-1", chain=CHAIN))
    assert (blue.order.state, blue.order.chain) == (State.CONFIRMED, CHAIN)
    blue.outcomes = [Issued(ANOTHER)]
    await blue.room.work(later=HOUR)
    assert len(blue.asked) == 1
    await blue.room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=1))
    await blue.room.work()
    assert (blue.revoked, blue.room.store.noted) == ([("o-1", 1)], ["o-1"])


@pytest.mark.parametrize("outcome", [ISSUED, Refused("no such person")])
async def test_a_brought_certificate_that_is_not_the_orders_is_a_conflict(blue: Blue, outcome: Outcome) -> None:
    order = await blue.place(outcome)
    with pytest.raises(RakkanError) as refusal, structlog.testing.capture_logs() as logs:
        await blue.room.handlers.note_certificate(NoteCertificate(order_id="o-1", chain=ANOTHER))
    assert refusal.value.code is Code.CONFLICT
    assert blue.order == order
    assert [line["event"] for line in logs] == ["certificate in use is not its order's"]


async def test_an_authority_that_issues_what_was_brought_meanwhile_takes_it_back(blue: Blue) -> None:
    submit = blue.submit

    async def brought_first(order: Order) -> Outcome:
        await blue.room.handlers.note_certificate(NoteCertificate(order_id="o-1", chain=CHAIN))
        return await submit(order)

    blue.submit = brought_first  # type: ignore[method-assign]  # a partner is faster
    order = await blue.place(Issued(ANOTHER))
    assert (order.state, order.chain) == (State.CONFIRMED, CHAIN)
    assert blue.revoked == [("o-1", 5)]


# Revocation


async def test_a_certificate_is_revoked_once_and_the_sam_is_told(blue: Blue) -> None:
    await blue.place(ISSUED)
    await blue.room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True))
    for reason in (1, 1, 4):
        await blue.room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=reason))
        await blue.room.work()
    assert (blue.revoked, blue.room.store.noted) == ([("o-1", 1)], ["o-1"])


@pytest.mark.parametrize("reason", [6, 7, 8])
async def test_what_can_be_taken_back_is_no_revocation(blue: Blue, reason: int) -> None:
    await blue.place(ISSUED)
    with pytest.raises(RakkanError) as refusal:
        await blue.room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=reason))
    assert refusal.value.code is Code.MALFORMED


async def test_a_revocation_the_authority_refuses_is_wanted_again_and_shown(blue: Blue) -> None:
    await blue.place(ISSUED)
    blue.refuses_revocations = True
    await blue.room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=1))
    await blue.room.work()
    assert (blue.room.store.noted, "without a form" in blue.room.store.troubles["o-1"]) == ([], True)
    assert blue.room.queues.desks["blue"].breaker.state is BreakerState.CLOSED
    blue.refuses_revocations = False
    await blue.room.work(later=HOUR)
    assert (blue.revoked, blue.room.store.noted) == ([("o-1", 1)], ["o-1"])


async def test_where_the_protocol_revokes_nothing_an_operator_is_told(blue: Blue) -> None:
    blue.capabilities = Capabilities(polls=True, revokes=False, renews=True)
    await blue.place(ISSUED)
    await blue.room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=1))
    await blue.room.work()
    assert (blue.revoked, "by hand" in blue.room.store.troubles["o-1"]) == ([], True)
    assert blue.room.queues.desks["blue"].breaker.state is BreakerState.CLOSED


async def test_what_is_to_be_revoked_before_it_is_issued_is_revoked_when_it_is(blue: Blue) -> None:
    await blue.place(Pending(b"handle"), ISSUED)
    await blue.room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=5))
    await blue.room.work()
    assert blue.revoked == []
    await blue.room.work(later=HOUR)
    await blue.room.work()
    assert (blue.order.state, blue.revoked) == (State.ISSUED, [("o-1", 5)])


async def test_there_is_nothing_to_revoke_where_nothing_was_issued(blue: Blue) -> None:
    await blue.place(Refused("no"))
    await blue.room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=5))
    await blue.room.work()
    assert (blue.revoked, blue.room.store.revocations) == ([], {})


# One CA and the others


async def place_many(room: ConnectorRoom, name: str, number: int) -> None:
    for index in range(number):
        order = OrderCertificate(order_id=f"{name}-{index}", authority=name, csr=f"{name} {index}".encode())
        await room.handlers.order_certificate(order)


async def accepted(room: ConnectorRoom, number: int) -> bool:
    return len(room.store.accepted) == number


async def test_a_ca_that_hangs_holds_up_no_other() -> None:
    class Hanging(FakeAuthority):
        async def submit(self, order: Order) -> Outcome:
            await asyncio.sleep(60)
            return Issued((order.csr,))

    room = ConnectorRoom({"hanging": Hanging(), "red": FakeAuthority(outcomes=[ISSUED] * 20)}, timeout_s=20)
    async with room.open():
        await place_many(room, "hanging", 20)
        await place_many(room, "red", 20)
        await until(partial(accepted, room, 20), within_s=2)


async def test_no_more_exchanges_than_allowed_are_begun_at_once() -> None:
    class Counting(FakeAuthority):
        at_once = 0
        most = 0

        async def submit(self, order: Order) -> Outcome:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(0.005)
            self.at_once -= 1
            return self._next(order)

    blue = Counting(outcomes=[ISSUED] * 30)
    room = ConnectorRoom({"blue": blue}, concurrency_max=3)
    async with room.open():
        await place_many(room, "blue", 30)
        await until(partial(accepted, room, 30), within_s=5)
    assert blue.most == 3


async def test_a_quota_is_kept_and_what_is_beyond_it_waits() -> None:
    blue = FakeAuthority(outcomes=[ISSUED] * 9)
    room = ConnectorRoom({"blue": blue}, quotas=[{"requests": 3, "seconds": 60}, {"requests": 7, "seconds": 3600}])
    async with room.open():
        await place_many(room, "blue", 9)
        done = []
        for later in (timedelta(), MINUTE / 2, MINUTE, MINUTE, MINUTE, HOUR):
            await room.work(later=later)
            done.append(len(blue.asked))
    assert done == [3, 3, 6, 7, 7, 9]


async def test_a_ca_under_maintenance_takes_no_new_order_and_goes_on_with_the_others(blue: Blue) -> None:
    await blue.place(Pending(b"handle"), ISSUED, ISSUED)
    await blue.room.queues.use(registry_of(["blue"], version=2, status="maintenance"))
    await place_many(blue.room, "blue", 1)
    await blue.room.work(later=HOUR)
    assert blue.is_(State.ISSUED)
    assert blue.room.store.orders["blue-0"].state is State.SUBMITTED


async def test_a_ca_that_fails_again_and_again_is_left_alone_until_its_self_test_succeeds(blue: Blue) -> None:
    blue.away = True
    await place_many(blue.room, "blue", 8)
    desk = blue.room.queues.desks["blue"]
    for _ in range(3):
        await blue.room.work()
    assert (desk.breaker.state, len(blue.asked) <= 8) == (BreakerState.OPEN, True)
    asked = len(blue.asked)
    await blue.room.work(later=timedelta(seconds=4))
    await blue.room.work(later=timedelta(seconds=2))
    assert (len(blue.asked), blue.checks) == (asked, 1)
    blue.away, blue.outcomes = False, [ISSUED] * 8
    await blue.room.work(later=HOUR)
    assert desk.breaker.state is BreakerState.CLOSED
    for _ in range(4):
        await blue.room.work(later=HOUR)
    assert len(set(blue.room.store.accepted)) == 8


async def test_a_ca_that_flaps_loses_no_order(blue: Blue) -> None:
    await place_many(blue.room, "blue", 12)
    for round_ in range(40):
        blue.away = round_ % 2 == 0
        blue.outcomes = [ISSUED] * 3
        await blue.room.work(later=timedelta(minutes=10))
    assert len(set(blue.room.store.accepted)) == 12
    assert len(blue.asked) < 100


async def test_an_adapter_that_breaks_ends_no_queue(blue: Blue) -> None:
    async def broken(order: Order) -> Outcome:
        raise ZeroDivisionError(order.order_id)

    blue.submit = broken  # type: ignore[method-assign]  # a bug in an adapter
    await blue.place()
    await blue.room.queues.check()
    await blue.room.work(later=HOUR)
    assert blue.is_(State.UNKNOWN)


# The registry


async def test_a_registry_with_one_entry_that_cannot_be_opened_changes_nothing() -> None:
    blue, red = FakeAuthority(), FakeAuthority()
    room = ConnectorRoom({"blue": blue, "red": red})
    async with room.open():
        before = room.queues.desks
        del room.authorities["red"]
        opened = FakeAuthority()
        room.authorities["blue"] = opened
        room.queues._open = lambda _, surroundings: refuse_unknown(room, surroundings.name)
        with pytest.raises(SettingsError):
            await room.queues.use(registry_of(["blue", "red"], version=2, label="Renamed"))
        assert room.queues.desks is before
        assert (opened.closed, blue.closed, red.closed) == (True, False, False)


def refuse_unknown(room: ConnectorRoom, name: str) -> FakeAuthority:
    if name not in room.authorities:
        raise SettingsError(f"{name}: a connection its adapter will not have")
    found = room.authorities[name]
    assert isinstance(found, FakeAuthority)
    return found


async def test_a_new_registry_takes_over_what_changed_and_leaves_the_rest_alone() -> None:
    blue, red = FakeAuthority(outcomes=[ISSUED]), FakeAuthority()
    room = ConnectorRoom({"blue": blue, "red": red})
    async with room.open():
        kept = room.queues.desks["blue"]
        room.authorities["green"] = FakeAuthority(outcomes=[ISSUED])
        await room.queues.use(registry_of(["blue", "green"], version=2))
        assert room.queues.desks["blue"] is kept
        await asyncio.sleep(0.05)
        assert (red.closed, blue.closed) == (True, False)
        for name in ("blue", "green"):
            await place_many(room, name, 1)
        await room.work()
        assert sorted(set(room.store.accepted)) == ["blue-0", "green-0"]


async def test_two_cas_of_the_same_name_are_two_desks() -> None:
    blue, red = FakeAuthority(outcomes=[ISSUED]), FakeAuthority(outcomes=[ISSUED])
    room = ConnectorRoom({"blue": blue, "red": red}, label="CN=The CA")
    async with room.open():
        for name in ("blue", "red"):
            await room.handlers.order_certificate(
                OrderCertificate(order_id=name, authority=name, csr=f"of {name}".encode())
            )
        await room.work()
        await room.handlers.revoke_certificate(RevokeCertificate(order_id="red", reason=1))
        await room.work()
    assert [order for order, _ in blue.asked] == ["blue"]
    assert (blue.revoked, red.revoked) == ([], [("red", 1)])

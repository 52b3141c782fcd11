"""What the CA connector does with jobs and with the watch over them; the authority and the database are fakes."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.ca_connector.handlers import Handlers
from services.ca_connector.orders import Issued, Order, Pending, Refused, State
from services.ca_connector.sweeping import Sweep
from shared.contracts.ca_connector import ConfirmOrder, OrderCertificate, RevokeCertificate
from shared.errors import Code, RakkanError
from tests.support.ca_connector import FakeAuthority, FakeStore

CHAIN = (b"certificate", b"root")
ORDER = OrderCertificate(order_id="o-1", authority="local", csr=b"csr")
NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


class Room:
    """The handlers and the watch, wired as in the room."""

    def __init__(self, *outcomes: Issued | Pending | Refused) -> None:
        self.time = NOON
        self.authority = FakeAuthority(list(outcomes))
        self.store = FakeStore()
        self.handlers = Handlers(
            store=self.store, authorities={"local": self.authority}, answer_timeout_s=0.2, now=lambda: self.time
        )
        self.sweep = Sweep(
            store=self.store,
            steps=self.handlers,
            renew_crl=self.renew,
            stuck=timedelta(seconds=60),
            now=lambda: self.time,
        )
        self.renewals = 0

    async def sweep_later(self) -> None:
        self.time += timedelta(seconds=60)
        await self.sweep.once()

    async def renew(self) -> bool:
        self.renewals += 1
        return True

    @property
    def order(self) -> Order:
        return self.store.orders["o-1"]


async def test_an_order_is_placed_and_its_certificate_sent() -> None:
    room = Room(Issued(CHAIN))
    await room.handlers.order_certificate(ORDER)
    assert (room.order.state, room.order.chain) == (State.ISSUED, CHAIN)
    assert room.store.accepted == ["o-1"]


async def test_the_same_order_again_is_not_placed_again() -> None:
    room = Room(Issued(CHAIN), Issued((b"another",)))
    for _ in range(3):
        await room.handlers.order_certificate(ORDER)
    assert len(room.authority.asked) == 1
    assert room.order.chain == CHAIN


async def test_the_same_order_id_with_another_request_is_a_conflict() -> None:
    room = Room(Issued(CHAIN))
    await room.handlers.order_certificate(ORDER)
    with pytest.raises(RakkanError) as refusal:
        await room.handlers.order_certificate(ORDER.model_copy(update={"csr": b"another"}))
    assert refusal.value.code is Code.CONFLICT


async def test_what_the_authority_refuses_the_sam_is_told() -> None:
    room = Room(Refused("no"))
    await room.handlers.order_certificate(ORDER)
    assert (room.order.state, room.store.refused, room.store.accepted) == (State.REJECTED, ["o-1"], [])


async def test_an_authority_that_is_not_set_up_refuses() -> None:
    room = Room()
    await room.handlers.order_certificate(ORDER.model_copy(update={"authority": "nowhere"}))
    assert room.store.refused == ["o-1"]
    assert "nowhere" in (room.order.reason or "")


async def test_an_order_outlives_an_authority_that_is_away() -> None:
    room = Room()
    await room.handlers.order_certificate(ORDER)
    assert room.order.state is State.SUBMITTED
    await room.sweep_later()
    assert room.order.state is State.SUBMITTED
    room.authority.outcomes = [Issued(CHAIN)]
    await room.sweep_later()
    assert room.store.accepted == ["o-1"]


async def test_a_failure_that_repeats_itself_fails_the_job() -> None:
    class Broken(FakeAuthority):
        async def submit(self, order: Order) -> Issued:
            raise RakkanError(Code.INTERNAL, order.order_id)

    room = Room()
    room.handlers.authorities = {"local": Broken()}
    with pytest.raises(RakkanError) as refusal:
        await room.handlers.order_certificate(ORDER)
    assert refusal.value.code is Code.INTERNAL


async def test_a_pending_order_is_polled_with_its_handle_and_not_before_its_time() -> None:
    hour = timedelta(hours=1)
    room = Room(Pending(b"first", NOON + hour), Pending(b"second", NOON + 2 * hour), Issued(CHAIN))
    await room.handlers.order_certificate(ORDER)
    await room.sweep.once()
    assert (room.order.handle, len(room.authority.asked)) == (b"first", 1)
    room.time += hour
    await room.sweep.once()
    assert room.order.handle == b"second"
    room.time += hour
    await room.sweep.once()
    assert room.authority.asked == [("o-1", State.SUBMITTED), ("o-1", State.PENDING), ("o-1", State.PENDING)]
    assert room.store.accepted == ["o-1"]


async def test_a_sam_that_has_not_answered_is_told_again() -> None:
    room = Room(Issued(CHAIN))
    await room.handlers.order_certificate(ORDER)
    await room.sweep_later()
    assert room.store.accepted == ["o-1", "o-1"]
    await room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True))
    await room.sweep_later()
    assert room.store.accepted == ["o-1", "o-1"]


async def test_a_second_that_comes_late_drops_what_it_got() -> None:
    room = Room(Issued(CHAIN), Issued((b"another",)))
    await room.handlers.order_certificate(ORDER)
    stale = Order("o-1", "local", b"csr", "operation", created_at=NOON)
    await room.handlers.take_up(stale)
    assert room.order.chain == CHAIN
    assert room.store.accepted == ["o-1"]


async def issued() -> Room:
    room = Room(Issued(CHAIN))
    await room.handlers.order_certificate(ORDER)
    return room


async def test_the_sams_word_ends_an_order_and_may_come_twice() -> None:
    room = await issued()
    for _ in range(2):
        await room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True))
    assert (room.order.state, room.authority.revoked) == (State.CONFIRMED, [])
    with pytest.raises(RakkanError) as refusal:
        await room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=False, reason="on second thought"))
    assert refusal.value.code is Code.CONFLICT


async def test_a_certificate_the_sam_does_not_want_is_revoked_once() -> None:
    room = await issued()
    for _ in range(2):
        await room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=False, reason="another key"))
    assert (room.order.state, room.order.reason) == (State.REJECTED, "another key")
    assert room.authority.revoked == [("o-1", 5)]
    assert room.store.noted == []


async def test_nothing_can_be_said_of_an_order_that_is_not_known() -> None:
    room = Room()
    for work in (
        room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True)),
        room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=1)),
    ):
        with pytest.raises(RakkanError) as refusal:
            await work
        assert refusal.value.code is Code.NOT_FOUND


async def test_the_sam_does_not_confirm_what_was_not_issued() -> None:
    room = Room(Pending(b"handle", NOON))
    await room.handlers.order_certificate(ORDER)
    with pytest.raises(RakkanError) as refusal:
        await room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True))
    assert refusal.value.code is Code.CONFLICT


async def test_a_certificate_is_revoked_once_and_the_sam_is_told() -> None:
    room = await issued()
    await room.handlers.confirm_order(ConfirmOrder(order_id="o-1", accepted=True))
    for reason in (1, 1, 4):
        await room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=reason))
    assert room.authority.revoked == [("o-1", 1)]
    assert room.store.noted == ["o-1"]


@pytest.mark.parametrize("reason", [6, 7, 8])
async def test_what_can_be_taken_back_is_no_revocation(reason: int) -> None:
    room = await issued()
    with pytest.raises(RakkanError) as refusal:
        await room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=reason))
    assert refusal.value.code is Code.MALFORMED
    assert room.authority.revoked == []


async def test_a_revocation_outlives_an_authority_that_is_away() -> None:
    room = await issued()
    room.authority.away = True
    await room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=1))
    await room.sweep_later()
    assert room.store.noted == []
    room.authority.away = False
    await room.sweep_later()
    assert (room.authority.revoked, room.store.noted) == ([("o-1", 1)], ["o-1"])


async def test_what_is_to_be_revoked_before_it_is_issued_is_revoked_when_it_is() -> None:
    room = Room(Pending(b"handle", NOON), Issued(CHAIN))
    await room.handlers.order_certificate(ORDER)
    await room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=5))
    assert room.authority.revoked == []
    await room.sweep_later()
    assert (room.order.state, room.authority.revoked) == (State.ISSUED, [("o-1", 5)])


async def test_there_is_nothing_to_revoke_where_nothing_was_issued() -> None:
    room = Room(Refused("no"))
    await room.handlers.order_certificate(ORDER)
    await room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=5))
    assert (room.authority.revoked, room.store.revocations) == ([], {})


async def test_an_authority_that_is_set_up_no_more_cannot_revoke() -> None:
    room = await issued()
    room.handlers.authorities = {}
    with pytest.raises(RakkanError) as refusal:
        await room.handlers.revoke_certificate(RevokeCertificate(order_id="o-1", reason=1))
    assert refusal.value.code is Code.AUTHORITY_UNKNOWN


async def test_one_order_that_fails_keeps_no_other_waiting() -> None:
    class Picky(FakeAuthority):
        async def submit(self, order: Order) -> Issued:
            if order.order_id == "o-1":
                raise RakkanError(Code.INTERNAL, "always")
            return Issued(CHAIN)

    room = Room()
    await room.handlers.order_certificate(ORDER)
    await room.handlers.order_certificate(ORDER.model_copy(update={"order_id": "o-2"}))
    room.handlers.authorities = {"local": Picky()}
    await room.sweep_later()
    assert room.store.accepted == ["o-2"]
    assert room.renewals == 1


async def test_what_is_being_worked_on_is_left_alone() -> None:
    room = Room()
    await room.handlers.order_certificate(ORDER)
    room.authority.outcomes = [Issued(CHAIN)]
    room.time += timedelta(seconds=59)
    await room.sweep.once()
    assert room.order.state is State.SUBMITTED


async def test_an_authority_that_does_not_answer_is_waited_for_no_longer_than_a_claim_lasts() -> None:
    class Silent(FakeAuthority):
        async def submit(self, order: Order) -> Issued:
            await asyncio.sleep(60)
            return Issued((order.csr,))

    room = Room()
    room.handlers.authorities = {"local": Silent()}
    async with asyncio.timeout(5):
        await room.handlers.order_certificate(ORDER)
    assert room.order.state is State.SUBMITTED

"""What an operator sees of CAs and orders, and says about those in doubt; from her words to the room, with fakes."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import Health
from services.ca_connector.orders import Order, State
from services.ca_connector.overseeing import Overseeing
from services.ca_connector.selftest import SelfTest
from services.ca_connector.store_standing import Standing
from services.operator import certification
from services.operator.terminal import NotUnderstoodError, Terminal
from services.operator.words import parser
from shared.contracts.base import Request
from shared.contracts.ca_connector import (
    Authorities,
    AuthorityRow,
    ListAuthorities,
    ListOrders,
    NoteRevoked,
    ResolveOrder,
)
from shared.errors import Code, RakkanError
from tests.support.ca_connector import ConnectorRoom, FakeAuthority, registry_of
from tests.support.certificates import NOW, authority, pem
from tests.support.published import DAY, Published, crl, twin_of

ROOT = authority("Root")
ISSUING = authority("Issuing", ROOT)
CHAIN = (authority("A certificate").certificate.public_bytes(Encoding.DER),)
LIST_URL = "http://ca.example/list.crl"


@dataclass
class FakeStanding:
    """Counts what the fake store holds."""

    room: ConnectorRoom
    rows: list[dict[str, Any]] = field(default_factory=list)

    async def standings(
        self, *, now: datetime, days: Sequence[int], with_ended: bool = False, lists_of: Sequence[str] = ()
    ) -> Mapping[str, Standing]:
        del now, days, with_ended, lists_of
        found: dict[str, Standing] = {}
        for order in self.room.store.orders.values():
            standing = found.setdefault(order.authority, Standing())
            standing.orders[order.state] = standing.orders.get(order.state, 0) + 1
            standing.oldest = order.created_at
        return found

    async def lists(self) -> list[dict[str, Any]]:
        return self.rows

    async def orders(self, *, authority: str | None, state: str | None, orders_max: int) -> list[dict[str, Any]]:
        return [
            {
                "order_id": order.order_id,
                "authority": order.authority,
                "profile": order.profile,
                "state": order.state,
                "submitted_at": order.created_at,
                "due_at": order.created_at,
                "why": order.reason,
                "serial_number": None,
                "revocation_wanted_at": order.created_at,
                "revocation_trouble": None,
            }
            for order in self.room.store.orders.values()
            if authority in (None, order.authority) and state in (None, order.state)
        ][:orders_max]


class Office:
    """The room, an operator's view of it, and her terminal in front."""

    def __init__(self) -> None:
        self.blue = FakeAuthority()
        anchors = {"anchors": [pem(ROOT.certificate)], "revocation": {"crl_url": LIST_URL}}
        self.room = ConnectorRoom({"blue": self.blue}, **anchors)
        self.room.time = NOW
        self.web = Published(lists={LIST_URL: crl(ROOT)})
        self.standing = FakeStanding(self.room)
        self.self_test = SelfTest(
            desks=lambda: self.room.queues.desks, sources=self.web, timeout_s=0.2, now=lambda: self.room.time
        )
        self.overseeing = Overseeing(
            store=self.room.store,
            standing=self.standing,
            queues=self.room.queues,
            self_test=self.self_test,
            registry_version=lambda: 7,
            now=lambda: self.room.time,
        )

    async def tested(self) -> AuthorityRow:
        (row,) = (await self.overseeing.list_authorities(ListAuthorities(test=True))).authorities
        return row

    async def ask(self, request: Request[Any]) -> Any:
        answers = {
            ListAuthorities: self.overseeing.list_authorities,
            ListOrders: self.overseeing.list_orders,
            ResolveOrder: self.overseeing.resolve_order,
            NoteRevoked: self.overseeing.note_revoked,
        }
        return await answers[type(request)](request)  # type: ignore[operator]  # a table by type

    async def say(self, *words: str, as_json: bool = False) -> None:
        said = parser().parse_args(["ca", *words])
        await certification.tell(said, self.ask, Terminal(as_json=as_json))

    def put(self, state: State, *, order_id: str = "o-1", **changes: Any) -> None:
        order = Order(order_id, "blue", order_id.encode(), "operation", created_at=NOW)
        self.room.store.orders[order_id] = replace(order, state=state, **changes)
        self.room.store.due_at[order_id] = NOW + DAY


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    made = Office()
    async with made.room.open():
        yield made


# The self-test


async def test_a_ca_that_is_well_says_so(office: Office) -> None:
    async def check() -> Health:
        return Health((ISSUING.certificate, ROOT.certificate))

    office.blue.check = check  # type: ignore[method-assign]  # states a chain
    row = await office.tested()
    assert (row.reachable, row.chain, row.crl, row.breaker) == ("yes", "ok", "fresh until 2026-11-26 12:00", "closed")
    assert row.latency_ms is not None


async def test_a_ca_that_is_away_or_refuses_us_says_so_and_keeps_no_other_waiting(office: Office) -> None:
    office.blue.away = True
    row = await office.tested()
    assert (row.reachable, row.chain, row.latency_ms) == ("authority_unavailable: away", "not stated", None)


async def test_a_chain_of_another_ca_of_the_same_name_is_noticed(office: Office) -> None:
    async def check() -> Health:
        return Health((twin_of(ROOT).certificate,))

    office.blue.check = check  # type: ignore[method-assign]  # states a wrong chain
    assert "does not lead to its anchors" in (await office.tested()).chain


@pytest.mark.parametrize(
    ("der", "why"),
    [
        (crl(twin_of(ROOT)), "not signed"),
        (crl(ROOT, at=NOW - 3 * DAY), "not of now"),
        (None, "nothing at"),
    ],
)
async def test_a_list_that_is_not_fresh_is_shown(office: Office, der: bytes | None, why: str) -> None:
    office.web.lists = {} if der is None else {LIST_URL: der}
    assert why in (await office.tested()).crl


async def test_lists_that_certificates_name_are_shown_and_the_worst_first(office: Office) -> None:
    await office.room.queues.use(registry_of(["blue"], version=2))
    late = {"authority": "blue", "url": "u", "trouble": None, "next_update": NOW - DAY}
    office.standing.rows = [late | {"next_update": NOW + DAY}, late]
    assert (await office.tested()).crl == "ran out 2026-11-24 12:00"
    office.standing.rows.append(late | {"trouble": "certificate_refused: of another authority"})
    assert (await office.tested()).crl == "u: certificate_refused: of another authority"


async def test_orders_of_a_ca_that_left_the_registry_are_still_seen(office: Office) -> None:
    office.put(State.PENDING)
    office.room.store.orders["o-1"] = replace(office.room.store.orders["o-1"], authority="gone")
    found: Authorities = await office.overseeing.list_authorities(ListAuthorities())
    assert [(row.authority, row.pending) for row in found.authorities] == [("blue", 0), ("gone", 1)]


# Orders in doubt


async def test_an_operator_has_an_order_placed_again(office: Office) -> None:
    office.put(State.UNKNOWN, reason="no answer", asked_before=True)
    await office.say("order", "o-1", "resolve", "again")
    order = office.room.store.orders["o-1"]
    assert (order.state, order.asked_before) == (State.SUBMITTED, False)


async def test_an_operator_hands_over_the_certificate_of_an_order(office: Office, tmp_path: Path) -> None:
    office.put(State.UNKNOWN, reason="no answer")
    file = tmp_path / "chain.pem"
    file.write_text(pem(ISSUING.certificate) + pem(ROOT.certificate))
    await office.say("order", "o-1", "resolve", "issued", "--certificate-file", str(file))
    order = office.room.store.orders["o-1"]
    assert (order.state, len(order.chain), office.room.store.accepted) == (State.ISSUED, 2, ["o-1"])


async def test_an_operator_ends_an_order_with_a_reason(office: Office) -> None:
    office.put(State.PENDING, handle=b"h", not_before=NOW + DAY)
    await office.say("order", "o-1", "resolve", "refused", "--reason", "the CA has closed")
    assert office.room.store.orders["o-1"].reason == "the CA has closed"
    assert office.room.store.refused == ["o-1"]


async def test_an_operator_has_an_order_asked_about_by_its_handle(office: Office) -> None:
    office.put(State.UNKNOWN, reason="still pending after 30 days", handle=b"h")
    await office.say("order", "o-1", "resolve", "poll")
    assert office.room.store.orders["o-1"].state is State.PENDING


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ResolveOrder(order_id="o-1", outcome="poll"), Code.CONFLICT),
        (ResolveOrder(order_id="o-1", outcome="issued"), Code.MALFORMED),
        (ResolveOrder(order_id="o-1", outcome="issued", chain=(b"garbage",)), Code.MALFORMED),
        (ResolveOrder(order_id="o-9", outcome="again"), Code.NOT_FOUND),
    ],
)
async def test_what_an_operator_cannot_say_is_refused(office: Office, request_: ResolveOrder, code: Code) -> None:
    office.put(State.UNKNOWN, reason="no answer")
    with pytest.raises(RakkanError) as refusal:
        await office.overseeing.resolve_order(request_)
    assert refusal.value.code is code
    assert office.room.store.orders["o-1"].state is State.UNKNOWN


@pytest.mark.parametrize("state", [State.SUBMITTED, State.ISSUED, State.CONFIRMED, State.REJECTED])
async def test_an_order_that_is_not_in_doubt_is_not_an_operators_to_resolve(office: Office, state: State) -> None:
    office.put(state, chain=CHAIN)
    with pytest.raises(RakkanError) as refusal:
        await office.say("order", "o-1", "resolve", "refused")
    assert refusal.value.code is Code.CONFLICT


async def test_a_revocation_done_by_hand_is_noted_and_the_sam_is_told(office: Office) -> None:
    office.put(State.CONFIRMED, chain=CHAIN)
    with pytest.raises(RakkanError):
        await office.say("revoked", "o-1")
    await office.room.store.want_revocation(office.room.store.orders["o-1"], reason=1, now=NOW)
    await office.say("revoked", "o-1")
    assert office.room.store.noted == ["o-1"]


# Words


async def test_the_tables_are_shown(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    office.put(State.UNKNOWN, reason="no answer in 15 s")
    await office.say()
    await office.say("orders", "--state", "unknown")
    shown = capsys.readouterr()
    for word in ("blue", "fresh until 2026-11-26", "closed", "no answer in 15 s", "not asked for yet"):
        assert word in shown.out
    assert "1 in doubt" in shown.err
    assert "version 7" in shown.err


async def test_the_last_test_is_shown_without_a_new_one(office: Office) -> None:
    await office.say("--last")
    assert office.blue.checks == 0


@pytest.mark.parametrize(
    "words",
    [
        ("order", "o-1", "resolve", "issued"),
        ("order", "o-1", "resolve", "again", "--certificate-file", "x.pem"),
        ("order", "o-1", "resolve", "issued", "--certificate-file", __file__),
        ("orders", "--most", "0"),
    ],
)
async def test_words_that_make_no_sense_ask_nothing(office: Office, words: tuple[str, ...]) -> None:
    office.put(State.UNKNOWN, reason="no answer")
    with pytest.raises(NotUnderstoodError):
        await office.say(*words)
    assert office.room.store.orders["o-1"].state is State.UNKNOWN


async def test_a_ca_that_does_not_answer_the_test_is_waited_for_so_long_and_no_longer(office: Office) -> None:
    async def check() -> Health:
        await asyncio.sleep(30)
        return Health()

    office.blue.check = check  # type: ignore[method-assign]  # hangs
    async with asyncio.timeout(5):
        assert (await office.tested()).reachable == "no answer in 0.2 s"

"""Whom the TSA connector asks: never of a lower class, the cheapest that works first, always for a reason."""

from collections import Counter
from datetime import date, datetime
from typing import Any

import pytest

from services.tsa_connector.memory import Condition, State
from services.tsa_connector.routing import Route, Standing, Wish, pool_of, route
from shared.algorithms import Hash
from shared.errors import Code, RakkanError
from shared.registry import Registry
from tests.support.trust_services import ANCHOR

NOW = datetime.fromisoformat("2026-11-25T12:00:00+00:00")
GOLD, STANDARD = ({"name": name, "since": "2020-01-01"} for name in ("gold", "standard"))
FAST, SLOW = Condition(usual_s=0.05), Condition(usual_s=1.5)
DOWN = Condition(state=State.RESTING, why="set aside")
EXHAUSTED = Condition(is_exhausted=True)


def tsa(**changes: Any) -> dict[str, Any]:
    return {"label": "T", "url": "https://tsa.example/", "anchors": [ANCHOR], "classes": [STANDARD]} | changes


def registry(tsas: dict[str, Any], **defaults: Any) -> Registry:
    stamps = {"timestamps": defaults} if defaults else {}
    return Registry.model_validate({"version": 1, "time_stamping_authorities": tsas, "defaults": stamps})


def wish(**changes: Any) -> Wish:
    return Wish(**{"digest": b"d" * 32, "hash": Hash.SHA256, "tenant_id": "acme", **changes})


def choose(known: Registry, asked: Wish, conditions: dict[str, Condition] | None = None, now: datetime = NOW) -> Route:
    pool = pool_of(known, asked, now=now)
    all_of_them = {name: Condition() for name in known.time_stamping_authorities} | (conditions or {})
    return route(known, pool, all_of_them, asked)


def order(tsas: dict[str, Any], asked: Wish, conditions: dict[str, Condition] | None = None) -> tuple[str, ...]:
    return choose(registry(tsas, assurance_class="standard"), asked, conditions).order


def refuses(code: Code, known: Registry, asked: Wish, *, now: datetime = NOW) -> None:
    with pytest.raises(RakkanError) as refusal:
        choose(known, asked, now=now)
    assert refusal.value.code is code


def test_the_cheapest_that_works_is_asked_first() -> None:
    tsas = {"dear": tsa(cost=9), "cheap": tsa(cost=1), "middle": tsa(cost=5)}
    assert order(tsas, wish()) == ("cheap", "middle", "dear")
    assert order(tsas, wish(), {"cheap": DOWN}) == ("middle", "dear")
    assert order(tsas, wish(), {"cheap": EXHAUSTED}) == ("middle", "dear")


def test_who_is_slow_beside_the_others_is_asked_after_them_and_not_left_out() -> None:
    tsas = {"cheap": tsa(cost=1), "dear": tsa(cost=9)}
    assert order(tsas, wish(), {"cheap": SLOW, "dear": FAST}) == ("dear", "cheap")
    assert order(tsas, wish(), {"cheap": SLOW, "dear": SLOW}) == ("cheap", "dear")
    assert order(tsas, wish(), {"cheap": Condition(usual_s=0.2), "dear": FAST}) == ("cheap", "dear")
    assert order(tsas, wish(), {"cheap": SLOW}) == ("cheap", "dear")


def test_who_is_on_trial_keeps_its_place_and_who_is_being_tried_comes_last() -> None:
    tsas = {"cheap": tsa(cost=1), "dear": tsa(cost=9)}
    assert order(tsas, wish(), {"cheap": Condition(state=State.ON_TRIAL)}) == ("cheap", "dear")
    assert order(tsas, wish(), {"cheap": Condition(state=State.BEING_TRIED)}) == ("dear", "cheap")


def test_those_of_one_cost_share_the_load_by_their_weights_and_the_same_digest_goes_the_same_way() -> None:
    tsas = {"a": tsa(weight=3), "b": tsa(weight=1), "dear": tsa(cost=1, weight=1000)}
    firsts = Counter(order(tsas, wish(digest=number.to_bytes(32, "big")))[0] for number in range(2000))
    assert firsts["dear"] == 0
    assert 0.70 < firsts["a"] / 2000 < 0.80
    assert len({order(tsas, wish()) for _ in range(10)}) == 1


def test_a_lower_class_is_never_in_the_route() -> None:
    tsas = {"gold": tsa(classes=[GOLD]), "both": tsa(classes=[GOLD, STANDARD]), "plain": tsa()}
    asked = wish(assurance_class="gold")
    chosen = choose(registry(tsas), asked, {"gold": DOWN, "both": DOWN})
    assert chosen.order == ()
    assert {one.authority: one.why for one in chosen.verdicts}["plain"] == "not in the class gold"
    assert chosen.choice == "the class gold"


@pytest.mark.parametrize(
    ("day", "stands"), [("2025-12-31", False), ("2026-01-01", True), ("2026-06-30", True), ("2026-07-01", False)]
)
def test_a_class_holds_for_its_days_alone(day: str, *, stands: bool) -> None:
    known = registry({"a": tsa(classes=[{"name": "gold", "since": "2026-01-01", "until": "2026-06-30"}])})
    now = datetime.combine(date.fromisoformat(day), NOW.timetz())
    if stands:
        assert choose(known, wish(assurance_class="gold"), now=now).order == ("a",)
    else:
        refuses(Code.TSA_UNKNOWN, known, wish(assurance_class="gold"), now=now)


def test_a_name_is_a_name() -> None:
    known = registry({"a": tsa(cost=9, classes=[]), "b": tsa()}, assurance_class="standard")
    chosen = choose(known, wish(authority="a"))
    assert (chosen.order, chosen.is_named, chosen.choice) == (("a",), True, "the authority a")
    assert choose(known, wish(authority="a"), {"a": DOWN}).order == ()
    refuses(Code.TSA_UNKNOWN, known, wish(authority="z"))
    refuses(Code.TSA_UNKNOWN, known, wish(authority="a", assurance_class="standard"))


def test_a_tenants_tsas_are_unknown_to_others() -> None:
    known = registry({"a": tsa(tenants=["acme"]), "b": tsa(cost=9)}, assurance_class="standard")
    assert choose(known, wish()).order == ("a", "b")
    assert choose(known, wish(tenant_id="rival")).order == ("b",)
    refuses(Code.TSA_UNKNOWN, known, wish(authority="a", tenant_id="rival"))


def test_the_default_is_taken_when_nothing_is_wished_for_and_there_may_be_none() -> None:
    tsas = {"a": tsa(), "b": tsa(classes=[])}
    assert choose(registry(tsas, authority="b"), wish()).choice == "the authority b, the default"
    assert choose(registry(tsas, assurance_class="standard"), wish()).order == ("a",)
    archive = registry(tsas, assurance_class="standard", archive_authority="b")
    assert choose(archive, wish(for_archive=True)).order == ("b",)
    assert choose(archive, wish(for_archive=True, authority="a")).order == ("a",)
    refuses(Code.TSA_UNKNOWN, registry(tsas), wish())


def test_a_policy_is_asked_of_those_alone_who_can_name_it() -> None:
    tsas = {
        "any": tsa(),
        "listed": tsa(policies=["2.999.1"], cost=1),
        "other": tsa(policies=["2.999.2"]),
        "deaf": tsa(ignores_policy=True),
        "deaf-listed": tsa(ignores_policy=True, policies=["2.999.1"], cost=2),
    }
    assert order(tsas, wish(policy="2.999.1")) == ("any", "listed", "deaf-listed")
    known = registry({"other": tsas["other"], "deaf": tsas["deaf"]}, assurance_class="standard")
    refuses(Code.TSA_POLICY_REFUSED, known, wish(policy="2.999.1"))


def test_a_hash_is_asked_of_those_alone_who_take_it() -> None:
    tsas = {"a": tsa(hashes=["sha256"]), "b": tsa(hashes=["sha512"])}
    assert order(tsas, wish(hash=Hash.SHA512)) == ("b",)
    refuses(Code.HASH_ALGORITHM_REFUSED, registry(tsas, assurance_class="standard"), wish(hash=Hash.SHA3_256))


def test_maintenance_takes_a_tsa_out_and_says_so() -> None:
    known = registry({"a": tsa(status="maintenance"), "b": tsa(cost=9)}, assurance_class="standard")
    chosen = choose(known, wish())
    assert chosen.order == ("b",)
    assert [(one.authority, one.standing, one.why) for one in chosen.verdicts][1] == (
        "a",
        Standing.LEFT_OUT,
        "in maintenance",
    )


def test_as_many_are_asked_at_once_as_tokens_are_wished_for() -> None:
    tsas = {"a": tsa(cost=1), "b": tsa(cost=2), "c": tsa(cost=3)}
    chosen = choose(registry(tsas, assurance_class="standard"), wish(distinct=2))
    assert [one.standing for one in chosen.verdicts] == [Standing.ASKED, Standing.ASKED, Standing.IF_NEEDED]


def test_a_pool_whose_quotas_are_all_used_up_is_told_from_one_that_is_down() -> None:
    known = registry({"a": tsa(), "b": tsa()}, assurance_class="standard")
    assert choose(known, wish(), {"a": EXHAUSTED, "b": EXHAUSTED}).exhausted
    assert not choose(known, wish(), {"a": EXHAUSTED, "b": DOWN}).exhausted

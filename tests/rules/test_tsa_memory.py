"""What the TSA connector remembers: breakers that open, wait longer each time and close; who is slow; whose clock."""

from datetime import UTC, datetime, timedelta

import pytest

from services.tsa_connector.clock import Sighting, Sightings, own_offset_s
from services.tsa_connector.memory import TRANSPORT, VERIFICATION, Breaker, Memories, Memory, State, is_slow

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def failed(breaker: Breaker, times: int, at: datetime = NOW) -> Breaker:
    for _ in range(times):
        breaker = breaker.failed(at)
    return breaker


def test_three_failures_one_after_the_other_open_the_way_and_a_success_between_them_does_not() -> None:
    assert not failed(Breaker(TRANSPORT), 2).is_open(NOW)
    assert failed(Breaker(TRANSPORT), 3).is_open(NOW)
    assert not failed(failed(Breaker(TRANSPORT), 2).succeeded(NOW), 2).is_open(NOW)


def test_one_untrue_token_is_enough() -> None:
    assert failed(Breaker(VERIFICATION), 1).is_open(NOW)


def test_a_breaker_is_half_open_after_its_wait_and_a_failure_then_doubles_it() -> None:
    breaker = failed(Breaker(TRANSPORT), 3)
    assert breaker.is_open(NOW + SECOND)
    assert breaker.is_half_open(NOW + TRANSPORT.wait)
    again = breaker.failed(NOW + TRANSPORT.wait)
    assert again.is_open(NOW + 2.9 * TRANSPORT.wait)
    assert again.is_half_open(NOW + 3 * TRANSPORT.wait)


def test_a_wait_is_never_longer_than_its_longest() -> None:
    breaker, at = Breaker(TRANSPORT), NOW
    for _ in range(100):
        breaker = breaker.failed(at)
        at = breaker.open_until or at
    assert breaker.failed(at).open_until == at + TRANSPORT.wait_max


def test_who_flaps_is_not_given_three_callers_each_time() -> None:
    breaker = failed(Breaker(TRANSPORT), 3)
    at = NOW + TRANSPORT.wait
    for turn in range(1, 5):
        breaker = breaker.succeeded(at)
        assert not breaker.is_open(at)
        breaker = breaker.failed(at + SECOND)
        assert breaker.is_open(at + SECOND)
        assert breaker.open_until == at + SECOND + min(TRANSPORT.wait * 2**turn, TRANSPORT.wait_max)
        at = breaker.open_until or at


def test_who_has_been_well_for_long_is_given_the_benefit_again() -> None:
    breaker = failed(Breaker(TRANSPORT), 3).succeeded(NOW + TRANSPORT.wait)
    later = NOW + timedelta(minutes=10)
    breaker = failed(breaker.succeeded(later), 2, later)
    assert not breaker.is_open(later)
    assert failed(breaker, 1, later).open_until == later + TRANSPORT.wait


def test_a_failure_while_it_is_open_changes_nothing() -> None:
    breaker = failed(Breaker(TRANSPORT), 3)
    assert breaker.failed(NOW + SECOND) == breaker


def test_one_who_was_away_is_first_knocked_at_and_then_tried_by_one() -> None:
    memory = Memory()
    for _ in range(3):
        memory = memory.was_away(None, "cannot be reached", now=NOW)
    assert memory.condition(now=NOW).state is State.RESTING
    after = NOW + TRANSPORT.wait
    assert memory.condition(now=after).state is State.RESTING
    assert memory.wants_connecting(after)
    memory = memory.connected()
    assert memory.condition(now=after).state is State.ON_TRIAL
    trying = memory.trying(until=after + SECOND)
    assert trying.condition(now=after).state is State.BEING_TRIED
    assert trying.condition(now=after + 2 * SECOND).state is State.ON_TRIAL
    assert trying.answered(0.1, now=after, on_trial=True).condition(now=after).state is State.WORKING


def test_the_way_and_the_word_are_broken_separately() -> None:
    lied = Memory().lied("bad signature", now=NOW)
    assert lied.condition(now=NOW).why.startswith("set aside until 12:01:00 (a token did not hold: bad signature")
    assert not lied.transport.is_open(NOW)
    assert lied.acquitted().condition(now=NOW).state is State.WORKING


def test_slow_is_who_usually_takes_far_longer_than_the_fastest() -> None:
    assert is_slow(1.5, 0.05)
    assert not is_slow(0.2, 0.05)
    assert not is_slow(1.5, 0.6)
    assert not is_slow(None, 0.05)
    assert not is_slow(1.5, None)


def test_an_old_slowness_is_tried_again_and_a_quick_answer_ends_it() -> None:
    memories = Memories()
    for _ in range(5):
        memories.change("slow", lambda memory: memory.answered(2.0, now=NOW))
        memories.change("fast", lambda memory: memory.answered(0.02, now=NOW))
    both = ("slow", "fast")
    assert memories.conditions(both, now=NOW)["slow"].state is State.WORKING
    later = NOW + timedelta(minutes=1)
    assert memories.conditions(both, now=later)["slow"].state is State.ON_TRIAL
    memories.change("slow", lambda memory: memory.answered(0.03, now=later, on_trial=True))
    assert memories.of("slow").latency.samples == (0.03,)
    assert memories.conditions(both, now=later)["slow"].state is State.WORKING


def test_a_slow_trial_stays_slow() -> None:
    memory = Memory()
    for _ in range(5):
        memory = memory.answered(2.0, now=NOW)
    assert memory.answered(1.9, now=NOW, on_trial=True).latency.usual_s == pytest.approx(2.0)


def test_how_quickly_a_connection_is_refused_is_no_latency() -> None:
    assert Memory().was_away(None, "refused", now=NOW).latency.samples == ()
    assert Memory().was_away(5.0, "no answer", now=NOW).latency.samples == (5.0,)


def test_memory_of_latency_has_an_end() -> None:
    memory = Memory()
    for number in range(1000):
        memory = memory.answered(number / 1000, now=NOW)
    assert len(memory.latency.samples) == 64
    assert memory.latency.p95_s == pytest.approx(0.996, abs=0.002)


# The clock


def sightings(*offsets_s: float, ago: timedelta = timedelta()) -> dict[str, Sighting]:
    return {f"t{place}": Sighting(offset, 30.0, NOW - ago) for place, offset in enumerate(offsets_s)}


@pytest.mark.parametrize(
    ("offsets_s", "ours_s"),
    [
        ((), None),
        ((3600.0,), None),
        ((3600.0, 0.1), None),
        ((3600.0, 3600.2), 3600.1),
        ((3600.0, 3600.2, 0.1), 3600.1),
        ((3600.0, 0.3, 0.1), None),
        ((3600.0, -3600.0), None),
        ((3600.0, 3601.0, 0.1, 0.2), None),
        ((29.0, 29.0, 29.0), None),
    ],
)
def test_it_is_us_when_most_tsas_agree_against_us(offsets_s: tuple[float, ...], ours_s: float | None) -> None:
    found = own_offset_s(sightings(*offsets_s), now=NOW)
    assert found == (None if ours_s is None else pytest.approx(ours_s))


def test_a_quarrel_of_long_ago_is_none() -> None:
    assert own_offset_s(sightings(3600.0, 3600.0, ago=timedelta(minutes=1)), now=NOW) is None


def test_in_doubt_one_may_ask_now_and_then() -> None:
    clock = Sightings()
    assert clock.may_ask(NOW)
    for name, sighting in sightings(3600.0, 3600.0).items():
        clock.saw(name, sighting)
    assert [clock.may_ask(NOW + seconds * SECOND) for seconds in (0, 1, 9, 11, 12)] == [True, False, False, True, False]

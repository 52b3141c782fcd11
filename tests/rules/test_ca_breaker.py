"""When a CA that fails is left alone, and how it comes back."""

from datetime import UTC, datetime, timedelta

import pytest

from services.ca_connector.breaker import FAILURES_MAX, FIRST, LONGEST, Breaker, BreakerState
from shared.errors import Code, RakkanError

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
AWAY = RakkanError(Code.AUTHORITY_UNAVAILABLE, "away")


def opened() -> Breaker:
    breaker = Breaker()
    assert [breaker.failed(AWAY, now=NOW) for _ in range(FAILURES_MAX)] == [False] * (FAILURES_MAX - 1) + [True]
    return breaker


def test_so_many_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker = opened()
    assert (breaker.state, breaker.why, breaker.free(4, in_hand=0)) == (BreakerState.OPEN, str(AWAY), 0)
    other = Breaker()
    for _ in range(50):
        other.failed(TimeoutError(), now=NOW)
        other.succeeded()
    assert (other.state, other.free(4, in_hand=1)) == (BreakerState.CLOSED, 3)


@pytest.mark.parametrize("code", [Code.AUTHORITY_UNTRUSTED, Code.AUTHORITY_REFUSED])
def test_what_the_next_order_would_meet_as_well_opens_it_at_once(code: Code) -> None:
    breaker = Breaker()
    assert breaker.failed(RakkanError(code), now=NOW)


def test_it_is_probed_when_its_time_is_over_and_then_lets_one_through() -> None:
    breaker = opened()
    assert not breaker.probe_is_due(now=NOW + FIRST - timedelta(seconds=1))
    assert breaker.probe_is_due(now=NOW + FIRST)
    breaker.probed()
    assert (breaker.free(4, in_hand=0), breaker.free(4, in_hand=1)) == (1, 0)
    breaker.succeeded()
    assert (breaker.state, breaker.why) == (BreakerState.CLOSED, "")


def test_each_failed_probe_doubles_the_wait_up_to_a_limit() -> None:
    breaker, now, waits = opened(), NOW, []
    for _ in range(9):
        wait = timedelta(seconds=1)
        while not breaker.probe_is_due(now=now + wait):
            wait += timedelta(seconds=1)
        waits.append(int(wait.total_seconds()))
        now += wait
        breaker.failed(AWAY, now=now)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert timedelta(seconds=waits[-1]) == LONGEST


def test_what_began_before_it_opened_neither_closes_nor_prolongs_it() -> None:
    breaker = opened()
    breaker.succeeded()
    breaker.failed(AWAY, now=NOW + timedelta(seconds=1))
    assert breaker.state is BreakerState.OPEN
    assert breaker.probe_is_due(now=NOW + FIRST)


def test_a_failure_of_the_one_that_was_let_through_opens_it_again() -> None:
    breaker = opened()
    breaker.probed()
    assert breaker.failed(AWAY, now=NOW + FIRST)
    assert not breaker.probe_is_due(now=NOW + 2 * FIRST)

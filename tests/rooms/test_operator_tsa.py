"""`./rakkan tsa`: what is asked of the TSA connector and how its answer is shown."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from services.operator import time_stamping
from services.operator.terminal import NotUnderstoodError, Terminal
from services.operator.words import parser
from shared.algorithms import Hash
from shared.contracts.base import Request
from shared.contracts.tsa_connector import (
    AuthorityState,
    AuthorityStates,
    ExplainTimestamp,
    Explanation,
    QuotaState,
    ReadAuthorities,
    Reason,
)

STATES = AuthorityStates(
    instance="4f",
    registry_version=7,
    own_offset_s=None,
    authorities=(
        AuthorityState(
            authority="seiko",
            label="A TSA",
            url="https://tsa.example/",
            classes=("jp-accredited",),
            state="resting",
            why="set aside until 12:00:00 (no answer: \x1b[31m)",
            usual_ms=120.4,
            p95_ms=None,
            offset_ms=-3.0,
            certificate_until=datetime(2031, 1, 2, tzinfo=UTC),
            quotas=(QuotaState(requests=20, seconds=1200, left=4),),
        ),
    ),
)
EXPLANATION = Explanation(
    choice="the class jp-accredited",
    refused="tsa_unavailable",
    reasons=(Reason(authority="seiko", standing="left out", why="in maintenance"),),
)


class Connector:
    def __init__(self) -> None:
        self.asked: list[Request[Any]] = []
        self.states = STATES

    async def ask(self, request: Request[Any]) -> Any:
        self.asked.append(request)
        return self.states if isinstance(request, ReadAuthorities) else EXPLANATION


async def say(connector: Connector, *words: str) -> None:
    said = parser().parse_args(words)
    await time_stamping.tell(said, connector.ask, Terminal(as_json=said.json))


async def test_the_table_says_how_each_tsa_stands(capsys: pytest.CaptureFixture[str]) -> None:
    await say(Connector(), "tsa")
    shown = capsys.readouterr()
    for word in ("seiko", "resting", "jp-accredited", "120 ms", "-3 ms", "2031-01-02", "4 of 20 in 1200 s"):
        assert word in shown.out
    assert "\x1b" not in shown.out
    assert "process 4f" in shown.err


async def test_a_clock_of_our_own_that_is_off_is_said_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    connector = Connector()
    connector.states = STATES.model_copy(update={"own_offset_s": 3600.0})
    await say(connector, "tsa")
    assert "OUR OWN CLOCK IS OFF by +3600.0 s" in capsys.readouterr().err


async def test_an_explanation_names_the_choice_and_every_reason(capsys: pytest.CaptureFixture[str]) -> None:
    connector = Connector()
    await say(connector, "--json", "tsa", "explain", "--class", "jp-accredited", "--policy", "2.999.1")
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "the class jp-accredited": [{"authority": "seiko", "standing": "left out", "why": "in maintenance"}]
    }
    assert "refused now: tsa_unavailable" in shown.err
    assert connector.asked == [
        ExplainTimestamp(
            digest=bytes(32),
            hash=Hash.SHA256,
            assurance_class="jp-accredited",
            policy="2.999.1",
            tenant_id=time_stamping.ANY_TENANT,
        )
    ]


async def test_a_digest_that_is_no_hex_is_not_understood() -> None:
    with pytest.raises(NotUnderstoodError):
        await say(Connector(), "tsa", "explain", "--digest", "xyz")

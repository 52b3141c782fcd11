"""Requests made up from the gateway's own OpenAPI document, with tokens of every kind: whatever comes, no 5xx."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core import NotSet

from services.gateway.tsp import QUERY, REPLY
from tests.rooms.gateway_fakes import World, opened

REQUESTS_MIN = 5_000
EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "150"))
"""For each method of each version, well formed and not: 5,000 and more, two minutes of one core. 12 do for a look."""
TOKENS: dict[str, Callable[[World], str]] = {
    "client": lambda world: world.token(),
    "signer": lambda world: world.token(user_id="hanako"),
    "credential": lambda world: world.credential_token(),
    "expired": lambda world: world.token(lifetime_s=0),
    "other scope": lambda world: world.token(scope="openid"),
}


class Gateway:
    """One door for all the requests, on a loop of its own: hypothesis knows no async."""

    def __init__(self, runner: asyncio.Runner, world: World) -> None:
        self._runner = runner
        self._world = world
        self.document = self._send("GET", "/openapi.json").json()
        self.sent = 0

    def post(self, path: str, body: object, *, token: str) -> httpx.Response:
        self.sent += 1
        headers = {"Authorization": f"Bearer {TOKENS[token](self._world)}"}
        content = b"" if isinstance(body, NotSet) else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._send("POST", path, headers=headers, content=content)

    def stamp(self, query: bytes) -> httpx.Response:
        return self._send("POST", "/s/clock/tsa", headers={"Content-Type": QUERY}, content=query)

    def _send(self, method: str, path: str, **said: object) -> httpx.Response:
        return self._runner.run(self._world.client.request(method, path, **said))  # type: ignore[arg-type]  # httpx's own


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        world = runner.run(stack.enter_async_context(opened()))
        world.rooms.sads.add("1CpTM9n0vTuYkW2w")  # the one in the examples
        yield Gateway(runner, world)
        runner.run(stack.aclose())


@pytest.mark.parametrize("mode", GenerationMode)
def test_no_made_up_request_is_a_fault(gateway: Gateway, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(gateway.document)
    # Schemathesis makes up JSON, not DER: that path has a test of its own.
    paths = sorted(path for path in gateway.document["paths"] if not path.endswith("/tsa"))
    assert len(paths) > 15
    for path in paths:
        _try(gateway, path, schema[path]["POST"].as_strategy(mode))


def test_there_were_as_many_requests_as_are_promised(gateway: Gateway) -> None:
    if "SCHEMA_EXAMPLES" not in os.environ and gateway.sent:  # nothing was sent when this one runs alone
        assert gateway.sent >= REQUESTS_MIN


_GOOD_QUERY = bytes.fromhex(
    f"304a0201013031300d060960864801650304020105000420{'ab' * 32}0605883798590102087ffffffffffffff70101ff"
)
"""With a policy, a nonce, and the certificate asked for."""


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_made_up_query_is_a_fault(gateway: Gateway, data: st.DataObject) -> None:
    query = bytearray(_GOOD_QUERY)
    for _ in range(data.draw(st.integers(0, 4))):
        query[data.draw(st.integers(0, len(query) - 1))] = data.draw(st.integers(0, 255))
    sent = data.draw(st.one_of(st.just(bytes(query)), st.binary(max_size=300)))
    answer = gateway.stamp(sent)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, REPLY), (sent, answer.text)


def _try(gateway: Gateway, path: str, cases: st.SearchStrategy[schemathesis.Case]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, token=st.sampled_from(sorted(TOKENS)))
    def send(case: schemathesis.Case, token: str) -> None:
        answer = gateway.post(path, case.body, token=token)
        assert answer.status_code < 500, (path, case.body, answer.text)
        assert answer.status_code < 400 or answer.json()["error"]

    send()

"""Requests made up from the gateway's OpenAPI document, against the whole suite: no room answers with a fault."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core import NotSet

from deploy.local.enrollment import CREDENTIAL, SIGNER, Enrollment
from deploy.local.progress import Progress
from deploy.local.stack import Stack

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "12"))
"""For each method of each version."""

_AGAINST_ITS_OWN = {"authorize", "delete", "suspend", "rekey", "renew", "certificate"}
"""Methods that are never made up against the credential of the other tests: they would lock, end or change it."""


async def test_no_made_up_request_is_a_fault_of_any_room(suite: Stack) -> None:
    await asyncio.to_thread(_try_all, suite)


def _try_all(suite: Stack) -> None:
    enrollment = Enrollment(suite)
    if not enrollment.is_done():
        enrollment.make(Progress())
    headers = {"Authorization": f"Bearer {enrollment.token()}", "Content-Type": "application/json"}
    with httpx.Client(base_url=suite.rooms.gateway_url, headers=headers, timeout=30) as client:
        document = client.get("/openapi.json").json()
        schema = schemathesis.openapi.from_dict(document)
        for path in sorted(path for path, methods in document["paths"].items() if _takes_json(methods)):
            _try(client, path, schema[path]["POST"].as_strategy(GenerationMode.POSITIVE))


def _takes_json(methods: Mapping[str, Any]) -> bool:
    """The endpoint of RFC 3161 does not, and is made requests of its own elsewhere."""
    return "application/json" in methods["post"]["requestBody"]["content"]


def _try(client: httpx.Client, path: str, cases: st.SearchStrategy[schemathesis.Case]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, own=st.booleans())
    def send(case: schemathesis.Case, own: bool) -> None:  # noqa: FBT001 - hypothesis calls by name
        body = {} if isinstance(case.body, NotSet) or not isinstance(case.body, dict) else dict(case.body)
        if own and path.rpartition("/")[2] not in _AGAINST_ITS_OWN:
            body |= {name: value for name, value in (("credentialID", CREDENTIAL), ("userID", SIGNER)) if name in body}
        answer = client.post(path, json=body)
        assert answer.status_code < 500, (path, body, answer.text)

    send()

"""The suite with everybody enrolled, started once; and the ends of the rooms' logs beside a test that failed."""

from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.stack import Stack
from tests.support.world import World, enrolled

_TAIL_BYTES = 2500
_STACK = pytest.StashKey[Stack]()


@pytest.fixture(scope="session")
async def world(suite: Stack, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Tenants, partners, signers and credentials on a stack with every room."""
    request.config.stash[_STACK] = suite
    async with enrolled(suite) as world:
        yield world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    stack = item.config.stash.get(_STACK, None)
    if report.failed and stack is not None:
        for log in sorted((stack.folder / "logs").glob("*.log")):
            report.sections.append((f"of {log.name}", _worth_reading(log)))
    return report


def _worth_reading(log: Path) -> str:
    """What went wrong in the room at any time, and the last it said."""
    text = log.read_text(errors="replace")
    wrong = [line for line in text.splitlines() if '"level": "error"' in line and '"event": "library"' not in line]
    return "\n".join([*wrong[-5:], "…", text[-_TAIL_BYTES:]])

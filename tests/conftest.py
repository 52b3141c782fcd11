"""Real servers for tests, started once when the first test needs them, in a folder and on ports of their own."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from deploy.local.progress import Progress
from deploy.local.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Nothing started yet; with keys, passwords and a trust bundle. `stack.token("svg")` makes an HSM token."""
    stack = Stack.temporary()
    stack.keys.make()
    yield stack
    stack.remove()


@pytest.fixture(scope="session")
async def broker(stack: Stack) -> AsyncIterator[Stack]:
    """The stack with RabbitMQ running; port `stack.rabbitmq.port`, virtual host `rakkan`."""
    await asyncio.to_thread(stack.start_rabbitmq)
    yield stack
    await asyncio.to_thread(stack.rabbitmq.stop)


@pytest.fixture(scope="session")
async def database(stack: Stack) -> AsyncIterator[Stack]:
    """The stack with PostgreSQL running, roles made and migrations run; port `stack.postgres.port`."""
    await asyncio.to_thread(stack.start_postgres)
    await stack.prepare_database()
    yield stack
    await asyncio.to_thread(stack.postgres.stop)


@pytest.fixture(scope="session")
async def suite() -> AsyncIterator[Stack]:
    """A stack of its own with every room running, as partners meet it."""
    suite = Stack.temporary()
    try:
        await asyncio.to_thread(suite.up, Progress())
        yield suite
    finally:
        await asyncio.to_thread(suite.remove)

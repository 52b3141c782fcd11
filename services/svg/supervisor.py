"""Several SVG workers on one host: each a process of its own, started again when it dies. Knows no key and no message.

A PKCS#11 module can end its process (a crash in native code, a hang): the work in hand is then delivered to another.
Processes are spawned, never forked: a forked module shares its sessions with its parent.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

log = structlog.get_logger()

_RESTART_S = (0.5, 10.0)
_STABLE_S = 30.0
WRONG_SETTINGS = 2
HEALTH_PORT = "RAKKAN_HEALTH__PORT"


def environment_of(worker: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Each worker has the health port after the one before it; port 0 stays 0."""
    port = int(environment.get(HEALTH_PORT, "0"))
    return {**environment, "RAKKAN_WORKERS": "1", HEALTH_PORT: str(port + worker if port else 0)}


def run(workers: int) -> int:
    """Supervise workers of this room until SIGTERM or SIGINT; the exit status."""

    async def until_signal() -> int:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        return await supervise((sys.executable, "-m", "services.svg"), workers, stopping)

    return asyncio.run(until_signal())


async def supervise(command: Sequence[str], workers: int, stopping: asyncio.Event) -> int:
    """Keep the workers running until told to stop; 2 when one finds its settings wrong, which ends all."""
    async with asyncio.TaskGroup() as group:
        keeping = [group.create_task(_keep(command, worker, stopping)) for worker in range(workers)]
    return max(task.result() for task in keeping)


async def _keep(command: Sequence[str], worker: int, stopping: asyncio.Event) -> int:
    shortest, longest = _RESTART_S
    pause = shortest
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        process = await asyncio.create_subprocess_exec(*command, env=environment_of(worker, os.environ))
        log.info("worker started", worker=worker, pid=process.pid)
        status = await _until_ended(process, stopping)
        if stopping.is_set() or status == WRONG_SETTINGS:
            stopping.set()
            return max(status, 0)
        pause = shortest if loop.time() - began > _STABLE_S else min(pause * 2, longest)
        log.error("worker died", worker=worker, pid=process.pid, status=status, restart_s=pause)
        await _first(asyncio.sleep(pause), stopping.wait())
        if stopping.is_set():
            return 0


async def _until_ended(process: asyncio.subprocess.Process, stopping: asyncio.Event) -> int:
    await _first(process.wait(), stopping.wait())
    if process.returncode is None:
        # Not process.terminate(): it would collect a child that has just died, and asyncio would lose its status.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    return await process.wait()


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)

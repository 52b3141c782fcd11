"""The supervisor with workers that only note themselves: it restarts what dies and ends all when told."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from services.svg import supervisor

NOTE_AND_WAIT = (
    "import os, sys, time; from pathlib import Path; "
    "Path(sys.argv[1], str(os.getpid())).write_text(os.environ['RAKKAN_HEALTH__PORT']); time.sleep(60)"
)


def pids(folder: Path) -> set[int]:
    return {int(file.name) for file in folder.iterdir() if file.read_text()}


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in another process
            await asyncio.sleep(0.02)


async def test_a_worker_that_dies_in_native_code_is_started_again_and_all_end_when_told(tmp_path: Path) -> None:
    stopping = asyncio.Event()
    command = (sys.executable, "-c", NOTE_AND_WAIT, str(tmp_path))
    task = asyncio.create_task(supervisor.supervise(command, 2, stopping))
    await until(lambda: len(pids(tmp_path)) == 2)
    os.kill(min(pids(tmp_path)), signal.SIGSEGV)
    await until(lambda: len(pids(tmp_path)) == 3)
    stopping.set()
    assert await asyncio.wait_for(task, 10) == 0
    assert not any(alive(pid) for pid in pids(tmp_path))


async def test_wrong_settings_end_everything_instead_of_restarting_for_ever() -> None:
    command = (sys.executable, "-c", "raise SystemExit(2)")
    assert await asyncio.wait_for(supervisor.supervise(command, 2, asyncio.Event()), 20) == 2


def test_each_worker_has_a_health_port_of_its_own() -> None:
    environments = [supervisor.environment_of(n, {supervisor.HEALTH_PORT: "9000", "PATH": "/bin"}) for n in range(2)]
    assert [environment[supervisor.HEALTH_PORT] for environment in environments] == ["9000", "9001"]
    assert all(environment["RAKKAN_WORKERS"] == "1" for environment in environments)
    assert supervisor.environment_of(1, {})[supervisor.HEALTH_PORT] == "0"

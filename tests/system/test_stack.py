"""The local stack's own promises: it leaves nothing behind, survives kill -9 in the middle, and takes nobody's port."""

import asyncio
import socket
import sys
from collections.abc import Iterator

import pytest

from deploy.local.account import Account
from deploy.local.ports import Ports
from deploy.local.program import MARK, Program, StackError, marked, wait_until
from deploy.local.stack import Stack


@pytest.fixture
def fresh() -> Iterator[Stack]:
    stack = Stack.temporary()
    yield stack
    stack.remove()


def sleeper(stack: Stack, name: str = "sleeper") -> Program:
    return Program(name, stack.folder, Account.of_caller())


def start(program: Program, stack: Stack, code: str) -> None:
    program.start([sys.executable, "-c", code], {}, folder=stack.folder)


async def test_down_leaves_no_process_behind(fresh: Stack) -> None:
    await asyncio.to_thread(fresh.start_rabbitmq)
    await asyncio.to_thread(fresh.start_postgres)
    assert len(marked(fresh.folder)) >= 3
    await asyncio.to_thread(fresh.stop_servers)
    assert marked(fresh.folder) == set()


async def test_servers_come_back_after_a_kill_with_what_they_held(fresh: Stack) -> None:
    await asyncio.to_thread(fresh.start_postgres)
    await fresh.prepare_database()
    await asyncio.to_thread(fresh.postgres.kill)
    await asyncio.to_thread(fresh.start_postgres)
    connection = await fresh.postgres.connect()
    assert await connection.fetchval("select count(*) from pg_roles where rolname = 'sam'") == 1
    await connection.close()


def test_a_program_whose_pid_file_was_lost_is_found(fresh: Stack) -> None:
    program = sleeper(fresh)
    start(program, fresh, "import time; time.sleep(60)")
    pid = program.pid
    (fresh.folder / "pids" / "sleeper").unlink()
    assert pid in marked(fresh.folder)
    fresh.stop_servers()
    assert marked(fresh.folder) == set()
    program.stop()


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_ours(fresh: Stack) -> None:
    program = sleeper(fresh)
    (fresh.folder / "pids").mkdir()
    (fresh.folder / "pids" / "sleeper").write_text("1 12345")
    assert not program.running()
    program.stop()


def test_children_end_with_their_program(fresh: Stack) -> None:
    program = sleeper(fresh)
    start(program, fresh, "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)")
    wait_until(lambda: len(marked(fresh.folder)) == 2, program, timeout_s=10)
    program.kill()
    assert marked(fresh.folder) == set()


def test_a_program_that_ends_at_once_is_told_with_its_last_words(fresh: Stack) -> None:
    program = sleeper(fresh)
    start(program, fresh, "raise SystemExit('no such luck')")
    with pytest.raises(StackError, match="no such luck"):
        wait_until(lambda: False, program, timeout_s=10)


def test_ports_are_remembered_and_given_up_only_when_taken(fresh: Stack) -> None:
    port = fresh.ports["here"]
    assert Ports(fresh.folder, fresh.account)["here"] == port
    fresh.ports.renew(["here"])
    assert fresh.ports["here"] == port
    with socket.create_server(("127.0.0.1", port)):
        fresh.ports.renew(["here"])
    assert fresh.ports["here"] != port


def test_no_secret_is_readable_by_others(fresh: Stack) -> None:
    fresh.keys.make()
    files = [path for path in (fresh.folder / "secrets").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_the_mark_names_no_setting() -> None:
    assert not MARK.startswith("RAKKAN_")

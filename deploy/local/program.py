"""One program of the local stack: its process, pid file and log. Knows neither what it is nor when it is ready."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.local.account import Account

MARK = "LOCAL_STACK"
"""In the environment of every process we start, with the run folder as value: a lost pid file loses no process."""


class StackError(Exception):
    """Something the person at the terminal has to know; the text says what to do."""


class Program:
    """A process in its own session. `start` twice is once; whatever it left behind ends with it."""

    def __init__(self, name: str, run_folder: Path, account: Account) -> None:
        self.name = name
        self.account = account
        self._run_folder = run_folder
        self._pid_file = run_folder / "pids" / name
        self.log_file = run_folder / "logs" / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._log_began = 0

    def start(self, argv: list[str], environment: Mapping[str, str], *, folder: Path) -> None:
        if self.running():
            return
        for file in (self._pid_file, self.log_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._log_began = log.tell()
            self._child = subprocess.Popen(
                argv,
                env={**environment, MARK: str(self._run_folder)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self.account.identity(),
            )
        self._pid_file.write_text(f"{self._child.pid} {_born(self._child.pid)}")

    @property
    def pid(self) -> int | None:
        """Of the running process; the time it was born tells it from a later one with the same number."""
        if self._child is not None:
            self._child.poll()
        recorded = self._recorded
        return recorded[0] if recorded and _born(recorded[0]) == recorded[1] else None

    @property
    def _recorded(self) -> tuple[int, str] | None:
        try:
            pid, born = self._pid_file.read_text().split()
            return int(pid), born
        except (OSError, ValueError):
            return None

    def running(self) -> bool:
        return self.pid is not None

    def check_running(self) -> None:
        """Raise, with the end of its log, when the program has ended."""
        if not self.running():
            raise StackError(f"{self.name} ended. The last lines of {self.log_file}:\n{self.log_tail()}")

    def ask_to_end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """The signal, without waiting; `wait_end` waits."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, by)

    def wait_end(self, *, timeout_s: float = 15.0) -> None:
        """Wait, then end by force what is still there of it and of its session."""
        recorded, pid = self._recorded, self.pid
        if pid is not None:
            family = _family(pid)
            _wait_gone([pid], timeout_s, self._child)
            end_by_force({member for member in family if member != pid})
        if recorded is not None:
            end_by_force(_family(recorded[0]) if self.running() else _session(recorded[0]))
        self._forget()

    def stop(self, *, by: signal.Signals = signal.SIGTERM, timeout_s: float = 15.0) -> None:
        """Ask it to end, and wait."""
        self.ask_to_end(by)
        self.wait_end(timeout_s=timeout_s)

    def kill(self) -> None:
        """As a power cut would: SIGKILL for it and all its children at once."""
        pid = self.pid
        if pid is not None:
            end_by_force(_family(pid), self._child)
        self._forget()

    def log_tail(self, lines: int = 12) -> str:
        try:
            said = self.log_file.read_bytes()[self._log_began :].decode(errors="replace")
            return "\n".join(said.splitlines()[-lines:]) or "(it said nothing)"
        except OSError:
            return "(no log)"

    def _forget(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None
        self._pid_file.unlink(missing_ok=True)


def end_by_force(pids: set[int], child: subprocess.Popen[bytes] | None = None) -> None:
    """SIGKILL, and wait until they are gone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _wait_gone(list(pids), 5.0, child)


def marked(run_folder: Path) -> set[int]:
    """Processes of this run folder, found by their environment."""
    mark = f"{MARK}={run_folder}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0") and _born(int(entry.name)):
                found.add(int(entry.name))
        except OSError:
            continue
    return found - {os.getpid()}


def wait_until(ready: Callable[[], bool], program: Program, *, timeout_s: float, every_s: float = 0.05) -> None:
    """Wait until it is ready; raise when the program ends before, or takes too long."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        program.check_running()
        if time.monotonic() > deadline:
            raise StackError(
                f"{program.name} is not ready after {timeout_s:.0f} s. The last lines of {program.log_file}:\n"
                f"{program.log_tail()}"
            )
        time.sleep(every_s)


def _stat(pid: int) -> list[str]:
    # The second field, the name, stands in brackets and may hold anything.
    text = Path(f"/proc/{pid}/stat").read_text()
    return text.rpartition(")")[2].split()


def _born(pid: int) -> str:
    """When the process began, in clock ticks since boot; empty when there is none or it is a zombie."""
    try:
        fields = _stat(pid)
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _family(pid: int) -> set[int]:
    """The process, its descendants, and who else is in its session."""
    parents = {member: int(fields[1]) for member, fields in _processes().items()}
    family = {pid} | _session(pid)
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return {member for member in family if _born(member)}


def _session(pid: int) -> set[int]:
    """Who is in the session that this process began, which may have ended itself: its number is not given again."""
    return {member for member, fields in _processes().items() if int(fields[3]) == pid and member != pid}


def _processes() -> dict[int, list[str]]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found[int(entry.name)] = _stat(int(entry.name))
        except OSError:
            continue
    return found


def _wait_gone(pids: list[int], timeout_s: float, child: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + timeout_s
    while any(_born(pid) for pid in pids) and time.monotonic() < deadline:
        if child is not None:
            child.poll()
        time.sleep(0.02)

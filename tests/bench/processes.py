"""CPU time by program, from /proc: who is busy while something is measured. Knows no bench."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local.stack import Stack

LOAD, OTHERS = "load", "others"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far. Children that ended are counted with the parent that waited for them."""

    by_program: Mapping[str, float]
    machine: float

    def since(self, before: "Usage") -> dict[str, float]:
        """What each program used, and what everybody else on this machine did: a disturbed run shows there."""
        used = {name: seconds - before.by_program[name] for name, seconds in self.by_program.items()}
        return used | {OTHERS: max(self.machine - before.machine - sum(used.values()), 0.0)}


def usage(stack: Stack) -> Usage:
    """The programs of the stack by their names, each with its descendants and its session; and this process."""
    roots = {int(file.read_text().split()[0]): file.name for file in (stack.folder / "pids").iterdir()}
    processes = _processes()
    seconds = dict.fromkeys((*roots.values(), LOAD), 0.0)
    for pid, fields in processes.items():
        program = LOAD if pid == os.getpid() else _program_of(pid, processes, roots)
        if program is not None:
            # utime, stime, and those of children that were waited for.
            seconds[program] += sum(map(int, fields[11:15] if program != LOAD else fields[11:13])) / _TICKS_PER_S
    return Usage(seconds, _machine())


def _program_of(pid: int, processes: Mapping[int, list[str]], roots: Mapping[int, str]) -> str | None:
    session = int(processes[pid][3])
    while pid in processes:
        if pid in roots:
            return roots[pid]
        pid = int(processes[pid][1])
    return roots.get(session)


def _processes() -> dict[int, list[str]]:
    """The fields of /proc/<pid>/stat after the name, which stands in brackets and may hold anything."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
    return found


def _machine() -> float:
    """Seconds that all cores worked, for whomever: user, nice, system, irq, softirq and steal."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields[index] for index in (0, 1, 2, 5, 6, 7)) / _TICKS_PER_S

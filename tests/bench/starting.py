"""How long it takes until something works: one room, and the demo from a bare clone. Knows only what a person does."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.home import CHECKOUT
from tests.bench.client import BenchError
from tests.bench.suite import Suite

ROOM = "tsa_connector"


def room_s(suite: Suite, *, times: int) -> list[float]:
    """From the start of one room's process to its /readyz, everything else being up."""
    taken = []
    for _ in range(times):
        suite.rooms.program(ROOM).stop()
        began = time.perf_counter()
        suite.rooms.start(ROOM)
        suite.rooms.wait_ready(ROOM)
        taken.append(time.perf_counter() - began)
    return taken


def demo_s() -> dict[str, float]:
    """`./rakkan demo` in a clone: bare, again after `down`, and once more with everything up."""
    taken = {}
    with _clone() as folder:
        for what in ("first run (makes .venv, keys, schemas, tokens)", "second run (after down)"):
            taken[what] = _timed(folder, "demo")
            if what.startswith("first"):
                _timed(folder, "down")
        taken["third run (everything is up)"] = _timed(folder, "demo")
    return taken


@contextmanager
def _clone() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="rakkan-"))
    parent.chmod(0o755)  # the stack's own account has to walk through it
    folder = parent / "clone"
    git = shutil.which("git")
    if git is None:
        raise BenchError("git is not installed")
    try:
        subprocess.run([git, "clone", "-q", str(CHECKOUT), str(folder)], check=True)  # noqa: S603  # found on PATH
        yield folder
    finally:
        if (folder / "rakkan").exists():
            _timed(folder, "down")
        shutil.rmtree(parent, ignore_errors=True)


def _timed(folder: Path, command: str) -> float:
    environment = {name: text for name, text in os.environ.items() if name != "VIRTUAL_ENV"}
    began = time.perf_counter()
    done = subprocess.run(  # noqa: S603  # the clone's own door
        [str(folder / "rakkan"), command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise BenchError(f"./rakkan {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return took

"""Python environments of peers: made once from a lock of hashes, kept in `.peers`, never imported from.

Peers have licenses or dependencies that must not come near the product's own environment.
"""

import fcntl
import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.peers import Missing

_ROOT = Path(__file__).parents[3]
_LOCKS = Path(__file__).parent / "locks"


def environment(name: str) -> Path:
    """The `bin` folder of the peer's environment. `Missing` when its packages cannot be had."""
    folder, lock = _ROOT / ".peers" / name, _LOCKS / f"{name}.lock"
    made = folder / "made-from.lock"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.wait").open("w") as waiting:
        fcntl.flock(waiting, fcntl.LOCK_EX)
        if not (made.exists() and filecmp.cmp(made, lock, shallow=False)):
            _make(folder, lock)
            shutil.copyfile(lock, made)
    return folder / "bin"


def _make(folder: Path, lock: Path) -> None:
    pip = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-compile",
    ]
    install = [*pip, "--require-hashes", "--only-binary", ":all:", "-r", lock]
    for command in ([sys.executable, "-m", "venv", "--clear", folder], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603 - our own
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            line = " ".join(map(str, command))
            raise Missing(f"{lock.stem} cannot be installed here; this was tried:\n  {line}\n{done.stderr[-500:]}")


def program(name: str, *, package: str) -> str:
    """The path of a program of this machine; `Missing` says which package has it."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is missing. On Debian: apt-get install --no-install-recommends {package}")
    return found

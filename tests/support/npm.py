"""Packages of npm for the programs of a folder: those of its package-lock.json, installed once for each lock."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_CACHE = Path(__file__).parents[2] / ".run"


def installed(folder: Path) -> Path:
    """Where the folder's programs run: a copy of them beside their packages, which npm checks by their hashes."""
    lock = (folder / "package-lock.json").read_bytes()
    cache = _CACHE / folder.name
    place = cache / hashlib.sha256(lock).hexdigest()[:16]
    if not place.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.fail("npm is missing. On Debian: apt-get install --no-install-recommends nodejs npm", pytrace=False)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, made)
            install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(  # noqa: S603 - npm of this machine
                install, cwd=made, capture_output=True, text=True, check=False, timeout=300
            )
            assert done.returncode == 0, done.stderr
            Path(made).rename(place)
            Path(made).mkdir()  # what the context manager removes
    for program in folder.glob("*.mjs"):
        shutil.copy(program, place)
    return place

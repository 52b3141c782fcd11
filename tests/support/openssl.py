"""The openssl program, as an independent judge."""

import subprocess
from pathlib import Path


def openssl(*arguments: str | Path, folder: Path) -> str:
    """What it printed, on both streams; whether it is content shows in what it says."""
    ran = subprocess.run(  # noqa: S603 - the arguments are the tests' own
        ["openssl", *arguments],  # noqa: S607 - found on PATH, which differs between distributions
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    return ran.stdout + ran.stderr

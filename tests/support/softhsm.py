"""SoftHSM tokens for tests, each in a folder of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.softhsm import find_module
from shared.settings import HSM

PIN = "user-pin-1"
SO_PIN = "officer-pin-1"


def make_token(folder: Path, label: str = "test") -> HSM:
    """A new, empty token, and the settings that open it."""
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    (folder / "pin").write_text(PIN)
    util = shutil.which("softhsm2-util")
    if util is None:
        raise FileNotFoundError("softhsm2 is not installed")
    subprocess.run(  # noqa: S603  # the program of the token under test
        [util, "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN],
        env={**os.environ, "SOFTHSM2_CONF": str(configuration)},
        check=True,
        capture_output=True,
    )
    module = find_module()
    if module is None:
        raise FileNotFoundError("softhsm2 is not installed")
    return HSM(module=module, token_label=label, pin_file=folder / "pin")


@contextmanager
def seen(folder: Path) -> Iterator[None]:
    """SoftHSM reads its configuration when a token is opened."""
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before

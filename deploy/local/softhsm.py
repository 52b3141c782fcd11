"""SoftHSM tokens: one for each room that has keys, each in its own folder with its own configuration and PIN.

A room sees only its own token, because SoftHSM looks only where SOFTHSM2_CONF points.
"""

import os
import shutil
import subprocess
from pathlib import Path

from deploy.local.account import Account
from deploy.local.program import StackError

LABELS = {"svg": "rakkan-svg", "sam": "rakkan-sam", "ca_connector": "rakkan-ca"}
_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)


def find_module() -> Path | None:
    return next((Path(path) for path in _MODULES if Path(path).exists()), None)


class SoftHSM:
    """The token of one room."""

    def __init__(self, run_folder: Path, room: str, account: Account, *, pin: str, so_pin: str) -> None:
        self.label = LABELS[room]
        self._folder = run_folder / "softhsm" / room
        self._account = account
        self._pin = pin
        self._so_pin = so_pin

    @property
    def configuration_file(self) -> Path:
        return self._folder / "softhsm2.conf"

    @property
    def tokens_folder(self) -> Path:
        return self._folder / "tokens"

    def environment(self) -> dict[str, str]:
        """What a program needs to see this token and no other."""
        return {"SOFTHSM2_CONF": str(self.configuration_file)}

    def make(self) -> None:
        """The token, unless it exists. An interrupted attempt is begun anew."""
        if (self._folder / "initialized").exists():
            for path in (self._folder, *self._folder.rglob("*")):
                self._account.own(path)  # the last start may have been another user's
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._account.folder(self._folder.parent)
        self._account.folder(self._folder)
        self._account.folder(self.tokens_folder)
        lines = [f"directories.tokendir = {self.tokens_folder}", "objectstore.backend = file", "log.level = ERROR"]
        self._account.write(self.configuration_file, "\n".join(lines) + "\n")
        argv = ["softhsm2-util", "--init-token", "--free", "--label", self.label]
        argv += ["--pin", self._pin, "--so-pin", self._so_pin]
        made = subprocess.run(
            argv,
            env={"PATH": os.environ.get("PATH", "") + ":/usr/bin:/bin", **self.environment()},
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **self._account.identity(),
        )
        if made.returncode != 0:
            raise StackError(f"softhsm2-util failed for {self.label}:\n{made.stdout}{made.stderr}")
        (self._folder / "initialized").touch()

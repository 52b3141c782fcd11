"""The programs the local stack needs from the operating system: which are missing, and how they get there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from ctypes.util import find_library
from pathlib import Path

from deploy.local.chromium import find_chromium
from deploy.local.postgres import find_binaries
from deploy.local.program import StackError
from deploy.local.progress import Progress
from deploy.local.rabbitmq import find_server
from deploy.local.softhsm import find_module

NEEDED: Mapping[str, Callable[[], object]] = {
    "rabbitmq-server": find_server,
    "postgresql": find_binaries,
    "softhsm2": lambda: find_module() and shutil.which("softhsm2-util"),
    "curl": lambda: shutil.which("curl"),
    "openssl": lambda: shutil.which("openssl"),
    "poppler-utils": lambda: shutil.which("pdfsig"),
}
"""Debian's name of the package, and what finds its program."""


def _has_japanese_font() -> bool:
    try:
        told = subprocess.run(["fc-list", ":lang=ja", "family"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return bool(told.stdout.strip())


FOR_APPROVALS: Mapping[str, Callable[[], object]] = {
    "chromium": find_chromium,
    "fonts-ipafont-gothic": _has_japanese_font,
    "libatomic1": lambda: find_library("atomic"),
}
"""What only the second act of the demo and the tests of the pages need: a browser, letters for Japanese, and what the
driver of the browser is linked with."""


FOR_TESTS: Mapping[str, Callable[[], object]] = {
    **NEEDED,
    **FOR_APPROVALS,
    "npm": lambda: shutil.which("npm"),
    "default-jdk-headless": lambda: shutil.which("javac"),
    "libbcpkix-java": lambda: Path("/usr/share/java/bcpkix.jar").exists(),
    "golang-cfssl": lambda: shutil.which("cfssl"),
    "gnutls-bin": lambda: shutil.which("certtool"),
    "pebble": lambda: shutil.which("pebble"),
    "strongswan-pki": lambda: shutil.which("pki"),
    "libstrongswan-standard-plugins": lambda: Path("/usr/lib/ipsec/plugins/libstrongswan-openssl.so").exists(),
    "libstrongswan-extra-plugins": lambda: Path("/usr/lib/ipsec/plugins/libstrongswan-curl.so").exists(),
}
"""Tests also let a client written in JavaScript go the whole way, and speak with certification authorities that others
wrote: CMP with Bouncy Castle (Java), ACME with pebble. strongSwan's EST client judges our own stand-in for a server."""


def missing_for_approvals() -> tuple[str, ...]:
    return missing(FOR_APPROVALS)


def may_install(*, may_use_sudo: bool) -> bool:
    """Whether `ensure` would install, and not say how."""
    return shutil.which("apt-get") is not None and (os.getuid() == 0 or may_use_sudo)


def words_for(packages: Sequence[str]) -> str:
    """The line to type."""
    return f"apt-get install --no-install-recommends {' '.join(packages)}"


def missing(needed: Mapping[str, Callable[[], object]] = NEEDED) -> tuple[str, ...]:
    return tuple(package for package, find in needed.items() if not find())


def ensure(progress: Progress, *, may_use_sudo: bool, needed: Mapping[str, Callable[[], object]] = NEEDED) -> None:
    """Install what is missing, as root or when asked to; otherwise say how."""
    absent = missing(needed)
    if not absent:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *absent]
    if shutil.which("apt-get") is None:
        raise StackError(
            f"Missing: {', '.join(absent)} (Debian's names). Rakkan installs them only on Debian and Ubuntu; "
            "please install them with your system's own package manager."
        )
    if os.getuid() != 0 and not may_use_sudo:
        raise StackError(
            f"Missing: {', '.join(absent)}. Run this, then try again:\n\n  sudo {' '.join(install)}\n\n"
            "or let me do it: add --install to the command. (It asks for your password through sudo.)"
        )
    _install(progress, install, absent)
    still = missing(needed)
    if still:
        raise StackError(f"apt-get reported success, but these programs are still not found: {', '.join(still)}")


def _install(progress: Progress, install: list[str], absent: tuple[str, ...]) -> None:
    as_root = [] if os.getuid() == 0 else ["sudo"]
    if as_root:
        subprocess.run(["sudo", "-v"], check=True)  # the password is asked for here, not under the progress line
    with progress.step(f"apt-get install {' '.join(absent)}"):
        if not any(Path("/var/lib/apt/lists").glob("*_Packages*")) or _apt([*as_root, *install]):
            _apt([*as_root, "apt-get", "update"])
            fault = _apt([*as_root, *install])
            if fault:
                raise StackError(f"{' '.join(install)} failed:\n{fault}")
    if Path("/run/systemd/system").exists():
        progress.say(
            "    Debian also starts system services of these packages. Rakkan does not use them; to switch them off:\n"
            "    systemctl disable --now rabbitmq-server postgresql"
        )


def _apt(argv: list[str]) -> str:
    """Empty when it went well, else the end of what it said."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        argv, env=environment, stdin=sys.stdin, capture_output=True, text=True, check=False, timeout=600
    )
    return "" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:] or "no output"

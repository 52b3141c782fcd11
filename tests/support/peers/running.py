"""What peers that are programs have in common: a folder of secrets, ports, and their own answers to a setting-up."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx

from deploy.local.account import Account
from deploy.local.program import Program

NOBODY_LISTENS = "127.0.0.1:1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str, folder: Path) -> Program:
    return Program(name, folder, Account.of_caller())


def write_secrets(folder: Path, **secrets: str) -> Path:
    """A folder with a file for each; `_` in a name stands for `-`."""
    folder.mkdir(exist_ok=True)
    for name, value in secrets.items():
        (folder / name.replace("_", "-")).write_text(f"{value}\n")
    return folder


def changed(entry: dict[str, Any], **connection: Any) -> dict[str, Any]:
    """The entry with other members of its connection."""
    copy: dict[str, Any] = json.loads(json.dumps(entry))
    copy["connection"].update(connection)
    return copy


def listening(url: str) -> bool:
    try:
        httpx.get(url, timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return True

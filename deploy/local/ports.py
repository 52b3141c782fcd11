"""Loopback ports of one stack: chosen once, remembered in a file, chosen again only when somebody else took one."""

import hashlib
import json
import socket
import threading
from collections.abc import Collection
from pathlib import Path

from deploy.local.account import Account

_LOWEST = 20_000
_HIGHEST = 32_000  # above begin the ports that the kernel gives to outgoing connections


class Ports:
    """Names to port numbers. Two checkouts start their search at different places."""

    def __init__(self, run_folder: Path, account: Account) -> None:
        self._file = run_folder / "ports.json"
        self._account = account
        self._lock = threading.RLock()
        self._next = _LOWEST + int.from_bytes(hashlib.sha256(str(run_folder).encode()).digest()[:4]) % 11_000
        try:
            self._chosen: dict[str, int] = json.loads(self._file.read_text())
        except (OSError, ValueError):
            self._chosen = {}

    def __getitem__(self, name: str) -> int:
        with self._lock:
            if name not in self._chosen:
                self._chosen[name] = self._free()
                self._save()
            return self._chosen[name]

    def renew(self, names: Collection[str]) -> None:
        """Before a start: other ports for those of the named that are taken. Call it only for what does not run."""
        with self._lock:
            for name in names:
                if name in self._chosen and not _is_free(self._chosen[name]):
                    self._chosen[name] = self._free()
            self._save()

    def _free(self) -> int:
        for _ in range(_HIGHEST - _LOWEST):
            port = self._next
            self._next = port + 1 if port < _HIGHEST else _LOWEST
            if port not in self._chosen.values() and _is_free(port):
                return port
        raise OSError("no free loopback port")

    def _save(self) -> None:
        self._account.write(self._file, json.dumps(self._chosen, indent=2) + "\n", mode=0o644)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int, greeting: bytes = b"") -> bool:
    """Whether somebody accepts connections there, and says anything after our greeting if one is given."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            if not greeting:
                return True
            connection.sendall(greeting)
            return bool(connection.recv(1))
    except OSError:
        return False

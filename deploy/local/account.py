"""Who runs the programs of the local stack: the caller, or `nobody` when the caller is root. Knows no program."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """A user of this machine. `dropped` says that we are root and give that up for our children."""

    uid: int
    gid: int
    dropped: bool

    @classmethod
    def of_caller(cls) -> "Account":
        return cls(os.getuid(), os.getgid(), dropped=False)

    @classmethod
    def unprivileged(cls) -> "Account":
        """PostgreSQL and Erlang's daemons refuse to run as root, or should."""
        if os.getuid() != 0:
            return cls.of_caller()
        entry = pwd.getpwnam("nobody")
        return cls(entry.pw_uid, entry.pw_gid, dropped=True)

    def identity(self) -> _Identity:
        """Arguments for subprocess."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.dropped else {}

    def own(self, path: Path) -> None:
        if os.getuid() == 0:
            os.chown(path, self.uid, self.gid)

    def folder(self, path: Path, mode: int = 0o700) -> Path:
        """The folder, made if missing, owned by this account."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        self.own(path)
        return path

    def write(self, path: Path, content: str | bytes, mode: int = 0o600) -> None:
        """Replace a file in one step: a kill in the middle leaves the old one."""
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        self.own(new)
        new.replace(path)

    def can_run(self, argv: list[str], folder: Path) -> bool:
        """Whether this account can start the program from there: a home of root's, for example, is closed to it."""
        try:
            return subprocess.run(argv, cwd=folder, capture_output=True, check=False, **self.identity()).returncode == 0
        except OSError:
            return False


def passable(folder: Path) -> bool:
    """Whether everybody may walk down to this folder."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))

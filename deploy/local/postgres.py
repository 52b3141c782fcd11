"""A private PostgreSQL cluster on loopback, as an ordinary user. TCP only: a socket file's path could be too long."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from deploy.local.account import Account
from deploy.local.ports import Ports, answers
from deploy.local.program import Program, StackError, wait_until
from deploy.postgres.migrate import prepare

DATABASE = "rakkan"
ADMINISTRATOR = "postgres"


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest of several."""
    versioned = sorted(
        (path for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0),
    )
    on_path = shutil.which("initdb")
    if versioned:
        return versioned[-1].parent
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    def __init__(self, run_folder: Path, ports: Ports, account: Account, *, password: str) -> None:
        self._folder = run_folder / "postgres"
        self._data = self._folder / "data"
        self._ports = ports
        self._account = account
        self._password = password
        self._program = Program("postgres", run_folder, account)

    @property
    def port(self) -> int:
        return self._ports["postgres"]

    def start(self, *, timeout_s: float = 30.0) -> None:
        """Make the cluster if there is none, and run it."""
        if self._program.running() and answers(self.port):
            return
        self._program.kill()
        self._ports.renew(["postgres"])
        binaries = find_binaries()
        if binaries is None:
            raise FileNotFoundError("postgresql is not installed")
        self._account.folder(self._folder)
        self._initialize(binaries)
        argv = [str(binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        for option in ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "jit=off"):
            argv += ["-c", option]
        deadline = time.monotonic() + 5.0
        while True:
            self._program.start(argv, _environment(), folder=self._folder)
            try:
                wait_until(lambda: self._accepts(binaries), self._program, timeout_s=timeout_s, every_s=0.03)
            except StackError:
                # After a kill -9 the children of the old server may still hold its memory for a moment.
                if self._program.running() or time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
            else:
                return

    async def prepare(self, passwords: Mapping[str, str]) -> tuple[str, ...]:
        """Database, roles and migrations; what ran."""
        connection = await self.connect("postgres")
        try:
            if not await connection.fetchval("select true from pg_database where datname = $1", DATABASE):
                await connection.execute(f"create database {DATABASE}")
        finally:
            await connection.close()
        connection = await self.connect()
        try:
            return await prepare(connection, passwords)
        finally:
            await connection.close()

    async def connect(self, database: str = DATABASE) -> asyncpg.Connection:
        """As the administrator, who may do everything: for migrations, and for tests that tamper."""
        return await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=ADMINISTRATOR, password=self._password, database=database, ssl=False
        )

    def running(self) -> bool:
        return self._program.running()

    def stop(self) -> None:
        self._program.stop(by=signal.SIGINT)  # a "fast" shutdown: clients are sent away, the log is flushed

    def kill(self) -> None:
        """SIGKILL: what a power cut does to it."""
        self._program.kill()

    def _accepts(self, binaries: Path) -> bool:
        ask = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, env=_environment(), check=False).returncode == 0

    def _initialize(self, binaries: Path) -> None:
        if (self._folder / "initialized").exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        password_file = self._folder / "administrator_password"
        self._account.write(password_file, self._password + "\n")
        argv = [str(binaries / "initdb"), "-D", str(self._data), "-U", ADMINISTRATOR, "-A", "scram-sha-256"]
        argv += ["--pwfile", str(password_file), "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        made = subprocess.run(
            argv,
            cwd=self._folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            **self._account.identity(),
        )
        if made.returncode != 0:
            raise StackError(f"initdb failed:\n{made.stdout}{made.stderr}")
        (self._folder / "initialized").touch()


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "") + ":/usr/bin:/bin", "LANG": "C.UTF-8"}

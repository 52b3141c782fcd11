"""The whole local stack: what it consists of, in which order it starts and stops. Each part's own file knows how."""

import asyncio
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local.account import Account
from deploy.local.home import run_folder, temporary_run_folder
from deploy.local.keys import Keys
from deploy.local.ports import Ports
from deploy.local.postgres import Postgres
from deploy.local.program import end_by_force, marked
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.softhsm import LABELS, SoftHSM
from deploy.rabbitmq.definitions import definitions, password_hash
from shared.messaging.topology import ROOMS, SENDERS


class Stack:
    """Everything under one run folder. The parts can be used alone: tests start only what they need."""

    def __init__(self, folder: Path, account: Account) -> None:
        self.folder = folder
        self.account = account
        self.ports = Ports(folder, account)
        self.keys = Keys(folder, account)
        self.rabbitmq = RabbitMQ(folder, self.ports, account)
        self.postgres = Postgres(folder, self.ports, account, password=self.keys.administrator_password)

    @classmethod
    def of_checkout(cls) -> "Stack":
        account = Account.unprivileged()
        return cls(run_folder(account), account)

    @classmethod
    def temporary(cls) -> "Stack":
        """For tests; end it with `remove`."""
        account = Account.unprivileged()
        return cls(temporary_run_folder(account), account)

    def token(self, room: str) -> SoftHSM:
        """The HSM token of a room, made if missing."""
        token = SoftHSM(self.folder, room, self.account, pin=self.keys.pin(room), so_pin=self.keys.so_pin(room))
        token.make()
        return token

    def start_rabbitmq(self) -> None:
        self.keys.make()
        hashes = {sender: password_hash(self.keys.password(sender, "broker")) for sender in SENDERS}
        self.rabbitmq.start(definitions(hashes))

    def start_postgres(self) -> None:
        """Run it; `await prepare_database()` makes roles and schemas."""
        self.keys.make()
        self.postgres.start()

    async def prepare_database(self) -> tuple[str, ...]:
        return await self.postgres.prepare({room: self.keys.password(room, "database") for room in ROOMS})

    def start_servers(self) -> None:
        """RabbitMQ takes longest; the database and the tokens are ready before it is."""
        self.keys.make()
        with ThreadPoolExecutor() as pool:
            jobs: list[Callable[[], object]] = [self.start_rabbitmq, self._start_database, self._make_tokens]
            for done in [pool.submit(job) for job in jobs]:
                done.result()

    def stop_servers(self) -> None:
        self.rabbitmq.stop()
        self.postgres.stop()
        end_by_force(marked(self.folder))

    def remove(self) -> None:
        """Stop everything and delete the folder."""
        self.stop_servers()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_database(self) -> None:
        self.start_postgres()
        asyncio.run(self.prepare_database())

    def _make_tokens(self) -> None:
        for room in LABELS:
            self.token(room)

"""The whole local stack: what it consists of, in which order it starts and stops. Each part's own file knows how."""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from deploy.local.account import Account
from deploy.local.home import run_folder, temporary_run_folder
from deploy.local.keys import Keys
from deploy.local.ports import Ports
from deploy.local.postgres import Postgres
from deploy.local.program import end_by_force, marked
from deploy.local.progress import Progress
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.rooms import Rooms, exists
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
        self.rooms = Rooms(folder, self.ports, self.keys, account)

    @classmethod
    def of_checkout(cls) -> "Stack":
        account = Account.unprivileged()
        return cls(run_folder(account), account)

    @classmethod
    def temporary(cls) -> "Stack":
        """For tests; end it with `remove`."""
        account = Account.unprivileged()
        return cls(temporary_run_folder(), account)

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

    def start_servers(self, progress: Progress) -> None:
        """RabbitMQ, the database with its schemas, the tokens with their keys, the TSA; all at once."""
        self.keys.make()
        self._sweep()
        jobs: dict[str, Callable[[], object]] = {
            "RabbitMQ: a private node with the users and queues of the topology": self.start_rabbitmq,
            "PostgreSQL: a private cluster, one schema and one role for each room": self._start_database,
            "SoftHSM: a token for each room that has keys, and their key ceremonies": self._make_tokens,
            "TSAs: two time-stamping authorities on OpenSSL": self.rooms.start_tsas,
        }
        _together(jobs, progress)
        self.rooms.write_registry()

    def up(self, progress: Progress) -> None:
        """Everything that is not up. Rooms after the servers: one that finds no broker waits longer each time."""
        self.start_servers(progress)
        rooms = [room for room in ROOMS if exists(room)]
        for room in rooms:
            self.rooms.start(room)
        _together({f"{room} is ready": partial(self.rooms.wait_ready, room) for room in rooms}, progress)

    def down(self, progress: Progress) -> None:
        """Everything ends, in order; no process of ours is left."""
        with progress.step("the rooms finish what they have in hand and end"):
            self.rooms.stop()
        with progress.step("RabbitMQ, its epmd and PostgreSQL end"):
            self.stop_servers()

    def state(self) -> list[tuple[str, str, str]]:
        """Name, how it is, where it is."""
        rows = [
            ("rabbitmq", "up" if self.rabbitmq.running() else "down", f"amqp://127.0.0.1:{self.rabbitmq.port}/rakkan"),
            ("postgres", "up" if self.postgres.running() else "down", f"127.0.0.1:{self.postgres.port}/rakkan"),
        ]
        rows += [
            (f"tsa {name}", "up" if program.running() else "down", self.rooms.tsa_url(name))
            for name, program in self.rooms.tsas.items()
        ]
        return rows + [(room, self._state_of(room), self._where(room)) for room in ROOMS]

    def _state_of(self, room: str) -> str:
        if not exists(room) or not self.rooms.running(room):
            return "down"
        faults = self.rooms.faults(room)
        if faults is None:
            return "does not answer"
        return "not ready: " + ", ".join(faults) if faults else "ready"

    def _where(self, room: str) -> str:
        side = self.rooms.health_url(room)
        door = {"gateway": self.rooms.gateway_url, "authentication": self.rooms.authentication_url}.get(room)
        return f"{door}  (side port {side})" if door else f"side port {side}"

    def _sweep(self) -> None:
        """End processes of ours that no pid file tells of: a start may have been killed in the middle."""
        if not any((self.folder / "pids").glob("*")):
            end_by_force(marked(self.folder))

    def stop_servers(self) -> None:
        self.rabbitmq.stop()
        self.postgres.stop()
        end_by_force(marked(self.folder))

    def remove(self) -> None:
        """Stop everything and delete the folder."""
        self.rooms.stop()
        self.stop_servers()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_database(self) -> None:
        self.start_postgres()
        asyncio.run(self.prepare_database())

    def _make_tokens(self) -> None:
        for room in LABELS:
            self.token(room)
        absent = [room for room in LABELS if not self.rooms.running(room)]
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(self.rooms.hold_ceremony, room) for room in absent]:
                done.result()


def _together(jobs: Mapping[str, Callable[[], object]], progress: Progress) -> None:
    """All at once, a line for each when it is done; the first fault is raised when all have ended."""

    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(_step, what, job, progress) for what, job in jobs.items()]:
            done.result()


def _step(what: str, job: Callable[[], object], progress: Progress) -> None:
    with progress.step(what):
        job()

"""The whole suite with tenants, partners, signers and credentials in it, made through the operator's own door."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx

from deploy.local.partner import Client
from deploy.local.stack import Stack
from services.operator.door import Door, Inputs
from services.operator.terminal import Terminal
from services.operator.words import parser
from shared.messaging.bus import Bus
from shared.messaging.topology import ROOMS
from shared.trust import Purpose, Trust, load_sealing_key
from tests.support.buses import bus_of
from tests.support.partner import Partner

SIGNATURES_MAX = 200
MIDORI, TARO, JIRO, RIN, CANARY = "midori", "taro", "jiro", "rin", "canary"
PINS = {user: f"{secrets.randbelow(10**9):09d}8" for user in (MIDORI, TARO, JIRO, RIN, CANARY)}
KEYS = {
    "midori-p256": ("p256", "eu"),
    "midori-p384": ("p384", "eu"),
    "midori-p521": ("p521", "eu"),
    "midori-rsa2048": ("rsa2048", "jp"),
    "midori-rsa3072": ("rsa3072", "eu"),
    "midori-rsa4096": ("rsa4096", "eu"),
    "midori-ed25519": ("ed25519", "eu"),
}
P256 = "midori-p256"


class _Notes(Terminal):
    """Keeps what was told instead of printing it."""

    def __init__(self) -> None:
        super().__init__(as_json=True)
        self.facts: dict[str, Any] = {}

    def progress(self, text: str) -> None:
        """Nobody looks."""

    def tell(self, _: str, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)

    def tell_tables(self, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.facts = dict(tables)


@dataclass
class World:
    stack: Stack
    http: httpx.AsyncClient
    operator_bus: Bus
    began: float = field(default_factory=monotonic)
    secrets: set[str] = field(default_factory=set)
    partners: dict[str, Partner] = field(default_factory=dict)
    totp_secret: str = ""

    @property
    def acme(self) -> Partner:
        """The tenant that most signers belong to."""
        return self.partners["acme-app"]

    @property
    def colleague(self) -> Partner:
        """Another client of the same tenant."""
        return self.partners["acme-other"]

    @property
    def rival(self) -> Partner:
        return self.partners["rival-app"]

    async def operate(self, *words: str, pin: str | None = None) -> dict[str, Any]:
        """Say it at the operator's door; what was told. RakkanError when it was refused."""
        keys, notes = self.stack.keys, _Notes()
        door = Door(
            bus=self.operator_bus,
            trust=Trust.load(keys.bundle_file),
            sealing_key=load_sealing_key(keys.key_file("operator", Purpose.SEALING)),
            terminal=notes,
            ask_timeout_s=30.0,
        )
        await door.do(parser().parse_args(words), Inputs(pin=pin))
        return notes.facts

    async def add_credential(self, credential_id: str, user: str, *more: str, tenant: str = "acme") -> None:
        names = ("--tenant", tenant, "--user", user, "--signatures-max", str(SIGNATURES_MAX), "--wait", "60")
        await self.operate("add-credential", credential_id, *names, *more)

    async def fetch(self, sql: str, *arguments: object) -> list[Any]:
        """As the administrator of the database; a connection for each, since servers are restarted here."""
        connection = await self.stack.postgres.connect()
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    async def edit(self, *statements: str) -> None:
        """As the administrator who turns the triggers off."""
        connection = await self.stack.postgres.connect()
        try:
            await connection.execute("; ".join(("set session_replication_role = replica", *statements)))
        finally:
            await connection.close()

    async def leaves(self, room: str, event_type: str, **facts: str) -> int:
        """How many audit leaves tell of it."""
        sql = f"""
            select count(*) from (select convert_from(record, 'UTF8')::jsonb as leaf from {room}.audit_leaves) as leaves
            where leaf ->> 'event_type' = $1 and leaf @> $2::jsonb
        """
        rows = await self.fetch(sql, event_type, _json(facts))
        return int(rows[0][0])

    async def faults(self, room: str) -> Mapping[str, str]:
        """What /readyz of the room says; empty when it is ready."""
        return (await asyncio.to_thread(self.stack.rooms.faults, room)) or {}

    async def until_ready(self) -> None:
        """Every room says that it can work."""
        await asyncio.gather(*(asyncio.to_thread(self.stack.rooms.wait_ready, room) for room in ROOMS))

    async def client(self, client_id: str, tenant: str) -> None:
        added = await self.operate(
            "add-client", client_id, "--tenant", tenant, "--name", f"Program {client_id}", "--show-secret"
        )
        client = Client(client_id, added["client_secret"])
        rooms = self.stack.rooms
        partner = Partner(self.http, rooms.gateway_url, rooms.authentication_url, client, self.secrets)
        self.partners[client_id] = await partner.logged_in()

    async def signer(self, user: str, *more: str, tenant: str = "acme") -> dict[str, Any]:
        self.secrets.add(PINS[user])
        names = ("--tenant", tenant, "--name", f"Signer {user}")
        added = await self.operate("add-signer", user, *names, *more, pin=PINS[user])
        if "totp_secret" in added:
            self.secrets.add(added["totp_secret"])
        return added


def _json(facts: Mapping[str, str]) -> str:
    """Facts of a leaf: those of its subject have their names with `subject_` before them."""
    subject = {name.removeprefix("subject_"): value for name, value in facts.items() if name.startswith("subject_")}
    plain = {name: value for name, value in facts.items() if not name.startswith("subject_")}
    return json.dumps(plain | ({"subject": subject} if subject else {}))


@asynccontextmanager
async def enrolled(stack: Stack) -> AsyncIterator[World]:
    """Everything enrolled, at once where it does not depend on each other."""
    bus = bus_of(stack, "operator")
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=60.0, limits=limits, trust_env=False) as http, bus.connected():
        world = World(stack, http, bus)
        for tenant in ("acme", "rival"):
            await world.operate("add-tenant", tenant, "--name", tenant.title())
        async with asyncio.TaskGroup() as group:
            for client_id, tenant in (("acme-app", "acme"), ("acme-other", "acme"), ("rival-app", "rival")):
                group.create_task(world.client(client_id, tenant))
            for user, tenant in ((MIDORI, "acme"), (TARO, "acme"), (RIN, "rival")):
                group.create_task(world.signer(user, tenant=tenant))
            totp = group.create_task(world.signer(JIRO, "--totp", "--show-secret"))
        world.totp_secret = totp.result()["totp_secret"]
        async with asyncio.TaskGroup() as group:
            for credential_id, (key, profile) in KEYS.items():
                group.create_task(world.add_credential(credential_id, MIDORI, "--key", key, "--profile", profile))
            group.create_task(world.add_credential("taro-p256", TARO))
            group.create_task(world.add_credential("jiro-p256", JIRO, "--otp"))
            group.create_task(world.add_credential("rin-p256", RIN, tenant="rival"))
        yield world

"""Fakes for authentication: a store that obeys the rules, a SAM that remembers, and a clock that stands still."""

import copy
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.authentication.app import make_app
from services.authentication.clients import Assertion, Client
from services.authentication.handlers import Handlers
from services.authentication.settings import Settings
from shared.contracts.authentication import Accounts, AddClient, ClientRow, TenantRow
from shared.contracts.base import Done, Request
from shared.contracts.sam import RevokeTokens
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.settings import Broker, Database, TrustFiles
from shared.tokens import AccessToken, verifying_keys
from shared.trust import Purpose, SigningKey, Trust, key_id_of

ISSUER = "https://as.example"
START = datetime(2026, 11, 25, 12, 0, 0, 300_000, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def pass_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Rows:
    tenants: dict[str, TenantRow] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    tokens_from: dict[str, datetime] = field(default_factory=dict)
    tokens: dict[str, AccessToken] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    leaves: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class FakeChange:
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    async def lock_client(self, client_id: str) -> datetime:
        if _is_suspended(self.rows, client_id):
            raise RakkanError(Code.CLIENT_REFUSED)
        return self.rows.tokens_from.get(client_id, datetime.fromtimestamp(0, UTC))

    async def issue(self, token: AccessToken) -> None:
        self.rows.tokens[token.token_id] = token

    async def revoke(self, token: AccessToken, *, at: datetime) -> None:  # noqa: ARG002 - the real one keeps it
        self.rows.tokens.setdefault(token.token_id, token)
        self.rows.revoked.add(token.token_id)

    async def add_tenant(self, tenant_id: str, name: str) -> None:
        row = self.rows.tenants.setdefault(tenant_id, TenantRow(tenant_id=tenant_id, name=name, suspended=False))
        if row.name != name:
            raise RakkanError(Code.CONFLICT)

    async def add_client(self, client: AddClient, *, secret_hash: bytes | None) -> None:
        if client.client_id in self.rows.clients:
            raise RakkanError(Code.CONFLICT)
        if client.tenant_id not in self.rows.tenants:
            raise RakkanError(Code.NOT_FOUND)
        self.rows.names[client.client_id] = client.name
        self.rows.clients[client.client_id] = Client(
            client_id=client.client_id,
            tenant_id=client.tenant_id,
            method=client.method,
            secret_hash=secret_hash,
            jwks=client.jwks,
            suspended=False,
        )

    async def suspend_client(self, client_id: str, *, suspended: bool) -> None:
        if client_id not in self.rows.clients:
            raise RakkanError(Code.NOT_FOUND)
        self.rows.clients[client_id] = replace(self.rows.clients[client_id], suspended=suspended)

    async def suspend_tenant(self, tenant_id: str, *, suspended: bool) -> tuple[str, ...]:
        if tenant_id not in self.rows.tenants:
            raise RakkanError(Code.NOT_FOUND)
        self.rows.tenants[tenant_id] = self.rows.tenants[tenant_id].model_copy(update={"suspended": suspended})
        return tuple(c.client_id for c in self.rows.clients.values() if c.tenant_id == tenant_id)

    async def end_tokens(self, client_id: str, *, issued_before: datetime) -> None:
        self.rows.tokens_from[client_id] = max(issued_before, self.rows.tokens_from.get(client_id, issued_before))

    async def write(self, event_type: str, **facts: Any) -> None:
        operation.current()
        self.rows.leaves.append((event_type, facts))


class FakeStore:
    def __init__(self) -> None:
        self.rows = Rows()
        self.spent: set[bytes] = set()
        self.down = False

    async def client(self, client_id: str) -> Client | None:
        self._answer()
        client = self.rows.clients.get(client_id)
        return client and replace(client, suspended=_is_suspended(self.rows, client_id))

    async def spend_assertion(self, assertion: Assertion) -> None:
        if assertion.digest in self.spent:
            raise RakkanError(Code.CLIENT_REFUSED)
        self.spent.add(assertion.digest)

    async def check_alive(self, token: AccessToken) -> None:
        known = self.rows.tokens.get(token.token_id)
        if known is None:
            raise RakkanError(Code.TOKEN_INVALID)
        if (
            token.token_id in self.rows.revoked
            or _is_suspended(self.rows, token.client_id)
            or known.issued_at < self.rows.tokens_from.get(token.client_id, known.issued_at)
        ):
            raise RakkanError(Code.TOKEN_EXPIRED)

    async def accounts(self) -> Accounts:
        clients = tuple(
            ClientRow(
                client_id=client.client_id,
                tenant_id=client.tenant_id,
                name=self.rows.names[client.client_id],
                method=client.method,
                suspended=client.suspended,
                added_at=START,
            )
            for client in self.rows.clients.values()
        )
        return Accounts(tenants=tuple(self.rows.tenants.values()), clients=clients)

    @asynccontextmanager
    async def change(self) -> AsyncIterator[FakeChange]:
        self._answer()
        rows = copy.deepcopy(self.rows)
        yield FakeChange(rows)
        self.rows = rows

    def _answer(self) -> None:
        if self.down:
            raise RakkanError(Code.UNAVAILABLE)


def _is_suspended(rows: Rows, client_id: str) -> bool:
    client = rows.clients[client_id]
    return client.suspended or rows.tenants[client.tenant_id].suspended


class FakeSAM:
    """Stands where the bus stands; remembers what it must refuse from now on."""

    def __init__(self) -> None:
        self.revocations: list[RevokeTokens] = []
        self.down = False

    async def ask(self, request: Request[Any]) -> Any:
        if self.down:
            raise RakkanError(Code.UNAVAILABLE)
        assert isinstance(request, RevokeTokens)
        self.revocations.append(request)
        return Done()


def signing_key() -> SigningKey:
    key = Ed25519PrivateKey.generate()
    return SigningKey(key_id=key_id_of(key.public_key()), key=key)


@dataclass
class World:
    """Authentication with everything around it faked."""

    clock: Clock = field(default_factory=Clock)
    store: FakeStore = field(default_factory=FakeStore)
    sam: FakeSAM = field(default_factory=FakeSAM)
    old_key: SigningKey = field(default_factory=signing_key)
    new_key: SigningKey = field(default_factory=signing_key)
    sealing_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    operator_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    attempts_max: int = 10

    @property
    def trust(self) -> Trust:
        tokens = {key.key_id: key.key.public_key() for key in (self.new_key, self.old_key)}
        sealing = {"operator": self.operator_key.public_key(), "authentication": self.sealing_key.public_key()}
        return Trust(epoch=1, verifying={("authentication", Purpose.TOKENS): tokens}, sealing=sealing)

    def client(self, *, key: SigningKey | None = None) -> httpx.AsyncClient:
        """A partner's view of the endpoints, with tokens signed by `key` (the new one)."""
        app = make_app(
            self.store, self.sam, self.trust, key or self.new_key, settings(self.attempts_max), now=self.clock.now
        )
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ISSUER)

    @property
    def handlers(self) -> Handlers:
        return Handlers(
            store=self.store,
            bus=self.sam,
            trust=self.trust,
            keys=verifying_keys(self.trust),
            sealing_key=self.sealing_key,
            now=self.clock.now,
        )

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.store.rows.leaves]


@contextmanager
def asked_by_operator() -> Iterator[None]:
    """An operation as the bus opens it for a message of the operator."""
    at = datetime.now(UTC) + timedelta(seconds=10)
    with operation.carry(operation.Operation("op-1", at, "operator")):
        yield


def settings(attempts_max: int = 10) -> Settings:
    nowhere = Path("/nowhere")
    return Settings(
        broker=Broker(password_file=nowhere),
        trust=TrustFiles(bundle_file=nowhere, messages_key_file=nowhere, sealing_key_file=nowhere),
        database=Database(password_file=nowhere),
        issuer=ISSUER,
        tokens_key_file=nowhere,
        attempts_max=attempts_max,
    )

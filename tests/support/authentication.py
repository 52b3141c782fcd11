"""Fakes for authentication: a store that obeys the rules, a SAM that remembers, and a clock that stands still."""

import copy
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.authentication.app import OAuth, make_app, make_oauth
from services.authentication.choosing import Registries
from services.authentication.clients import Assertion, Client
from services.authentication.grants import Grant, RefreshToken
from services.authentication.handlers import Handlers
from services.authentication.requests import StoredRequest
from services.authentication.revoking import LiveToken
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
    requests: dict[bytes, StoredRequest] = field(default_factory=dict)
    outcomes: dict[bytes, str] = field(default_factory=dict)
    grants: dict[bytes, Grant] = field(default_factory=dict)
    codes: dict[bytes, bytes] = field(default_factory=dict)
    refresh_tokens: dict[bytes, tuple[bytes, RefreshToken]] = field(default_factory=dict)
    grant_of_token: dict[str, bytes] = field(default_factory=dict)


class FakeGrants:
    """Requests and grants, with the rules that the database has for them."""

    rows: Rows

    async def add_request(self, request_hash: bytes, request: StoredRequest) -> None:
        assert request_hash not in self.rows.requests
        self.rows.requests[request_hash] = request

    async def bind_request(self, request_hash: bytes, *, session_hash: bytes, now: datetime) -> StoredRequest | None:
        request = self.rows.requests.get(request_hash)
        if request is None or request.ended or request.expires_at <= now:
            return None
        if request.session_hash not in (None, session_hash):
            return None
        self.rows.requests[request_hash] = replace(request, session_hash=session_hash)
        return self.rows.requests[request_hash]

    async def end_request(
        self, request_hash: bytes, *, session_hash: bytes, outcome: Literal["granted", "denied"], at: datetime
    ) -> StoredRequest | None:
        request = self.rows.requests.get(request_hash)
        if request is None or request.ended or request.expires_at <= at or request.session_hash != session_hash:
            return None
        self.rows.requests[request_hash] = replace(request, ended=True)
        self.rows.outcomes[request_hash] = outcome
        return self.rows.requests[request_hash]

    async def add_grant(self, grant: Grant, *, code_hash: bytes) -> None:
        assert grant.code_expires_at - grant.granted_at <= timedelta(seconds=60)
        assert (grant.scope == "credential") == (grant.authorization_id is not None)
        assert (grant.scope == "credential-creation") == (grant.authority is not None)
        assert grant.grant_id not in self.rows.grants
        assert code_hash not in self.rows.codes
        self.rows.grants[grant.grant_id] = grant
        self.rows.codes[code_hash] = grant.grant_id

    async def grant_of_code(self, code_hash: bytes) -> Grant | None:
        grant_id = self.rows.codes.get(code_hash)
        return None if grant_id is None else self.rows.grants[grant_id]

    async def spend_code(self, grant_id: bytes, *, at: datetime) -> None:
        grant = self.rows.grants[grant_id]
        self.rows.grants[grant_id] = replace(grant, code_spent_at=grant.code_spent_at or at)

    async def grant_of_refresh_token(self, token_hash: bytes) -> tuple[Grant, RefreshToken] | None:
        found = self.rows.refresh_tokens.get(token_hash)
        return None if found is None else (self.rows.grants[found[0]], found[1])

    async def add_refresh_token(self, token_hash: bytes, grant_id: bytes, *, expires_at: datetime) -> None:
        assert self.rows.grants[grant_id].scope == "service"
        self.rows.refresh_tokens[token_hash] = grant_id, RefreshToken(expires_at=expires_at, spent_at=None)

    async def spend_refresh_token(self, token_hash: bytes, *, at: datetime) -> None:
        grant_id, token = self.rows.refresh_tokens[token_hash]
        self.rows.refresh_tokens[token_hash] = grant_id, replace(token, spent_at=token.spent_at or at)

    async def live_tokens(self, grant_id: bytes, *, now: datetime) -> tuple[LiveToken, ...]:
        return tuple(
            LiveToken(token_id=token_id, expires_at=self.rows.tokens[token_id].expires_at)
            for token_id, of in self.rows.grant_of_token.items()
            if of == grant_id and token_id not in self.rows.revoked and self.rows.tokens[token_id].expires_at > now
        )

    async def revoke_grant(self, grant_id: bytes, *, at: datetime) -> None:
        grant = self.rows.grants[grant_id]
        self.rows.grants[grant_id] = replace(grant, revoked_at=grant.revoked_at or at)
        self.rows.revoked |= {token_id for token_id, of in self.rows.grant_of_token.items() if of == grant_id}


class FakeChange(FakeGrants):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    async def lock_client(self, client_id: str) -> datetime:
        if _is_suspended(self.rows, client_id):
            raise RakkanError(Code.CLIENT_REFUSED)
        return self.rows.tokens_from.get(client_id, datetime.fromtimestamp(0, UTC))

    async def issue(self, token: AccessToken, *, grant_id: bytes | None = None) -> None:
        self.rows.tokens[token.token_id] = token
        if grant_id is not None:
            assert token.expires_at <= self.rows.grants[grant_id].expires_at
            self.rows.grant_of_token[token.token_id] = grant_id

    async def revoke(self, token: AccessToken, *, at: datetime) -> None:  # noqa: ARG002 - the real one keeps it
        self.rows.tokens.setdefault(token.token_id, token)
        self.rows.revoked.add(token.token_id)

    async def add_tenant(self, tenant_id: str, name: str) -> None:
        row = self.rows.tenants.setdefault(tenant_id, TenantRow(tenant_id=tenant_id, name=name, suspended=False))
        if row.name != name:
            raise RakkanError(Code.CONFLICT)

    async def add_client(
        self, client: AddClient, *, secret_hash: bytes | None, account_token_key: bytes | None = None
    ) -> None:
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
            name=client.name,
            profile=client.profile,
            redirect_uris=client.redirect_uris,
            flags=frozenset(client.flags),
            account_token_key=account_token_key,
            certificate_name=client.certificate_name,
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

    async def request(self, request_hash: bytes) -> StoredRequest | None:
        self._answer()
        return self.rows.requests.get(request_hash)

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
    signature_qualifiers: tuple[str, ...] = ()
    changed: dict[str, Any] = field(default_factory=dict)
    """Settings that are not the usual ones."""
    registries: Registries | None = None
    """The trust services that new credentials can come of."""

    @property
    def settings(self) -> Settings:
        return settings(self.attempts_max, self.signature_qualifiers).model_copy(update=self.changed)

    @property
    def trust(self) -> Trust:
        tokens = {key.key_id: key.key.public_key() for key in (self.new_key, self.old_key)}
        sealing = {"operator": self.operator_key.public_key(), "authentication": self.sealing_key.public_key()}
        return Trust(epoch=1, verifying={("authentication", Purpose.TOKENS): tokens}, sealing=sealing)

    def client(self, *, key: SigningKey | None = None, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """A partner's view of the endpoints from an address, with tokens signed by `key` (the new one)."""
        app = make_app(
            self.store,
            self.sam,
            self.trust,
            key or self.new_key,
            self.settings,
            registries=self.registries,
            now=self.clock.now,
        )
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url=ISSUER)

    @property
    def oauth(self) -> OAuth:
        """What the pages have of it, and what an endpoint has."""
        return make_oauth(
            self.store,
            self.sam,
            self.trust,
            self.new_key,
            self.settings,
            registries=self.registries,
            now=self.clock.now,
        )

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


def settings(attempts_max: int = 10, signature_qualifiers: tuple[str, ...] = ()) -> Settings:
    nowhere = Path("/nowhere")
    return Settings(
        broker=Broker(password_file=nowhere),
        trust=TrustFiles(bundle_file=nowhere, messages_key_file=nowhere, sealing_key_file=nowhere),
        database=Database(password_file=nowhere),
        issuer=ISSUER,
        tokens_key_file=nowhere,
        attempts_max=attempts_max,
        signature_qualifiers=signature_qualifiers,
    )

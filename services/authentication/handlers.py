"""What authentication answers on the bus: read, decide, note, act, answer."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from joserfc.jwk import KeySet

from services.authentication.account_tokens import account_token_key
from services.authentication.clients import hash_secret, new_secret
from services.authentication.registration import check_registration
from services.authentication.settings import TOKEN_LIFETIME_MAX_S
from shared.contracts.authentication import (
    Accounts,
    AddClient,
    AddTenant,
    CheckToken,
    ClientAdded,
    ListAccounts,
    SuspendClient,
    SuspendTenant,
    TokenFacts,
)
from shared.contracts.base import Done, Message, R, Reply, Request
from shared.contracts.sam import RevokeTokens
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.sealing import Secrets, seal, unseal
from shared.tokens import AccessToken, read_token
from shared.trust import Trust

# Not the lifetime of the settings: older tokens may have been given a longer one.
_REMEMBERED = timedelta(seconds=TOKEN_LIFETIME_MAX_S, minutes=1)


class Change(Protocol):
    """One transaction of the store."""

    async def add_tenant(self, tenant_id: str, name: str) -> None: ...
    async def add_client(
        self, client: AddClient, *, secret_hash: bytes | None, account_token_key: bytes | None = None
    ) -> None: ...
    async def suspend_client(self, client_id: str, *, suspended: bool) -> None: ...
    async def suspend_tenant(self, tenant_id: str, *, suspended: bool) -> tuple[str, ...]: ...
    async def end_tokens(self, client_id: str, *, issued_before: datetime) -> None: ...
    async def write(self, event_type: str, **facts: Any) -> None: ...


class Store(Protocol):
    async def check_alive(self, token: AccessToken) -> None: ...
    async def accounts(self) -> Accounts: ...
    def change(self) -> AbstractAsyncContextManager[Change]: ...


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


class Handlers:
    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        trust: Trust,
        keys: KeySet,
        sealing_key: X25519PrivateKey,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._bus = bus
        self._trust = trust
        self._keys = keys
        self._sealing_key = sealing_key
        self._now = now

    def by_message(self) -> dict[type[Message], Callable[[Any], Awaitable[Reply | None]]]:
        return {
            CheckToken: self.check_token,
            AddTenant: self.add_tenant,
            AddClient: self.add_client,
            ListAccounts: self.list_accounts,
            SuspendClient: self.suspend_client,
            SuspendTenant: self.suspend_tenant,
        }

    async def check_token(self, request: CheckToken) -> TokenFacts:
        """The signature first: nothing is looked up for a token that is not ours."""
        text = unseal(request.token, key=self._sealing_key, message=CheckToken.TYPE).access_token
        if text is None:
            raise RakkanError(Code.TOKEN_INVALID, "no token")
        token = read_token(text.get_secret_value(), self._keys, now=self._now())
        await self._store.check_alive(token)
        return TokenFacts(client_id=token.client_id, tenant_id=token.tenant_id, scope=token.scope)

    async def add_tenant(self, request: AddTenant) -> Done:
        async with self._store.change() as change:
            await change.add_tenant(request.tenant_id, request.name)
            await change.write("tenant.added", **_by_operator(), tenant=request.tenant_id)
        return Done()

    async def add_client(self, request: AddClient) -> ClientAdded:
        """The secret leaves sealed to the operator, once; here only its hash stays, and what account tokens need."""
        check_registration(request)
        secret = new_secret() if request.method == "client_secret" else None
        secret_hash = hash_secret(request.client_id, secret) if secret else None
        key = account_token_key(secret) if secret and "account-tokens" in request.flags else None
        async with self._store.change() as change:
            await change.add_client(request, secret_hash=secret_hash, account_token_key=key)
            await change.write(
                "client.added",
                **_by_operator(),
                tenant=request.tenant_id,
                subject={"client_id": request.client_id, "method": request.method, "profile": request.profile},
            )
        if secret is None:
            return ClientAdded(client_id=request.client_id)
        sealed = seal(
            Secrets.of(client_secret=secret),
            to=self._trust.sealing_key("operator"),
            message=AddClient.TYPE,
            subject=request.client_id,
        )
        return ClientAdded(client_id=request.client_id, secret=sealed)

    async def list_accounts(self, _: ListAccounts) -> Accounts:
        return await self._store.accounts()

    async def suspend_client(self, request: SuspendClient) -> Done:
        async with self._store.change() as change:
            await change.suspend_client(request.client_id, suspended=request.suspended)
            if request.suspended:
                await self._end_tokens(change, (request.client_id,))
            await change.write(
                f"client.{'suspended' if request.suspended else 'resumed'}",
                **_by_operator(),
                subject={"client_id": request.client_id},
            )
        return Done()

    async def suspend_tenant(self, request: SuspendTenant) -> Done:
        async with self._store.change() as change:
            client_ids = await change.suspend_tenant(request.tenant_id, suspended=request.suspended)
            if request.suspended:
                await self._end_tokens(change, client_ids)
            await change.write(
                f"tenant.{'suspended' if request.suspended else 'resumed'}", **_by_operator(), tenant=request.tenant_id
            )
        return Done()

    async def _end_tokens(self, change: Change, client_ids: tuple[str, ...]) -> None:
        """End every token so far. The rows are locked since the suspension was written, so none is being issued.

        The SAM is asked inside the transaction: when it cannot be reached nothing has happened, and the operator is
        told so. What it has already been told stays; tokens that died early are asked for again.
        """
        now = self._now()
        for client_id in client_ids:
            await change.end_tokens(client_id, issued_before=now)
        for client_id in client_ids:
            await self._bus.ask(RevokeTokens(client_id=client_id, issued_before=now, until=now + _REMEMBERED))


def _by_operator() -> dict[str, str]:
    return {"actor_type": "operator", "actor_id": operation.current().caller}

"""SQL of tokens that are refused before they expire."""

from datetime import datetime

from services.sam.store.base import StoreBase
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.tokens import AccessToken

IS_REFUSED = """
    select exists (select from refused_tokens where token_id = $1)
        or exists (select from refused_clients where client_id = $2 and issued_before >= $3)
"""
_REFUSE_ONE = """
    insert into refused_tokens (token_id, until) values ($1, $2) on conflict (token_id) do nothing
"""
_REFUSE_ALL_OF_CLIENT = """
    insert into refused_clients (client_id, issued_before, until) values ($1, $2, $3)
    on conflict (client_id) do update
        set issued_before = greatest(refused_clients.issued_before, excluded.issued_before),
            until = greatest(refused_clients.until, excluded.until)
"""
_FORGET_ONES = "delete from refused_tokens where until < $1"
_FORGET_CLIENTS = "delete from refused_clients where until < $1"


class TokenStore(StoreBase):
    async def check_token(self, token: AccessToken) -> None:
        """TOKEN_EXPIRED, the word of the CSC for it, when it was revoked, alone or with all of its client."""
        if await self._reads.fetchval(IS_REFUSED, token.token_id, token.client_id, token.issued_at):
            raise RakkanError(Code.TOKEN_EXPIRED, "revoked")

    async def refuse_token(self, connection: Connection, token_id: str, *, until: datetime) -> None:
        await connection.execute(_REFUSE_ONE, token_id, until)

    async def refuse_client(
        self, connection: Connection, client_id: str, *, issued_before: datetime, until: datetime
    ) -> None:
        await connection.execute(_REFUSE_ALL_OF_CLIENT, client_id, issued_before, until)

    async def forget_tokens(self, *, now: datetime) -> None:
        await self._reads.execute(_FORGET_ONES, now)
        await self._reads.execute(_FORGET_CLIENTS, now)

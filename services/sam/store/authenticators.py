"""SQL of authenticators, of the tickets and challenges they are enrolled and used by."""

from dataclasses import replace
from datetime import datetime

import asyncpg

from services.sam.rows import Authenticator, Challenge, Ticket
from services.sam.store.base import StoreBase, changed_one, columns, places, values
from shared.database import Connection
from shared.errors import Code, RakkanError

_AUTHENTICATOR = columns(Authenticator)
_BY_ID = f"select {_AUTHENTICATOR} from authenticators where authenticator_id = $1"
_BY_WEBAUTHN_ID = f"select {_AUTHENTICATOR} from authenticators where webauthn_id = $1"
_OF_SIGNER = f"select {_AUTHENTICATOR} from authenticators where signer_id = $1 order by added_at, authenticator_id"
_ADD = f"insert into authenticators ({_AUTHENTICATOR}) values ({places(Authenticator)}) on conflict do nothing"
_CHANGE = """
    update authenticators set sign_count = $3, removed_at = $4, version = version + 1, mac = $5
    where authenticator_id = $1 and version = $2
"""

_CHALLENGE = columns(Challenge)
_CHALLENGE_BY_ID = f"select {_CHALLENGE} from challenges where challenge_id = $1"
_ADD_CHALLENGE = f"insert into challenges ({_CHALLENGE}) values ({places(Challenge)})"
_SPEND_CHALLENGE = "update challenges set spent = true where challenge_id = $1 and not spent"
_FORGET_CHALLENGES = """
    delete from challenges
    where challenge_id in (select challenge_id from challenges where expires_at < $1 limit 5000 for update skip locked)
"""

_TICKET = columns(Ticket)
_TICKET_BY_HASH = f"select {_TICKET} from tickets where ticket_hash = $1"
_ADD_TICKET = f"insert into tickets ({_TICKET}) values ({places(Ticket)})"
_SPEND_TICKET = "update tickets set spent = true where ticket_hash = $1 and not spent"
_SPEND_TICKETS_OF = "update tickets set spent = true where signer_id = $1 and not spent"


class AuthenticatorStore(StoreBase):
    async def authenticators_of(
        self, signer_id: str, connection: "Connection | None" = None
    ) -> tuple[Authenticator, ...]:
        """All a signer ever had, the oldest first."""
        rows = await (connection or self._reads).fetch(_OF_SIGNER, signer_id)
        return tuple(self._authenticator(row) for row in rows)

    async def locked_authenticator(self, connection: Connection, authenticator_id: str) -> Authenticator | None:
        row = await connection.fetchrow(f"{_BY_ID} for update", authenticator_id)
        return self._authenticator(row) if row else None

    async def locked_passkey(self, connection: Connection, webauthn_id: bytes) -> Authenticator | None:
        row = await connection.fetchrow(f"{_BY_WEBAUTHN_ID} for update", webauthn_id)
        return self._authenticator(row) if row else None

    async def add_authenticator(self, connection: Connection, authenticator: Authenticator) -> None:
        """CONFLICT when the passkey or key is enrolled already, by whomever."""
        added = await connection.execute(_ADD, *values(self._seal.seal(authenticator)))
        if added == "INSERT 0 0":
            raise RakkanError(Code.CONFLICT, "enrolled already")

    async def change_authenticator(self, connection: Connection, authenticator: Authenticator) -> None:
        """Write the row that was read with this version; OVERLOADED when somebody else was faster."""
        sealed = self._seal.seal(replace(authenticator, version=authenticator.version + 1))
        changed = await connection.execute(
            _CHANGE,
            authenticator.authenticator_id,
            authenticator.version,
            authenticator.sign_count,
            authenticator.removed_at,
            sealed.mac,
        )
        changed_one(changed)

    async def note_use(self, connection: Connection, authenticator: Authenticator, *, sign_count: int) -> None:
        """The counter of a passkey that has none stays zero, and then nothing is to be written."""
        if sign_count != authenticator.sign_count:
            await self.change_authenticator(connection, replace(authenticator, sign_count=sign_count))

    async def locked_challenge(self, connection: Connection, challenge_id: str) -> Challenge | None:
        row = await connection.fetchrow(f"{_CHALLENGE_BY_ID} for update", challenge_id)
        return self._seal.check(Challenge(**row)) if row else None

    async def add_challenge(self, connection: Connection, challenge: Challenge) -> None:
        await connection.execute(_ADD_CHALLENGE, *values(self._seal.seal(challenge)))

    async def spend_challenge(self, connection: Connection, challenge_id: str) -> None:
        if await connection.execute(_SPEND_CHALLENGE, challenge_id) != "UPDATE 1":
            raise RakkanError(Code.CONTEXT_SPENT)

    async def forget_challenges(self, *, before: datetime) -> None:
        await self._reads.execute(_FORGET_CHALLENGES, before)

    async def ticket(self, connection: Connection, ticket_hash: bytes) -> Ticket | None:
        row = await connection.fetchrow(_TICKET_BY_HASH, ticket_hash)
        return self._seal.check(Ticket(**row)) if row else None

    async def add_ticket(self, connection: Connection, ticket: Ticket) -> None:
        """A new ticket ends those of the same signer that wait."""
        await connection.execute(_SPEND_TICKETS_OF, ticket.signer_id)
        await connection.execute(_ADD_TICKET, *values(self._seal.seal(ticket)))

    async def spend_ticket(self, connection: Connection, ticket_hash: bytes) -> None:
        if await connection.execute(_SPEND_TICKET, ticket_hash) != "UPDATE 1":
            raise RakkanError(Code.TICKET_REFUSED)

    def _authenticator(self, row: asyncpg.Record) -> Authenticator:
        return self._seal.check(Authenticator(**row))

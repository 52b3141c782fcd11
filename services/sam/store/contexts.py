"""SQL of contexts, and of the evidence they were approved by."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from services.sam.rows import ContextRow, Evidence
from services.sam.store.base import StoreBase, columns, places, values
from shared.database import Connection
from shared.errors import Code, RakkanError

_CONTEXT = columns(ContextRow)
_CONTEXT_BY_ID = f"select {_CONTEXT} from contexts where context_id = $1"
_WAITING_MAX = "$13"
_ADD_CONTEXT = f"""
    insert into contexts ({_CONTEXT}) select {places(ContextRow)}
    where (select count(*) from contexts where credential_id = $4 and outcome = 'open' and expires_at > now())
        < {_WAITING_MAX}
"""
_DECIDE = "update contexts set outcome = $2, decided_at = $3 where context_id = $1 and outcome = 'open'"
_DECIDED = f"""
    select {", ".join(f"c.{name}" for name in _CONTEXT.split(", "))}, coalesce(a.used, 0) as signed
    from contexts c left join authorizations a on a.request_id = 'context:' || c.context_id
    where c.signer_id = $1 and c.outcome <> 'open' order by c.decided_at desc limit $2
"""
_FORGET_CONTEXTS = """
    delete from contexts
    where context_id in (
        select context_id from contexts where outcome = 'open' and expires_at < $1 limit 5000 for update skip locked
    )
"""
_EVIDENCE = columns(Evidence)
_ADD_EVIDENCE = f"insert into evidence ({_EVIDENCE}) values ({places(Evidence)})"
_EVIDENCE_OF = f"select {_EVIDENCE} from evidence where context_id = $1"


@dataclass(frozen=True, slots=True)
class Decided:
    """A context that was approved or refused, and how many of its hashes were signed since."""

    row: ContextRow
    signed: int


class ContextStore(StoreBase):
    async def context(self, context_id: str) -> ContextRow | None:
        row = await self._reads.fetchrow(_CONTEXT_BY_ID, context_id)
        return self._context(row) if row else None

    async def locked_context(self, connection: Connection, context_id: str) -> ContextRow | None:
        row = await connection.fetchrow(f"{_CONTEXT_BY_ID} for update", context_id)
        return self._context(row) if row else None

    async def add_context(self, connection: Connection, context: ContextRow, *, waiting_max: int) -> None:
        """OVERLOADED when too many wait for the credential's signer."""
        sealed = self._seal.seal(context)
        if await connection.execute(_ADD_CONTEXT, *values(sealed), waiting_max) == "INSERT 0 0":
            raise RakkanError(Code.OVERLOADED, "too many contexts wait for this credential")

    async def decide_context(self, connection: Connection, context_id: str, outcome: str, *, at: datetime) -> None:
        if await connection.execute(_DECIDE, context_id, outcome, at) != "UPDATE 1":
            raise RakkanError(Code.CONTEXT_SPENT)

    async def decided(self, signer_id: str, *, limit: int) -> list[Decided]:
        """Newest first."""
        rows = [dict(row) for row in await self._reads.fetch(_DECIDED, signer_id, limit)]
        return [Decided(signed=row.pop("signed"), row=self._seal.check(ContextRow(**row))) for row in rows]

    async def forget_contexts(self, *, before: datetime) -> None:
        """Those that nobody decided."""
        await self._reads.execute(_FORGET_CONTEXTS, before)

    async def add_evidence(self, connection: Connection, evidence: Evidence) -> None:
        await connection.execute(_ADD_EVIDENCE, *values(self._seal.seal(evidence)))

    async def evidence(self, context_id: str, connection: "Connection | None" = None) -> Evidence | None:
        row = await (connection or self._reads).fetchrow(_EVIDENCE_OF, context_id)
        return self._seal.check(Evidence(**row)) if row else None

    def _context(self, row: asyncpg.Record) -> ContextRow:
        return self._seal.check(ContextRow(**row))

"""All SQL of notices: where signers want them, and those that wait to be sent."""

from collections.abc import Callable
from datetime import datetime, timedelta

import asyncpg

from services.authentication.notices import Notice, Outcome
from shared.audit import AuditWriter
from shared.contracts.authentication import NoticeAuthenticator
from shared.database import Pool, reachable
from shared.errors import Code, RakkanError
from shared.messaging import operation

_SET_ADDRESS = """
    insert into notice_addresses (tenant_id, user_id, email, set_at) values ($1, $2, $3, $4)
    on conflict (tenant_id, user_id) do update set email = excluded.email, set_at = excluded.set_at
"""
_REMOVE_ADDRESS = "delete from notice_addresses where tenant_id = $1 and user_id = $2"
_ADD = """
    insert into notices (notice_id, tenant_id, user_id, added_at, usable_from, next_try_at)
    values ($1, $2, $3, $4, $5, $6)
    on conflict (notice_id) do nothing
"""
_DUE = """
    select n.notice_id, n.tenant_id, n.user_id, n.added_at, n.usable_from, n.attempts, a.email
    from notices n left join notice_addresses a using (tenant_id, user_id)
    where n.ended_at is null and n.next_try_at <= $1
    order by n.next_try_at
    limit $2
    for update of n skip locked
"""
_PUT_OFF = "update notices set attempts = attempts + 1, next_try_at = $2 where notice_id = $1"
_END = "update notices set outcome = $2, ended_at = $3 where notice_id = $1 and ended_at is null returning notice_id"


class NoticeStore:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    async def set_address(self, tenant_id: str, user_id: str, email: str | None, *, at: datetime) -> None:
        """NOT_FOUND when there is no such tenant. The address itself does not go into the audit log."""
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                try:
                    if email is None:
                        await connection.execute(_REMOVE_ADDRESS, tenant_id, user_id)
                    else:
                        await connection.execute(_SET_ADDRESS, tenant_id, user_id, email, at)
                except asyncpg.ForeignKeyViolationError:
                    raise RakkanError(Code.NOT_FOUND, f"no tenant {tenant_id}") from None
                await self._audit.write(
                    connection,
                    f"notice_address.{'removed' if email is None else 'set'}",
                    actor_type="operator",
                    actor_id=operation.current().caller,
                    tenant=tenant_id,
                    subject={"user_id": user_id},
                )

    async def add_notice(self, notice: NoticeAuthenticator, *, at: datetime) -> None:
        """Once more is the same notice."""
        with reachable():
            await self._pool.execute(
                _ADD,
                notice.authenticator_id,
                notice.tenant_id,
                notice.user_id,
                notice.added_at,
                notice.usable_from,
                at,
            )

    async def take_notices(self, limit: int, *, now: datetime, wait_s: Callable[[int], float]) -> list[Notice]:
        """Those whose time has come. Nobody else gets them before their next time."""
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                notices = [Notice(**row) for row in await connection.fetch(_DUE, now, limit)]
                for notice in notices:
                    again_at = now + timedelta(seconds=wait_s(notice.attempts))
                    await connection.execute(_PUT_OFF, notice.notice_id, again_at)
        return notices

    async def end_notice(self, notice: Notice, outcome: Outcome, *, reason: str, at: datetime) -> None:
        """Sent (`reason`: to whom) or given up (`reason`: why), with its leaf."""
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.fetchval(_END, notice.notice_id, outcome, at) is None:
                    return
                sent = outcome == "sent"
                await self._audit.write(
                    connection,
                    f"notice.{outcome}",
                    actor_type="room",
                    actor_id="authentication",
                    tenant=notice.tenant_id,
                    subject={"user_id": notice.user_id, "authenticator_id": notice.notice_id}
                    | ({"to": reason} if sent else {}),
                    **({} if sent else {"outcome": "failure", "reason_code": reason}),
                )

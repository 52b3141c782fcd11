"""All SQL about signers in front of a browser: sessions, passwords, log-ins under way, contexts on show."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from services.authentication.approving import Shown
from services.authentication.idp import Flow
from services.authentication.passwords import Password
from services.authentication.sessions import SessionRow
from shared.audit import AuditWriter
from shared.contracts.approval import ContextOpened
from shared.database import Pool, reachable
from shared.errors import Code, RakkanError

_COLUMNS = "visit_id, tenant_id, user_id, display_name, method, language, seen_at, expires_at"
_SESSION = f"select {_COLUMNS} from sessions where session_hash = $1 and ended_at is null"
_ADD_SESSION = f"""
    insert into sessions (session_hash, {_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_SEE = "update sessions set seen_at = $2 where session_hash = $1 and ended_at is null"
_LANGUAGE = "update sessions set language = $2 where session_hash = $1 and ended_at is null"
_END_SESSION = """
    update sessions set ended_at = $2 where session_hash = $1 and ended_at is null returning session_hash
"""
_END_PASSWORD_SESSIONS = """
    update sessions set ended_at = $3
    where tenant_id = $1 and user_id = $2 and method = 'password' and ended_at is null
"""
_PASSWORD_COLUMNS = "tenant_id, user_id, display_name, password_hash, totp_sealed, totp_step"
_HAS_PASSWORD = "select true from passwords where tenant_id = $1 and user_id = $2"
# Charged before it is verified: of many guesses at once, one is verified. The wait doubles up to a quarter of an hour.
_CHARGE = f"""
    update passwords set failures = failures + 1, not_before = $3 + least(power(2, failures), 900) * interval '1 second'
    where tenant_id = $1 and user_id = $2 and not_before <= $3
    returning {_PASSWORD_COLUMNS}
"""
_SUCCEED = """
    update passwords set failures = 0, not_before = '1970-01-01T00:00:00Z', totp_step = $3
    where tenant_id = $1 and user_id = $2 and totp_step < $3
    returning user_id
"""
_SET_PASSWORD = f"""
    insert into passwords ({_PASSWORD_COLUMNS}) values ($1, $2, $3, $4, $5, $6)
    on conflict (tenant_id, user_id) do update set
        display_name = excluded.display_name, password_hash = excluded.password_hash,
        totp_sealed = excluded.totp_sealed, totp_step = excluded.totp_step, failures = 0,
        not_before = '1970-01-01T00:00:00Z', set_at = now()
"""
_REMOVE_PASSWORD = "delete from passwords where tenant_id = $1 and user_id = $2"
_KEEP_FLOW = """
    insert into idp_logins (state_hash, visit_id, nonce, code_verifier, continue_to, expires_at)
    values ($1, $2, $3, $4, $5, $6)
"""
_TAKE_FLOW = """
    delete from idp_logins where state_hash = $1 and visit_id = $2
    returning visit_id, nonce, code_verifier, continue_to, expires_at
"""
_SHOWN = "select visit_id, context, expires_at from shown_contexts where request_hash = $1"
# Two tabs open two contexts for one request: the first is the one that counts, in both.
_SHOW = """
    insert into shown_contexts (request_hash, visit_id, context_id, context, expires_at) values ($1, $2, $3, $4, $5)
    on conflict (request_hash) do update set
        context_id = excluded.context_id, context = excluded.context, expires_at = excluded.expires_at
        where shown_contexts.visit_id = excluded.visit_id and shown_contexts.context_id = $6
"""
_SWEEP = (
    """delete from sessions
       where session_hash in (select session_hash from sessions where expires_at < $1 limit 5000)""",
    "delete from idp_logins where state_hash in (select state_hash from idp_logins where expires_at < $1 limit 5000)",
    """delete from shown_contexts
       where request_hash in (select request_hash from shown_contexts where expires_at < $1 limit 5000)""",
)
_KEPT_AFTER_EXPIRY = timedelta(minutes=5)  # clocks of two machines differ


class AccountStore:
    def __init__(self, pool: Pool, audit: AuditWriter) -> None:
        self._pool = pool
        self._audit = audit

    # --- sessions ---

    async def session(self, session_id: str) -> SessionRow | None:
        with reachable():
            row = await self._pool.fetchrow(_SESSION, _hash(session_id))
        return None if row is None else SessionRow(**row)

    async def add_session(self, session_id: str, row: SessionRow) -> None:
        with reachable():
            await self._pool.execute(_ADD_SESSION, _hash(session_id), *_values(row))

    async def see(self, session_id: str, *, at: datetime) -> None:
        with reachable():
            await self._pool.execute(_SEE, _hash(session_id), at)

    async def speak(self, session_id: str, language: str) -> None:
        with reachable():
            await self._pool.execute(_LANGUAGE, _hash(session_id), language)

    async def log_in(self, old_id: str, new_id: str, row: SessionRow, *, at: datetime) -> None:
        """The old session ends as the new one begins; FORBIDDEN when it had ended already."""
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.fetchval(_END_SESSION, _hash(old_id), at) is None:
                    raise RakkanError(Code.FORBIDDEN, "the session has ended")
                await connection.execute(_ADD_SESSION, _hash(new_id), *_values(row))
                await self._audit.write(
                    connection,
                    "signer.logged_in",
                    actor_type="signer",
                    actor_id=row.user_id or "",
                    tenant=row.tenant_id,
                    subject={"method": row.method or ""},
                )

    async def end_session(self, session_id: str, *, at: datetime) -> None:
        with reachable():
            await self._pool.execute(_END_SESSION, _hash(session_id), at)

    async def note_refused(self, *, tenant_id: str, user_id: str, method: str, reason: str) -> None:
        """A log-in that failed. The names are as they were typed: of a stranger they say nothing."""
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                await self._audit.write(
                    connection,
                    "signer.login_refused",
                    actor_type="signer",
                    actor_id=user_id,
                    tenant=tenant_id or None,
                    subject={"method": method},
                    outcome="refused",
                    reason_code=reason,
                )

    # --- passwords ---

    async def has_password(self, tenant_id: str, user_id: str) -> bool:
        with reachable():
            return bool(await self._pool.fetchval(_HAS_PASSWORD, tenant_id, user_id))

    async def charge(self, tenant_id: str, user_id: str, *, at: datetime) -> Password | None:
        """The password with one try charged; None when there is none or its time has not come."""
        with reachable():
            row = await self._pool.fetchrow(_CHARGE, tenant_id, user_id, at)
        return None if row is None else Password(**row)

    async def succeed(self, password: Password, *, step: int) -> None:
        """Forgive the tries and spend the code; OTP_INVALID when the code was spent meanwhile."""
        with reachable():
            if await self._pool.fetchval(_SUCCEED, password.tenant_id, password.user_id, step) is None:
                raise RakkanError(Code.OTP_INVALID)

    async def set_password(self, password: Password) -> None:
        await self._change_password(password.tenant_id, password.user_id, "password.set", password)

    async def remove_password(self, tenant_id: str, user_id: str, *, at: datetime) -> None:
        """Sessions that it opened end with it."""
        await self._change_password(tenant_id, user_id, "password.removed", at)

    async def _change_password(self, tenant_id: str, user_id: str, event: str, change: Password | datetime) -> None:
        with reachable():
            async with self._pool.acquire() as connection, connection.transaction():
                if isinstance(change, Password):
                    await connection.execute(_SET_PASSWORD, *_password_values(change))
                else:
                    await connection.execute(_REMOVE_PASSWORD, tenant_id, user_id)
                    await connection.execute(_END_PASSWORD_SESSIONS, tenant_id, user_id, change)
                await self._audit.write(connection, event, actor_type="signer", actor_id=user_id, tenant=tenant_id)

    # --- log-ins under way elsewhere ---

    async def keep_flow(self, state: str, flow: Flow) -> None:
        with reachable():
            await self._pool.execute(
                _KEEP_FLOW,
                _hash(state),
                flow.visit_id,
                flow.nonce,
                flow.code_verifier,
                flow.continue_to,
                flow.expires_at,
            )

    async def take_flow(self, state: str, *, visit_id: str) -> Flow | None:
        """Once, and only in the browser that began it."""
        with reachable():
            row = await self._pool.fetchrow(_TAKE_FLOW, _hash(state), visit_id)
        return None if row is None else Flow(**row)

    # --- contexts on show ---

    async def shown(self, request_id: str) -> Shown | None:
        with reachable():
            row = await self._pool.fetchrow(_SHOWN, _hash(request_id))
        if row is None:
            return None
        return Shown(request_id, row["visit_id"], ContextOpened.model_validate_json(row["context"]))

    async def show(self, shown: Shown, *, instead_of: str | None) -> None:
        """Keep what is shown for a request, unless another came first."""
        context = shown.context
        with reachable():
            await self._pool.execute(
                _SHOW,
                _hash(shown.request_id),
                shown.visit_id,
                context.context_id,
                context.model_dump_json(),
                context.expires_at,
                instead_of or "",
            )

    async def sweep(self, *, now: datetime) -> None:
        """Forget what expired, some thousands at a time."""
        with reachable():
            for statement in _SWEEP:
                await self._pool.execute(statement, now - _KEPT_AFTER_EXPIRY)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _values(row: SessionRow) -> tuple[Any, ...]:
    return (
        row.visit_id,
        row.tenant_id,
        row.user_id,
        row.display_name,
        row.method,
        row.language,
        row.seen_at,
        row.expires_at,
    )


def _password_values(password: Password) -> tuple[Any, ...]:
    return (
        password.tenant_id,
        password.user_id,
        password.display_name,
        password.password_hash,
        password.totp_sealed,
        password.totp_step,
    )

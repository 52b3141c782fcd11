"""Verifying a signer's factors: charge a try, commit, verify, give the tries back."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Protocol
from weakref import WeakValueDictionary

from services.sam import factors
from services.sam.rows import RowSeal, Signer
from services.sam.settings import Factors
from shared.audit import AuditWriter
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.sealing import Secrets


class SignerStore(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...

    async def locked_signer(self, connection: Connection, signer_id: str) -> Signer: ...

    async def change_signer(self, connection: Connection, signer: Signer) -> None: ...


class Pepper(Protocol):
    async def pepper(self, signer_id: str, hashed_pin: bytes) -> bytes: ...


class FactorVerifier:
    """Argon2id takes 64 MiB and a core for a while: two at once, the rest waits."""

    def __init__(
        self,
        store: SignerStore,
        token: Pepper,
        seal: RowSeal,
        audit: AuditWriter,
        limits: Factors,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._token = token
        self._seal = seal
        self._audit = audit
        self._limits = limits
        self._now = now
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._hashing = ThreadPoolExecutor(2, thread_name_prefix="argon2")

    async def verifier(self, signer_id: str, pin: str, salt: bytes) -> bytes:
        """What is kept of a PIN."""
        hashed = await asyncio.get_running_loop().run_in_executor(self._hashing, factors.hash_pin, pin, salt)
        return await self._token.pepper(signer_id, hashed)

    async def verify(self, signer_id: str, secrets: Secrets, *, otp_required: bool) -> str:
        """The factors that were verified, for the record; PIN_*, OTP_* or FACTOR_UNKNOWN otherwise."""
        # One at a time for a signer: tries are charged first, and a batch of right PINs must not look like guessing.
        async with self._turns.setdefault(signer_id, asyncio.Lock()):
            await self._verify_pin(signer_id, secrets.pin.get_secret_value() if secrets.pin else "")
            if not otp_required:
                return "PIN"
            await self._verify_otp(signer_id, secrets.otp.get_secret_value() if secrets.otp else "")
            return "PIN OTP"

    async def _verify_pin(self, signer_id: str, pin: str) -> None:
        async with self._store.transaction() as connection:
            signer = await self._store.locked_signer(connection, signer_id)
            await self._store.change_signer(connection, factors.charge_pin(signer))
        try:
            factors.check_pin(signer, await self.verifier(signer_id, pin, signer.pin_salt))
        except RakkanError as refusal:
            await self._note_refused(signer, "factor.pin_refused", refusal.code)
            raise
        async with self._store.transaction() as connection:
            signer = await self._store.locked_signer(connection, signer_id)
            await self._store.change_signer(connection, replace(signer, pin_tries_left=self._limits.pin_tries))

    async def _verify_otp(self, signer_id: str, otp: str) -> None:
        async with self._store.transaction() as connection:
            signer = await self._store.locked_signer(connection, signer_id)
            await self._store.change_signer(connection, factors.charge_otp(signer))
        refused: RakkanError | None = None
        async with self._store.transaction() as connection:
            # The row stays locked from the look at the last step to its change: one code, one use.
            signer = await self._store.locked_signer(connection, signer_id)
            secret = self._seal.reveal(signer.totp_secret or b"", subject=signer_id).decode()
            try:
                step = factors.check_otp(secret, otp, last_step=signer.otp_last_step, unix_s=self._now().timestamp())
            except RakkanError as refusal:
                refused = refusal
            else:
                renewed = replace(signer, otp_tries_left=self._limits.otp_tries, otp_last_step=step)
                await self._store.change_signer(connection, renewed)
        if refused is not None:
            await self._note_refused(signer, "factor.otp_refused", refused.code)
            raise refused

    async def _note_refused(self, signer: Signer, event: str, code: Code) -> None:
        async with self._store.transaction() as connection:
            await self._audit.write(
                connection,
                event,
                actor_type="signer",
                actor_id=signer.signer_id,
                tenant=signer.tenant_id,
                outcome="refused",
                reason_code=code.value,
            )

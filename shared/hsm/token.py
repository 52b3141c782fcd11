"""The token as the event loop sees it: one PKCS#11 thread for the process, one job after the other. Knows no room.

python-pkcs11 starts the module without locks and releases the GIL in every call: two threads crash. So there is one.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from threading import Lock
from typing import Self, TypeVar

import pkcs11
import structlog

from shared.algorithms import KeyAlgorithm, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.hsm.session import Session
from shared.settings import HSM, secret

T = TypeVar("T")

_HANG_S = 60.0
_REOPEN_S = 1.0
_one_per_process = Lock()
log = structlog.get_logger()


class Token:
    """One PKCS#11 token, this room's own. Every failure is a RakkanError; a token that went is tried again."""

    def __init__(self, settings: HSM, *, hang_s: float) -> None:
        self._settings = settings
        self._hang_s = hang_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pkcs11")
        self._session: Session | None = None
        self._reopen_not_before = 0.0
        self._job_began: float | None = None
        self.serial = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: HSM, *, hang_s: float = _HANG_S) -> AsyncIterator[Self]:
        """Load the module, log in. HSM_UNAVAILABLE when that fails. A job longer than `hang_s` ends the process."""
        if not _one_per_process.acquire(blocking=False):
            raise RuntimeError("this process has a token open already; PKCS#11 allows it one thread")
        token = cls(settings, hang_s=hang_s)
        watch = asyncio.create_task(token._watch())
        try:
            await token.run(lambda _: None)
            yield token
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            await asyncio.get_running_loop().run_in_executor(token._thread, token._close)
            token._thread.shutdown()
            _one_per_process.release()

    async def run(self, job: Callable[[Session], T]) -> T:
        """Run one job on the PKCS#11 thread. A batch is one job: the hand-over costs more than a P-256 signature."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, job)

    async def mac(self, label: str, data: bytes) -> bytes:
        """HMAC-SHA-256 under a secret key that never leaves the token. KEY_UNKNOWN without such a key."""
        return await self.run(lambda session: session.mac(label, data))

    async def sign(self, label: str, algorithm: SignatureAlgorithm, digest: bytes) -> bytes:
        """One value by a key of the token; ECDSA as DER."""
        return (await self.run(lambda session: session.sign(label, algorithm, (digest,))))[0]

    async def public_key(self, label: str) -> bytes:
        """DER SubjectPublicKeyInfo of a key of the token."""
        return await self.run(lambda session: session.public_key(label))

    async def probe(self) -> None:
        """Raise HSM_UNAVAILABLE when the token or a key that was in use is gone."""
        await self.run(lambda session: session.probe())

    async def create_mac_key(self, label: str) -> bool:
        """Ceremony: whether it was created; an existing key is kept."""
        return await self.run(lambda session: session.create_mac_key(label))

    async def create_signing_key(self, label: str, algorithm: KeyAlgorithm) -> bool:
        """Ceremony: whether it was created; an existing key is kept."""
        return await self.run(lambda session: session.create_signing_key(label, algorithm))

    async def ceremony_kek(self, so_pin: str, *, label: str = "kek-1") -> bool:
        """Ceremony: whether it was created; an existing trusted KEK is kept."""
        return await self.run(lambda session: session.create_kek(label, so_pin))

    async def generate_wrapped(self, algorithm: KeyAlgorithm, *, kek: str = "kek-1") -> tuple[bytes, bytes]:
        """DER SubjectPublicKeyInfo and the wrapped private key."""
        return await self.run(lambda session: session.generate_wrapped(kek, algorithm))

    async def sign_wrapped(
        self,
        wrapped: bytes,
        key_algorithm: KeyAlgorithm,
        algorithm: SignatureAlgorithm,
        digests: tuple[bytes, ...],
        *,
        kek: str = "kek-1",
    ) -> tuple[bytes, ...]:
        """Unwrap, sign all, destroy, as one job. KEY_DAMAGED when the HSM does not take the wrapped key."""
        return await self.run(lambda session: session.sign_wrapped(kek, wrapped, key_algorithm, algorithm, digests))

    # On the PKCS#11 thread

    def _run(self, job: Callable[[Session], T]) -> T:
        self._job_began = time.monotonic()
        try:
            return job(self._opened())
        except pkcs11.PKCS11Error as error:
            self._forget()
            raise RakkanError(Code.HSM_UNAVAILABLE, f"PKCS#11 {type(error).__name__}") from None
        except RakkanError as error:
            if error.code is Code.HSM_UNAVAILABLE:
                self._forget()
            raise
        finally:
            self._job_began = None

    def _opened(self) -> Session:
        if self._session is None:
            now = time.monotonic()
            if now < self._reopen_not_before:
                raise RakkanError(Code.HSM_UNAVAILABLE, "the token went and is tried again in a moment")
            self._reopen_not_before = now + _REOPEN_S
            # A module finds new tokens only when it starts. `Session.close` ended it, this starts it.
            self._session = Session(self._settings.module, self._settings.token_label, secret(self._settings.pin_file))
            self.serial = self._session.serial
            log.info("token opened", token=self._settings.token_label, serial=self.serial)
        return self._session

    def _forget(self) -> None:
        # Handles and a half-done operation may be left behind: nothing of this session is used again.
        if self._session is not None:
            log.error("token lost", token=self._settings.token_label)
            self._close()

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    async def _watch(self) -> None:
        # A call into native code cannot be cancelled. When it hangs, only a new process helps: the supervisor's work.
        while True:
            await asyncio.sleep(self._hang_s / 60)
            began = self._job_began
            if began is not None and time.monotonic() - began > self._hang_s:
                log.critical("the PKCS#11 module hangs; the process ends", seconds=self._hang_s)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(os.EX_TEMPFAIL)

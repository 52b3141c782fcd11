"""The room's readers: processes that parse and judge what came from outside, so that no input can hold up the room.

A reader that dies or takes too long is replaced. What it had in hand is refused as untrusted; what waited behind it is
read by its successor. Knows the pipe and the processes; what a token must be is `token.py`, in the reader.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from services.tsa_connector.frames import (
    LENGTHS,
    Link,
    Reading,
    lengths,
    loads,
    pack,
    reading_in,
    text,
)
from services.tsa_connector.reader import token_head
from services.tsa_connector.request import TimestampRequest
from services.tsa_connector.revocation import Revocation
from services.tsa_connector.settings import Readers
from shared.errors import Code, RakkanError
from shared.registry import TimeStampingAuthority

log = structlog.get_logger()

_START_S = 30.0
_PAUSE_S = (0.1, 5.0)
_TRUST_FIELDS = {
    "anchors",
    "clock_tolerance_s",
    "policies",
    "accuracy_max_ms",
    "allow_ess_v1",
    "qualified_statement",
}

Frame = tuple[dict[str, Any], bytes]


@dataclass(frozen=True)
class _Job:
    frame: bytes
    answer: "asyncio.Future[Frame]"


class _Reader:
    """One process after another, with the jobs it has in hand, oldest first."""

    def __init__(self, settings: Readers, trust: bytes) -> None:
        self._settings = settings
        self._trust = trust
        self._process: asyncio.subprocess.Process | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self.jobs: deque[_Job] = deque()
        self.ready = asyncio.Event()
        self.restarts = 0

    def use(self, trust: bytes) -> None:
        self._trust = trust
        self._write(trust)

    def read(self, frame: bytes) -> "asyncio.Future[Frame]":
        job = _Job(frame, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        self._write(frame)
        if len(self.jobs) == 1:
            self._set_alarm()
        return job.answer

    async def keep(self) -> None:
        """Have a process running, for as long as this is awaited."""
        pause_s = _PAUSE_S[0]
        while True:
            process = await self._start()
            try:
                await self._greeting(process)
                pause_s = _PAUSE_S[0]
                while True:
                    self._answered(await _frame(process))
            except (asyncio.IncompleteReadError, TimeoutError, ValueError, ConnectionError):
                log.warning("reader ended", pid=process.pid, count=len(self.jobs))
            finally:
                # Only what it had in hand when it ended; what comes while its end is awaited is its successor's.
                to_blame = self.jobs.popleft() if self.ready.is_set() and self.jobs else None
                self._process = None
                self.ready.clear()
                self._drop_alarm()
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            self.restarts += 1
            if to_blame is not None:
                self._refuse(to_blame)
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _PAUSE_S[1])

    async def _start(self) -> asyncio.subprocess.Process:
        settings = self._settings
        arguments = (str(settings.memory_bytes), str(settings.cpu_s))
        # Nothing of the room's settings: whoever takes over a reader shall not even learn where secrets lie.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAKKAN_")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.tsa_connector.reader",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    async def _greeting(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(_START_S):
            await _frame(process)
        self._process = process
        self._write(self._trust)
        for job in self.jobs:
            self._write(job.frame)
        if self.jobs:
            self._set_alarm()
        self.ready.set()

    def _write(self, frame: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(frame)

    def _answered(self, frame: Frame) -> None:
        job = self.jobs.popleft()
        self._drop_alarm()
        if self.jobs:
            self._set_alarm()
        if not job.answer.done():
            job.answer.set_result(frame)

    def _refuse(self, job: _Job) -> None:
        if not job.answer.done():
            job.answer.set_exception(
                RakkanError(Code.TSA_UNTRUSTED, "an answer that could not be read within its limits")
            )

    def _set_alarm(self) -> None:
        if self._process is not None:
            self._alarm = asyncio.get_running_loop().call_later(self._settings.wait_s, self._kill, self._process)

    def _drop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    @staticmethod
    def _kill(process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.kill()


class ReaderPool:
    """Several readers; each job goes to the one with the least in hand."""

    def __init__(self, settings: Readers, tsas: Mapping[str, TimeStampingAuthority]) -> None:
        self._readers = [_Reader(settings, _trust(tsas)) for _ in range(settings.processes)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ReaderPool"]:
        keeping = [asyncio.create_task(reader.keep(), name="reader") for reader in self._readers]
        try:
            await asyncio.gather(*(reader.ready.wait() for reader in self._readers))
            yield self
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    @property
    def restarts(self) -> int:
        return sum(reader.restarts for reader in self._readers)

    async def check(self) -> None:
        """UNAVAILABLE when no reader is ready."""
        if not any(reader.ready.is_set() for reader in self._readers):
            raise RakkanError(Code.UNAVAILABLE, "no reader is ready")

    def use(self, tsas: Mapping[str, TimeStampingAuthority]) -> None:
        """From the next job on believe these by what the registry says now."""
        trust = _trust(tsas)
        for reader in self._readers:
            reader.use(trust)

    async def read_token(
        self,
        body: bytes,
        *,
        tsa: str,
        request: TimestampRequest,
        asked_at: datetime,
        now: datetime,
        with_certificates: bool,
    ) -> Reading:
        """The token in the answer, judged; TSA_UNTRUSTED, TSA_REFUSED or TSA_UNAVAILABLE when there is none to have."""
        head = token_head(tsa, request, asked_at=asked_at, now=now, with_certificates=with_certificates)
        return reading_in(*await self._read(pack(head, body)))

    async def read_status(self, kind: str, body: bytes, link: Link, *, now: datetime) -> Revocation:
        """`kind` is `crl` or `ocsp`. TSA_UNTRUSTED when it is no status of this certificate for now."""
        names = {"certificate": text(link.certificate), "issuer": text(link.issuer)}
        told, _ = await self._read(pack({"op": kind, "now": now.isoformat(), **names}, body))
        return Revocation(told["is_revoked"], datetime.fromisoformat(told["until"]))

    async def _read(self, frame: bytes) -> Frame:
        reader = min(self._readers, key=lambda one: (not one.ready.is_set(), len(one.jobs)))
        told, blob = await reader.read(frame)
        if "code" in told:
            raise RakkanError(Code(told["code"]), told["detail"])
        return told, blob


async def _frame(process: asyncio.subprocess.Process) -> Frame:
    if process.stdout is None:
        raise ConnectionError
    head_bytes, blob_bytes = lengths(await process.stdout.readexactly(LENGTHS.size))
    head = await process.stdout.readexactly(head_bytes)
    return loads(head), await process.stdout.readexactly(blob_bytes)


def _trust(tsas: Mapping[str, TimeStampingAuthority]) -> bytes:
    return pack({"op": "trust", "tsas": {name: tsa.model_dump(include=_TRUST_FIELDS) for name, tsa in tsas.items()}})

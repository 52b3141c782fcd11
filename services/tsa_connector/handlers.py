"""What the TSA connector does with a message."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog

from services.tsa_connector.answer import read_answer
from services.tsa_connector.request import make_request
from services.tsa_connector.token import TrustedTSA, check_answer
from shared.algorithms import Hash
from shared.contracts.tsa_connector import Timestamp, Timestamps, TimestampToken
from shared.errors import RakkanError

log = structlog.get_logger()


class Endpoint(Protocol):
    async def ask(self, query: bytes) -> bytes: ...


class Handlers:
    def __init__(
        self,
        *,
        endpoint: Endpoint,
        tsa: TrustedTSA,
        hashes: tuple[Hash, ...],
        policy: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.endpoint = endpoint
        self.tsa = tsa
        self.hashes = hashes
        self.policy = policy
        self.now = now

    async def timestamp(self, message: Timestamp) -> Timestamps:
        """Ask the TSA, and answer with its token once every check has passed."""
        asked_at = self.now()
        request = make_request(
            message.digest, message.hash, allowed=self.hashes, nonce=message.nonce, policy=self.policy
        )
        try:
            answer = read_answer(await self.endpoint.ask(request.der()))
            token = check_answer(answer, request, self.tsa, asked_at=asked_at, now=self.now()).timely()
        except RakkanError as refusal:
            # One untrue token is a broken clock, a broken server or an attack: the operator must hear of each.
            log.warning("time stamp refused", code=refusal.code, detail=refusal.detail)
            raise
        log.info(
            "time stamp obtained",
            serial_number=f"{token.info.serial_number:x}",
            policy=token.info.policy,
            offset_s=round((token.info.time - self.now()).total_seconds(), 3),
        )
        obtained = TimestampToken(
            token=token.der,
            time=token.info.time,
            authority="local",
            policy=token.info.policy,
            serial_number=f"{token.info.serial_number:x}",
        )
        return Timestamps(tokens=(obtained,))

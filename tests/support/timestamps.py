"""A request for a time stamp and an answer to it, for tests that are about something else."""

from datetime import UTC, datetime
from typing import Any

from shared.algorithms import Hash
from shared.contracts.tsa_connector import Timestamp, Timestamps, TimestampToken


def asking(digest: bytes = b"d" * 32, hash_: Hash = Hash.SHA256, **more: Any) -> Timestamp:
    return Timestamp(digest=digest, hash=hash_, tenant_id="acme", client_id="acme-app", **more)


ANSWER = Timestamps(
    tokens=(
        TimestampToken(
            token=b"token",
            time=datetime(2026, 1, 1, tzinfo=UTC),
            authority="clock",
            policy="2.999.1",
            serial_number="1",
        ),
    )
)

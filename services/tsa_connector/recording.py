"""What a request leaves behind: audit leaves of every token and refusal, written for many requests at once."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from services.tsa_connector.asking import Attempt, Question
from services.tsa_connector.batching import Batching
from services.tsa_connector.obtaining import NoTokenError, Obtained
from services.tsa_connector.store import Entry
from shared.audit import digest_set_hash, leaf_of
from shared.contracts.tsa_connector import Timestamp
from shared.errors import RakkanError

_TOGETHER_MAX = 128


class Store(Protocol):
    async def record(self, entries: Sequence[Entry]) -> None: ...


class Recorder:
    """Each returns when what it was told is durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._batches: Batching[Entry, None] = Batching(self._record, items_max=_TOGETHER_MAX)

    async def obtained(self, message: Timestamp, obtained: Obtained) -> None:
        """A leaf for each token; the attempts stand in each of them."""
        about = {"attempts": _attempts(obtained.attempts), "choice": obtained.choice}
        leaves = tuple(
            leaf_of("timestamp.obtained", **_who(message), subject={**_token(one), **about}) for one in obtained.tokens
        )
        await self._batches.do(Entry(leaves, _given_back(obtained.attempts)))

    async def refused(self, message: Timestamp, refusal: RakkanError) -> None:
        attempts = refusal.attempts if isinstance(refusal, NoTokenError) else ()
        leaf = leaf_of(
            "timestamp.refused",
            **_who(message),
            subject={"attempts": _attempts(attempts), "why": refusal.detail[:500]},
            outcome="refused",
            reason_code=refusal.code,
        )
        await self._batches.do(Entry((leaf,), _given_back(attempts)))

    async def surplus(self, question: Question, attempt: Attempt) -> None:
        """A token that nobody waits for any more. It has to be paid, and its existence is known."""
        facts: dict[str, Any] = {
            "actor_type": "room",
            "actor_id": "tsa_connector",
            "tenant": question.wish.tenant_id,
            "digest_set_hash": digest_set_hash((question.wish.digest,)),
        }
        leaves = (leaf_of("timestamp.surplus", **facts, subject=_token(attempt)),) if attempt.reading else ()
        await self._batches.do(Entry(leaves, _given_back((attempt,))))

    async def _record(self, entries: Sequence[Entry]) -> Sequence[None]:
        await self._store.record(entries)
        return [None] * len(entries)


def _who(message: Timestamp) -> dict[str, Any]:
    return {
        "actor_type": "client",
        "actor_id": message.client_id,
        "tenant": message.tenant_id,
        "digest_set_hash": digest_set_hash((message.digest,)),
    }


def _token(attempt: Attempt) -> dict[str, str]:
    """What is known of a token, by which it is found again and by which its TSA is paid."""
    reading = attempt.reading
    if reading is None:
        return {}
    return {
        "authority": attempt.authority,
        "serial_number": reading.serial_number,
        "gen_time": reading.time.isoformat(),
        "policy": reading.policy,
        "timestamp_hash": hashlib.sha256(reading.token).hexdigest(),
        "latency_ms": f"{attempt.latency_s * 1000:.1f}",
        "offset_ms": f"{(attempt.offset_s or 0.0) * 1000:.0f}",
    }


def _attempts(attempts: Iterable[Attempt]) -> str:
    return " ".join(attempt.word for attempt in attempts)


def _given_back(attempts: Iterable[Attempt]) -> tuple[tuple[str, int], ...]:
    return tuple((one.authority, one.given_back) for one in attempts if one.given_back is not None)
